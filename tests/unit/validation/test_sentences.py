"""Each sentence on an evaluation holds for the figures that it is made of, and for no others."""

import math

import pytest

from thyro_core.validation.config import EvaluationConfig, EvaluationRecord
from thyro_core.validation.sentences import (
    adaptation_sentences,
    auc_sentence,
    calibration_sentence,
    difference_sentence,
    drift_sentence,
    evaluation_evidence,
    sample_sentence,
    threshold_sentence,
)
from thyro_core.validation.wording import estimate

NAN = math.nan


def figure(value: float, low: float = NAN, high: float = NAN, **more: object) -> dict[str, object]:
    row = {"value": value, "ci_low": low, "ci_high": high, "internal": 0.9, "method": None}
    return row | {"n_units": 40, "n_positive": 20, "p": NAN, "difference": value - 0.9} | more


def auc(value: float, low: float, high: float, **more: object):
    return {("none", "auc"): figure(value, low, high, **more)}


@pytest.mark.parametrize(
    ("ends", "kind", "words"),
    [
        ((0.61, 0.8), "apart", "above 0.5"),
        ((0.5, 0.8), "none", "no evidence that the model tells malignant from benign"),
        ((0.45, 0.8), "none", "no evidence"),
        ((0.2, 0.4), "reversed", "are the labels exchanged?"),
        ((NAN, NAN), "undefined", "no evidence of anything"),
    ],
)  # fmt: skip
def test_evidence_is_what_the_interval_says(ends, kind, words) -> None:
    figures = auc(sum(ends) / 2, *ends)
    assert evaluation_evidence(figures) == kind
    assert words in auc_sentence(figures)
    assert ("no evidence" in auc_sentence(figures)) == (kind in {"none", "undefined"})


def test_a_difference_is_called_one_only_where_it_is_significant() -> None:
    ends = {"difference_low": -0.3, "difference_high": -0.1, "method": "delong_independent"}
    lower = difference_sentence(auc(0.7, 0.6, 0.8, p=0.002, **ends))
    assert (
        lower == "That is lower by 0.200 than 0.900 on its own images (-0.300 to -0.100, P 0.002)."
    )
    ends = {"difference_low": 0.01, "difference_high": 0.1, "method": "delong_independent"}
    assert "higher by 0.050" in difference_sentence(auc(0.95, 0.9, 1.0, p=0.0004, **ends))
    assert "P < 0.001" in difference_sentence(auc(0.95, 0.9, 1.0, p=0.0004, **ends))
    ends = {"difference_low": -0.15, "difference_high": 0.05, "method": "delong_independent"}
    open_ = difference_sentence(auc(0.85, 0.7, 0.95, p=0.3, **ends))
    assert "not significant" in open_
    assert "does not exclude a fall of 0.150" in open_
    assert "lower" not in open_


def test_without_a_test_it_says_what_a_test_takes() -> None:
    text = difference_sentence(auc(0.7, 0.5, 0.9))
    assert "not tested" in text
    assert "10 patients of each class" in text
    assert "P " not in text


@pytest.mark.parametrize(
    ("ratio", "slope", "words"),
    [
        ((1.2, 1.5), (0.9, 1.1), ("too low on average", "not shown to be off in spread")),
        ((0.5, 0.9), (0.2, 0.8), ("too high on average", "too extreme")),
        ((0.9, 1.1), (1.1, 2.0), ("not shown to be off on average", "not extreme enough")),
        ((NAN, NAN), (NAN, NAN), ("of undefined fit",)),
    ],
)  # fmt: skip
def test_calibration_is_judged_by_its_intervals(ratio, slope, words) -> None:
    figures = {
        ("none", "observed_expected"): figure(sum(ratio) / 2, *ratio),
        ("none", "slope"): figure(sum(slope) / 2, *slope),
    }
    assert all(word in calibration_sentence(figures) for word in words)
    assert calibration_sentence({}) == "How well the probabilities fit is not defined here."


def test_local_fits_are_marked_as_adapted_and_only_said_where_there_are_some() -> None:
    assert list(adaptation_sentences({})) == []
    figures = {
        ("recalibration", "observed_expected"): figure(1.0, 0.9, 1.1),
        ("recalibration", "fit_slope"): figure(0.5),
        ("recalibration", "fit_intercept"): figure(-0.25),
        ("threshold", "recall"): figure(0.9, 0.8, 0.95),
        ("threshold", "specificity"): figure(0.4, 0.3, 0.5),
    }
    first, second = adaptation_sentences(figures)
    assert first.startswith("ADAPTED")
    assert "log odds x 0.50 -0.25, observed" in first
    assert second.startswith("ADAPTED")
    assert "sensitivity of 0.900 (0.800 to 0.950)" in second


def drift(mean: float, chance: float) -> dict[tuple[str, str], dict[str, object]]:
    values = {"psi_mean": mean, "psi_sd": 0.1, "psi_sharpness": 0.1, "psi_overlay_share": 0.0}
    return {
        ("none", name): figure(value) for name, value in (values | {"psi_chance": chance}).items()
    }


def test_drift_is_what_neither_custom_nor_chance_explains() -> None:
    assert "not shown to differ" in drift_sentence(drift(0.2, 0.1))
    assert "not shown to differ" in drift_sentence(drift(0.3, 0.4))
    assert "mean grey level (0.30)" in drift_sentence(drift(0.3, 0.1))
    assert "sharpness" not in drift_sentence(drift(0.3, 0.1))


def record(**counts: int) -> EvaluationRecord:
    return EvaluationRecord(
        evaluation_id="e1", version=1, model_id="b1", manifest_id="m1", source=None,
        config=EvaluationConfig(), device="cpu", members=3, counts=counts, notes=(),
    )  # fmt: skip


def test_what_is_left_out_is_counted_by_its_reason() -> None:
    figures = auc(0.7, 0.6, 0.8)
    text = sample_sentence(record(scored=1, same_file=3, unlabelled=2), figures)
    assert text.startswith("1 image of 40 patients")
    assert "3 the very files of images of the model's study; 2 without a label" in text
    assert "none was left out" in sample_sentence(record(scored=50), figures)
    assert "same" not in sample_sentence(record(scored=50), figures)


def test_the_locked_threshold_is_said_to_be_unchanged() -> None:
    figures = {("none", name): figure(0.8, 0.7, 0.9) for name in ("recall", "specificity")}
    assert threshold_sentence(figures).startswith("At the model's threshold, unchanged:")


def test_an_undefined_figure_is_no_number() -> None:
    assert estimate(figure(NAN, 0.0, 1.0)) == "undefined"
    assert estimate(figure(0.5)) == "0.500 (no interval)"
