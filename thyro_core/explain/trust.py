"""The checks of a study's maps over its images: means, leads over baselines, intervals and P.

Unit and estimand: an image's values are averaged over the splits that tested it, and the mean over
images is taken for these trained networks; patients are the independent units, so a patient's
images count as one piece of evidence, however many they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from thyro_core.errors import amount
from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.calibration import unit_error
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.uncertainty import holm
from thyro_core.tables.cam_columns import CASCADE_COLUMNS, NODULE_MEASURES
from thyro_core.types import AnyIntArray, FloatArray

FEWEST_PATIENTS = 5
"""Fewest patients with which an interval or a P is given."""

SIGNIFICANT_LEAD = 0.05
"""Bound on the adjusted P of a lead."""

TRUST_CHECKS: tuple[tuple[str, str, str], ...] = (
    *((measure, "permuted", f"{measure}_permuted") for measure in NODULE_MEASURES),
    *((measure, "mean_map", f"{measure}_mean_map") for measure in NODULE_MEASURES),
    ("border_energy", "area", "border_area"),
    ("mark_energy", "permuted", "mark_energy_permuted"),
    ("mark_energy", "mean_map", "mark_energy_mean_map"),
    ("mark_energy", "area", "mark_area"),
    ("deletion", "random_order", "deletion_random"),
    ("insertion", "random_order", "insertion_random"),
    *((column, "none", "") for column in CASCADE_COLUMNS),
    ("is_empty", "none", ""),
)
"""Each check: its column of `cam_trust`, the baseline, and the baseline's column."""

WITHOUT_TEST: tuple[str, ...] = ("none", "area")
"""Baselines without a test. A share of the area is no level of chance: maps that keep to the middle
differ from it, and maps that padding draws to the edge, whatever the network uses."""

# One family a question: is the nodule found, do maps rest on marks, does the score follow the map.
_FAMILIES: tuple[tuple[str, ...], ...] = (
    NODULE_MEASURES, ("mark_energy",), ("deletion", "insertion"),
)  # fmt: skip

# Maps are float32: what a lead has beyond is rounding, which is no lead and no spread.
_LEAD_DECIMALS = 6
_NO_SPREAD = 1e-9

_MEASURE_NAMES = {"nodule_energy": "energy", "nodule_hit": "pointing", "nodule_iou": "IoU"}


class ClusterMean(NamedTuple):
    """A mean over images and its 95 % interval and test against 0; NaN where undefined."""

    mean: float
    low: float
    high: float
    p: float


def cluster_mean(values: FloatArray, cluster: AnyIntArray) -> ClusterMean:
    """The mean with a variance that takes clusters for independent and nothing within them.

    The error is that of `evaluation.calibration.unit_error`, with t of G - 1 degrees of freedom. No
    interval with fewer than `FEWEST_PATIENTS` clusters, and no P without spread.

    Args:
        values: (n,), finite.
        cluster: (n,), any numbering.
    """
    if not values.size:
        return ClusterMean(np.nan, np.nan, np.nan, np.nan)
    mean = float(values.mean())
    _, place = np.unique(cluster, return_inverse=True)
    error, count = unit_error((values - mean) / values.size, place)
    if count < FEWEST_PATIENTS:
        return ClusterMean(mean, np.nan, np.nan, np.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if error > _NO_SPREAD else np.nan
    return ClusterMean(mean, mean - half, mean + half, p)


def trust_tests(trust: pa.Table, patients: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of `cam_checks` of one architecture, in the order of `TRUST_CHECKS`.

    Args:
        trust: its rows of `cam_trust`, all splits.
        patients: the patient, or the group, of each image.
    """
    if not trust.num_rows:
        return []
    frame = trust.to_pandas().sort_values(["image_id", "split"])
    rows = [_check_row(frame, patients, check) for check in TRUST_CHECKS]
    for family in _FAMILIES:
        own = [
            row for row in rows if row["measure"] in family and row["baseline"] not in WITHOUT_TEST
        ]
        for row, p in zip(own, holm([row["p"] for row in own]), strict=True):
            row["p_adjusted"] = p
    keys = trust.select(["study_id", "architecture"]).slice(0, 1).to_pylist()[0]
    return [keys | row for row in rows]


def _check_row(
    frame: pd.DataFrame, patients: Mapping[str, str], check: tuple[str, str, str]
) -> dict[str, Any]:
    measure, baseline, column = check
    if measure == "mark_energy":  # without marks there is nothing that a map could rest on
        frame = frame[frame["mark_area"] > 0]
    own = pd.DataFrame({"image": frame["image_id"], "v": frame[measure].astype(float)})
    own["c"] = frame[column].astype(float) if column else 0.0
    images = own[np.isfinite(own["v"]) & np.isfinite(own["c"])].groupby("image").mean()
    names = np.array([patients[image] for image in images.index], dtype=object)
    cluster = np.unique(names, return_inverse=True)[1] if len(names) else np.empty(0, np.int64)
    value = cluster_mean(images["v"].to_numpy(), cluster)
    nothing = ClusterMean(np.nan, np.nan, np.nan, np.nan)
    leads = (images["v"] - images["c"]).to_numpy().round(_LEAD_DECIMALS)
    lead = cluster_mean(leads, cluster) if column else nothing
    return {
        "measure": measure,
        "baseline": baseline,
        "value": value.mean,
        "ci_low": value.low,
        "ci_high": value.high,
        "reference": float(images["c"].mean()) if column and len(images) else np.nan,
        "lead": lead.mean,
        "lead_low": lead.low,
        "lead_high": lead.high,
        "p": np.nan if baseline in WITHOUT_TEST else lead.p,
        "p_adjusted": np.nan,
        "n": len(images),
        "patients": len(set(names)),
    }


def localisation_finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether one network's maps are shown to find the nodule: one sentence, empty without masks.

    A measure counts only where the lead over both baselines is above 0 with an adjusted P below
    `SIGNIFICANT_LEAD`. Only for a network that tells the classes apart: the caller has that
    condition.

    Args:
        rows: rows of `cam_checks`, of one architecture.
    """
    nodule = [row for row in rows if row["measure"] in NODULE_MEASURES and row["n"]]
    if not nodule:
        return ""
    hits = [
        _MEASURE_NAMES[measure]
        for measure in NODULE_MEASURES
        if all(
            row["lead"] > 0 and row["p_adjusted"] < SIGNIFICANT_LEAD
            for row in nodule
            if row["measure"] == measure
        )
    ]
    others = [name for name in _MEASURE_NAMES.values() if name not in hits]
    bound = f"Holm-adjusted P < {SIGNIFICANT_LEAD} over other images' maps and over the mean map"
    start = f"{ARCHITECTURE_NAMES[nodule[0]['architecture']]}: "
    names = {
        _MEASURE_NAMES[row["measure"]]: None
        for row in nodule
        if row["lead"] < 0 and row["p_adjusted"] < SIGNIFICANT_LEAD
    }
    measures = " and ".join(names)
    worse = f" By {measures} they do worse than one of the baselines at least." if names else ""
    if not hits:
        return f"{start}by no measure are the maps shown to find the nodule ({bound}).{worse}"
    rest = f"; not shown by {', '.join(others)}" if others else ""
    found_by = f"{', '.join(hits)}{rest}"
    return (
        f"{start}the maps find the nodule better than both baselines ({bound}) by {found_by}."
        f"{worse}"
    )


def deletion_failure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which of deletion and insertion one network's maps fail: a sentence, empty if none.

    A map that marks what the score rests on makes it fall faster than a random order does, and
    rise faster: a lead on that side, with an adjusted P below `SIGNIFICANT_LEAD`. That it does is
    no proof: a map that sees no image may do so too, and is not tried.

    Args:
        rows: rows of `cam_checks`, of one architecture.
    """
    failures: list[str] = []
    successes: list[str] = []
    for measure, side in (("deletion", -1), ("insertion", 1)):
        for row in rows:
            if row["measure"] == measure and row["n"]:
                is_passed = side * row["lead"] > 0 and row["p_adjusted"] < SIGNIFICANT_LEAD
                (successes if is_passed else failures).append(_result_text(measure, row, is_passed))
    if not failures:
        return ""
    name = ARCHITECTURE_NAMES[rows[0]["architecture"]]
    level = f"(Holm-adjusted P < {SIGNIFICANT_LEAD} would show it)"
    if successes:
        return (
            f"{name}: by only one of two checks do the maps rank pixels for the score better "
            "than a random order does: "
            f"{successes[0]}, but {failures[0]} {level}."
        )
    return (
        f"{name}: the maps are not shown to rank pixels for the score better "
        "than a random order does: "
        f"{', and '.join(failures)} {level}."
    )


def _result_text(measure: str, row: Mapping[str, Any], is_passed: bool) -> str:
    """How the score moves against a random order; without a P nothing is shown either way."""
    falls, first = ("fall", "go") if measure == "deletion" else ("rise", "come back")
    is_worse = row["lead"] > 0 if measure == "deletion" else row["lead"] < 0
    is_shown = row["p_adjusted"] < SIGNIFICANT_LEAD
    how = f"{falls}s more slowly" if is_worse and is_shown else f"is not shown to {falls} faster"
    if is_passed:
        how = f"{falls}s faster"
    return (
        f"the score {how} when the hottest pixels {first} first than in a random order ({measure}, "
        f"{amount(row['n'], 'image')})"
    )
