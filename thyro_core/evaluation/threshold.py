"""The threshold for a declared sensitivity, and what it does on images that did not choose it.

A threshold judged on the predictions that chose it looks better than it is. Here each split's
threshold is chosen on other splits' predictions of images (and groups) that the split does not
test, and judged on the split's test part; the threshold in use is chosen on all of them.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.out_of_fold import OutOfFoldPredictions, image_means
from thyro_core.evaluation.uncertainty import MeanInterval, mean_interval
from thyro_core.types import BoolArray, FloatArray, IntArray

_ROUNDING = 1e-9


class Proportion(NamedTuple):
    """A share of n images with its exact (Clopper and Pearson 1934) 95 % interval; NaN: n is 0."""

    value: float
    low: float
    high: float
    n: int


class SplitThreshold(NamedTuple):
    """A threshold chosen without a split's images, and what it does on them; NaN: undefined."""

    split: int
    threshold: float
    sensitivity: float
    specificity: float


class CrossFittedThreshold(NamedTuple):
    """What a threshold chosen so does on new images."""

    sensitivity: MeanInterval
    """Mean over splits, interval with Nadeau and Bengio's variance."""
    specificity: MeanInterval
    image_sensitivity: Proportion
    """Each image once: its mean probability against the mean of the thresholds that were chosen
    without it. The interval takes images as independent."""
    image_specificity: Proportion
    splits: tuple[SplitThreshold, ...]


def threshold_for(label: IntArray, probability: FloatArray, sensitivity: float) -> float:
    """The largest threshold from which at least a share of the malignant images lies.

    An image counts as positive from the threshold on, so ties at it are all positive.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        sensitivity: the share, above 0 and at most 1.

    Returns:
        One of the malignant images' probabilities; NaN without such an image.

    Raises:
        ValueError: the share is not above 0 and at most 1, or a probability is not finite.
    """
    if not 0.0 < sensitivity <= 1.0 or not np.isfinite(probability).all():
        msg = (
            f"expected a sensitivity above 0 and at most 1, and finite probabilities, found "
            f"{sensitivity} and {np.count_nonzero(~np.isfinite(probability))} that are not finite"
        )
        raise ValueError(msg)
    malignant = np.sort(probability[label == 1])[::-1]
    if not malignant.size:
        return math.nan
    # Without the nudge 0.7 of 10 images would be 8 of them: the product is 7.000000000000001.
    needed = max(1, math.ceil(sensitivity * malignant.size - _ROUNDING))
    return float(malignant[needed - 1])


def rates(label: IntArray, positive: BoolArray) -> tuple[float, float]:
    """Sensitivity and specificity; NaN without an image of the class.

    Args:
        label: (n,), 0 or 1.
        positive: (n,), whether an image is called malignant.
    """
    malignant, benign = positive[label == 1], ~positive[label == 0]
    return tuple(float(part.mean()) if part.size else math.nan for part in (malignant, benign))  # type: ignore[return-value]


def proportion(hits: int, n: int) -> Proportion:
    """A share with its exact interval."""
    if not n:
        return Proportion(math.nan, math.nan, math.nan, 0)
    interval = stats.binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    return Proportion(hits / n, float(interval.low), float(interval.high), n)


def cross_fitted_threshold(
    rows: OutOfFoldPredictions, probability: FloatArray, sensitivity: float
) -> CrossFittedThreshold:
    """Sensitivity and specificity of a threshold chosen for a sensitivity, without reuse.

    Args:
        rows: held-out predictions, n rows.
        probability: (n,), their probabilities of malignant.
        sensitivity: what each threshold is chosen for.

    Raises:
        ValueError: see `threshold_for`.
    """
    points = [_split_point(rows, probability, sensitivity, split) for split in rows.splits]
    threshold = np.array([point.threshold for point in points])
    own = threshold[np.searchsorted(np.array(rows.splits), rows.split)]
    label, positive = _image_calls(rows, probability, own)
    return CrossFittedThreshold(
        sensitivity=mean_interval([point.sensitivity for point in points], rows.ratio),
        specificity=mean_interval([point.specificity for point in points], rows.ratio),
        image_sensitivity=proportion(int(positive[label == 1].sum()), int((label == 1).sum())),
        image_specificity=proportion(int((~positive[label == 0]).sum()), int((label == 0).sum())),
        splits=tuple(points),
    )


def _split_point(
    rows: OutOfFoldPredictions, probability: FloatArray, sensitivity: float, split: int
) -> SplitThreshold:
    outside, inside = rows.outside(split), rows.inside(split)
    threshold = threshold_for(rows.label[outside], probability[outside], sensitivity)
    if math.isnan(threshold):
        return SplitThreshold(split, math.nan, math.nan, math.nan)
    sensitivity_specificity = rates(rows.label[inside], probability[inside] >= threshold)
    return SplitThreshold(split, threshold, *sensitivity_specificity)


def _image_calls(
    rows: OutOfFoldPredictions, probability: FloatArray, threshold: FloatArray
) -> tuple[IntArray, BoolArray]:
    """Label and call of each image that a threshold was chosen for, each once."""
    excess = image_means(rows, probability - threshold)
    judged = np.isfinite(excess.mean)
    return excess.label[judged], excess.mean[judged] >= 0
