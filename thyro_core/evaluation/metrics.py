"""The ten metrics of a test part: malignant (1) is the positive class.

The point values come from scikit-learn and the four counts. `weighted_metrics` computes the same
ten for many weightings of the images at once; the bootstrap lives on it.
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    roc_auc_score,
)

from thyro_core.types import AnyFloatArray, AnyIntArray

METRICS: tuple[str, ...] = (
    "auc",
    "accuracy",
    "recall",
    "precision",
    "f1",
    "specificity",
    "npv",
    "average_precision",
    "brier",
    "ece",
)
"""Every metric, in the order of tables and reports."""

PAPER_METRICS: tuple[str, ...] = ("auc", "accuracy", "recall", "precision", "f1")
"""The metrics the paper reports."""

PAPER: Mapping[str, float] = MappingProxyType(
    {"auc": 0.997, "accuracy": 0.984, "recall": 0.978, "precision": 0.939, "f1": 0.957}
)
"""The paper's means over ten splits for ResNet18.

Yang et al., "Ultrasound Image Classification of Thyroid Nodules Based on Deep Learning",
Frontiers in Oncology 2022, doi 10.3389/fonc.2022.905955.
"""

ECE_BINS = 10
"""Equal-width bins of the calibration error."""

_WHY_UNDEFINED: Mapping[str, str] = MappingProxyType(
    {
        "auc": "the images are all of one class",
        "accuracy": "there is no image",
        "recall": "no image is malignant",
        "precision": "no image is called malignant",
        "f1": "no image is malignant or called so",
        "specificity": "no image is benign",
        "npv": "no image is called benign",
        "average_precision": "no image is malignant",
    }
)


class UndefinedMetricWarning(UserWarning):
    """A metric is NaN because its definition divides by zero on these images."""


class Confusion(NamedTuple):
    """Counts of images, with malignant as the positive class."""

    tp: int
    fp: int
    tn: int
    fn: int


def as_valid_arrays(
    label: AnyIntArray, probability: AnyFloatArray
) -> tuple[AnyIntArray, AnyFloatArray]:
    """Labels and probabilities as int64 and float64 arrays of shape (n,), once they make sense.

    Args:
        label: (n,), 0 benign or 1 malignant; any integer type.
        probability: (n,), probability of malignant.

    Raises:
        ValueError: no image, shapes that differ, a label that is neither 0 nor 1, or a
            probability that is NaN or outside 0 to 1.
    """
    labels, probabilities = np.asarray(label), np.asarray(probability, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape or not labels.size:
        msg = (
            "label and probability must be two non-empty lists of one length, "
            f"found shapes {labels.shape} and {probabilities.shape}"
        )
        raise ValueError(msg)
    if not np.isin(labels, (0, 1)).all():
        msg = "label must be 0 (benign) or 1 (malignant) everywhere; leave unlabelled images out"
        raise ValueError(msg)
    in_range = (probabilities >= 0.0) & (probabilities <= 1.0)
    if not in_range.all():
        msg = (
            f"probability must lie in 0 to 1, found {np.count_nonzero(~in_range)} of "
            f"{in_range.size} that are NaN or outside: the network's output is not usable"
        )
        raise ValueError(msg)
    return labels.astype(np.int64), probabilities


def confusion(label: AnyIntArray, probability: AnyFloatArray, threshold: float) -> Confusion:
    """Count hits and errors; an image is called malignant from `threshold` on.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        threshold: Lowest probability that counts as positive.

    Raises:
        ValueError: see `as_valid_arrays`.
    """
    label, probability = as_valid_arrays(label, probability)
    table = confusion_matrix(label, (probability >= threshold).astype(np.int64), labels=[0, 1])
    (tn, fp), (fn, tp) = table.tolist()
    return Confusion(tp=tp, fp=fp, tn=tn, fn=fn)


def metrics_of_confusion(counts: Confusion) -> dict[str, float]:
    """Accuracy, recall (sensitivity), precision (PPV), F1, specificity and NPV of four counts.

    One that divides by zero is NaN, with an `UndefinedMetricWarning` that says why.
    """
    tp, fp, tn, fn = (np.float64(count) for count in counts)
    return _warn({name: float(value) for name, value in _ratios(tp, fp, tn, fn).items()})


def metrics(label: AnyIntArray, probability: AnyFloatArray, threshold: float) -> dict[str, float]:
    """The ten `METRICS` of one test part, in that order.

    `auc` (ties count half), `average_precision` (the step-wise sum, not a trapezium) and `brier`
    do not depend on the threshold. Neither does `ece`, the binary calibration error: the mean over
    images of |mean probability - share malignant| of the image's bin, with 10 equal-width bins
    (0, 0.1], (0.1, 0.2], ... and 0 in the first; binned as Guo et al. 2017 ("On Calibration of
    Modern Neural Networks"), but of the probability of malignant, not of the confidence.

    Args:
        label: (n,), 0 benign or 1 malignant.
        probability: (n,), probability of malignant.
        threshold: Lowest probability that counts as positive.

    Returns:
        A value for each metric; NaN, with an `UndefinedMetricWarning`, where it is undefined.

    Raises:
        ValueError: see `as_valid_arrays`.
    """
    label, probability = as_valid_arrays(label, probability)
    malignant = int(label.sum())
    both = 0 < malignant < label.size
    values = metrics_of_confusion(confusion(label, probability, threshold))
    values |= _warn(
        {
            "auc": float(roc_auc_score(label, probability)) if both else np.nan,
            "average_precision": (
                float(average_precision_score(label, probability)) if malignant else np.nan
            ),
            "brier": float(brier_score_loss(label, probability, labels=[0, 1], pos_label=1)),
            "ece": float(_ece(label, probability, np.ones((1, label.size)))[0]),
        }
    )
    return {name: values[name] for name in METRICS}


def weighted_metrics(
    label: AnyIntArray, probability: AnyFloatArray, weight: npt.NDArray[Any], threshold: float
) -> dict[str, AnyFloatArray]:
    """The ten `METRICS` under many weightings of the images at once.

    An integer weight means that the image is there so many times. Ties are exact: images of one
    probability make one step of the ROC and of the precision-recall curve.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        weight: (r, n), not negative; a row is one weighting.
        threshold: Lowest probability that counts as positive.

    Returns:
        For each metric its r values, float64; NaN, silently, where it is undefined.

    Raises:
        ValueError: see `as_valid_arrays`; or `weight` is not of shape (r, n).
    """
    label, probability = as_valid_arrays(label, probability)
    if weight.ndim != 2 or weight.shape[1] != label.size:
        msg = f"weight must be of shape (r, {label.size}), found {weight.shape}"
        raise ValueError(msg)
    order = np.argsort(probability, kind="stable")
    label, probability = label[order], probability[order]
    weight = weight[:, order].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        auc, average_precision = _ranking(label, probability, weight)
        values = _weighted_ratios(label, probability >= threshold, weight) | {
            "auc": auc,
            "average_precision": average_precision,
            "brier": weight @ (probability - label) ** 2 / weight.sum(axis=1),
            "ece": _ece(label, probability, weight),
        }
    return {name: values[name] for name in METRICS}


def calibration_bin(probability: AnyFloatArray, bins: int = ECE_BINS) -> AnyIntArray:
    """Bin of each probability, from 0: equal widths, (0, 0.1], (0.1, 0.2], ... and 0 in the first.

    Args:
        probability: (n,), 0 to 1.
        bins: number of bins.
    """
    return np.searchsorted(np.arange(1, bins) / bins, probability, side="left")


def _ratios(
    tp: npt.ArrayLike, fp: npt.ArrayLike, tn: npt.ArrayLike, fn: npt.ArrayLike
) -> dict[str, AnyFloatArray]:
    """The metrics of counts, for one confusion or for arrays of them; 0/0 is NaN."""
    tp, fp, tn, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, tn, fn))
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": (tp + tn) / (tp + fp + tn + fn),
            "recall": tp / (tp + fn),
            "precision": tp / (tp + fp),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "specificity": tn / (tn + fp),
            "npv": tn / (tn + fn),
        }


def _weighted_ratios(
    label: AnyIntArray, positive: npt.NDArray[np.bool_], weight: AnyFloatArray
) -> dict[str, AnyFloatArray]:
    cells = np.stack(
        [
            positive & (label == 1),
            positive & (label == 0),
            ~positive & (label == 0),
            ~positive & (label == 1),
        ],
        axis=1,
    )
    tp, fp, tn, fn = (weight @ cells.astype(np.float64)).T
    return _ratios(tp, fp, tn, fn)


def _ranking(
    label: AnyIntArray, probability: AnyFloatArray, weight: AnyFloatArray
) -> tuple[AnyFloatArray, AnyFloatArray]:
    """Weighted AUC and average precision, each (r,), of images sorted by probability."""
    tie_starts = np.flatnonzero(np.diff(probability, prepend=-1.0))
    positive = np.add.reduceat(weight * label, tie_starts, axis=1)
    negative = np.add.reduceat(weight * (1 - label), tie_starts, axis=1)
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    negatives_below = np.cumsum(negative, axis=1) - negative
    auc = (positive * (negatives_below + negative / 2)).sum(axis=1) / (positives * negatives)
    hits = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1]
    n_called = np.cumsum((positive + negative)[:, ::-1], axis=1)[:, ::-1]
    precision = np.divide(hits, n_called, out=np.zeros_like(hits), where=n_called > 0)
    return auc, (positive * precision).sum(axis=1) / positives


def _ece(label: AnyIntArray, probability: AnyFloatArray, weight: AnyFloatArray) -> AnyFloatArray:
    """Weighted calibration error, (r,); its bins are those that `metrics` declares."""
    bins = calibration_bin(probability)
    excess = np.zeros((label.size, ECE_BINS))
    excess[np.arange(label.size), bins] = probability - label
    total: AnyFloatArray = np.abs(weight @ excess).sum(axis=1) / weight.sum(axis=1)
    return total


def _warn(values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        if np.isnan(value):
            reason = f"{name} is undefined (NaN): {_WHY_UNDEFINED[name]}"
            warnings.warn(reason, UndefinedMetricWarning, stacklevel=3)
    return values
