"""What is said of a promise elsewhere holds for the figures, and for no others."""

import math

import numpy as np
import pytest

from tests.support.cards import a_card
from tests.unit.evaluation.test_out_of_fold import ensemble
from tests.unit.registry.test_card_bands import BANDS
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.registry.bundle import Bundle
from thyro_core.validation.promise import promise_rows, promise_sentences, promise_words
from thyro_core.validation.sample import Sample

CARD = a_card(1, bands=BANDS).model_dump(mode="json")


def bundle(card=CARD) -> Bundle:
    return Bundle("b1", "resnet18", 64, LogisticCalibration(1.0, 0.0), 0.25, ("m",), card)


def sample(label, probability, unit=None) -> Sample:
    probability = np.asarray(probability, float)
    scores = ensemble(label, np.log(probability / (1 - probability)), unit)
    return Sample(scores, probability, probability, None, "patient")


def rows_of(label, probability, unit=None):
    inside = sample([1] * 10 + [0] * 10, [0.1] + [0.9] * 9 + [0.05] * 10)
    rows = list(promise_rows(sample(label, probability, unit), inside, bundle()))
    return {("none", row["metric"]): row for row in rows}


def test_images_and_patients_are_counted_and_the_declared_share_stands_beside() -> None:
    # Patients 0 and 1 are malignant and have two images each; routine lies below 0.125.
    figures = rows_of(
        [1, 1, 1, 1, 0, 0, 0, 0],
        [0.01, 0.9, 0.5, 0.6, 0.9, 0.8, 0.05, 0.5], [0, 0, 1, 1, 2, 2, 3, 4],
    )  # fmt: skip
    images, patients, declared = (
        figures["none", f"routine_{name}"] for name in ("of_malignant", "patients", "promised")
    )
    assert (images["value"], images["n"], images["n_units"]) == (0.25, 4, 2)
    assert (patients["value"], patients["n"], patients["level"]) == (0.5, 2, "set")
    assert (images["internal"], images["internal_n"]) == (0.1, 10)
    assert (patients["internal"], patients["internal_n"]) == (0.1, 10)
    assert declared["value"] == 0.05
    assert patients["method"] == "exchangeability"
    assert patients["p"] == patients["p_adjusted"]
    assert math.isnan(images["p"])
    # Refer lies above 0.75: two images of one of three benign patients.
    assert figures["none", "refer_of_benign"]["value"] == 0.5
    assert figures["none", "refer_patients"]["value"] == pytest.approx(1 / 3)
    assert figures["none", "refer_promised"]["value"] == 0.1


def test_a_model_without_conformal_bands_has_no_rows_and_no_sentence() -> None:
    plain = a_card(1).model_dump(mode="json")
    some = sample([1, 0], [0.9, 0.1])
    assert list(promise_rows(some, some, bundle(plain))) == []
    assert list(promise_sentences({})) == []
    assert promise_words({}) == ""


def sentence(missed: int, n: int) -> str:
    figures = rows_of([1] * n, [0.01] * missed + [0.5] * (n - missed))
    text, benign = promise_sentences(figures)
    assert benign.endswith("no benign image is here.")
    return text


def test_a_promise_is_broken_only_where_chance_does_not_explain_it() -> None:
    broken = sentence(10, 40)
    assert "was BROKEN here: 10 of 40 have one, 0.250" in broken
    assert "of patients with malignant images at most 5 % have a malignant image called" in broken
    open_ = sentence(3, 40)
    assert "not shown to be broken here (P 0." in open_
    assert "nor shown to hold" in open_
    kept = sentence(0, 200)
    assert "was kept here: 0 of 200" in kept
    assert "no malignant image is here" in next(iter(promise_sentences(rows_of([0], [0.1]))))


def test_few_calibration_patients_explain_more() -> None:
    """40 calibration patients: the cut itself is uncertain, which an interval alone leaves out."""
    figures = rows_of([1] * 60, [0.01] * 8 + [0.5] * 52)
    row = figures["none", "routine_patients"]
    assert row["ci_low"] > 0.05
    assert "not shown to be broken" in next(iter(promise_sentences(figures)))


def test_the_list_of_models_says_it_in_few_words() -> None:
    figures = rows_of([1] * 40 + [0] * 40, [0.01] * 10 + [0.5] * 30 + [0.1] * 40)
    assert promise_words(figures) == (
        "; promise of routine BROKEN: 0.250 of patients with malignant images, declared 0.05; "
        "promise of refer not shown to be broken: 0.000 of patients with benign images, "
        "declared 0.1"
    )
