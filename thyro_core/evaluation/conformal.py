"""Bands by class-conditional (Mondrian) conformal prediction: refer, review and routine.

A class is plausible for an image as long as its conformal p value exceeds the declared share. The
units that are taken as exchangeable are patients, each with the image of a class that is least
like it: their most benign-looking malignant image, and their most malignant-looking benign one.
A patient's other images of the class are more like it, so that the share holds for any image of
the class that a new patient has, however alike and however many these are: of patients with
malignant images at most so many have a malignant image called routine. Where a patient has images
of both classes, each promise is of those of its own class; a benign one may be routine (Vovk 2013
for the p value within a class; Dunn, Wasserman and Ramdas 2023 for patients with several images).
"""

import math
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from thyro_core.evaluation.out_of_fold import Ids
from thyro_core.types import AnyFloatArray, BoolArray, FloatArray, IntArray

ScoreBand = Literal["refer", "review", "routine"]


class BandCuts(NamedTuple):
    """Where the bands begin, on the scale of the scores."""

    routine_below: float
    """Malignant is implausible below it."""
    refer_above: float
    """Benign is implausible above it."""


class BreachShare(NamedTuple):
    """Patients with an image of a class in the band that the class was promised to be kept from."""

    patients: int
    """With such an image of the class."""
    n: int
    """With an image of the class."""
    low: float
    """Lower end of the 95 % interval of their share (Clopper and Pearson 1934); NaN: n is 0."""
    high: float
    p: float
    """Probability of as many or more of them, were these patients exchangeable with those of the
    calibration; NaN: n is 0."""

    @property
    def value(self) -> float:
        """The share; NaN: n is 0."""
        return self.patients / self.n if self.n else math.nan


def least_calibration_patients(share: float) -> int:
    """Patients of a class from which on a share can be promised: 1 / share - 1, rounded up."""
    return math.ceil(1 / _exact(share) - 1)


def extreme_scores(score: FloatArray, unit: Ids, *, malignant: bool) -> FloatArray:
    """Each patient's score that is least like the class, ascending.

    Args:
        score: (n,), of images of one class; larger: rather malignant.
        unit: (n,), patient or group.
        malignant: the class.

    Returns:
        (k,), one for each patient.
    """
    units, place = np.unique(unit.astype(str), return_inverse=True)
    extremes = np.full(len(units), np.inf if malignant else -np.inf)
    (np.minimum if malignant else np.maximum).at(extremes, place, score)
    return np.sort(extremes)


def band_cuts(
    label: IntArray, score: FloatArray, unit: Ids, *, routine_share: float, refer_share: float
) -> BandCuts:
    """The scores at which the p value of a class passes its share.

    The conformal p value of a score is (1 + patients with an image of the class at least as unlike
    the class) / (patients + 1).

    Args:
        label: (n,), 0 or 1.
        score: (n,), larger: rather malignant.
        unit: (n,), patient or group.
        routine_share: of patients with malignant images, bound on the share of those with a
            malignant image called routine.
        refer_share: of patients with benign images, bound on the share of those with a benign
            image called refer.

    Raises:
        ValueError: a score is not finite, or a class has too few patients for its share.
    """
    if not np.isfinite(score).all():
        msg = f"expected finite scores, found {np.count_nonzero(~np.isfinite(score))} others"
        raise ValueError(msg)
    malignant = extreme_scores(score[label == 1], unit[label == 1], malignant=True)
    benign = extreme_scores(score[label == 0], unit[label == 0], malignant=False)
    below, above = (
        unlike_patients(len(extremes), share)
        for extremes, share in ((malignant, routine_share), (benign, refer_share))
    )
    if below < 0 or above < 0:
        msg = (
            f"expected {least_calibration_patients(routine_share)} malignant and "
            f"{least_calibration_patients(refer_share)} benign patients, found {len(malignant)} "
            f"and {len(benign)}"
        )
        raise ValueError(msg)
    return BandCuts(float(malignant[below]), float(benign[len(benign) - 1 - above]))


def unlike_patients(n: int, share: float) -> int:
    """Most calibration patients at least as unlike the class for which it is implausible.

    Args:
        n: calibration patients of the class.
        share: the declared one.

    Returns:
        -1: n patients cannot promise this share.
    """
    return math.floor(_exact(share) * (n + 1)) - 1


def score_band(score: float, cuts: BandCuts) -> tuple[ScoreBand, str | None]:
    """The band of a score, and the reason of a review.

    Args:
        score: on the scale of the cuts.
        cuts: where the bands begin.
    """
    malignant, benign = score >= cuts.routine_below, score <= cuts.refer_above
    if malignant == benign:
        return "review", "both_plausible" if malignant else "neither_plausible"
    return ("refer", None) if malignant else ("routine", None)


def score_bands(score: AnyFloatArray, cuts: BandCuts) -> Ids:
    """The band of each score.

    Args:
        score: (n,).
        cuts: where the bands begin.

    Returns:
        (n,), strings.
    """
    return np.array([score_band(float(value), cuts)[0] for value in score], dtype=object)


def breach_share(is_called: BoolArray, unit: Ids, *, calibration: int, share: float) -> BreachShare:
    """What became of a promise on other patients with images of the class.

    Exchangeable with the calibration patients, the number of new ones beyond the cut, which is one
    of their order statistics, is beta-binomial; a band that takes fewer images than the cut keeps
    the test valid.

    Args:
        is_called: (n,), for each image of the class: whether it is in the band.
        unit: (n,), patient or group.
        calibration: patients of the class that the cut was chosen on.
        share: the declared one.
    """
    units, place = np.unique(unit.astype(str), return_inverse=True)
    n = len(units)
    if not n:
        return BreachShare(0, 0, math.nan, math.nan, math.nan)
    patients = int(np.count_nonzero(np.bincount(place, weights=is_called)))
    below = unlike_patients(calibration, share)
    law = stats.betabinom(n, below + 1, calibration - below)
    return BreachShare(
        patients,
        n,
        low=float(stats.beta.ppf(0.025, patients, n - patients + 1)) if patients else 0.0,
        high=float(stats.beta.ppf(0.975, patients + 1, n - patients)) if patients < n else 1.0,
        p=float(law.sf(patients - 1)),
    )


def _exact(share: float) -> Fraction:
    """The decimal number that was declared: 0.29 x 100 is 29, and not a little less."""
    return Fraction(str(share))
