"""Intervals of figures between 0 and 1: score intervals, the logit scale, and the edges.

Near 0 and 1 the distribution of a figure is skewed, and an interval that reaches as far up as down
covers less than it says. On the logit scale it is nearly symmetric; for a share a score interval is
better, as the delta method's error on the logit scale grows without bound towards 0 and 1. At 0 and
at 1 themselves a sample has no spread, which is no proof that there is none: there the interval
follows from the number of patients alone.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq

from thyro_core.types import AnyFloatArray, AnyIntArray, BoolArray

LEVEL = 0.95
"""Coverage of every interval."""

NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))
"""Standard errors on either side of a normal interval."""

_INNERMOST = 1e-12
# Near 1 an end differs from it by less than the search's own tolerance.
_ROOT = 1e-15


class Interval(NamedTuple):
    """A 95 % interval; NaN where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(np.nan, np.nan)


class Difference(NamedTuple):
    """A difference of two figures, its 95 % interval and two-sided P; NaN: undefined."""

    value: float
    low: float
    high: float
    p: float


def independent_difference(
    value: float, ends: Interval, other: float, other_ends: Interval
) -> Difference:
    """A figure of one sample less that of another which shares no patient with it.

    Each end is as far from the difference as the ends of both figures' intervals that bear on it
    allow together (Newcombe, "Interval estimation for the difference between independent
    proportions", Statistics in Medicine 17, 1998, method 10; for any figures Zou and Donner 2008).
    Unlike a bootstrap this has a spread where a sample shows none, at 0 and 1. P is below 0.05
    where the interval leaves 0 out, and in between follows from how much wider it would be.

    Args:
        value: figure of the first sample.
        ends: its 95 % interval.
        other: figure of the second sample.
        other_ends: its 95 % interval.

    Returns:
        All but the difference is NaN where an end is.
    """
    difference = value - other
    low = float(np.hypot(value - ends[0], other_ends[1] - other))
    high = float(np.hypot(ends[1] - value, other - other_ends[0]))
    toward_zero = low if difference > 0 else high
    if not toward_zero > 0:
        return Difference(difference, np.nan, np.nan, np.nan)
    p = float(2 * stats.norm.sf(NORMAL * abs(difference) / toward_zero))
    return Difference(difference, difference - low, difference + high, p)


def t_quantile(df: int) -> float:
    """Standard errors on either side of a t interval; NaN without a degree of freedom."""
    return float(stats.t.ppf((1 + LEVEL) / 2, df)) if df > 0 else np.nan


def logit_interval(value: float, error: float, quantile: float = NORMAL) -> Interval:
    """Interval of a figure between 0 and 1, symmetric on the logit scale.

    The standard error is taken there by the delta method: error / (value (1 - value)) (for an AUC:
    Pepe, "The Statistical Evaluation of Medical Tests", 2003, section 5.2).

    Args:
        value: the figure, 0 to 1.
        error: its standard error.
        quantile: standard errors on either side.

    Returns:
        The interval, inside 0 to 1; NaN at 0 and 1, without an error, and where the error is 0.
    """
    if not (0 < value < 1 and error > 0):
        return NO_INTERVAL
    half = quantile * error / (value * (1 - value))
    middle = np.log(value / (1 - value))
    with np.errstate(over="ignore"):
        low, high = 1 / (1 + np.exp(-(middle + np.array([-half, half]))))
    return Interval(float(low), float(high))


def score_interval(value: float, error: float, quantile: float) -> Interval:
    """Interval of a share of which an error is known: Wilson's, of as many units as that is worth.

    A share of n independent units has the variance value (1 - value) / n; that of a share of
    clustered images, or of a mean over splits, gives its n (Korn and Graubard 1998). As in Wilson's
    interval the error is that at the share in question, not at the observed one, so that it does
    not vanish, nor its logit's grow without bound, where the share found nears 0 or 1.

    Args:
        value: the share, 0 to 1.
        error: its standard error.
        quantile: standard errors on either side.

    Returns:
        The interval, inside 0 to 1; NaN at 0 and 1, without an error, and where the error is 0.
    """
    if not (0 < value < 1 and error > 0):
        return NO_INTERVAL
    return wilson_interval(value, value * (1 - value) / error**2, quantile)


def wilson_interval(value: float, n: float, quantile: float = NORMAL) -> Interval:
    """Interval of a proportion (Wilson 1927), at 0 and 1 too.

    Args:
        value: the proportion, 0 to 1; NaN gives NaN.
        n: independent units behind it, above 0; need not be whole.
        quantile: standard errors on either side.
    """
    shrink = 1 + quantile**2 / n
    middle = (value + quantile**2 / (2 * n)) / shrink
    half = quantile * np.sqrt(value * (1 - value) / n + quantile**2 / (4 * n**2)) / shrink
    return Interval(float(max(middle - half, 0.0)), float(min(middle + half, 1.0)))


def benefit_interval(
    value: float,
    weights: tuple[float, float],
    sensitivity: tuple[float, Interval],
    false_rate: tuple[float, Interval],
) -> Interval:
    """Interval of a net benefit, from those of the two rates that it is made of.

    Net benefit is a weighted difference, `weights[0]` times the sensitivity less `weights[1]` times
    the false positive rate: each end is as far from it as the ends of both rates' intervals that
    bear on it allow together (Zou and Donner, "Construction of confidence limits about effect
    measures: a general approach", Statistics in Medicine 27, 2008). No end can lie beyond what the
    rates' own bounds allow: never above the prevalence, at any threshold. The rates come from
    different patients and are taken as independent; where the networks of a study differ by a
    shift of their scores both rates move together, and the interval is wider than it need be. The
    prevalence is given, not estimated.

    Args:
        value: the net benefit.
        weights: the prevalence; and the share of benign images times the odds of the threshold.
        sensitivity: figure and interval.
        false_rate: figure and interval.

    Returns:
        NaN where the interval of a rate that counts is.
    """
    most, worst = weights
    (hits, (hits_low, hits_high)), (alarms, (alarms_low, alarms_high)) = sensitivity, false_rate
    # A class that no image is of has no rate, and no weight either.
    below = (
        most * (hits - hits_low) if most else 0.0,
        worst * (alarms_high - alarms) if worst else 0.0,
    )
    above = (
        most * (hits_high - hits) if most else 0.0,
        worst * (alarms - alarms_low) if worst else 0.0,
    )
    low, high = value - float(np.hypot(*below)), value + float(np.hypot(*above))
    if np.isnan([low, high]).any():
        return NO_INTERVAL
    return Interval(max(low, -worst), min(high, most))


def effective_size(hit: BoolArray, cluster: npt.NDArray[np.generic]) -> float:
    """How many independent images tell as much of a proportion as these (Korn and Graubard 1998).

    The number of images over the design effect, the ratio of the variance between clusters to that
    of independent images, and less for the degrees of freedom that few clusters have; never more
    than the images ("Confidence Intervals for Proportions with Small Expected Number of Positive
    Counts Estimated from Survey Data", Survey Methodology 24). Where the sample shows no spread,
    at 0 and 1 above all, the clusters count once each.

    Args:
        hit: (n,), at least one.
        cluster: (n,), the patient of each image.
    """
    number = np.unique(cluster, return_inverse=True)[1]
    n, clusters, share = hit.size, int(number.max()) + 1, float(hit.mean())
    excess = np.bincount(number, weights=hit - share)
    between = float((excess**2).sum()) / n**2
    if clusters < 2 or not 0 < share < 1 or between <= _INNERMOST:
        return float(clusters)
    design = between * clusters / (clusters - 1) / (share * (1 - share) / (n - 1))
    # With one image a patient both are of n - 1 degrees of freedom, and n is what remains.
    return min(float(n), n / design * (t_quantile(n - 1) / t_quantile(clusters - 1)) ** 2)


def proportion_interval(hit: BoolArray, cluster: npt.NDArray[np.generic]) -> Interval:
    """Wilson's interval of a share of images, with patients as the independent units.

    With one image a patient this is Wilson's interval itself; else its n is `effective_size`.

    Args:
        hit: (n,), whether the image counts.
        cluster: (n,), the patient of each image.

    Returns:
        The interval; NaN without an image.
    """
    if not hit.size:
        return NO_INTERVAL
    return wilson_interval(float(hit.mean()), effective_size(hit, cluster))


def newcombe_interval(auc: float, malignant: int, benign: int) -> Interval:
    """Interval of an AUC from the sizes of the classes alone, at 0 and 1 too.

    A score interval: it holds every AUC whose variance, with exponential scores (Hanley and McNeil
    1982) and both classes taken for equally large, does not rule out the one found (Newcombe,
    "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006, method 5).

    Args:
        auc: 0 to 1; NaN gives NaN.
        malignant: independent units of the class, at least 1.
        benign: the same.
    """
    if np.isnan(auc):
        return NO_INTERVAL
    pairs, other = malignant * benign, (malignant + benign) / 2 - 1

    def excess(theta: float) -> float:
        shape = 1 + other * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float((auc - theta) ** 2 - NORMAL**2 * theta * (1 - theta) * shape / pairs)

    # At the edges themselves the variance is 0, so that an AUC there is a root of its own.
    low = brentq(excess, 0.0, auc - _INNERMOST, xtol=_ROOT) if auc > _INNERMOST else 0.0
    high = brentq(excess, auc + _INNERMOST, 1.0, xtol=_ROOT) if auc < 1 - _INNERMOST else 1.0
    return Interval(float(low), float(high))


def cluster_numbers(cluster: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Number of each image's patient, from 0 in sorted order, (n,).

    Args:
        cluster: (n,), the patient (or group) of each image; any sortable type.
        n: number of images.

    Raises:
        ValueError: `cluster` is not of shape (n,).
    """
    number = np.unique(np.asarray(cluster), return_inverse=True)[1]
    if number.shape != (n,):
        msg = f"cluster must be of shape {(n,)}, found {number.shape}"
        raise ValueError(msg)
    return np.asarray(number, dtype=np.int64)


def clusters_of(rows: BoolArray, cluster: npt.NDArray[np.generic]) -> int:
    """Number of patients among some rows.

    Args:
        rows: (n,), which rows.
        cluster: (n,), the patient of each.
    """
    return int(np.unique(cluster[rows]).size)


def f1_interval(label: AnyIntArray, calls: BoolArray, cluster: npt.NDArray[np.generic]) -> Interval:
    """Interval of F1 with patients as the independent units.

    F1 is no proportion, but grows with one: F1 = 2 J / (1 + J), with J the share of hits among the
    images that are malignant or called so.

    Args:
        label: (n,), 0 or 1.
        calls: (n,), whether the image is called malignant.
        cluster: (n,), the patient of each image.
    """
    either = calls | (label == 1)
    share: AnyFloatArray = np.array(
        proportion_interval((calls & (label == 1))[either], cluster[either])
    )
    low, high = 2 * share / (1 + share)
    return Interval(float(low), float(high))
