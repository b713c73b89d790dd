"""Metrics in subgroups of the images, and whether the AUC differs between them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from thyro_core.config import StudyConfig
from thyro_core.config.columns import ColumnSpec
from thyro_core.evaluation.bounded import proportion_interval
from thyro_core.evaluation.delong import auc_influences
from thyro_core.evaluation.ensemble import auc_estimate
from thyro_core.evaluation.out_of_fold import (
    Ensembles,
    OutOfFoldEnsemble,
    sigmoid,
)
from thyro_core.evaluation.uncertainty import holm
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray, IntArray

LEAST_UNITS = 10
"""Patients of each class that a group must have for figures of its own."""

NOT_GIVEN = "not given"
"""Group of the images without a value, or with one that is no number where numbers are cut."""

_Row = dict[str, Any]


def group_names(spec: ColumnSpec, cells: Mapping[str, str]) -> list[str]:
    """Names of a column's groups, in their order; `NOT_GIVEN` last.

    Args:
        spec: the column and its cuts.
        cells: image -> the column's text.
    """
    if not spec.cuts:
        return [*sorted(set(cells.values())), NOT_GIVEN]
    cuts = [f"{cut:g}" for cut in spec.cuts]
    inner = [f"{low} to below {high}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]}", *inner, f"{cuts[-1]} and above", NOT_GIVEN]


def group_of(spec: ColumnSpec, cell: str | None) -> str:
    """The group of an image.

    Args:
        spec: the column and its cuts.
        cell: the image's text there; None: it has none.
    """
    if cell is None:
        return NOT_GIVEN
    if not spec.cuts:
        return cell
    try:
        number = float(cell.replace(",", "."))
    except ValueError:
        return NOT_GIVEN
    if not np.isfinite(number):
        return NOT_GIVEN
    place = int(np.searchsorted(spec.cuts, number, side="right"))
    return group_names(spec, {})[place]


def heterogeneity(
    label: IntArray, score: FloatArray, unit: npt.NDArray[np.generic], group: IntArray
) -> float:
    """P of the hypothesis that the AUC is the same in all groups.

    A Wald test on the logits of the AUCs. Their covariance is made of the influence of each patient
    on each AUC (`auc_influences`), so that a patient with images in two groups counts in both; F
    quantiles with as many degrees of freedom as the smallest class has patients, less one.

    Args:
        label: (n,), 0 or 1; each group has both.
        score: (n,), of any range.
        unit: (n,), patient or group of images that belong together.
        group: (n,), number of the group, from 0.

    Returns:
        NaN with one group, and where an AUC is 0 or 1 or shows no spread.
    """
    numbers = np.unique(group)
    units, place = np.unique(unit.astype(str), return_inverse=True)
    influence = np.zeros((len(units), numbers.size))
    logits, fewest = [], len(units)
    for column, number in enumerate(numbers):
        inside = group == number
        auc, of_image = auc_influences(label[inside], score[inside])
        if not 0 < auc < 1:
            return float("nan")
        logits.append(np.log(auc / (1 - auc)))
        np.add.at(influence[:, column], place[inside], of_image / (auc * (1 - auc)))
        sizes = [np.unique(place[inside & (label == value)]).size for value in (0, 1)]
        fewest = min(fewest, *sizes)
    if numbers.size < 2 or fewest < 2:
        return float("nan")
    contrast = np.diff(np.eye(numbers.size), axis=0)
    covariance = contrast @ (influence.T @ influence) @ contrast.T * fewest / (fewest - 1)
    difference = contrast @ np.array(logits)
    if np.linalg.matrix_rank(covariance) < difference.size:
        return float("nan")
    statistic = float(difference @ np.linalg.solve(covariance, difference)) / difference.size
    return float(stats.f.sf(statistic, difference.size, fewest - 1))


def has_figures(part: OutOfFoldEnsemble) -> bool:
    """Whether a group of images has `LEAST_UNITS` patients of each class.

    Args:
        part: the group's images.
    """
    return min(_units_of_classes(part)) >= LEAST_UNITS


def _units_of_classes(part: OutOfFoldEnsemble) -> tuple[int, int]:
    """Patients with benign, and with malignant images."""
    benign, malignant = (len(set(part.unit[part.label == value])) for value in (0, 1))
    return benign, malignant


def subgroups_table(
    study_id: str,
    ensembles: Ensembles,
    config: StudyConfig,
    *,
    columns: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """The study's rows of `subgroups`: AUC, recall and specificity in each group of each column.

    Of the ensembles' out-of-fold scores, each image once, patients as independent; recall and
    specificity at the config's threshold. A group with fewer than `LEAST_UNITS` patients of a class
    has its numbers of images and no figure, and takes no part in the test.

    Args:
        study_id: goes into every row.
        ensembles: the study's.
        config: gives subgroups and threshold.
        columns: name of each of the config's subgroups -> image -> text.
    """
    rows: list[_Row] = []
    for architecture, ensemble in ensembles.items():
        own: list[_Row] = []
        for spec in config.subgroup_columns:
            own += _column_rows(ensemble, spec, columns[spec.name], config.threshold)
        p_by_subgroup = {row["subgroup"]: row["p"] for row in own if row["metric"] == "auc"}
        adjusted_p = dict(zip(p_by_subgroup, holm(list(p_by_subgroup.values())), strict=True))
        for row in own:
            is_auc = row["metric"] == "auc"
            row["p_adjusted"] = adjusted_p[row["subgroup"]] if is_auc else float("nan")
        rows += [{"study_id": study_id, "architecture": architecture} | row for row in own]
    return rows_to_table("subgroups", rows)


def _column_rows(
    ensemble: OutOfFoldEnsemble, spec: ColumnSpec, cells: Mapping[str, str], threshold: float
) -> list[_Row]:
    names = group_names(spec, cells)
    place_of = {name: place for place, name in enumerate(names)}
    place = np.array([place_of[group_of(spec, cells.get(image))] for image in ensemble.image])
    rows, large = [], []
    for number in np.unique(place):
        inside = place == number
        part = ensemble.part(inside)
        sizes, is_large = _group_sizes(part), has_figures(part)
        large += [number] * is_large
        head = {"subgroup": spec.name, "place": int(number), "value": names[number]} | sizes
        rows += [head | row for row in _group_rows(part, threshold, is_large)]
    among = np.isin(place, large)
    p = float("nan")
    if len(large) > 1:
        score, unit = ensemble.margin[among], ensemble.unit[among]
        p = heterogeneity(ensemble.label[among], score, unit, place[among])
    return [row | {"p": p if row["metric"] == "auc" else float("nan")} for row in rows]


def _group_sizes(part: OutOfFoldEnsemble) -> dict[str, int]:
    benign, malignant = _units_of_classes(part)
    return {
        "n": part.label.size,
        "n_positive": int(part.label.sum()),
        "units_benign": benign,
        "units_malignant": malignant,
    }


def _group_rows(part: OutOfFoldEnsemble, threshold: float, is_large: bool) -> Iterator[_Row]:
    label, unit = part.label, part.unit.astype(str)
    calls = sigmoid(part.margin) >= threshold
    estimates: dict[str, Sequence[float]] = dict.fromkeys(
        ("auc", "recall", "specificity"), (float("nan"),) * 3
    )
    if is_large:
        ill = label == 1
        estimates = {
            "auc": auc_estimate(label, part.margin, unit),
            "recall": (calls[ill].mean(), *proportion_interval(calls[ill], unit[ill])),
            "specificity": (
                (~calls[~ill]).mean(),
                *proportion_interval(~calls[~ill], unit[~ill]),
            ),
        }
    for metric, (estimate, low, high) in estimates.items():
        yield {"metric": metric, "estimate": float(estimate), "ci_low": low, "ci_high": high}
