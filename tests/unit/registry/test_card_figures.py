"""What a card says, from tables of which the answers are known."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from tests.support.cards import CALIBRATION, CANDIDATES, ENSEMBLE, FIGURE, FIT, POINT
from tests.support.metric_levels import with_patient_level
from tests.unit.evaluation.test_out_of_fold import ensemble
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import (
    LEAST_SLOPE,
    LogisticCalibration,
    cross_fit,
    fit_ensemble,
)
from thyro_core.evaluation.ensemble import auc_estimate, ensemble_quality
from thyro_core.evaluation.metrics import METRICS
from thyro_core.evaluation.threshold import bounded_threshold, operating_rates
from thyro_core.registry.card import (
    CandidateCount,
    CardCalibration,
    EnsembleFigures,
    Figure,
    OperatingPoint,
)
from thyro_core.registry.card_figures import (
    calibration_figures,
    data_figures,
    ensemble_figures,
    metric_figures,
    number,
    operating_figures,
    versions_of,
    warnings_of,
)
from thyro_core.tables import schemas

RNG = np.random.default_rng(0)
LABEL = (np.arange(120) % 3 == 0).astype(np.int64)
SCORES = ensemble(LABEL, RNG.normal(2.0 * LABEL - 1, 1.5))


def test_the_ensembles_auc_is_of_its_out_of_fold_scores() -> None:
    found = ensemble_figures(SCORES, 10)
    auc = auc_estimate(SCORES.label, SCORES.margin, SCORES.unit)
    assert found.auc == Figure(value=auc.value, low=auc.low, high=auc.high, n=120)
    assert (found.images, found.patients, found.members) == (120, 120, 10)
    assert found.members_per_image == 3
    assert "members whose split tested it" in found.method


def test_the_calibration_is_fitted_on_all_and_judged_cross_fitted() -> None:
    found = calibration_figures(SCORES)
    assert (found.slope, found.intercept) == fit_ensemble(SCORES).calibration
    assert found.prevalence == pytest.approx(1 / 3)
    raw, calibrated = ensemble_quality(SCORES, cross_fit(SCORES))
    assert found.raw.brier.value == raw.brier.value
    assert found.calibrated.slope.high == calibrated.slope.high
    assert found.calibrated.skill.value == calibrated.skill.value
    assert found.calibrated.brier.n == 120


def test_the_operating_point_is_that_of_the_calibrated_ensemble() -> None:
    calibration = LogisticCalibration(0.7, -0.4)
    found = operating_figures(SCORES, calibration, 0.8)
    score = calibration.probability(SCORES.margin)
    assert (found.threshold, found.is_met) == bounded_threshold(
        SCORES.label, score, SCORES.unit, 0.8
    )
    rates = operating_rates(SCORES.label, score, SCORES.unit, found.threshold)
    assert found.sensitivity_bound == rates.sensitivity.low >= 0.8
    assert found.sensitivity.value == rates.sensitivity.value
    assert found.sensitivity.n == 40
    assert found.specificity.low == rates.specificity.interval_low
    assert found.referred == rates.referral_share
    assert (found.target_sensitivity, found.confidence) == (0.8, 0.95)


def test_a_calibration_moves_the_threshold_but_not_what_it_calls() -> None:
    one, two = (operating_figures(SCORES, LogisticCalibration(*c), 0.9) for c in ((1, 0), (3, -2)))
    assert one.threshold != two.threshold
    assert one.sensitivity == two.sensitivity
    assert one.specificity == two.specificity


def test_without_both_classes_there_is_no_card() -> None:
    benign = ensemble([0, 0], [1.0, 2.0])
    with pytest.raises(InputError, match="expected malignant images among the held-out"):
        operating_figures(benign, LogisticCalibration(1.0, 0.0), 0.9)
    with pytest.raises(InputError, match=r"expected benign and malignant .* found 0 malig"):
        calibration_figures(benign)


def test_metrics_are_the_means_over_splits() -> None:
    blank = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    given = [
        blank | {"split": split, "architecture": architecture, "metric": metric, "value": value,
                 "ci_low": 0.1, "ci_high": None, "n": 3}
        for place, metric in enumerate(METRICS)
        for split, architecture, value in (
            (0, "vgg16", 0.9), (None, "vgg16", place / 10), (None, "alexnet", 0.7),
        )
    ]  # fmt: skip
    given[1]["value"] = math.nan
    table = pa.Table.from_pylist(given, schema=schemas.TABLES["metrics"].schema)
    found = metric_figures(with_patient_level(table), "vgg16")
    assert list(found) == list(METRICS)
    assert found["auc"] == Figure(value=None, low=0.1, high=None, n=3)
    assert [found[name].value for name in METRICS[1:]] == [i / 10 for i in range(1, 10)]


def test_data_is_counted_once_an_image() -> None:
    splits = pa.table(
        {
            "image_id": ["b", "a", "b", "a", "c"],
            "patient_id": ["p", None, "p", None, "q"],
            "label": [1, 0, 1, 0, 0],
        }
    )
    found = data_figures("m1", splits)
    assert (found.images, found.malignant, found.patients) == (3, 1, 2)
    # printf 'a 0\nb 1\nc 0\n' | sha256sum
    assert found.sha256 == "dc638ccd4915386c662395e6d05100fb32635b19e3d2a5937b0aabf94766a8e1"
    assert found.sha256 == data_figures("m2", splits.take([4, 3, 2])).sha256
    assert found.sha256 != data_figures("m1", splits.slice(0, 4)).sha256


def test_versions_that_differ_are_all_named() -> None:
    runs = pa.table(
        {
            "versions": [json.dumps({"torch": "2", "ray": "1"}), json.dumps({"torch": "3"}), None],
            "git_commit": ["b", "a", None],
        }
    )
    assert versions_of(runs) == ({"ray": "1", "torch": "2, 3"}, ("a", "b"))


def warned(**changes: object) -> list[str]:
    """Warnings of a card without a fault but for these fields."""
    parts = {
        "ensemble": EnsembleFigures.model_validate(ENSEMBLE),
        "calibration": CardCalibration.model_validate(CALIBRATION),
        "point": OperatingPoint.model_validate(POINT),
        "candidates": CandidateCount.model_validate(CANDIDATES),
    }
    places = {name: part for part in parts for name in type(parts[part]).model_fields}
    for name, value in changes.items():
        part = places[name]
        plain = parts[part].model_dump() | {name: value}
        parts[part] = type(parts[part]).model_validate(plain)
    return warnings_of(**parts)  # type: ignore[arg-type]


def test_warnings_say_what_a_reader_must_not_miss() -> None:
    assert warned() == []
    (unmet,) = warned(is_met=False, sensitivity_bound=0.78, sensitivity=FIGURE | {"n": 12})
    assert unmet == (
        "the declared sensitivity 0.95 is NOT SHOWN: 12 malignant patients give a lower bound of "
        "0.780 even at the lowest of their scores, which is the threshold; it takes 59 malignant "
        "patients without a miss"
    )
    (never,) = warned(is_met=False, target_sensitivity=1.0)
    assert never.endswith("no number of patients shows it")
    assert warned(referred=0.97)[0].startswith("the threshold refers 97 % of the images")
    perfect = {"value": 1.0, "low": None, "high": None, "n": 20}
    assert "look for leakage first" in warned(auc=perfect)[0]
    assert "no evidence that it tells malignant" in warned(auc=FIGURE | {"low": 0.48})[0]
    assert warned(slope=LEAST_SLOPE)[0].startswith("the calibration slope is at its bound 0.01")
    worse = FIT | {"skill": FIGURE | {"value": -0.01}}
    assert "no better than giving each image the prevalence" in warned(calibrated=worse)[0]
    (seeds,) = warned(reruns=20, auc_sd=0.01, optimism=0.0187)
    assert seeds == (
        "this store holds 20 runs of this network on the same images that differ by their seed at "
        "most; the best of so many looks better than it is, by 0.019 of AUC to expect"
    )


def test_undefined_is_null() -> None:
    assert [number(value) for value in (0.5, math.nan, None)] == [0.5, None, None]
