"""AUCs of one test part: their variance, their interval, and the test of a difference.

Images of one patient resemble each other, so that their placement values are summed by patient
before their spread is taken (Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data",
Biometrics 53, 1997). With one image a patient this is the method of DeLong, DeLong and
Clarke-Pearson (1988) itself.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from thyro_core.evaluation.bounded import (
    NO_INTERVAL,
    NORMAL,
    Interval,
    cluster_numbers,
    clusters_of,
    logit_interval,
    newcombe_interval,
    t_quantile,
)
from thyro_core.evaluation.metrics import as_valid_arrays
from thyro_core.types import AnyFloatArray, AnyIntArray

# Placement values are sums of shares; less than this is rounding.
_ROUNDING = 1e-12


class DeLong(NamedTuple):
    """Two AUCs on the same images and the test of their difference a - b; NaN: undefined."""

    auc_a: float
    auc_b: float
    difference: float
    z: float
    p: float
    ci_low: float
    ci_high: float


class _Placements(NamedTuple):
    """AUC, and how each image contributes to it."""

    auc: float
    malignant: AnyFloatArray
    """For each malignant image the share of benign ones below it."""
    benign: AnyFloatArray
    """For each benign image the share of malignant ones above it."""

    def minus(self, other: "_Placements") -> "_Placements":
        return _Placements(
            self.auc - other.auc, self.malignant - other.malignant, self.benign - other.benign
        )


def auc_interval(
    label: AnyIntArray, probability: AnyFloatArray, cluster: npt.ArrayLike | None = None
) -> Interval:
    """95 % interval of one AUC: a t interval on the logit scale with the variance by patient.

    Its degrees of freedom are those of the class with fewer patients, less one. Where the images
    show no spread, because they are separated perfectly or a class has a single patient, it is
    Newcombe's interval of the numbers of patients.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        cluster: (n,), the patient of each image; None: each image is a patient of its own.

    Returns:
        The interval; NaN with one class only.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability = as_valid_arrays(label, probability)
    patients = _clusters(label, cluster)
    placements = _placements(label, probability)
    if np.isnan(placements.auc):
        return NO_INTERVAL
    sizes = clusters_of(label == 1, patients), clusters_of(label == 0, patients)
    variance = _variance(label, placements, patients)
    if variance > 0 and 0 < placements.auc < 1:
        return logit_interval(placements.auc, np.sqrt(variance), t_quantile(min(sizes) - 1))
    return newcombe_interval(placements.auc, *sizes)


def auc_error(
    label: AnyIntArray, score: AnyFloatArray, cluster: npt.ArrayLike
) -> tuple[float, float]:
    """One AUC and its standard error, patients as the independent units.

    Args:
        label: (n,), 0 or 1; both.
        score: (n,), of any range.
        cluster: (n,), the patient of each image.

    Returns:
        The AUC; its error, NaN with a single patient of a class, 0 without any spread.
    """
    placements = _placements(label, score)
    return placements.auc, float(np.sqrt(_variance(label, placements, _clusters(label, cluster))))


def auc_influences(label: AnyIntArray, score: AnyFloatArray) -> tuple[float, AnyFloatArray]:
    """An AUC, and what each image adds to its deviation from the true one, (n,).

    For a malignant image its placement value less the AUC, over their number; for a benign one
    alike. The sum of squares by patient is the variance of `auc_interval`, but for small samples.

    Args:
        label: (n,), 0 or 1; both.
        score: (n,), of any range.
    """
    placements = _placements(label, score)
    influences = np.empty(label.size)
    ill = label == 1
    influences[ill] = (placements.malignant - placements.auc) / ill.sum()
    influences[~ill] = (placements.benign - placements.auc) / (~ill).sum()
    return placements.auc, influences


def delong(
    label: AnyIntArray,
    prob_a: AnyFloatArray,
    prob_b: AnyFloatArray,
    cluster: npt.ArrayLike | None = None,
) -> DeLong:
    """Test two AUCs on the same images, two-sided, with patients as the independent units.

    Placement values come from midranks (Sun and Xu, "Fast Implementation of DeLong's Algorithm",
    IEEE Signal Processing Letters 21, 2014), in O(n log n); ties count half. Without any variance
    there is no test and no interval, whether the AUCs are equal or not.

    Args:
        label: (n,), 0 or 1.
        prob_a: (n,), probabilities of the first classifier.
        prob_b: (n,), probabilities of the second one.
        cluster: (n,), the patient of each image; None: each image is a patient of its own.

    Returns:
        The test; AUCs are NaN with one class only, the rest also with a single patient of a class.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, prob_a = as_valid_arrays(label, prob_a)
    first = _placements(label, prob_a)
    second = _placements(*as_valid_arrays(label, prob_b))
    lead = first.minus(second)
    # The variance of the differences is var a + var b - 2 cov, but never negative by rounding.
    error = np.sqrt(_variance(label, lead, _clusters(label, cluster)))
    if not error > 0:
        return DeLong(first.auc, second.auc, lead.auc, np.nan, np.nan, np.nan, np.nan)
    z, half = float(lead.auc / error), float(NORMAL * error)
    p = float(2 * stats.norm.sf(abs(z)))
    return DeLong(first.auc, second.auc, lead.auc, z, p, lead.auc - half, lead.auc + half)


class RankedImages(NamedTuple):
    """Images of one sample with their scores."""

    label: AnyIntArray
    """(n,), 0 or 1."""
    score: AnyFloatArray
    """(n,), of any range."""
    cluster: npt.ArrayLike
    """(n,), the patient of each image."""


def independent_delong(first: RankedImages, second: RankedImages) -> DeLong:
    """Test the AUCs of two samples that share no patient, two-sided, patients as units.

    The variances of both, each as in `auc_interval`, are added (DeLong, DeLong and Clarke-Pearson
    1988; Obuchowski 1997 for several images of a patient).

    Args:
        first: one sample.
        second: another one.

    Returns:
        The test of first - second; AUCs are NaN with one class only, the rest also where a sample
        has a single patient of a class, or shows no spread: its classes are separated perfectly.
    """
    (auc, first_error), (other, second_error) = (auc_error(*each) for each in (first, second))
    difference, error = auc - other, float(np.hypot(first_error, second_error))
    if not min(first_error, second_error) > 0:
        return DeLong(auc, other, difference, np.nan, np.nan, np.nan, np.nan)
    half = NORMAL * error
    p = float(2 * stats.norm.sf(abs(difference) / error))
    return DeLong(
        auc, other, difference, difference / error, p, difference - half, difference + half
    )


def _clusters(label: AnyIntArray, cluster: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """Number of each image's patient, from 0."""
    return np.arange(label.size) if cluster is None else cluster_numbers(cluster, label.size)


def _placements(label: AnyIntArray, probability: AnyFloatArray) -> _Placements:
    positive, negative = probability[label == 1], probability[label == 0]
    if not positive.size or not negative.size:
        return _Placements(np.nan, np.full(positive.size, np.nan), np.full(negative.size, np.nan))
    together = stats.rankdata(np.concatenate([positive, negative]))
    above = together[: positive.size] - stats.rankdata(positive)
    below = together[positive.size :] - stats.rankdata(negative)
    auc = above.sum() / (positive.size * negative.size)
    return _Placements(float(auc), above / negative.size, 1 - below / positive.size)


def _variance(label: AnyIntArray, placements: _Placements, patient: npt.NDArray[np.int64]) -> float:
    """Obuchowski's variance, equations 3 to 7: by class, and between the classes of a patient."""
    ill, well = patient[label == 1], patient[label == 0]
    sizes = np.unique(ill).size, np.unique(well).size
    if min(sizes) < 2 or np.isnan(placements.auc):
        return np.nan
    patients = int(patient.max()) + 1
    malignant = np.bincount(ill, placements.malignant - placements.auc, patients) / ill.size
    benign = np.bincount(well, placements.benign - placements.auc, patients) / well.size
    if max(np.abs(malignant).max(), np.abs(benign).max()) <= _ROUNDING:
        return 0.0
    parts = (
        sizes[0] / (sizes[0] - 1) * (malignant**2).sum(),
        sizes[1] / (sizes[1] - 1) * (benign**2).sum(),
        2 * patients / (patients - 1) * (malignant * benign).sum(),
    )
    return max(float(sum(parts)), 0.0)
