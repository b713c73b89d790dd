"""How far a batch is from the training set: PSI, Kolmogorov-Smirnov, and MMD of embeddings."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from thyro_core.types import FloatArray

BINS = 10
"""Bins of the population stability index."""

PSEUDO_COUNT = 0.5
"""Added to the count of every bin: an empty one would make the index infinite."""

_BLOCK_RELABELLINGS = 250
_EXACT = 50
_ROUNDING_ERROR = 1e-12


class KsTest(NamedTuple):
    """Largest distance of two distribution functions, and its two-sided P; NaN: undefined."""

    distance: float
    p: float


class MmdTest(NamedTuple):
    """Squared maximum mean discrepancy, unbiased, and its P by permutation; NaN: undefined."""

    value: float
    p: float


def psi(reference: npt.ArrayLike, batch: npt.ArrayLike, bins: int = BINS) -> float:
    """Population stability index: sum over bins of (q - p) ln(q / p).

    The bins are the reference's quantiles (values that tie share a bin), the outer ones open; p
    and q are the shares of reference and batch in a bin, each with `PSEUDO_COUNT` added to it.
    Customary reading (Siddiqi 2006): below 0.1 stable, above 0.25 shifted; but in small batches
    chance alone passes that, see `psi_chance`.

    Args:
        reference: (m,) finite values.
        batch: (n,) finite values.
        bins: number of bins before ties are joined.

    Returns:
        At least 0; NaN if either is empty.
    """
    x, y = np.asarray(reference, np.float64), np.asarray(batch, np.float64)
    if not x.size or not y.size:
        return float("nan")
    edges = np.unique(np.quantile(x, np.arange(1, bins) / bins))
    p, q = (_shares(values, edges) for values in (x, y))
    return float(((q - p) * np.log(q / p)).sum())


def _shares(values: FloatArray, edges: FloatArray) -> FloatArray:
    cells = np.searchsorted(edges, values, side="left")
    counts = np.bincount(cells, minlength=len(edges) + 1) + PSEUDO_COUNT
    return np.asarray(counts / counts.sum())


def psi_chance(m: int, n: int, level: float, bins: int = BINS) -> float:
    """What the index stays below, with this probability, where nothing has changed.

    Without drift it is about (1/m + 1/n) times a chi-squared of bins - 1 degrees of freedom
    (Yurdakul and Naranjo, "Statistical properties of the population stability index", 2020).

    Args:
        m: size of the reference.
        n: size of the batch.
        level: the probability.
        bins: number of bins.
    """
    return float((1 / m + 1 / n) * stats.chi2.ppf(level, bins - 1))


def ks(reference: npt.ArrayLike, batch: npt.ArrayLike) -> KsTest:
    """Two-sample Kolmogorov-Smirnov test, two-sided; P asymptotic, exact below 50 values a side.

    Args:
        reference: (m,) finite values.
        batch: (n,) finite values.
    """
    x, y = np.asarray(reference, np.float64), np.asarray(batch, np.float64)
    if not x.size or not y.size:
        return KsTest(float("nan"), float("nan"))
    method = "exact" if max(x.size, y.size) < _EXACT else "asymp"
    test = stats.ks_2samp(x, y, method=method)
    return KsTest(float(test.statistic), float(test.pvalue))


def mmd(
    reference: npt.ArrayLike,
    batch: npt.ArrayLike,
    size: int = 500,
    permutations: int = 999,
    seed: int = 0,
) -> MmdTest:
    """Maximum mean discrepancy of two samples of vectors, and a permutation test of it.

    The unbiased estimate of the squared discrepancy (Gretton et al., "A Kernel Two-Sample Test",
    JMLR 13, 2012, equation 3; it may be below 0) with the kernel exp(-d^2 / (2 s^2)), s^2 the
    median squared distance of the pooled sample, each dimension divided by its pooled SD. P is
    the share of relabellings, the observed one included, that reach the observed value.

    Larger samples are drawn from, each side to `size` vectors, by the seed; so the memory is
    bounded. The order of the vectors given does not matter.

    Args:
        reference: (m, k).
        batch: (n, k).
        size: most vectors of a side.
        permutations: relabellings; the smallest P is 1 / (permutations + 1).
        seed: of the draws and the relabellings.

    Returns:
        The test; NaN if a side has fewer than two vectors.

    Raises:
        ValueError: the vectors differ in length, or are not finite.
    """
    x, y = np.asarray(reference, np.float64), np.asarray(batch, np.float64)
    if min(len(x), len(y)) < 2:
        return MmdTest(float("nan"), float("nan"))
    if x.shape[1] != y.shape[1] or not (np.isfinite(x).all() and np.isfinite(y).all()):
        msg = f"expected finite vectors of one length, found {x.shape} and {y.shape}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    x, y = _subsample(x, size, rng), _subsample(y, size, rng)
    kernel = _kernel(np.concatenate([x, y]))
    first = np.zeros(len(kernel))
    first[: len(x)] = 1.0
    statistic = float(_discrepancies(kernel, first[None])[0])
    n_reached = 1
    for start in range(0, permutations, _BLOCK_RELABELLINGS):
        block = np.tile(first, (min(_BLOCK_RELABELLINGS, permutations - start), 1))
        values = _discrepancies(kernel, rng.permuted(block, axis=1))
        n_reached += int((values >= statistic - _ROUNDING_ERROR).sum())
    return MmdTest(statistic, n_reached / (permutations + 1))


def _subsample(vectors: FloatArray, size: int, rng: np.random.Generator) -> FloatArray:
    """At most `size` of the vectors; the same ones in whatever order they come."""
    in_order = vectors[np.lexsort(vectors.T[::-1])]
    if len(in_order) <= size:
        return np.asarray(in_order)
    return np.asarray(in_order[np.sort(rng.choice(len(in_order), size, replace=False))])


def _kernel(sample: FloatArray) -> FloatArray:
    """(N, N) of all vectors with one another; all ones if they are all the same."""
    sd = sample.std(axis=0)
    scaled_sample = sample / np.where(sd > 0, sd, 1.0)
    median = float(np.median(pdist(scaled_sample, "sqeuclidean")))
    squares = cdist(scaled_sample, scaled_sample, "sqeuclidean")
    return np.asarray(np.exp(-squares / (2 * (median or 1.0))))


def _discrepancies(kernel: FloatArray, first: FloatArray) -> FloatArray:
    """Unbiased squared discrepancies, (r,), of r labellings.

    Args:
        kernel: (N, N), ones on its diagonal.
        first: (r, N), 1 for the vectors of the first sample, 0 for the others.
    """
    m = first[0].sum()
    n = len(kernel) - m
    second = 1.0 - first
    product = first @ kernel
    within_first = (product * first).sum(axis=1) - m
    between = (product * second).sum(axis=1)
    within_second = kernel.sum() - len(kernel) - within_first - 2 * between
    return np.asarray(
        within_first / (m * (m - 1)) + within_second / (n * (n - 1)) - 2 * between / (m * n)
    )
