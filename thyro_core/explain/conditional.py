"""Does a feature of the highlighted region differ by class among images of the same score?

The size of a Grad-CAM map follows the network's score, so a feature that is nothing but a function
of the score differs by class for any classifier above chance. Only a difference that remains given
the score says more than the score does.

Estimand and unit: the log odds ratio of malignant per standard deviation of the feature, between
images that one network gives the same score; every patient counts once, however many images and
splits hold it. It is conditional on the networks of the study.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from thyro_core.types import AnyIntArray, BoolArray, FloatArray

LEAST_PATIENTS = 5
"""Fewest patients of a class, where scores of both classes lie, with which a test is made."""

# Restricted cubic spline with four knots at these quantiles (Harrell 2001, table 2.3).
_KNOTS = stats.norm.ppf((0.05, 0.35, 0.65, 0.95))
_RIDGE = 1e-4
_STEPS = 50
_TOLERANCE = 1e-9
_COLLINEAR = 1e-6
_LARGEST_LOGIT = 30.0
_LARGEST_STEP = 5.0


class ConditionalTest(NamedTuple):
    """Malignant against benign given the score; NaN where it cannot be tested."""

    odds_ratio: float
    """Of malignant, per standard deviation (of ranks) of the feature; above 1: larger in
    malignant."""
    p: float


class ScoredImages(NamedTuple):
    """Test images x splits, (n,) each."""

    split: AnyIntArray
    patient: AnyIntArray
    """Number of the patient, any numbering."""
    label: AnyIntArray
    """0 or 1."""
    score: FloatArray
    """The network's log odds of malignant."""

    def subset(self, rows: BoolArray | AnyIntArray) -> "ScoredImages":
        """Some of the rows."""
        return ScoredImages(
            self.split[rows], self.patient[rows], self.label[rows], self.score[rows]
        )


def conditional_test(images: ScoredImages, feature: FloatArray) -> ConditionalTest:
    """Test one feature given the score: logistic model class ~ spline(score) + feature.

    Score and feature enter as normal scores of their ranks within each split, because networks of
    different splits differ in the scale of both; the score enters as a restricted cubic spline
    with four knots (Stone and Koo 1985; Harrell 2001), because a straight line would leave what
    the score explains to the feature. Rows of a patient share a weight of one. P is two-sided, of
    the score test of the feature's coefficient, with a variance that takes patients for
    independent and nothing within them (Liang and Zeger 1986; Boos 1992): the sum of each
    patient's contributions over the root of their sum of squares, against t with one degree of
    freedom less than there are patients.

    Args:
        images: the test images of all splits, of one architecture.
        feature: (n,); rows that are not finite are left out.

    Returns:
        NaN where the scores of both classes overlap with fewer than `LEAST_PATIENTS` of a class,
        or where the feature is a function of the score.
    """
    no_test = ConditionalTest(np.nan, np.nan)
    is_defined = np.isfinite(feature)
    rows, values = images.subset(is_defined), feature[is_defined]
    if not values.size:
        return no_test
    _, place = np.unique(rows.patient, return_inverse=True)
    overlap = _overlap(rows)
    patients = [len(np.unique(place[overlap & (rows.label == label)])) for label in (0, 1)]
    if min(patients) < LEAST_PATIENTS:
        return no_test
    weight = 1 / np.bincount(place)[place]
    control = _spline(normal_scores(rows.score, rows.split))
    score_only = _logistic_fit(control, rows.label, weight)
    p = _probability(control @ score_only)
    information = weight * p * (1 - p)
    x = normal_scores(values, rows.split)
    root = np.sqrt(information)
    slope, *_ = np.linalg.lstsq(control * root[:, None], x * root, rcond=None)
    rest = x - control @ slope
    if information @ rest**2 <= _COLLINEAR * (information @ x**2):
        return no_test
    parts = np.bincount(place, weight * (rows.label - p) * rest)
    t = parts.sum() / np.sqrt((parts**2).sum())
    coefficients = _logistic_fit(np.column_stack([control, rest]), rows.label, weight)
    p_value = 2 * stats.t.sf(abs(t), len(parts) - 1)
    return ConditionalTest(float(np.exp(coefficients[-1])), float(p_value))


def _overlap(rows: ScoredImages) -> BoolArray:
    """Rows from their split's lowest malignant score to its highest benign one."""
    inside = np.zeros(len(rows.score), dtype=np.bool_)
    for number in np.unique(rows.split):
        own = rows.split == number
        malignant, benign = (rows.score[own & (rows.label == label)] for label in (1, 0))
        if malignant.size and benign.size:
            inside |= own & (rows.score >= malignant.min()) & (rows.score <= benign.max())
    return inside


def normal_scores(values: FloatArray, split: AnyIntArray) -> FloatArray:
    """Each value's rank among those of its split as a quantile of the normal distribution.

    The rank r of n becomes the quantile of (r - 1/2) / n (Hazen 1914); ties take their mean rank.
    """
    scores = np.empty(len(values))
    for number in np.unique(split):
        rows = split == number
        ranks = stats.rankdata(values[rows])
        scores[rows] = stats.norm.ppf((ranks - 0.5) / len(ranks))
    return scores


def _spline(z: FloatArray) -> FloatArray:
    """Intercept, z, and two cubic terms that are straight beyond the outer knots, (n, 4)."""

    def cubes(knot: float) -> FloatArray:
        return np.asarray(np.clip(z - knot, 0, None) ** 3)

    *inner, before, last = _KNOTS
    columns = [np.ones_like(z), z]
    for knot in inner:
        bend = cubes(knot) - cubes(before) * (last - knot) / (last - before)
        bend += cubes(last) * (before - knot) / (last - before)
        columns.append(bend / (last - _KNOTS[0]) ** 2)
    return np.column_stack(columns)


def _probability(logits: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT))))


def _logistic_fit(design: FloatArray, label: AnyIntArray, weight: FloatArray) -> FloatArray:
    """Coefficients by Newton's method; a ridge too weak to matter keeps separable data finite."""
    penalty = np.full(design.shape[1], _RIDGE * weight.sum())
    penalty[0] = 0
    coefficients = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        p = _probability(design @ coefficients)
        slope = design.T @ (weight * (label - p)) - penalty * coefficients
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty + _TOLERANCE), slope)
        # Far steps overshoot where classes separate.
        step *= min(1.0, _LARGEST_STEP / max(float(np.abs(step).max()), _TOLERANCE))
        coefficients += step
        if np.abs(step).max() < _TOLERANCE:
            break
    return coefficients
