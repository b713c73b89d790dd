"""The AUC of an ensemble's out-of-fold scores, and the tables of these scores and their fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from thyro_core.evaluation.bounded import NO_INTERVAL, benefit_interval, proportion_interval
from thyro_core.evaluation.calibration import (
    CalibrationQuality,
    CrossFit,
    IntervalEstimate,
    calibration_quality,
)
from thyro_core.evaluation.curves import DECISION_THRESHOLDS, Band
from thyro_core.evaluation.delong import DeLong, auc_interval, delong
from thyro_core.evaluation.out_of_fold import (
    Ensembles,
    Ids,
    OutOfFoldEnsemble,
    sigmoid,
)
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import BoolArray, FloatArray, IntArray

_Row = dict[str, Any]


def auc_estimate(label: IntArray, score: FloatArray, unit: Ids) -> IntervalEstimate:
    """AUC with its 95 % interval, units taken as independent.

    Args:
        label: (n,), 0 or 1; at least one image.
        score: (n,), of any range.
        unit: (n,), patient or group.

    Returns:
        NaN without both classes.
    """
    places = _places(score)
    low, high = auc_interval(label, places, unit.astype(str))
    return IntervalEstimate(delong(label, places, places).auc_a, low, high)


def paired_auc_difference(
    label: IntArray, score: FloatArray, other: FloatArray, unit: Ids
) -> IntervalEstimate:
    """AUC of `score` - AUC of `other` on the same images, with its 95 % interval over units.

    Args:
        label: (n,), 0 or 1; at least one image.
        score: (n,), of any range.
        other: (n,), of any range.
        unit: (n,), patient or group.
    """
    test = paired_auc_test(label, score, other, unit)
    return IntervalEstimate(test.difference, test.ci_low, test.ci_high)


def paired_auc_test(label: IntArray, score: FloatArray, other: FloatArray, unit: Ids) -> DeLong:
    """DeLong's test of two scores on the same images, clustered by unit.

    Args:
        label: (n,), 0 or 1; at least one image.
        score: (n,), of any range.
        other: (n,), of any range.
        unit: (n,), patient or group.
    """
    return delong(label, _places(score), _places(other), unit.astype(str))


def _places(score: FloatArray) -> FloatArray:
    """Ranks, 0 to 1: a probability would tie the scores that it rounds to 1."""
    return np.asarray(stats.rankdata(score) / score.size)


def net_benefit_band(
    label: IntArray,
    probability: FloatArray,
    unit: Ids,
    thresholds: Sequence[float] = DECISION_THRESHOLDS,
) -> Band:
    """Net benefit by threshold probability of images counted once, units taken as independent.

    TP / n - FP / n x p_t / (1 - p_t) (Vickers and Elkin 2006). Its 95 % interval is made of those
    of sensitivity and false positive rate (`bounded.proportion_interval`), at the prevalence of
    these images, and never above it (`bounded.benefit_interval`). A model that gives each image the
    prevalence is called malignant everywhere below it, and nowhere above.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        unit: (n,), patient or group.
        thresholds: threshold probabilities p_t, from 0 to below 1.

    Returns:
        The band; `n` is the number of units.
    """
    x = np.asarray(thresholds, dtype=np.float64)
    units, ill = unit.astype(str), label == 1
    prevalence = float(ill.mean())
    estimates = []
    for threshold in x:
        is_called = probability >= threshold
        weights = prevalence, float((1 - prevalence) * threshold / (1 - threshold))
        hits, alarms = (
            (float(is_called[among].mean()), proportion_interval(is_called[among], units[among]))
            if among.any()
            else (0.0, NO_INTERVAL)
            for among in (ill, ~ill)
        )
        value = weights[0] * hits[0] - weights[1] * alarms[0]
        estimates.append((value, *benefit_interval(value, weights, hits, alarms)))
    mean, low, high = np.array(estimates).T
    return Band(x, mean, low, high, len(set(units)))


def ensemble_table(
    study_id: str, ensembles: Ensembles, fits: Mapping[str, CrossFit], splits: pa.Table
) -> pa.Table:
    """The study's rows of `ensemble`: each tested image once for each architecture.

    Args:
        study_id: goes into every row.
        ensembles: the study's.
        fits: `calibration.cross_fit` of each.
        splits: the study's table `splits`.
    """
    rows: list[_Row] = []
    labels = splits.select(["image_id", "patient_id"]).to_pylist()
    patients = {row["image_id"]: row["patient_id"] for row in labels}
    for architecture, ensemble in ensembles.items():
        fit = fits[architecture]
        raw = sigmoid(ensemble.margin)
        rows += [
            {
                "study_id": study_id,
                "architecture": architecture,
                "image_id": image_id,
                "patient_id": patients[image_id],
                "group_id": ensemble.group[i],
                "label": int(ensemble.label[i]),
                "members": int(ensemble.members[i]),
                "prob_raw": float(raw[i]),
                "prob_calibrated": float(fit.probability[i]),
                "prevalence": float(fit.prevalence[i]),
            }
            for i, image_id in enumerate(ensemble.image)
        ]
    return rows_to_table("ensemble", rows)


def calibration_table(
    study_id: str, ensembles: Ensembles, fits: Mapping[str, CrossFit]
) -> pa.Table:
    """The study's rows of `calibration`: how well raw and calibrated probabilities fit.

    Both are judged on the same images, those with a cross-fitted calibration.

    Args:
        study_id: goes into every row.
        ensembles: the study's.
        fits: `calibration.cross_fit` of each.
    """
    rows: list[_Row] = []
    for architecture, ensemble in ensembles.items():
        fit = fits[architecture]
        is_judged = np.isfinite(fit.probability)
        sizes = {
            "n": int(is_judged.sum()),
            "n_positive": int(ensemble.label[is_judged].sum()),
            "n_units": len(set(ensemble.unit[is_judged])),
        }
        constant = {"study_id": study_id, "architecture": architecture} | sizes
        for probability, figures in _figures(ensemble, fit, is_judged):
            rows += [
                constant
                | {
                    "probability": probability,
                    "metric": metric,
                    "value": estimate.value,
                    "ci_low": estimate.low,
                    "ci_high": estimate.high,
                }
                for metric, estimate in figures.items()
            ]
    return rows_to_table("calibration", rows)


def _figures(
    ensemble: OutOfFoldEnsemble, fit: CrossFit, is_judged: BoolArray
) -> Iterator[tuple[str, dict[str, IntervalEstimate]]]:
    if not is_judged.any():
        return
    label, unit, reference = (
        ensemble.label[is_judged],
        ensemble.unit[is_judged],
        fit.prevalence[is_judged],
    )
    raw, calibrated_quality = ensemble_quality(ensemble, fit)
    for name, values, quality in (
        ("raw", sigmoid(ensemble.margin), raw),
        ("calibrated", fit.probability, calibrated_quality),
    ):
        yield name, {"auc": auc_estimate(label, values[is_judged], unit)} | quality._asdict()
    alone = calibration_quality(label, reference, reference, unit)
    yield "prevalence", {name: getattr(alone, name) for name in ("brier", "nll")}


def ensemble_quality(
    ensemble: OutOfFoldEnsemble, fit: CrossFit
) -> tuple[CalibrationQuality, CalibrationQuality]:
    """Fit of the raw and of the calibrated probabilities, on the images that have both.

    Args:
        ensemble: m images.
        fit: their cross-fitted probabilities.
    """
    is_judged = np.isfinite(fit.probability)
    label, unit, reference = (
        ensemble.label[is_judged],
        ensemble.unit[is_judged],
        fit.prevalence[is_judged],
    )
    raw, calibrated_quality = (
        calibration_quality(label, values[is_judged], reference, unit)
        for values in (sigmoid(ensemble.margin), fit.probability)
    )
    return raw, calibrated_quality
