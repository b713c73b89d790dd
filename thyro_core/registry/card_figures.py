"""The figures of a card, worked out from a study's tables."""

import hashlib
import json
import math

import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    CalibrationFigures,
    calibration_quality,
    cross_fitted_calibration,
    fit_temperature,
)
from thyro_core.evaluation.metrics import METRICS
from thyro_core.evaluation.out_of_fold import OutOfFoldPredictions
from thyro_core.evaluation.threshold import Proportion, cross_fitted_threshold, threshold_for
from thyro_core.evaluation.uncertainty import MeanInterval
from thyro_core.registry.card import CardCalibration, CardData, CardFit, Figure, OperatingPoint

_CLOSE = 0.02  # by which an estimate may fall short of the target without a warning

METHOD = (
    "Largest threshold that reaches the target sensitivity on all held-out predictions: each is "
    "one member's, of an image it was not trained on, temperature scaled; an image counts once "
    "for each split that tested it. Sensitivity and specificity are cross-fitted: each split is "
    "judged by a threshold chosen on other splits' predictions of other images and groups. In "
    "use the mean over all members is compared with it, which varies less than one member's "
    "probability; expect figures near these, and check them on your own images."
)
"""How the threshold is chosen and judged."""


def calibration_figures(rows: OutOfFoldPredictions) -> CardCalibration:
    """The temperature, and calibration before and after it.

    Args:
        rows: held-out predictions.
    """
    temperature = fit_temperature(rows.label, rows.margin)
    cross_fitted = cross_fitted_calibration(rows)
    return CardCalibration(
        temperature=temperature,
        before=_card_fit(calibration_quality(rows.label, rows.margin, 1.0)),
        after=_card_fit(calibration_quality(rows.label, rows.margin, temperature)),
        cross_fitted_before=_card_fit(cross_fitted.before),
        cross_fitted_after=_card_fit(cross_fitted.after),
        cross_fitted_n=cross_fitted.n,
    )


def operating_figures(
    rows: OutOfFoldPredictions, temperature: float, sensitivity: float
) -> OperatingPoint:
    """The threshold, and what it does on images that did not choose it.

    Args:
        rows: held-out predictions.
        temperature: what their logits are divided by.
        sensitivity: the declared one.

    Raises:
        InputError: no held-out image is malignant.
    """
    probability = rows.probability(temperature)
    threshold = threshold_for(rows.label, probability, sensitivity)
    if math.isnan(threshold):
        msg = "expected malignant images among the held-out predictions, found none; add some"
        raise InputError(msg)
    point = cross_fitted_threshold(rows, probability, sensitivity)
    return OperatingPoint(
        method=METHOD,
        target_sensitivity=sensitivity,
        threshold=threshold,
        sensitivity=_figure(point.sensitivity),
        specificity=_figure(point.specificity),
        image_sensitivity=_figure(point.image_sensitivity),
        image_specificity=_figure(point.image_specificity),
    )


def metric_figures(metrics: pa.Table, architecture: str) -> dict[str, Figure]:
    """The ten metrics over splits.

    Args:
        metrics: a study's table `metrics`.
        architecture: which network's.
    """
    over = metrics.filter(
        pc.and_(pc.is_null(metrics["split"]), pc.equal(metrics["architecture"], architecture))
    )
    rows = {row["metric"]: row for row in over.to_pylist()}
    return {
        name: Figure(
            value=number(rows[name]["value"]),
            low=number(rows[name]["ci_low"]),
            high=number(rows[name]["ci_high"]),
            n=rows[name]["n"],
        )
        for name in METRICS
    }


def data_figures(manifest_id: str, splits: pa.Table) -> CardData:
    """How many images of what kind took part, and the hash of which.

    Args:
        manifest_id: their manifest.
        splits: a study's table `splits`.
    """
    rows = splits.select(["image_id", "patient_id", "label"]).to_pylist()
    labels = {row["image_id"]: row["label"] for row in rows}
    text = "".join(f"{image_id} {labels[image_id]}\n" for image_id in sorted(labels))
    return CardData(
        manifest_id=manifest_id,
        images=len(labels),
        malignant=sum(labels.values()),
        patients=len({row["patient_id"] for row in rows} - {None}),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def versions_of(runs: pa.Table) -> tuple[dict[str, str], tuple[str, ...]]:
    """Versions of what trained the members, and the program's commits; several if they differ.

    Args:
        runs: the members' rows of the table `runs`.
    """
    versions: dict[str, set[str]] = {}
    for text in runs["versions"].to_pylist():
        for name, version in json.loads(text or "{}").items():
            versions.setdefault(name, set()).add(version)
    commits = sorted(set(runs["git_commit"].to_pylist()) - {None})
    return {name: ", ".join(sorted(each)) for name, each in sorted(versions.items())}, tuple(
        commits
    )


def warnings_of(
    rows: OutOfFoldPredictions, calibration: CardCalibration, point: OperatingPoint
) -> list[str]:
    """What a reader of the card must not miss of its calibration and its threshold."""
    warnings = []
    if calibration.temperature in {LOWEST, HIGHEST}:
        warnings.append(
            f"the temperature is at its bound {calibration.temperature:g}: held-out images are "
            "separated perfectly, or not at all; look for leakage first"
        )
    warnings += [
        f"the cross-fitted {name.replace('_', ' ')} {figure.value:.3f} is below the declared "
        f"{point.target_sensitivity:g}: expect the threshold to miss more than it aims to"
        for name, figure in (
            ("sensitivity", point.sensitivity),
            ("image_sensitivity", point.image_sensitivity),
        )
        if figure.value is not None and figure.value < point.target_sensitivity - _CLOSE
    ]
    malignant = len(set(rows.image[rows.label == 1]))
    if malignant * (1 - point.target_sensitivity) < 1:
        warnings.append(
            f"{malignant} malignant images are too few to tell a sensitivity of "
            f"{point.target_sensitivity:g} from 1"
        )
    return warnings


def number(value: float | None) -> float | None:
    """A figure as JSON can hold it: undefined is null."""
    return None if value is None or math.isnan(value) else float(value)


def _figure(interval: MeanInterval | Proportion) -> Figure:
    value = interval.mean if isinstance(interval, MeanInterval) else interval.value
    return Figure(
        value=number(value), low=number(interval.low), high=number(interval.high), n=interval.n
    )


def _card_fit(figures: CalibrationFigures) -> CardFit:
    return CardFit(**{name: number(value) for name, value in figures._asdict().items()})
