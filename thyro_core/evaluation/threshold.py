"""The threshold of an ensemble for a declared sensitivity, and what it does on new patients.

The threshold is chosen on out-of-fold ensemble scores so that the lower confidence bound of the
sensitivity, not the sensitivity seen, meets the declared level. With one image a patient this is
the one-sided distribution-free tolerance limit (Wilks 1941): the share of studies whose true
sensitivity falls below the declared level is at most 1 - `LEVEL`, whatever the scores' law.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.out_of_fold import Ids
from thyro_core.types import BoolArray, FloatArray, IntArray


class PatientShare(NamedTuple):
    """A share of patients, each counted by the share of their images; NaN: there is none."""

    value: float
    low: float
    """One-sided lower bound, at the confidence `LEVEL`."""
    interval_low: float
    """Lower end of the two-sided 95 % interval."""
    interval_high: float
    n: int
    """Patients."""


class BoundedThreshold(NamedTuple):
    """A threshold, and whether it is shown to reach the declared sensitivity."""

    threshold: float
    """A malignant image's score: from it on an image counts as positive. NaN: none is malignant."""
    is_met: bool
    """Whether the lower bound reaches the declared level; if not, the threshold is the smallest
    score of a malignant image."""


class OperatingRates(NamedTuple):
    """What a threshold does on images whose networks were not trained on them."""

    sensitivity: PatientShare
    specificity: PatientShare
    referral_share: float
    """Share of all images from the threshold on."""


def threshold_text(threshold: float, digits: int = 6) -> str:
    """A threshold cut, not rounded, so that whoever uses the text calls the same images malignant.

    A threshold is the score of an image that it is to find: one that is rounded up loses it.

    Args:
        threshold: 0 to 1; NaN, of a damaged card, is shown as it is.
        digits: most of them behind the point.
    """
    if math.isnan(threshold):
        return str(threshold)
    # What is a decimal number already must not lose its last digit to its binary form.
    return f"{math.floor(round(threshold * 10**digits, 6)) / 10**digits:.{digits}g}"


def patient_share(is_hit: BoolArray, unit: Ids) -> PatientShare:
    """The share of hits, patients as units, with exact bounds.

    A patient counts once, by the share of their images that are hits. The bounds are those of
    Clopper and Pearson (1934), exact for one image a patient; for several the count of hits is a
    sum of shares, which varies less than the binomial count that the bounds allow for.

    Args:
        is_hit: (n,), for each image.
        unit: (n,), patient or group.
    """
    units, place = np.unique(unit.astype(str), return_inverse=True)
    n = len(units)
    if not n:
        return PatientShare(math.nan, math.nan, math.nan, math.nan, 0)
    hits = float((np.bincount(place, weights=is_hit) / np.bincount(place)).sum())
    tail = (1 - LEVEL) / 2
    return PatientShare(
        value=hits / n,
        low=_lower_bound(hits, n, 1 - LEVEL),
        interval_low=_lower_bound(hits, n, tail),
        interval_high=1 - _lower_bound(n - hits, n, tail),
        n=n,
    )


def _lower_bound(hits: float, n: int, tail: float) -> float:
    """Clopper and Pearson's; a count of hits may be a fraction."""
    return float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits > 1e-9 else 0.0


def least_patients(sensitivity: float) -> int | None:
    """Malignant patients without a miss that show a sensitivity; None: no number does."""
    if sensitivity >= 1:
        return None
    return math.ceil(math.log(1 - LEVEL) / math.log(sensitivity))


def bounded_threshold(
    label: IntArray, score: FloatArray, unit: Ids, sensitivity: float
) -> BoundedThreshold:
    """The largest threshold whose sensitivity's lower bound meets a level.

    Args:
        label: (n,), 0 or 1.
        score: (n,), larger: rather malignant; an image is positive from the threshold on.
        unit: (n,), patient or group.
        sensitivity: the declared level, above 0 and at most 1.

    Raises:
        ValueError: the level is not above 0 and at most 1, or a score is not finite.
    """
    if not 0.0 < sensitivity <= 1.0 or not np.isfinite(score).all():
        msg = (
            f"expected a sensitivity above 0 and at most 1, and finite scores, found "
            f"{sensitivity} and {np.count_nonzero(~np.isfinite(score))} that are not finite"
        )
        raise ValueError(msg)
    malignant, units = score[label == 1], unit[label == 1]
    if not malignant.size:
        return BoundedThreshold(math.nan, False)
    candidates = np.unique(malignant)

    def is_met(place: int) -> bool:
        return patient_share(malignant >= candidates[place], units).low >= sensitivity

    if not is_met(0):
        return BoundedThreshold(float(candidates[0]), False)
    # The bound falls as the threshold rises: the last that meets the level, by halving.
    low, high = 0, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_met(middle) else (low, middle)
    return BoundedThreshold(float(candidates[low]), True)


def operating_rates(
    label: IntArray, score: FloatArray, unit: Ids, threshold: float
) -> OperatingRates:
    """Sensitivity and specificity of a threshold, patients as units.

    Args:
        label: (n,), 0 or 1.
        score: (n,).
        unit: (n,), patient or group.
        threshold: an image is positive from it on.
    """
    positive = score >= threshold
    malignant, benign = label == 1, label == 0
    return OperatingRates(
        sensitivity=patient_share(positive[malignant], unit[malignant]),
        specificity=patient_share(~positive[benign], unit[benign]),
        referral_share=float(positive.mean()) if positive.size else math.nan,
    )
