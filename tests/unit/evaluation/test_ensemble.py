"""AUC of ensembles, and the tables of their scores and fit."""

import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from thyro_core.evaluation.bounded import wilson_interval
from thyro_core.evaluation.calibration import cross_fit
from thyro_core.evaluation.curves import decision_curve
from thyro_core.evaluation.ensemble import (
    auc_estimate,
    calibration_table,
    ensemble_table,
    net_benefit_band,
    paired_auc_difference,
)
from thyro_core.evaluation.out_of_fold import (
    out_of_fold_ensemble,
    out_of_fold_ensembles,
    out_of_fold_predictions,
    sigmoid,
)

RNG = np.random.default_rng(0)
LABEL = (np.arange(200) % 3 == 0).astype(np.int64)
SCORE = np.round(RNG.normal(LABEL * 1.2, 1), 1)
OTHER = np.round(RNG.normal(LABEL * 0.9, 1), 1)
IMAGES = np.arange(200).astype(object)


def test_net_benefit_has_the_interval_of_its_two_rates_and_copies_narrow_nothing() -> None:
    generator = np.random.default_rng(5)
    label = (np.arange(60) < 20).astype(np.int64)
    probability = 1 / (1 + np.exp(-generator.normal(2.0 * label - 1)))
    band = net_benefit_band(label, probability, np.arange(60).astype(object), (0.1, 0.25))
    gain = np.where(probability >= 0.25, np.where(label == 1, 1.0, -1 / 3), 0.0)
    assert band.mean[1] == pytest.approx(gain.mean(), abs=1e-12)
    is_called = probability >= 0.25
    (hits_low, hits_high), (alarms_low, alarms_high) = (
        wilson_interval(is_called[label == value].mean(), (label == value).sum())
        for value in (1, 0)
    )
    hits, alarms = is_called[label == 1].mean(), is_called[label == 0].mean()
    low = np.hypot((hits - hits_low) / 3, (alarms_high - alarms) * 2 / 9)
    high = np.hypot((hits_high - hits) / 3, (alarms - alarms_low) * 2 / 9)
    assert band.low[1] == pytest.approx(gain.mean() - low, abs=1e-12)
    assert band.high[1] == pytest.approx(gain.mean() + high, abs=1e-12)
    of_one_part = decision_curve([(label, probability)], 0.4, (0.1, 0.25))
    assert band.mean == pytest.approx(of_one_part.model.mean)
    twice = [np.repeat(values, 2) for values in (label, probability, np.arange(60).astype(object))]
    clustered = net_benefit_band(*twice, (0.1, 0.25))
    assert clustered.high == pytest.approx(band.high, abs=1e-3)
    assert clustered.n == band.n == 60


def test_no_end_of_a_net_benefit_lies_above_the_prevalence_or_below_calling_only_the_benign() -> (
    None
):
    generator = np.random.default_rng(1)
    for separation in (0.5, 2.0, 6.0):
        label = (np.arange(40) < 8).astype(np.int64)
        probability = 1 / (1 + np.exp(-generator.normal(separation * (label - 0.5), 2)))
        band = net_benefit_band(label, probability, np.arange(40).astype(object))
        assert np.isfinite(band.low).all()
        assert (band.low <= band.mean).all()
        assert (band.mean <= band.high).all()
        assert (band.high <= 0.2).all()
        assert (band.low >= -0.8 * band.x / (1 - band.x)).all()


def test_the_prevalence_model_is_worth_treating_all_below_it_and_none_above() -> None:
    label = (np.arange(40) < 10).astype(np.int64)
    unit = np.arange(40).astype(object)
    band = net_benefit_band(label, np.full(40, 0.25), unit, (0.1, 0.25, 0.26))
    assert band.mean == pytest.approx([0.25 - 0.75 / 9, 0.0, 0.0], abs=1e-12)


def test_auc_counts_ties_half_and_its_interval_is_on_the_logit_scale() -> None:
    found = auc_estimate(LABEL, SCORE, IMAGES)
    assert found.value == pytest.approx(roc_auc_score(LABEL, SCORE), rel=1e-12)
    logit = [math.log(v / (1 - v)) for v in found]
    assert logit[1] + logit[2] == pytest.approx(2 * logit[0], rel=1e-9)


def test_scores_that_round_to_one_as_probabilities_are_told_apart() -> None:
    label, score = np.array([0, 0, 1, 1, 0, 1]), np.array([800.0, 790, 900, 880, 850, 840])
    assert auc_estimate(label, score, IMAGES[:6]).value == pytest.approx(8 / 9)


def test_a_difference_knows_of_patients() -> None:
    expected = paired_auc_difference(LABEL, SCORE, OTHER, IMAGES)
    assert expected.value == pytest.approx(
        roc_auc_score(LABEL, SCORE) - roc_auc_score(LABEL, OTHER), rel=1e-9
    )
    copies = [np.repeat(v, 3) for v in (LABEL, SCORE, OTHER, IMAGES)]
    assert paired_auc_difference(*copies) == pytest.approx(expected, rel=1e-6)
    naive = paired_auc_difference(*copies[:3], np.arange(600).astype(object))
    assert naive.high - naive.low < 0.65 * (expected.high - expected.low)


def test_a_perfect_auc_is_not_certain() -> None:
    found = auc_estimate(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), IMAGES[:4])
    assert found.value == 1
    assert found.low < 0.8
    assert math.isnan(auc_estimate(np.array([1, 1]), np.array([0.1, 0.2]), IMAGES[:2]).value)


def study() -> tuple[pa.Table, pa.Table]:
    """Two splits of 60 images, 40 of them tested, some twice; two images a patient."""
    splits, predictions = [], []
    for split in range(2):
        for i in range(60):
            role = "test" if 20 * split <= i < 20 * split + 20 or i < 10 else "train"
            row = {"split": split, "image_id": f"i{i:02d}", "patient_id": f"p{i // 2}",
                   "group_id": f"g{i // 2}", "label": i // 2 % 2}  # fmt: skip
            splits.append(row | {"role": role})
            if role == "test":
                margin = float(RNG.normal(row["label"], 1))
                predictions += [
                    {k: v for k, v in row.items() if k != "group_id"}
                    | {"architecture": name, "logit_benign": 0.0, "logit_malignant": margin}
                    for name in ("vgg16", "resnet18")
                ]
    return pa.Table.from_pylist(predictions), pa.Table.from_pylist(splits)


def test_the_tables_are_the_scores_and_their_fit() -> None:
    predictions, splits = study()
    ensembles = out_of_fold_ensembles(predictions, splits, ("resnet18", "vgg16", "alexnet"))
    fits = {name: cross_fit(ensemble) for name, ensemble in ensembles.items()}
    table = ensemble_table("s1", ensembles, fits, splits).to_pylist()
    together = out_of_fold_ensemble(out_of_fold_predictions(predictions, splits, "vgg16"))
    fit = cross_fit(together)
    own = [row for row in table if row["architecture"] == "vgg16"]
    assert [row["architecture"] for row in table] == ["resnet18"] * 40 + ["vgg16"] * 40
    assert [row["image_id"] for row in own] == together.image.tolist()
    assert [row["prob_raw"] for row in own] == sigmoid(together.margin).tolist()
    assert [row["prob_calibrated"] for row in own] == fit.probability.tolist()
    assert {row["members"] for row in own} == {1, 2}
    assert own[3]["patient_id"] == "p1"
    figures = calibration_table("s1", ensembles, fits).to_pylist()
    by_name = {(r["architecture"], r["probability"], r["metric"]): r for r in figures}
    raw, calibrated = (by_name["vgg16", name, "auc"] for name in ("raw", "calibrated"))
    assert raw["value"] == pytest.approx(roc_auc_score(together.label, together.margin))
    assert calibrated["value"] == pytest.approx(roc_auc_score(together.label, fit.probability))
    assert (raw["n"], raw["n_positive"], raw["n_units"]) == (40, 20, 20)
    prevalence = by_name["vgg16", "prevalence", "brier"]
    for name in ("raw", "calibrated"):
        skill = 1 - by_name["vgg16", name, "brier"]["value"] / prevalence["value"]
        assert by_name["vgg16", name, "skill"]["value"] == pytest.approx(skill)
    assert len(figures) == 2 * (2 * 7 + 2)
