"""The curves of a study, as numbers: how its figures change with threshold, prevalence and epoch.

A curve over splits is averaged vertically, at fixed places of the x axis, because splits share no
threshold that means the same in each. Its band is pointwise: at each x it holds the mean with 95 %
confidence, not the whole curve at once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sklearn.metrics import roc_curve

from thyro_core.evaluation.bounded import Interval, benefit_interval, proportion_interval
from thyro_core.evaluation.metrics import ECE_BINS, as_valid_arrays, calibration_bin
from thyro_core.evaluation.uncertainty import mean_interval
from thyro_core.types import AnyFloatArray, AnyIntArray

Part = tuple[AnyIntArray, AnyFloatArray]
"""A split's test images: label (n,), 0 or 1, and probability of malignant (n,)."""

POINTS = 101
"""Places of the x axis at which curves are averaged: 0, 0.01, ... 1."""

DECISION_THRESHOLDS: tuple[float, ...] = tuple(i / 100 for i in range(1, 100))
"""Threshold probabilities of a decision curve."""

LEAST_HITS = 5
"""Malignant images of a test part that are called, on average, below which the precision has no
interval."""

SCORE_BINS = 20
"""Equal-width bins of a distribution of probabilities."""


class Band(NamedTuple):
    """A curve averaged over splits, with its pointwise 95 % interval.

    `x`, `mean`, `low` and `high` are of one shape; low and high are NaN where there is no interval
    (a single split, or splits without spread and patients unknown), everything but `x` where there
    is no split.
    """

    x: AnyFloatArray
    mean: AnyFloatArray
    low: AnyFloatArray
    high: AnyFloatArray
    n: int
    """Splits, or patients, the mean is taken of."""
    left_out: int = 0
    """Splits that could not take part, because all their images are of one class."""
    low_x: AnyFloatArray | None = None
    """Where the lower ends stand by their own values, if the band was made to rise; None: there."""
    high_x: AnyFloatArray | None = None
    """The same of the upper ends."""


class Calibration(NamedTuple):
    """Reliability of probabilities, a value for each bin that holds an image."""

    probability: AnyFloatArray
    """Mean probability of malignant."""
    share: AnyFloatArray
    """Share of images that are malignant."""
    n: AnyIntArray
    """Images."""
    low: AnyFloatArray
    """Lower end of the share's 95 % interval, patients as the independent units."""
    high: AnyFloatArray
    """Upper end."""


class DecisionCurve(NamedTuple):
    """Net benefit by threshold probability, over splits; the x axis is `model.x`."""

    model: Band
    """Calling malignant from the threshold on."""
    treat_all: AnyFloatArray
    """Calling every image malignant, mean over splits."""
    treat_none: AnyFloatArray
    """Calling none: 0."""


class LearningCurve(NamedTuple):
    """Training loss of one architecture by epoch, over splits; all of one shape."""

    epoch: AnyIntArray
    loss: AnyFloatArray
    """Mean over splits."""
    low: AnyFloatArray
    """Smallest of a split."""
    high: AnyFloatArray
    """Largest of a split."""
    val_loss: AnyFloatArray | None
    """Mean loss of the validation images over the splits that have it; None: no split has."""


class Histogram(NamedTuple):
    """Probabilities of either class: the share of its images in each bin."""

    edges: AnyFloatArray
    """(bins + 1,), 0 to 1."""
    benign: AnyFloatArray
    """(bins,), sums to 1; NaN without a benign image."""
    malignant: AnyFloatArray
    """(bins,), sums to 1; NaN without a malignant image."""


def roc_band(
    parts: Sequence[Part],
    test_train_ratio: float,
    patients: int | None = None,
) -> Band:
    """Mean sensitivity over splits at each false positive rate (Fawcett 2006, algorithm 3).

    Images of one probability make one step: the curve rises straight over ties, so that its area
    counts them half, as `auc` does. Where a curve stands upright, its upper end counts; so the mean
    at 0 is the mean sensitivity without any false positive. ("An introduction to ROC analysis",
    Pattern Recognition Letters 27.)

    Args:
        parts: one a split; those with one class only are left out, and counted.
        test_train_ratio: n_test / n_train, for Nadeau and Bengio's variance.
        patients: malignant patients behind all splits together, see `uncertainty.mean_interval`.

    Returns:
        The band, within 0..1; at a rate of 1 it is 1 by definition. Its ends never fall, as no ROC
        curve does: what bounds the sensitivity from below at one rate does so at every higher one,
        and what bounds it from above, at every lower one.

    Raises:
        ValueError: see `metrics.as_valid_arrays` and `uncertainty.mean_interval`.
    """
    band = _curve_band(parts, test_train_ratio, _sensitivity_at, patients=patients)
    if band.n > 1:
        band.low[-1] = band.high[-1] = 1.0
        return _rising(band)
    return band


def pr_band(
    parts: Sequence[Part],
    test_train_ratio: float,
    patients: int | None = None,
) -> Band:
    """Mean precision over splits at each recall, interpolated as Davis and Goadrich (2006) do.

    Between two thresholds hits and false alarms grow in proportion; precision, their ratio, then
    bends, and a straight line between two points would promise too much ("The Relationship Between
    Precision-Recall and ROC Curves", ICML). At recall 0 stands the curve's limit: the precision of
    the images ranked highest, and 0 if a benign one stands first.

    Where fewer than `LEAST_HITS` malignant images of a test part are called the band is left out:
    the precision of so few is a coarse ratio whose mean is not the precision of many, and splits
    that agree by chance would make it narrow (in simulated studies it held the true precision in
    half of them).

    Args:
        parts: one a split; those with one class only are left out, and counted.
        test_train_ratio: n_test / n_train, for Nadeau and Bengio's variance.
        patients: malignant patients behind all splits together, see `uncertainty.mean_interval`.

    Returns:
        The band, within 0..1; its ends are NaN below `first_recall_with_interval`.

    Raises:
        ValueError: see `metrics.as_valid_arrays` and `uncertainty.mean_interval`.
    """
    # Where splits agree, what is known rests on the patients that are called, not on all of them.
    of_place = None if patients is None else np.maximum(called_patients(patients), 1.0)
    band = _curve_band(parts, test_train_ratio, _precision_at, patients=of_place)
    few = band.x < first_recall_with_interval(parts) - 1e-12
    low, high = (np.where(few, np.nan, end) for end in (band.low, band.high))
    return band._replace(low=low, high=high)


def called_patients(patients: int) -> AnyFloatArray:
    """Malignant patients that are called at each recall of a precision-recall curve.

    Args:
        patients: malignant patients behind all splits together.
    """
    return np.asarray(patients * np.arange(POINTS) / (POINTS - 1))


def first_recall_with_interval(parts: Sequence[Part]) -> float:
    """The recall at which a test part has `LEAST_HITS` hits, in the mean over splits.

    Args:
        parts: one a split; those with one class only do not count.

    Returns:
        Above 1: no recall has so many; NaN without a split that counts.
    """
    malignant = [int(label.sum()) for label, _ in parts if 0 < label.sum() < label.size]
    return LEAST_HITS / float(np.mean(malignant)) if malignant else float("nan")


def calibration_curve(
    label: AnyIntArray,
    probability: AnyFloatArray,
    cluster: npt.ArrayLike | None = None,
    bins: int = ECE_BINS,
) -> Calibration:
    """How often images of a given probability are malignant, in the bins of the metric `ece`.

    Over a study the images of all splits' test parts are put together. Hold-outs repeat images,
    and a patient may have several: neither is evidence of its own, so that the intervals take
    patients as the independent units (`bounded.proportion_interval`).

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        cluster: (n,), the patient of each image; None: each row is a patient of its own.
        bins: equal-width bins, see `metrics.calibration_bin`.

    Returns:
        One value a bin, by ascending probability; bins without an image are absent.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability = as_valid_arrays(label, probability)
    patient = np.arange(label.size) if cluster is None else np.asarray(cluster)
    if patient.shape != label.shape:
        msg = f"cluster must be of shape {label.shape}, found {patient.shape}"
        raise ValueError(msg)
    place = calibration_bin(probability, bins)
    n = np.bincount(place, minlength=bins)
    there = n > 0
    malignant = np.bincount(place, weights=label, minlength=bins)[there]
    total = np.bincount(place, weights=probability, minlength=bins)[there]
    n = n[there]
    low, high = np.array(
        [
            proportion_interval(label[place == bin_] == 1, patient[place == bin_])
            for bin_ in np.flatnonzero(there)
        ]
    ).T
    return Calibration(total / n, malignant / n, n, low, high)


def decision_curve(
    parts: Sequence[Part],
    test_train_ratio: float,
    thresholds: Sequence[float] = DECISION_THRESHOLDS,
    *,
    patients: tuple[int, int] | None = None,
) -> DecisionCurve:
    """Net benefit of acting on the classifier, over splits (Vickers and Elkin 2006).

    TP / n - FP / n x p_t / (1 - p_t), in true positives per image: whoever would act from
    probability p_t on takes (1 - p_t) / p_t false positives for one true positive. It weighs
    errors by that alone; no utility, no cost. ("Decision Curve Analysis", Medical Decision Making
    26.) All splits take part, those with one class too. It is at most the prevalence, and so is its
    band, which is made of the intervals of the two rates over splits, at the prevalence of the test
    parts (`bounded.benefit_interval`).

    Args:
        parts: one a split.
        test_train_ratio: n_test / n_train, for Nadeau and Bengio's variance.
        thresholds: threshold probabilities p_t, from 0 to below 1.
        patients: malignant and benign patients behind all splits together, see
            `uncertainty.mean_interval`.

    Raises:
        ValueError: a threshold is not in [0, 1); see `metrics.as_valid_arrays` too.
    """
    x = np.asarray(thresholds, dtype=np.float64)
    if not ((x >= 0) & (x < 1)).all():
        msg = f"threshold probabilities must lie in 0 to below 1, found {list(thresholds)}"
        raise ValueError(msg)
    arrays = [as_valid_arrays(*part) for part in parts]
    everyone = [_net_benefit(label, np.ones(label.size), x) for label, _ in arrays]
    return DecisionCurve(
        _benefit_band(x, arrays, test_train_ratio, patients),
        np.mean(everyone, axis=0) if everyone else np.full(x.shape, np.nan),
        np.zeros(x.shape),
    )


def ppv_npv(
    recall: float, specificity: float, prevalences: npt.ArrayLike
) -> tuple[AnyFloatArray, AnyFloatArray]:
    """Positive and negative predictive value where other shares of images are malignant.

    By Bayes, as if recall and specificity were the same there; they seldom are, because patients
    of another prevalence are other patients.

    Args:
        recall: sensitivity, 0 to 1; NaN gives NaN.
        specificity: 0 to 1; NaN gives NaN.
        prevalences: (k,), shares of malignant, 0 to 1.

    Returns:
        PPV and NPV, (k,) each; NaN where no image is called so.

    Raises:
        ValueError: an argument outside 0 to 1.
    """
    prevalence = np.asarray(prevalences, dtype=np.float64)
    every = np.concatenate([[recall, specificity], prevalence.ravel()])
    if ((every < 0) | (every > 1)).any():
        msg = f"recall, specificity and prevalences must lie in 0 to 1, found {every.tolist()}"
        raise ValueError(msg)
    with np.errstate(invalid="ignore"):
        hits, misses = recall * prevalence, (1 - recall) * prevalence
        alarms, calm = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
        return hits / (hits + alarms), calm / (calm + misses)


def learning_curves(epochs: pa.Table) -> dict[str, LearningCurve]:
    """Loss by epoch of each architecture, over the splits that reached the epoch.

    Args:
        epochs: table `epochs` of one study.

    Returns:
        By architecture, in the order in which they first appear.
    """
    frame = epochs.select(["architecture", "epoch", "loss", "val_loss"]).to_pandas()
    return {
        str(architecture): _learning_curve(rows)
        for architecture, rows in frame.groupby("architecture", sort=False)
    }


def score_histogram(
    label: AnyIntArray, probability: AnyFloatArray, bins: int = SCORE_BINS
) -> Histogram:
    """How the probabilities of benign and of malignant images are distributed.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        bins: equal-width bins; a probability on an edge belongs to the upper one, 1 to the last.

    Raises:
        ValueError: see `metrics.as_valid_arrays`.
    """
    label, probability = as_valid_arrays(label, probability)
    edges = np.arange(bins + 1) / bins
    counts = [np.histogram(probability[label == value], edges)[0] for value in (0, 1)]
    with np.errstate(invalid="ignore"):
        benign, malignant = (np.asarray(count / count.sum()) for count in counts)
    return Histogram(edges, benign, malignant)


def _curve_band(
    parts: Sequence[Part],
    ratio: float,
    curve: Callable[[AnyIntArray, AnyFloatArray, AnyFloatArray], AnyFloatArray],
    *,
    patients: int | AnyFloatArray | None,
) -> Band:
    # A quotient, so that a rate such as 3/10 meets its own place of the grid to the last bit.
    x = np.arange(POINTS) / (POINTS - 1)
    arrays = [as_valid_arrays(*part) for part in parts]
    whole = [part for part in arrays if 0 < part[0].sum() < part[0].size]
    values = [curve(*part, x) for part in whole]
    band = _band(x, values, ratio, patients)
    return band._replace(left_out=len(arrays) - len(whole))


def _band(
    x: AnyFloatArray,
    curves: Sequence[AnyFloatArray],
    ratio: float,
    patients: float | AnyFloatArray | None,
) -> Band:
    columns = np.array(curves, dtype=np.float64).reshape(len(curves), x.size).T
    of_place = [None] * x.size if patients is None else np.broadcast_to(patients, x.shape).tolist()
    intervals = [
        mean_interval(column, ratio, patients=units)
        for column, units in zip(columns, of_place, strict=True)
    ]
    mean, low, high = (
        np.array([getattr(at, name) for at in intervals]) for name in ("mean", "low", "high")
    )
    return Band(x, mean, low, high, len(curves))


def _benefit_band(
    x: AnyFloatArray, parts: Sequence[Part], ratio: float, patients: tuple[int, int] | None
) -> Band:
    rates = [
        _band(x, [_call_share(*part, x, value) for part in parts], ratio, count)
        for value, count in zip((1, 0), patients or (None, None), strict=True)
    ]
    benefits = np.array([_net_benefit(*part, x) for part in parts]).reshape(len(parts), x.size)
    mean = benefits.mean(axis=0) if parts else np.full(x.shape, np.nan)
    prevalence = float(np.mean([label.mean() for label, _ in parts])) if parts else np.nan
    ends = np.array(
        [
            benefit_interval(
                float(mean[place]),
                (prevalence, float((1 - prevalence) * threshold / (1 - threshold))),
                *(
                    (rate.mean[place], Interval(rate.low[place], rate.high[place]))
                    for rate in rates
                ),
            )
            for place, threshold in enumerate(x)
        ]
    )
    return Band(x, mean, ends[:, 0], ends[:, 1], len(parts))


def _rising(band: Band) -> Band:
    """The band with ends that never fall: each the largest so far, or the smallest from there."""
    low, high = np.fmax.accumulate(band.low), np.fmin.accumulate(band.high[::-1])[::-1]
    index = np.arange(band.x.size)
    last = np.maximum.accumulate(np.where(band.low == low, index, 0))
    first = np.minimum.accumulate(np.where(band.high == high, index, index[-1])[::-1])[::-1]
    return band._replace(low=low, high=high, low_x=band.x[last], high_x=band.x[first])


def _sensitivity_at(
    label: AnyIntArray, probability: AnyFloatArray, x: AnyFloatArray
) -> AnyFloatArray:
    false_rate, true_rate, _ = roc_curve(label, probability)
    # Of several points at one x, np.interp takes the last at that x: the uppermost.
    sensitivity: AnyFloatArray = np.interp(x, false_rate, true_rate)
    return sensitivity


def _precision_at(
    label: AnyIntArray, probability: AnyFloatArray, x: AnyFloatArray
) -> AnyFloatArray:
    false_rate, true_rate, _ = roc_curve(label, probability, drop_intermediate=False)
    malignant = label.sum()
    alarms = np.round(false_rate * (label.size - malignant))
    # Mirrored, so that of several points of one recall the one with fewest alarms counts.
    false_alarms = np.interp(-x, -true_rate[::-1], alarms[::-1])
    first = int(np.argmax(true_rate > 0))
    hits = true_rate[first] * malignant
    limit = 0.0 if alarms[first - 1] else hits / (hits + alarms[first])
    hits = x * malignant
    precision = np.full(x.shape, limit)
    np.divide(hits, hits + false_alarms, out=precision, where=x > 0)
    return precision


def _learning_curve(rows: pd.DataFrame) -> LearningCurve:
    by_epoch = rows.groupby("epoch")
    loss = by_epoch["loss"]
    mean = loss.mean()
    val_loss = by_epoch["val_loss"].mean().to_numpy(dtype=np.float64)
    return LearningCurve(
        epoch=mean.index.to_numpy(),
        loss=mean.to_numpy(),
        low=loss.min().to_numpy(),
        high=loss.max().to_numpy(),
        val_loss=None if np.isnan(val_loss).all() else val_loss,
    )


def _call_share(
    label: AnyIntArray, probability: AnyFloatArray, x: AnyFloatArray, value: int
) -> AnyFloatArray:
    """Share of a class that is called malignant at each threshold; NaN without an image of it."""
    of_class = probability[label == value]
    if not of_class.size:
        return np.full(x.shape, np.nan)
    return np.asarray((of_class[:, None] >= x).mean(axis=0))


def _net_benefit(label: AnyIntArray, probability: AnyFloatArray, x: AnyFloatArray) -> AnyFloatArray:
    calls = probability[:, None] >= x
    hits = (calls & (label == 1)[:, None]).sum(axis=0) / label.size
    alarms = (calls & (label == 0)[:, None]).sum(axis=0) / label.size
    return np.asarray(hits - alarms * x / (1 - x))
