"""One temperature that makes probabilities fit: Guo et al. 2017, on held-out logits.

"On Calibration of Modern Neural Networks", ICML 2017, section 4.2: logits are divided by the one
number that minimises the negative log-likelihood. The ranking, and so the AUC, stays as it is.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from thyro_core.evaluation.metrics import weighted_metrics
from thyro_core.evaluation.out_of_fold import OutOfFoldPredictions, sigmoid
from thyro_core.types import FloatArray, IntArray

LOWEST, HIGHEST = 0.25, 10.0
"""Bounds of a temperature. Where held-out classes separate perfectly the best one would be 0, and
every probability exactly 0 or 1."""

_BY_SIZE = 1e-6


class CalibrationFigures(NamedTuple):
    """How well probabilities fit; smaller is better. NaN: undefined."""

    nll: float
    brier: float
    ece: float


class CrossFittedCalibration(NamedTuple):
    """Calibration on splits that did not choose the temperature; means over `n` splits."""

    before: CalibrationFigures
    after: CalibrationFigures
    n: int


def negative_log_likelihood(label: IntArray, margin: FloatArray, temperature: float) -> float:
    """Mean negative log-likelihood of the labels [nats].

    Args:
        label: (n,), 0 or 1.
        margin: (n,), logit of malignant minus logit of benign.
        temperature: above 0.
    """
    sign = np.where(label == 1, 1.0, -1.0)
    return float(np.logaddexp(0.0, -sign * margin / temperature).mean())


def fit_temperature(label: IntArray, margin: FloatArray) -> float:
    """The temperature that minimises the negative log-likelihood, within `LOWEST` to `HIGHEST`.

    The likelihood is convex in 1 / temperature: there is one minimum.

    Args:
        label: (n,), 0 or 1.
        margin: (n,), logit of malignant minus logit of benign.

    Raises:
        ValueError: there is no image, or a margin is not finite.
    """
    if not label.size or label.shape != margin.shape or not np.isfinite(margin).all():
        msg = f"expected finite margins, one a label, found {margin.shape} for {label.shape}"
        raise ValueError(msg)
    optimum = minimize_scalar(
        lambda inverse: negative_log_likelihood(label, margin, math.exp(-inverse)),
        bounds=(-math.log(HIGHEST), -math.log(LOWEST)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    best = math.exp(-float(optimum.x))
    # The search stops just short of a bound.
    for bound in (LOWEST, HIGHEST):
        if abs(best / bound - 1) < _BY_SIZE:
            return bound
    return best


def calibration_quality(
    label: IntArray, margin: FloatArray, temperature: float
) -> CalibrationFigures:
    """How well the probabilities at a temperature fit the labels.

    Brier score and calibration error are those of `thyro_core.evaluation.metrics`.

    Args:
        label: (n,), 0 or 1; at least one.
        margin: (n,), logit of malignant minus logit of benign.
        temperature: above 0.
    """
    once = np.ones((1, label.size))
    values = weighted_metrics(label, sigmoid(margin / temperature), once, 0.5)
    nll = negative_log_likelihood(label, margin, temperature)
    return CalibrationFigures(nll, float(values["brier"][0]), float(values["ece"][0]))


def cross_fitted_calibration(rows: OutOfFoldPredictions) -> CrossFittedCalibration:
    """Calibration before and after, each split's temperature fitted without its images.

    A split all of whose images other splits lack, or share a group with, is left out.

    Args:
        rows: held-out predictions.
    """
    before, after = [], []
    for split in rows.splits:
        inside, outside = rows.inside(split), rows.outside(split)
        if not outside.any():
            continue
        temperature = fit_temperature(rows.label[outside], rows.margin[outside])
        label, margin = rows.label[inside], rows.margin[inside]
        before.append(calibration_quality(label, margin, 1.0))
        after.append(calibration_quality(label, margin, temperature))
    return CrossFittedCalibration(_means(before), _means(after), len(after))


def _means(figures: list[CalibrationFigures]) -> CalibrationFigures:
    if not figures:
        return CalibrationFigures(math.nan, math.nan, math.nan)
    nll, brier, ece = np.mean(np.array(figures), axis=0).tolist()
    return CalibrationFigures(nll, brier, ece)
