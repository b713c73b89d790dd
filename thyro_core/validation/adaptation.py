"""What a local recalibration, and a local threshold, would have given: cross-fitted, and marked."""

from dataclasses import dataclass

import numpy as np

from thyro_core.evaluation.calibration import (
    FOLDS,
    LogisticCalibration,
    fit_calibration,
    group_folds,
)
from thyro_core.evaluation.threshold import bounded_threshold
from thyro_core.types import FloatArray
from thyro_core.validation.sample import Sample


@dataclass(frozen=True)
class Adaptation:
    """The local fits of all images, and each image by fits on other groups; n images."""

    calibration: LogisticCalibration | None
    """What would be used; None: a class lacks."""
    threshold: float
    """Raw probability of the ensemble that would be used; NaN: no image is malignant."""
    is_met: bool
    """Whether its sensitivity is shown to reach the target."""
    local_probability: FloatArray
    """(n,), probability by a fit on other groups; NaN: a class lacks there."""
    threshold_margin: FloatArray
    """(n,), log odds from which it is called malignant, chosen on other groups; NaN: as above."""


def adapt(sample: Sample, sensitivity: float) -> Adaptation:
    """Slope and intercept, and a threshold, of the images' own, each judged on other groups.

    Args:
        sample: the scored images.
        sensitivity: the one that the model's threshold was chosen for.
    """
    ensemble = sample.ensemble
    local_probability, margin = np.full((2, ensemble.label.size), np.nan)
    if len(set(ensemble.label.tolist())) < 2:
        return Adaptation(None, float("nan"), False, local_probability, margin)
    fold = group_folds(ensemble)
    for part in range(FOLDS):
        inside = fold == part
        others = ensemble.part(~inside)
        if len(set(others.label.tolist())) < 2:
            continue
        fit = fit_calibration(others.label, others.margin)
        local_probability[inside] = fit.probability(ensemble.margin[inside])
        choice = bounded_threshold(others.label, others.margin, others.unit, sensitivity)
        margin[inside] = choice.threshold
    choice = bounded_threshold(ensemble.label, ensemble.margin, ensemble.unit, sensitivity)
    return Adaptation(
        fit_calibration(ensemble.label, ensemble.margin),
        float(1 / (1 + np.exp(-choice.threshold))),
        choice.is_met,
        local_probability,
        margin,
    )
