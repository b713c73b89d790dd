"""Probabilities that fit: slope and intercept on the ensemble's log odds, fitted out of fold.

A class-balanced loss shifts every log odds by a constant, which one temperature cannot undo: both
a slope and an intercept are fitted (Platt 1999; Cox 1958). The ranking, and so the AUC, stays.
They are fitted for scores of all networks, though out of fold an image has fewer (`member_count`).
Figures of calibrated probabilities are cross-fitted: no image's group takes part in the fit that
its probability comes from.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.member_count import MemberVariance, class_variances
from thyro_core.evaluation.out_of_fold import Ids, OutOfFoldEnsemble, ensemble_margin, sigmoid
from thyro_core.types import AnyIntArray, FloatArray, IntArray

LEAST_SLOPE = 0.01
"""Smallest slope that is applied: the ranking of the networks is kept, whatever its worth."""

FOLDS = 10
"""Parts of the groups in cross-fitting."""

_STEPS, _CLOSE, _LONGEST_STEP = 200, 1e-10, 2.0
# Networks compute in float32: a relative spread below this is rounding.
_ROUNDING = 1e-6


class LogisticCalibration(NamedTuple):
    """Calibrated log odds = intercept + slope x log odds of the ensemble."""

    slope: float
    intercept: float

    def probability(self, margin: npt.NDArray[np.floating]) -> FloatArray:
        """Calibrated probability of malignant.

        Args:
            margin: any shape, log odds.
        """
        return sigmoid(self.intercept + self.slope * np.asarray(margin, dtype=np.float64))

    def ensemble_probability(self, margins: npt.NDArray[np.floating]) -> FloatArray:
        """Calibrated probability of an ensemble.

        Args:
            margins: (..., m), log odds of each member.

        Returns:
            (...).
        """
        return self.probability(ensemble_margin(margins))


class TemperatureCalibration(NamedTuple):
    """Log odds of each member / temperature (Guo et al. 2017): what cards of version 1 have."""

    temperature: float

    def probability(self, margin: npt.NDArray[np.floating]) -> FloatArray:
        """A member's scaled probability of malignant.

        Args:
            margin: any shape, log odds.
        """
        return sigmoid(np.asarray(margin, dtype=np.float64) / self.temperature)

    def ensemble_probability(self, margins: npt.NDArray[np.floating]) -> FloatArray:
        """Mean over members of their scaled probability.

        Args:
            margins: (..., m), log odds of each member.

        Returns:
            (...).
        """
        return np.asarray(self.probability(margins).mean(axis=-1))


Calibration = LogisticCalibration | TemperatureCalibration
"""What a promoted model's log odds go through."""


class IntervalEstimate(NamedTuple):
    """A figure with its 95 % interval; NaN: undefined."""

    value: float
    low: float
    high: float


class CalibrationQuality(NamedTuple):
    """How well probabilities fit the labels, patients taken as independent; NaN: undefined."""

    brier: IntervalEstimate
    """Mean squared error of the probability."""
    skill: IntervalEstimate
    """1 - Brier / Brier of the prevalence model; below 0: worse than saying the prevalence."""
    nll: IntervalEstimate
    """Mean negative log-likelihood [nats]."""
    slope: IntervalEstimate
    """Of a logistic regression of the label on the log odds (Cox 1958); 1: fits, below 1: the
    probabilities are too extreme."""
    intercept: IntervalEstimate
    """Of that regression with the slope fixed at 1; 0: fits, below 0: too high on average."""
    observed_expected: IntervalEstimate
    """Malignant images over the sum of their probabilities; 1: fits."""


class CrossFit(NamedTuple):
    """Probabilities whose fit an image's own group took no part in; NaN: a class lacked there."""

    probability: FloatArray
    """(m,)."""
    prevalence: FloatArray
    """(m,), share of malignant images among the others: the model that sees no image."""


class EnsembleFit(NamedTuple):
    """A calibration for the ensemble in use, and the same fit for out-of-fold scores."""

    calibration: LogisticCalibration
    """Of scores of all networks."""
    out_of_fold: LogisticCalibration
    """Of `equivalent` scores: the same slope."""
    variance: MemberVariance

    def probability(self, ensemble: OutOfFoldEnsemble) -> FloatArray:
        """Calibrated probability of images that few of the networks scored.

        Args:
            ensemble: m images, those of the fit or others of the same networks.

        Returns:
            (m,).
        """
        equivalent = self.variance.equivalent(ensemble.margin, ensemble.members)
        return self.out_of_fold.probability(equivalent)


def fit_ensemble(ensemble: OutOfFoldEnsemble) -> EnsembleFit:
    """The calibration of the ensemble of all networks, from out-of-fold scores of fewer.

    The label is regressed on the scores of all networks that say as much as those of the few
    (`MemberVariance.equivalent`), so that what is fitted is the probability itself that
    `EnsembleFit.probability` gives. Scores in use take that slope. Their intercept gives scores
    that spread in each class as theirs do the prevalence as mean probability: with classes of one
    variance it is that of the regression, with others that one would be off.

    Args:
        ensemble: images of both classes.

    Raises:
        ValueError: see `fit_calibration`.
    """
    label = ensemble.label
    _require_both_classes(label, ensemble.margin)
    variances = class_variances(ensemble)
    equivalent = variances.midway.equivalent(ensemble.margin, ensemble.members)
    out_of_fold = fit_calibration(label, equivalent)
    slope = out_of_fold.slope
    intercept = _offset_intercept(label, slope * variances.rescale(ensemble))
    return EnsembleFit(LogisticCalibration(slope, intercept), out_of_fold, variances.midway)


def fit_calibration(label: IntArray, margin: FloatArray) -> LogisticCalibration:
    """Slope and intercept of the label's log odds on a score's.

    Logistic regression with Firth's penalty (Biometrika 1993), which stays finite where the
    classes are separated (Heinze and Schemper 2002); the intercept is then set so that the mean
    probability is the prevalence (Puhr, Heinze, Nold, Lusa and Geroldinger 2017). A slope below
    `LEAST_SLOPE` is raised to it.

    Args:
        label: (n,), 0 or 1; both occur.
        margin: (n,), log odds of malignant.

    Raises:
        ValueError: a class lacks, or a margin is not finite.
    """
    _require_both_classes(label, margin)
    # Centred and in units of its spread: the steps of the search then mean the same for any scale.
    centre, unit = float(margin.mean()), float(margin.std())
    if unit <= _ROUNDING * max(1.0, abs(centre)):
        unit = 1.0
    x = (margin - centre) / unit
    slope = max(_firth_slope(label, x) / unit, LEAST_SLOPE)
    return LogisticCalibration(slope, _offset_intercept(label, slope * margin))


def _require_both_classes(label: IntArray, margin: FloatArray) -> None:
    if label.shape != margin.shape or not np.isfinite(margin).all() or len(set(label)) != 2:
        msg = (
            f"expected images of both classes, each with a finite margin, found {margin.shape} "
            f"margins for labels {sorted(set(label.tolist()))} of shape {label.shape}"
        )
        raise ValueError(msg)


def _firth_slope(label: IntArray, x: FloatArray) -> float:
    design = np.stack([np.ones(x.size), x], axis=1)
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = sigmoid(design @ beta)
        weighted_design = design * (p * (1 - p))[:, None]
        covariance = np.linalg.pinv(design.T @ weighted_design)
        leverage = np.einsum("ij,jk,ik->i", weighted_design, covariance, design)
        step = covariance @ (design.T @ (label - p + leverage * (0.5 - p)))
        longest = float(np.abs(step).max())
        beta = beta + step * min(1.0, _LONGEST_STEP / max(longest, _CLOSE))
        if longest < _CLOSE:
            break
    return float(beta[1])


def _offset_intercept(label: IntArray, margin: FloatArray) -> float:
    """The constant on the log odds at which the mean probability is the prevalence."""
    low, high = -float(margin.max()) - 40.0, -float(margin.min()) + 40.0
    share = float(label.mean())
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if float(sigmoid(margin + middle).mean()) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def group_folds(ensemble: OutOfFoldEnsemble) -> IntArray:
    """The part, of `FOLDS`, that each image belongs to, (m,); groups stay whole.

    Groups are dealt to the parts in the order of their ids, those with a malignant image first, so
    that parts are alike in size and prevalence, and no draw is needed.

    Args:
        ensemble: m images.
    """
    groups, place = np.unique(ensemble.group.astype(str), return_inverse=True)
    malignant = np.bincount(place, weights=ensemble.label, minlength=len(groups)) > 0
    order = np.lexsort((np.arange(len(groups)), ~malignant))
    fold = np.empty(len(groups), dtype=np.int64)
    fold[order] = np.arange(len(groups)) % FOLDS
    return np.asarray(fold[place])


def cross_fit(ensemble: OutOfFoldEnsemble) -> CrossFit:
    """Calibrated probabilities, each by a fit on other groups (`group_folds`).

    Args:
        ensemble: m images.
    """
    fold = group_folds(ensemble)
    probability, prevalence = np.full((2, ensemble.label.size), np.nan)
    for part in range(FOLDS):
        inside = fold == part
        others = ensemble.part(~inside)
        if len(set(others.label.tolist())) < 2:
            continue
        probability[inside] = fit_ensemble(others).probability(ensemble.part(inside))
        prevalence[inside] = others.label.mean()
    return CrossFit(probability, prevalence)


def calibration_quality(
    label: IntArray, probability: FloatArray, reference: FloatArray, unit: Ids
) -> CalibrationQuality:
    """How well probabilities fit the labels, with 95 % intervals over units.

    Variances are sums over units of squared influences (the sandwich of Huber 1967, clustered as
    by Liang and Zeger 1986, with G / (G - 1)); intervals are t intervals with G - 1 degrees of
    freedom, that of observed over expected on the log scale. They hold for these networks: they
    say nothing of how other networks would do.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        reference: (n,), the prevalence model's.
        unit: (n,), patient or group: what is independent.
    """
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    margin = np.log(p) - np.log1p(-p)
    square, square_of_reference = (probability - label) ** 2, (reference - label) ** 2
    loss = np.logaddexp(0.0, np.where(label == 1, -margin, margin))
    ratio = float(square.mean() / square_of_reference.mean())
    skill = -(square - ratio * square_of_reference) / square_of_reference.mean() / label.size
    slope, intercept = _recalibration(label, margin, unit)
    return CalibrationQuality(
        brier=unit_interval(float(square.mean()), (square - square.mean()) / label.size, unit),
        skill=unit_interval(1 - ratio, skill, unit),
        nll=unit_interval(float(loss.mean()), (loss - loss.mean()) / label.size, unit),
        slope=slope,
        intercept=intercept,
        observed_expected=_observed_expected(label, probability, unit),
    )


def _observed_expected(label: IntArray, probability: FloatArray, unit: Ids) -> IntervalEstimate:
    observed_count, expected_count = float(label.sum()), float(probability.sum())
    if not observed_count or not expected_count:
        value = observed_count / expected_count if expected_count else math.nan
        return IntervalEstimate(value, math.nan, math.nan)
    log = math.log(observed_count / expected_count)
    estimate = unit_interval(log, label / observed_count - probability / expected_count, unit)
    return IntervalEstimate(*(math.exp(value) for value in estimate))


def _recalibration(
    label: IntArray, margin: FloatArray, unit: Ids
) -> tuple[IntervalEstimate, IntervalEstimate]:
    """Calibration slope, and intercept at slope 1, by maximum likelihood (Cox 1958)."""
    no_estimate = IntervalEstimate(math.nan, math.nan, math.nan)
    if len(set(label.tolist())) < 2:
        return no_estimate, no_estimate
    constant = _offset_intercept(label, margin)
    p = sigmoid(margin + constant)
    spread = float((p * (1 - p)).sum())
    intercept = unit_interval(constant, (label - p) / spread, unit)
    if _is_separated(label, margin):
        return no_estimate, intercept
    beta = _maximum_likelihood(label, margin)
    design = np.stack([np.ones(margin.size), margin], axis=1)
    p = sigmoid(design @ beta)
    covariance = np.linalg.pinv(design.T @ (design * (p * (1 - p))[:, None]))
    influence = (design * (label - p)[:, None]) @ covariance
    return unit_interval(float(beta[1]), influence[:, 1], unit), intercept


def _is_separated(label: IntArray, margin: FloatArray) -> bool:
    """Whether some log odds tells the classes apart, or nearly: then no slope is the likeliest."""
    malignant, benign = margin[label == 1], margin[label == 0]
    return bool(
        malignant.min() >= benign.max()
        or benign.min() >= malignant.max()
        or np.ptp(margin) < _CLOSE
    )


def _maximum_likelihood(label: IntArray, margin: FloatArray) -> FloatArray:
    """Intercept and slope of the logistic regression of the label on the log odds."""
    design = np.stack([np.ones(margin.size), margin / float(margin.std())], axis=1)
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = sigmoid(design @ beta)
        information = design.T @ (design * (p * (1 - p))[:, None])
        step = np.linalg.pinv(information) @ (design.T @ (label - p))
        longest = float(np.abs(step).max())
        beta = beta + step * min(1.0, _LONGEST_STEP / max(longest, _CLOSE))
        if longest < _CLOSE:
            break
    return np.asarray(beta / np.array([1.0, float(margin.std())]))


def unit_interval(value: float, influence: FloatArray, unit: Ids) -> IntervalEstimate:
    """An estimate with the t interval of its influences, summed by unit.

    Args:
        value: the estimate.
        influence: (n,), how far each image moves it; they sum to 0.
        unit: (n,), patient or group: what is independent.

    Returns:
        Both ends NaN for fewer than two units.
    """
    _, place = np.unique(unit.astype(str), return_inverse=True)
    error, units = unit_error(influence, place)
    if units < 2:
        return IntervalEstimate(value, math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, units - 1)) * error
    return IntervalEstimate(value, value - half, value + half)


def unit_error(influence: FloatArray, place: AnyIntArray) -> tuple[float, int]:
    """Standard error of an estimate whose units are independent, and the number of units G.

    The sandwich of Huber (1967), clustered as by Liang and Zeger (1986): the root of G / (G - 1)
    times the sum over units of squared sums of influences.

    Args:
        influence: (n,), how far each image moves the estimate; they sum to 0.
        place: (n,), the unit of each image, numbered from 0 without a gap.

    Returns:
        The error is NaN for fewer than two units.
    """
    sums = np.bincount(place, weights=influence)
    units = len(sums)
    if units < 2:
        return math.nan, units
    return math.sqrt(units / (units - 1) * float((sums**2).sum())), units
