"""The networks against other readings of the same images: TI-RADS categories, or radiologists."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from thyro_core.config import StudyConfig, job_seed
from thyro_core.config.columns import ReaderSpec
from thyro_core.evaluation.bounded import proportion_interval, t_quantile
from thyro_core.evaluation.out_of_fold import (
    Ensembles,
    OutOfFoldEnsemble,
)
from thyro_core.evaluation.uncertainty import holm
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import BoolArray, FloatArray, IntArray

_CALLS = {"benign": False, "0": False, "0.0": False, "malignant": True, "1": True, "1.0": True}
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_CATEGORY = re.compile(r"\D*(\d+(?:[.,]\d+)?)\s*([a-z]?)")
_Row = dict[str, Any]


class PairedGain(NamedTuple):
    """Specificity of a network at a reader's sensitivity, and its lead over the reader's."""

    specificity: float
    difference: float
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    p: float


_NO_GAIN = PairedGain(*[float("nan")] * 5)


def category(cell: str) -> tuple[float, str] | None:
    """A category such as 4a, TR4 or 3 in its order: number, then letter; None: it is none.

    What is a number as a whole is that number, below 0 too: the dash of a name such as TIRADS-4 is
    no sign, that of -1.3 is one.

    Args:
        cell: as it stands in labels.csv.
    """
    text = cell.strip().lower().replace("\N{MINUS SIGN}", "-")
    if _NUMBER.fullmatch(text):
        return float(text.replace(",", ".")), ""
    match = _CATEGORY.fullmatch(text)
    return (float(match[1].replace(",", ".")), match[2]) if match else None


def reading(spec: ReaderSpec, cell: str | None) -> bool | None:
    """Whether a reader calls an image malignant; None: there is no reading, or none of this kind.

    Args:
        spec: the reader's column, and its cut.
        cell: the image's text there; None: it has none.
    """
    if cell is None:
        return None
    if spec.cut is None:
        return _CALLS.get(cell.strip().lower())
    own, cut = category(cell), category(spec.cut)
    return None if own is None or cut is None else own >= cut


def separates_classes(cells: Sequence[str], label: IntArray) -> bool:
    """Whether each text of a column stands beside one class alone.

    Then the labels may have been made from it, as a set's may be from TI-RADS, and a network that
    was trained on those labels cannot be compared with it. A column with a text of its own for
    each image looks like such a one, since so many texts separate any labels: only a text
    beside both classes shows that the labels do not follow.

    Args:
        cells: texts of n images; case and outer spaces do not count.
        label: (n,), 0 or 1; both classes.
    """
    texts = np.array([cell.strip().lower() for cell in cells])
    return not np.isin(texts[label == 1], texts[label == 0]).any()


def paired_gain(
    label: IntArray,
    score: FloatArray,
    calls: BoolArray,
    unit: npt.NDArray[np.generic],
    *,
    resamples: int,
    seed: int,
) -> PairedGain:
    """A network's specificity where it is as sensitive as a reader, and the paired difference.

    The network's threshold is the largest that finds at least the reader's share of the malignant
    images. The interval is a t interval with the SD of a bootstrap of patients (Davison and Hinkley
    1997, section 3.8): each resample has the reader's sensitivity and the network's threshold anew,
    so that the choice of the threshold counts as well as the benign images.

    Args:
        label: (n,), 0 or 1; both classes.
        score: (n,), of any range.
        calls: (n,), whether the reader calls the image malignant.
        unit: (n,), patient or group of images that belong together.
        resamples: number of resamples.
        seed: seed of the resampling.
    """
    order = np.argsort(-score, kind="stable")
    label, score, calls, unit = label[order], score[order], calls[order], unit[order]
    units, place = np.unique(unit.astype(str), return_inverse=True)
    ill = label == 1
    point, specificity = _specificity_gain(ill, score, calls, np.ones(label.size))
    generator = np.random.default_rng(seed)
    share = np.full(len(units), 1 / len(units))
    draws = []
    for _ in range(resamples):
        weight = generator.multinomial(len(units), share)[place].astype(np.float64)
        if weight[ill].any() and weight[~ill].any():
            draws.append(_specificity_gain(ill, score, calls, weight)[0])
    error = float(np.std(draws, ddof=1)) if len(draws) > 1 else 0.0
    degrees = min(np.unique(place[ill]).size, np.unique(place[~ill]).size) - 1
    if error < 1e-12 or degrees < 1:
        return PairedGain(specificity, point, *[float("nan")] * 3)
    half = t_quantile(degrees) * error
    p = float(2 * stats.t.sf(abs(point) / error, degrees))
    return PairedGain(specificity, point, max(point - half, -1.0), min(point + half, 1.0), p)


def _specificity_gain(
    ill: BoolArray, score: FloatArray, calls: BoolArray, weight: FloatArray
) -> tuple[float, float]:
    """Difference in specificity and the network's own; images by falling score."""
    malignant, benign = weight * ill, weight * ~ill
    needed_hits = float((malignant * calls).sum())
    is_reached = np.cumsum(malignant) >= needed_hits - 1e-9
    if needed_hits > 0:
        positive = score >= score[int(np.argmax(is_reached))]
    else:
        positive = np.zeros(score.size, dtype=np.bool_)
    healthy = benign.sum()
    own = float((benign * ~positive).sum() / healthy)
    return own - float((benign * ~calls).sum() / healthy), own


def readers_table(
    study_id: str,
    ensembles: Ensembles,
    config: StudyConfig,
    *,
    columns: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """The study's rows of `readers`: each architecture's ensemble against each reader.

    On the tested images with a reading, each once, by the ensemble's out-of-fold scores. A reader
    without both classes among them has no row; one whose texts each stand beside one class alone
    is not compared (`separates_classes`).

    Args:
        study_id: goes into every row.
        ensembles: the study's.
        config: gives readers, resamples and seed.
        columns: name of each of the config's readers -> image -> text.
    """
    rows: list[_Row] = []
    for architecture, ensemble in ensembles.items():
        for place, spec in enumerate(config.reader_columns):
            seed = job_seed(config.seed, place, architecture)
            row = _reader_row(
                ensemble, spec, columns[spec.name], resamples=config.resamples, seed=seed
            )
            if row is not None:
                rows.append({"study_id": study_id, "architecture": architecture} | row)
    adjusted_p = holm([row["p"] for row in rows])
    return rows_to_table(
        "readers", [row | {"p_adjusted": p} for row, p in zip(rows, adjusted_p, strict=True)]
    )


def _reader_row(
    ensemble: OutOfFoldEnsemble,
    spec: ReaderSpec,
    cells: Mapping[str, str],
    *,
    resamples: int,
    seed: int,
) -> _Row | None:
    calls = [reading(spec, cells.get(image)) for image in ensemble.image]
    is_read = np.array([call is not None for call in calls])
    label, unit = ensemble.label[is_read], ensemble.unit[is_read].astype(str)
    own_calls = np.array([call for call in calls if call is not None], dtype=np.bool_)
    ill = label == 1
    if ill.all() or not ill.any():
        return None
    score = ensemble.margin[is_read]
    texts = [cells[image] for image in ensemble.image[is_read]]
    gain = _NO_GAIN
    if not separates_classes(texts, label):
        gain = paired_gain(label, score, own_calls, unit, resamples=resamples, seed=seed)
    sensitivity = proportion_interval(own_calls[ill], unit[ill])
    specificity = proportion_interval(~own_calls[~ill], unit[~ill])
    return {
        "reader": spec.name,
        "cut": spec.cut,
        "sensitivity": float(own_calls[ill].mean()),
        "sensitivity_low": sensitivity.low,
        "sensitivity_high": sensitivity.high,
        "specificity": float((~own_calls[~ill]).mean()),
        "specificity_low": specificity.low,
        "specificity_high": specificity.high,
        "network_specificity": gain.specificity,
        "difference": gain.difference,
        "difference_low": gain.low,
        "difference_high": gain.high,
        "p": gain.p,
        "avoided": 1000 * gain.difference * float((~ill).mean()),
        "n": label.size,
        "n_positive": int(ill.sum()),
        "n_unread": int((~is_read).sum()),
    }
