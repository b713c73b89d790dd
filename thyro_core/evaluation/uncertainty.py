"""How sure the figures are: intervals within and over splits, and tests of a difference.

Images of one patient are no independent draws, so patients are resampled, not images. Random
splits overlap, so their variance is corrected. DeLong's test needs neither, and holds within one
split only.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import stats

from thyro_core.evaluation.metrics import METRICS, as_valid_arrays, weighted_metrics
from thyro_core.types import AnyFloatArray, AnyIntArray

LEVEL = 0.95
"""Coverage of every interval."""

_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_BLOCK = 2_000_000
_ROUNDING = 1e-12


class TTest(NamedTuple):
    """A corrected t test of paired differences; NaN where it is undefined."""

    mean: float
    sd: float
    t: float
    df: int
    p: float
    ci_low: float
    ci_high: float


class MeanInterval(NamedTuple):
    """A mean over splits, its SD and 95 % interval, and the splits it is taken of."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


class DeLong(NamedTuple):
    """Two AUCs on the same images and the test of their difference a - b; NaN: undefined."""

    auc_a: float
    auc_b: float
    difference: float
    z: float
    p: float
    ci_low: float
    ci_high: float


def bootstrap_intervals(
    label: AnyIntArray,
    probability: AnyFloatArray,
    cluster: npt.ArrayLike,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the ten metrics by the cluster bootstrap.

    A resample draws as many patients as there are, with replacement, each with all of its images
    (Davison and Hinkley 1997, section 3.8, clusters only). A resample in which a metric is
    undefined is left out of that metric's percentiles.

    The result is a function of the set of (cluster, label, probability) rows and the seed: the
    patients are numbered in sorted order and the rows sorted by patient, probability and label,
    so that the order of the rows given changes not a single bit.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        cluster: (n,), the patient (or group) of each image; any sortable type.
        threshold: Lowest probability that counts as positive.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resampling.

    Returns:
        (low, high) for each metric; both NaN where fewer than half of the resamples define it,
        and everywhere if there is only one cluster, which can tell nothing of the spread.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability = as_valid_arrays(label, probability)
    names, number = np.unique(np.asarray(cluster), return_inverse=True)
    if number.shape != label.shape:
        msg = f"cluster must be of shape {label.shape}, found {number.shape}"
        raise ValueError(msg)
    if len(names) < 2:
        return dict.fromkeys(METRICS, (np.nan, np.nan))
    order = np.lexsort((label, probability, number))
    label, probability, number = label[order], probability[order], number[order]
    blocks = [
        weighted_metrics(label, probability, counts[:, number], threshold)
        for counts in _cluster_counts(len(names), label.size, resamples, seed)
    ]
    return {name: _percentiles(np.concatenate([b[name] for b in blocks])) for name in METRICS}


def nadeau_bengio(differences: npt.ArrayLike, test_train_ratio: float) -> TTest:
    """Corrected resampled t test of paired differences over splits, two-sided, with k - 1 df.

    Splits of one image set overlap; the plain t test takes them for independent and finds
    differences where there are none (Dietterich 1998). Nadeau and Bengio, "Inference for the
    Generalization Error", Machine Learning 52 (2003), replace the variance sd^2 / k of the mean
    by sd^2 (1/k + n_test/n_train). k-fold repeated r times uses the same formula with all r k
    splits and the ratio 1 / (k - 1) of its folds (Bouckaert and Frank, "Evaluating the
    Replicability of Significance Tests for Comparing Learning Algorithms", PAKDD 2004).

    Without any spread the statistic takes its limit: t = 0 and P = 1 if the differences are 0,
    t = +-inf and P = 0 if all are the same other number; the interval is the mean itself. Spread
    below 1e-12 of the largest difference is rounding and counts as none.

    Args:
        differences: (k,), one a split.
        test_train_ratio: n_test / n_train; 0 gives the plain t test.

    Returns:
        The test. A NaN difference makes all of it NaN; a single one has only a mean.

    Raises:
        ValueError: `differences` is not one-dimensional; or the ratio is negative or not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not 0 <= test_train_ratio < np.inf:
        msg = (
            "expected a list of differences and n_test / n_train >= 0, "
            f"found shape {values.shape} and {test_train_ratio}"
        )
        raise ValueError(msg)
    k = values.size
    mean, sd = float(values.mean()) if k else np.nan, _sd(values)
    error = sd * np.sqrt(1 / max(k, 1) + test_train_ratio)
    t = _standardised(mean, error)
    df = max(k - 1, 0)
    p = float(2 * stats.t.sf(abs(t), df))
    half = float(stats.t.ppf(_TAILS[1], df) * error)
    return TTest(mean, sd, t, df, p, mean - half, mean + half)


def mean_interval(values: npt.ArrayLike, test_train_ratio: float) -> MeanInterval:
    """Mean over splits, SD (ddof 1) and a 95 % t interval with Nadeau and Bengio's variance.

    NaN values are dropped; `n` says how many are left. The interval is symmetric and not clipped
    to the metric's range. One value has no SD and no interval (NaN).

    Args:
        values: (k,), one a split.
        test_train_ratio: n_test / n_train.

    Raises:
        ValueError: see `nadeau_bengio`.
    """
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)] if array.ndim == 1 else array
    test = nadeau_bengio(defined, test_train_ratio)
    return MeanInterval(test.mean, test.sd, test.ci_low, test.ci_high, defined.size)


def mean_test_train_ratio(splits: pa.Table, numbers: Sequence[int] | None = None) -> float:
    """Mean of n_test / n_train over splits, for Nadeau and Bengio's variance.

    Args:
        splits: table `splits` of a study.
        numbers: the splits that count; None: all.
    """
    frame = splits.select(["split", "role"]).to_pandas()
    counts = pd.crosstab(frame["split"], frame["role"])
    if numbers is not None:
        counts = counts.loc[list(numbers)]
    return float((counts["test"] / counts["train"]).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of P values (Holm 1979), in the order given.

    NaN stays NaN and does not count as a test.

    Raises:
        ValueError: a P value outside 0 to 1.
    """
    values = np.asarray(p, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        msg = f"P values must lie in 0 to 1, found {list(p)}"
        raise ValueError(msg)
    tests = np.flatnonzero(~np.isnan(values))
    rising = tests[np.argsort(values[tests], kind="stable")]
    adjusted = np.full(values.shape, np.nan)
    steps = np.arange(len(rising), 0, -1) * values[rising]
    adjusted[rising] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def auc_variance(label: AnyIntArray, probability: AnyFloatArray) -> float:
    """DeLong's variance of one AUC; NaN with fewer than two images of a class.

    Raises:
        ValueError: see `metrics.as_valid_arrays`.
    """
    _, malignant, benign = _placements(*as_valid_arrays(label, probability))
    return _variance(malignant, benign)


def delong(label: AnyIntArray, prob_a: AnyFloatArray, prob_b: AnyFloatArray) -> DeLong:
    """Test two AUCs on the same images, two-sided (DeLong, DeLong and Clarke-Pearson 1988).

    Placement values come from midranks (Sun and Xu, "Fast Implementation of DeLong's Algorithm",
    IEEE Signal Processing Letters 21, 2014), in O(n log n); ties count half. Without any variance
    z takes its limit: 0 (P = 1) for equal AUCs, +-inf (P = 0) otherwise.

    The images are taken as independent: where patients have several, P is too small.

    Args:
        label: (n,), 0 or 1.
        prob_a: (n,), probabilities of the first classifier.
        prob_b: (n,), probabilities of the second one.

    Returns:
        The test; AUCs are NaN with one class only, the rest also with a single image of a class.

    Raises:
        ValueError: see `metrics.as_valid_arrays`.
    """
    auc_a, malignant_a, benign_a = _placements(*as_valid_arrays(label, prob_a))
    auc_b, malignant_b, benign_b = _placements(*as_valid_arrays(label, prob_b))
    difference = auc_a - auc_b
    # The variance of the differences is var a + var b - 2 cov, but never negative by rounding.
    error = np.sqrt(_variance(malignant_a - malignant_b, benign_a - benign_b))
    z = _standardised(difference, error)
    half = float(stats.norm.ppf(_TAILS[1]) * error)
    p = float(2 * stats.norm.sf(abs(z)))
    return DeLong(auc_a, auc_b, difference, z, p, difference - half, difference + half)


def _cluster_counts(clusters: int, images: int, resamples: int, seed: int) -> Iterator[AnyIntArray]:
    """How often each cluster is drawn, (rows, clusters), in blocks that bound the memory."""
    generator = np.random.default_rng(seed)
    share = np.full(clusters, 1 / clusters)
    rows = max(1, _BLOCK // images)
    for start in range(0, resamples, rows):
        yield generator.multinomial(clusters, share, size=min(rows, resamples - start))


def _percentiles(values: AnyFloatArray) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if 2 * defined.size < values.size:
        return np.nan, np.nan
    low, high = np.quantile(defined, _TAILS)
    return float(low), float(high)


def _sd(values: AnyFloatArray) -> float:
    """Sample SD; exactly 0 where only rounding tells the values apart; NaN for fewer than two."""
    if values.size < 2:
        return np.nan
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))


def _standardised(difference: float, error: float) -> float:
    if error == 0.0:
        return float(np.sign(difference)) * np.inf if difference else 0.0
    return float(difference / error)


def _placements(
    label: AnyIntArray, probability: AnyFloatArray
) -> tuple[float, AnyFloatArray, AnyFloatArray]:
    """AUC; for each malignant image the share of benign ones below it; and the reverse."""
    positive, negative = probability[label == 1], probability[label == 0]
    if not positive.size or not negative.size:
        return np.nan, np.full(positive.size, np.nan), np.full(negative.size, np.nan)
    together = stats.rankdata(np.concatenate([positive, negative]))
    above = together[: positive.size] - stats.rankdata(positive)
    below = together[positive.size :] - stats.rankdata(negative)
    auc = above.sum() / (positive.size * negative.size)
    return float(auc), above / negative.size, 1 - below / positive.size


def _variance(malignant: AnyFloatArray, benign: AnyFloatArray) -> float:
    if min(malignant.size, benign.size) < 2:
        return np.nan
    return float(malignant.var(ddof=1) / malignant.size + benign.var(ddof=1) / benign.size)
