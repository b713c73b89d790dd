"""How sure the figures are: intervals within and over splits, and tests of a difference.

Images of one patient are no independent draws, so patients are resampled, not images. Random
splits overlap, so their variance is corrected. Without any spread there is no test, and an
interval only where the number of patients gives one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import stats

from thyro_core.evaluation.bounded import (
    NO_INTERVAL,
    Interval,
    cluster_numbers,
    clusters_of,
    f1_interval,
    logit_interval,
    newcombe_interval,
    proportion_interval,
    score_interval,
    t_quantile,
    wilson_interval,
)
from thyro_core.evaluation.delong import auc_interval
from thyro_core.evaluation.metrics import METRICS, as_valid_arrays, weighted_metrics
from thyro_core.types import AnyFloatArray, AnyIntArray

MIN_SPLITS = 5
"""Fewer splits carry no test: with one to three degrees of freedom its P is a matter of luck."""

BOOTSTRAP_METRICS: tuple[str, ...] = ("average_precision", "brier")
"""The metrics without an interval in closed form."""

WITHOUT_INTERVAL: tuple[str, ...] = ("ece",)
"""The binned calibration error is a mean of absolute values: chance alone lifts it above 0, so that
an interval around it covers nothing in particular."""

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


def metric_intervals(
    label: AnyIntArray,
    probability: AnyFloatArray,
    cluster: npt.ArrayLike,
    threshold: float,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """95 % intervals of the ten metrics of one test part, with patients as the independent units.

    Each by what covers best near the edges: the AUC by `delong.auc_interval`, shares by Wilson's
    interval of as many independent images as the patients are worth, F1 through the share it grows
    with, average precision and Brier score by the bootstrap on the logit scale. Where every image
    is ranked perfectly, average precision has Wilson's interval of its malignant patients. The
    calibration error has none.

    The result is a function of the set of (cluster, label, probability) rows and the seed, to the
    last bit.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        cluster: (n,), the patient (or group) of each image; any sortable type.
        threshold: Lowest probability that counts as positive.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resampling.

    Returns:
        An interval for each metric; NaN where the metric is undefined, and everywhere if there is
        only one cluster, which can tell nothing of the spread.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability, number = _in_order(label, probability, cluster)
    if number[-1] == 0:
        return dict.fromkeys(METRICS, NO_INTERVAL)
    calls, ill = probability >= threshold, label == 1
    cases = {
        "accuracy": (calls == ill, np.ones(ill.size, dtype=np.bool_)),
        "recall": (calls, ill),
        "precision": (ill, calls),
        "specificity": (~calls, ~ill),
        "npv": (~ill, ~calls),
    }
    intervals = {
        name: proportion_interval(hit[among], number[among]) for name, (hit, among) in cases.items()
    }
    intervals["auc"] = auc_interval(label, probability, number)
    intervals["f1"] = f1_interval(label, calls, number)
    bootstrap = bootstrap_intervals(label, probability, number, threshold, resamples, seed)
    intervals |= {name: bootstrap[name] for name in BOOTSTRAP_METRICS}
    if ill.any() and probability[ill].min() > probability[~ill].max(initial=-1.0):
        intervals["average_precision"] = wilson_interval(1.0, clusters_of(ill, number))
    return {name: intervals.get(name, NO_INTERVAL) for name in METRICS}


def bootstrap_intervals(
    label: AnyIntArray,
    probability: AnyFloatArray,
    cluster: npt.ArrayLike,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """95 % intervals of the ten metrics by the cluster bootstrap, on the logit scale.

    A resample draws as many patients as there are, with replacement, each with all of its images
    (Davison and Hinkley 1997, section 3.8, clusters only). The interval is symmetric about the
    metric on the logit scale and takes the SD of the resamples and a t quantile, with one degree
    of freedom less than the class with fewer patients has patients. The percentiles themselves
    cover too little near 0 and 1, and nothing at all at the edge: there this has no interval.

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
        An interval for each metric; NaN where fewer than half of the resamples define it, where
        they show no spread, where a class has one patient only, and for the calibration error
        (`WITHOUT_INTERVAL`).

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability, number = _in_order(label, probability, cluster)
    sizes = [clusters_of(label == value, number) for value in (0, 1) if (label == value).any()]
    quantile = t_quantile(min(sizes) - 1)
    point = weighted_metrics(label, probability, np.ones((1, label.size)), threshold)
    blocks = [
        weighted_metrics(label, probability, counts[:, number], threshold)
        for counts in cluster_counts(int(number[-1]) + 1, label.size, resamples, seed)
    ]
    return {
        name: NO_INTERVAL
        if name in WITHOUT_INTERVAL
        else logit_interval(
            float(point[name][0]), _spread(np.concatenate([b[name] for b in blocks])), quantile
        )
        for name in METRICS
    }


def nadeau_bengio(differences: npt.ArrayLike, test_train_ratio: float) -> TTest:
    """Corrected resampled t test of paired differences over splits, two-sided, with k - 1 df.

    Splits of one image set overlap; the plain t test takes them for independent and finds
    differences where there are none (Dietterich 1998). Nadeau and Bengio, "Inference for the
    Generalization Error", Machine Learning 52 (2003), replace the variance sd^2 / k of the mean
    by sd^2 (1/k + n_test/n_train). k-fold repeated r times uses the same formula with all r k
    splits and the ratio 1 / (k - 1) of its folds (Bouckaert and Frank, "Evaluating the
    Replicability of Significance Tests for Comparing Learning Algorithms", PAKDD 2004).

    Below `MIN_SPLITS` splits there is an interval, but no test. Without any spread there is
    neither: that a few splits agree is no proof of a difference, nor of equality. Spread below
    1e-12 of the largest difference is rounding and counts as none.

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
    error = _corrected_error(sd, k, test_train_ratio)
    df = max(k - 1, 0)
    if not error > 0:
        return TTest(mean, sd, np.nan, df, np.nan, np.nan, np.nan)
    half = float(t_quantile(df) * error)
    t = float(mean / error) if k >= MIN_SPLITS else np.nan
    return TTest(mean, sd, t, df, float(2 * stats.t.sf(abs(t), df)), mean - half, mean + half)


def mean_interval(
    values: npt.ArrayLike,
    test_train_ratio: float,
    *,
    patients: float | tuple[int, int] | None = None,
    is_bounded: bool = True,
) -> MeanInterval:
    """Mean over splits, SD (ddof 1) and a 95 % t interval with Nadeau and Bengio's variance.

    An AUC has its interval on the logit scale, with the error of the mean taken there by the delta
    method: on the raw scale an AUC of 0.998 is covered in 81 of 100 studies, so in 95. Whatever
    else lies between 0 and 1 has a score interval (`bounded.score_interval`): on the logit scale
    the interval of a sensitivity near 1 would grow as it nears 1. Splits that agree to the last bit
    have no spread to make an interval of; what the number of patients allows is given then.

    NaN values are dropped; `n` says how many are left. One value has no SD and no interval (NaN).

    Args:
        values: (k,), one a split.
        test_train_ratio: n_test / n_train.
        patients: independent units behind all splits together, for values without spread: those
            of a share, for Wilson's interval; or the malignant and the benign ones, for Newcombe's:
            the values are AUCs then. None: no interval without spread.
        is_bounded: whether the values lie between 0 and 1; otherwise the interval is symmetric.

    Raises:
        ValueError: see `nadeau_bengio`.
    """
    array = np.asarray(values, dtype=np.float64)
    defined_values = array[~np.isnan(array)] if array.ndim == 1 else array
    test = nadeau_bengio(defined_values, test_train_ratio)
    interval = Interval(test.ci_low, test.ci_high)
    if test.sd == 0.0:
        interval = _interval_without_spread(test.mean, patients)
    elif is_bounded:
        error = _corrected_error(test.sd, defined_values.size, test_train_ratio)
        form = logit_interval if isinstance(patients, tuple) else score_interval
        interval = form(test.mean, error, t_quantile(test.df))
    return MeanInterval(test.mean, test.sd, *interval, defined_values.size)


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
    adjusted_p = np.full(values.shape, np.nan)
    steps = np.arange(len(rising), 0, -1) * values[rising]
    adjusted_p[rising] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted_p]


def cluster_counts(clusters: int, images: int, resamples: int, seed: int) -> Iterator[AnyIntArray]:
    """Resamples of a cluster bootstrap, in blocks that bound the memory.

    Args:
        clusters: number of them.
        images: in all clusters, for the size of a block.
        resamples: number of resamples.
        seed: of the resampling.

    Yields:
        (rows, clusters), how often each cluster is drawn.
    """
    generator = np.random.default_rng(seed)
    share = np.full(clusters, 1 / clusters)
    rows = max(1, _BLOCK // images)
    for start in range(0, resamples, rows):
        yield generator.multinomial(clusters, share, size=min(rows, resamples - start))


def _in_order(
    label: AnyIntArray, probability: AnyFloatArray, cluster: npt.ArrayLike
) -> tuple[AnyIntArray, AnyFloatArray, npt.NDArray[np.int64]]:
    """Labels, probabilities and patients' numbers from 0, sorted, so that no sum depends on order.

    Raises:
        ValueError: see `bootstrap_intervals`.
    """
    label, probability = as_valid_arrays(label, probability)
    number = cluster_numbers(cluster, label.size)
    order = np.lexsort((label, probability, number))
    return label[order], probability[order], number[order]


def _spread(values: AnyFloatArray) -> float:
    """SD of the resamples that define a metric; NaN if those are fewer than half."""
    defined_values = values[~np.isnan(values)]
    return _sd(defined_values) if 2 * defined_values.size >= values.size else np.nan


def _interval_without_spread(value: float, patients: float | tuple[int, int] | None) -> Interval:
    if patients is None:
        return NO_INTERVAL
    if isinstance(patients, tuple):
        return newcombe_interval(value, *patients)
    return wilson_interval(value, patients)


def _corrected_error(sd: float, k: int, test_train_ratio: float) -> float:
    """Nadeau and Bengio's standard error of a mean over k splits."""
    return float(sd * np.sqrt(1 / max(k, 1) + test_train_ratio))


def _sd(values: AnyFloatArray) -> float:
    """Sample SD; exactly 0 where only rounding tells the values apart; NaN for fewer than two."""
    if values.size < 2:
        return np.nan
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))
