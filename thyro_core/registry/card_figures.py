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
from thyro_core.registry.card import Calibration, Data, Figure, Fit, OperatingPoint

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


def calibration_figures(rows: OutOfFoldPredictions) -> Calibration:
    """The temperature, and calibration before and after it.

    Args:
        rows: held-out predictions.
    """
    temperature = fit_temperature(rows.label, rows.margin)
    crossed = cross_fitted_calibration(rows)
    return Calibration(
        temperature=temperature,
        before=_fit(calibration_quality(rows.label, rows.margin, 1.0)),
        after=_fit(calibration_quality(rows.label, rows.margin, temperature)),
        cross_fitted_before=_fit(crossed.before),
        cross_fitted_after=_fit(crossed.after),
        cross_fitted_n=crossed.n,
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
    found = cross_fitted_threshold(rows, probability, sensitivity)
    return OperatingPoint(
        method=METHOD,
        target_sensitivity=sensitivity,
        threshold=threshold,
        sensitivity=_figure(found.sensitivity),
        specificity=_figure(found.specificity),
        image_sensitivity=_figure(found.image_sensitivity),
        image_specificity=_figure(found.image_specificity),
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


def data_figures(manifest_id: str, splits: pa.Table) -> Data:
    """How many images of what kind took part, and the hash of which.

    Args:
        manifest_id: their manifest.
        splits: a study's table `splits`.
    """
    rows = splits.select(["image_id", "patient_id", "label"]).to_pylist()
    labels = {row["image_id"]: row["label"] for row in rows}
    text = "".join(f"{image_id} {labels[image_id]}\n" for image_id in sorted(labels))
    return Data(
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
    found: dict[str, set[str]] = {}
    for text in runs["versions"].to_pylist():
        for name, version in json.loads(text or "{}").items():
            found.setdefault(name, set()).add(version)
    commits = sorted(set(runs["git_commit"].to_pylist()) - {None})
    return {name: ", ".join(sorted(each)) for name, each in sorted(found.items())}, tuple(commits)


def warnings_of(
    rows: OutOfFoldPredictions, fitted: Calibration, point: OperatingPoint
) -> list[str]:
    """What a reader of the card must not miss of its calibration and its threshold."""
    found = []
    if fitted.temperature in {LOWEST, HIGHEST}:
        found.append(
            f"the temperature is at its bound {fitted.temperature:g}: held-out images are "
            "separated perfectly, or not at all; look for leakage first"
        )
    found += [
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
        found.append(
            f"{malignant} malignant images are too few to tell a sensitivity of "
            f"{point.target_sensitivity:g} from 1"
        )
    return found


def number(value: float | None) -> float | None:
    """A figure as JSON can hold it: undefined is null."""
    return None if value is None or math.isnan(value) else float(value)


def _figure(found: MeanInterval | Proportion) -> Figure:
    value = found.mean if isinstance(found, MeanInterval) else found.value
    return Figure(value=number(value), low=number(found.low), high=number(found.high), n=found.n)


def _fit(found: CalibrationFigures) -> Fit:
    return Fit(**{name: number(value) for name, value in found._asdict().items()})
