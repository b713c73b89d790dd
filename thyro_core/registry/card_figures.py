"""The figures of a card, worked out from a study's tables."""

import hashlib
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.errors import InputError
from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.calibration import (
    LEAST_SLOPE,
    CalibrationQuality,
    IntervalEstimate,
    LogisticCalibration,
    cross_fit,
    fit_ensemble,
)
from thyro_core.evaluation.ensemble import auc_estimate, ensemble_quality
from thyro_core.evaluation.metrics import METRICS
from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble
from thyro_core.evaluation.tables import image_level
from thyro_core.evaluation.threshold import (
    PatientShare,
    bounded_threshold,
    least_patients,
    operating_rates,
)
from thyro_core.registry.card import (
    CandidateCount,
    CardCalibration,
    CardData,
    CardFit,
    EnsembleFigures,
    Figure,
    OperatingPoint,
)

_MOST_REFERRED = 0.9  # share of images; a threshold that refers more saves hardly any reading

ENSEMBLE_METHOD = (
    "Each image once: the mean probability over the members whose split tested it. "
    "Intervals and bounds take patients (groups, where no patient is known) as independent, and "
    "hold for these members. An image has fewer such members than the ensemble in use has: scores "
    "in use spread less, so that the AUC in use tends to be higher, and rates at the threshold "
    "farther from one half, than these figures. The calibration is fitted for all members: out of "
    "fold it takes the log odds that all would give on average, estimated from how far members "
    "differ on an image (regression calibration)."
)
"""What the ensemble's figures are figures of."""

METHOD = (
    "Largest calibrated probability, on these out-of-fold ensemble scores, at which the one-sided "
    "lower confidence bound of the sensitivity reaches the target (Clopper and Pearson; a "
    "tolerance limit, Wilks 1941). Choosing by the bound does not spoil the bound. The sensitivity "
    "itself is apparent: it is that of the very scores by which the threshold was chosen, so that "
    "it lies above the target by construction and says little of other patients; the bound is what "
    "to expect at least. A patient (or group, where none is known) counts once, by the share of "
    "their images. Benign images take no part in the choice."
)
"""How the threshold is chosen and judged."""


def ensemble_figures(ensemble: OutOfFoldEnsemble, members: int) -> EnsembleFigures:
    """The AUC of the ensemble on images that its members were not trained on.

    Args:
        ensemble: out-of-fold scores.
        members: networks of the ensemble in use.
    """
    return EnsembleFigures(
        method=ENSEMBLE_METHOD,
        auc=_figure(
            auc_estimate(ensemble.label, ensemble.margin, ensemble.unit), ensemble.label.size
        ),
        images=ensemble.label.size,
        patients=len(set(ensemble.unit)),
        members=members,
        members_per_image=float(ensemble.members.mean()),
    )


def calibration_figures(ensemble: OutOfFoldEnsemble) -> CardCalibration:
    """The calibration in use, and how well raw and cross-fitted probabilities fit.

    Args:
        ensemble: out-of-fold scores.

    Raises:
        InputError: one class lacks.
    """
    if len(set(ensemble.label.tolist())) != 2:
        msg = (
            "expected benign and malignant images among the held-out predictions, found "
            f"{int(ensemble.label.sum())} malignant of {ensemble.label.size}; add some"
        )
        raise InputError(msg)
    fit = fit_ensemble(ensemble).calibration
    crossed_fit = cross_fit(ensemble)
    raw, calibrated_quality = ensemble_quality(ensemble, crossed_fit)
    n = int(np.isfinite(crossed_fit.probability).sum())
    return CardCalibration(
        slope=fit.slope,
        intercept=fit.intercept,
        prevalence=float(ensemble.label.mean()),
        raw=_card_fit(raw, n),
        calibrated=_card_fit(calibrated_quality, n),
    )


def operating_figures(
    ensemble: OutOfFoldEnsemble, calibration: LogisticCalibration, sensitivity: float
) -> OperatingPoint:
    """The threshold, and what it does on patients whose images the members do not know.

    Args:
        ensemble: out-of-fold scores.
        calibration: the one in use; the threshold is a probability of its scale.
        sensitivity: the declared one.

    Raises:
        InputError: no held-out image is malignant.
    """
    score = calibration.probability(ensemble.margin)
    choice = bounded_threshold(ensemble.label, score, ensemble.unit, sensitivity)
    if math.isnan(choice.threshold):
        msg = "expected malignant images among the held-out predictions, found none; add some"
        raise InputError(msg)
    rates = operating_rates(ensemble.label, score, ensemble.unit, choice.threshold)
    return OperatingPoint(
        method=METHOD,
        target_sensitivity=sensitivity,
        confidence=LEVEL,
        threshold=choice.threshold,
        is_met=choice.is_met,
        sensitivity=_share_figure(rates.sensitivity),
        sensitivity_bound=number(rates.sensitivity.low),
        specificity=_share_figure(rates.specificity),
        referred=rates.referral_share,
    )


def metric_figures(metrics: pa.Table, architecture: str) -> dict[str, Figure]:
    """The ten metrics over splits, by image.

    Args:
        metrics: a study's table `metrics`.
        architecture: which network's.
    """
    images = image_level(metrics)
    over = images.filter(
        pc.and_(pc.is_null(images["split"]), pc.equal(images["architecture"], architecture))
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
    ensemble: EnsembleFigures,
    calibration: CardCalibration,
    point: OperatingPoint,
    candidates: CandidateCount,
) -> list[str]:
    """What a reader of the card must not miss of its figures."""
    warnings = []
    if not point.is_met:
        warnings.append(_unmet_text(point))
    if point.referred > _MOST_REFERRED:
        warnings.append(
            f"the threshold refers {100 * point.referred:.0f} % of the images: at the declared "
            "sensitivity this model saves hardly any reading"
        )
    if ensemble.auc.value in {0.0, 1.0}:
        warnings.append("the held-out images are separated perfectly: look for leakage first")
    if ensemble.auc.low is not None and ensemble.auc.low <= 0.5:
        warnings.append(
            f"the interval of the ensemble's AUC reaches down to {ensemble.auc.low:.2f}: there is "
            "no evidence that it tells malignant from benign"
        )
    if calibration.slope == LEAST_SLOPE:
        warnings.append(
            f"the calibration slope is at its bound {LEAST_SLOPE:g}: the scores rank held-out "
            "images no better than chance"
        )
    skill = calibration.calibrated.skill.value
    if skill is not None and skill <= 0:
        warnings.append(
            "the calibrated probabilities have a Brier score no better than giving each image the "
            "prevalence: use the order, not the probabilities"
        )
    if candidates.reruns > 1:
        warnings.append(_candidates_text(candidates))
    return warnings


def _unmet_text(point: OperatingPoint) -> str:
    bound, patients = point.sensitivity_bound, point.sensitivity.n
    n_needed = least_patients(point.target_sensitivity)
    cure = (
        "no number of patients shows it"
        if n_needed is None
        else f"it takes {n_needed} malignant patients without a miss"
    )
    return (
        f"the declared sensitivity {point.target_sensitivity:g} is NOT SHOWN: {patients} malignant "
        f"patients give a lower bound of {bound or 0:.3f} even at the lowest of their scores, "
        f"which is the threshold; {cure}"
    )


def _candidates_text(candidates: CandidateCount) -> str:
    optimism = (
        ""
        if candidates.optimism is None
        else f"; the best of so many looks better than it is, by {candidates.optimism:.3f} of AUC "
        "to expect"
    )
    return (
        f"this store holds {candidates.reruns} runs of this network on the same images that differ "
        f"by their seed at most{optimism}"
    )


def number(value: float | None) -> float | None:
    """A figure as JSON can hold it: undefined is null."""
    return None if value is None or math.isnan(value) else float(value)


def _figure(estimate: IntervalEstimate, n: int) -> Figure:
    value, low, high = (number(each) for each in estimate)
    return Figure(value=value, low=low, high=high, n=n)


def _share_figure(share: PatientShare) -> Figure:
    return Figure(
        value=number(share.value),
        low=number(share.interval_low),
        high=number(share.interval_high),
        n=share.n,
    )


def _card_fit(quality: CalibrationQuality, n: int) -> CardFit:
    return CardFit(**{name: _figure(each, n) for name, each in quality._asdict().items()})
