"""Conformal bands on a card: chosen on out-of-fold scores, promised in words, or refused."""

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.support.cards import a_card
from tests.support.finished_study import copy_of
from tests.unit.evaluation.test_out_of_fold import ensemble
from thyro_core.config import RECIPE, content_id
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.evaluation.conformal import BandCuts, band_cuts, score_bands
from thyro_core.registry.bundle import load_bundle
from thyro_core.registry.card import CARD_VERSION, ConformalBands, card_bytes, parse_card
from thyro_core.registry.card_bands import (
    CONDITIONS,
    BandShares,
    band_warnings,
    conformal_bands,
    promise_text,
)
from thyro_core.registry.card_pages import card_markdown, card_rows
from thyro_core.registry.promote import PromotionConfig, promote

RNG = np.random.default_rng(0)
LABEL = (np.arange(120) % 3 == 0).astype(np.int64)
SCORES = ensemble(LABEL, RNG.normal(2.0 * LABEL - 1, 1.5))
CALIBRATION = LogisticCalibration(0.7, -0.4)
PROMISE = {"share": 0.05, "cut": 0.125, "patients": 40, "beyond": 1}
BANDS = {
    "method": "m", "routine": PROMISE,
    "refer": PROMISE | {"share": 0.1, "cut": 0.75, "patients": 80},
    "images": {"refer": 0.25, "review": 0.5, "routine": 0.25},
}  # fmt: skip


def test_the_cuts_are_calibrated_probabilities_of_out_of_fold_scores() -> None:
    found = conformal_bands(SCORES, CALIBRATION, BandShares(0.1, 0.2), "study s1")
    score = CALIBRATION.probability(SCORES.margin)
    cuts = band_cuts(LABEL, score, SCORES.unit, routine_share=0.1, refer_share=0.2)
    assert (found.routine.cut, found.refer.cut) == cuts
    assert (found.routine.patients, found.refer.patients) == (40, 80)
    # floor(0.1 x 41) - 1 and floor(0.2 x 81) - 1.
    assert (found.routine.beyond, found.refer.beyond) == (3, 15)
    assert (score[LABEL == 1] < cuts.routine_below).sum() == 3
    assert (score[LABEL == 0] > cuts.refer_above).sum() == 15
    assert sum(found.images.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (BandShares(0.02, 0.1), r"49 malignant .* routine_share=0\.02 takes .* found 40; give a "),
        (BandShares(0.1, 0.01), r"99 benign .* refer_share=0\.01 takes .* found 80; give a refer"),
    ],
)  # fmt: skip
def test_too_few_patients_are_refused_with_the_number_needed(shares, words) -> None:
    with pytest.raises(InputError, match=words):
        conformal_bands(SCORES, CALIBRATION, shares, "study s1")


def test_the_shares_that_refusals_offer_are_taken() -> None:
    shares = [0.001, 0.001]
    for place, name in enumerate(("routine", "refer")):
        with pytest.raises(InputError, match=f"give a {name}_share of ") as refusal:
            conformal_bands(SCORES, CALIBRATION, BandShares(*shares), "s")
        offer = re.search(r"_share of ([\d.]+) or more, or study more patients", str(refusal.value))
        assert offer
        shares[place] = float(offer[1])
    bands = conformal_bands(SCORES, CALIBRATION, BandShares(*shares), "s")
    assert (bands.routine.beyond, bands.refer.beyond) == (0, 0)


def test_bands_without_a_routine_image_are_warned_of() -> None:
    bands = ConformalBands.model_validate(BANDS)
    assert band_warnings(bands) == []
    empty = BANDS | {"images": {"refer": 0.5, "review": 0.5, "routine": 0.0}}
    (warning,) = band_warnings(ConformalBands.model_validate(empty))
    assert "these bands save no reading" in warning


def test_a_card_without_the_choice_is_sealed_as_before() -> None:
    """Its JSON has no field for bands: cards of earlier promotions keep their seal."""
    card = a_card(1)
    plain = json.loads(card_bytes(card))
    assert "bands" not in plain
    assert card.bands is None
    assert parse_card(card_bytes(card), card.model_id) == card
    assert promise_text(plain) is None
    assert "promise" not in card_markdown(plain, "Champion.")
    assert not [name for name, _ in card_rows(plain) if "promise" in name or "bands" in name]


def test_a_card_says_the_promise_and_its_conditions() -> None:
    card = a_card(1, bands=BANDS)
    assert parse_card(card_bytes(card), card.model_id) == card
    plain = card.model_dump(mode="json")
    text = promise_text(plain)
    assert text == (
        "Of patients with malignant images at most 5 % have a malignant image called routine, of "
        "patients with benign images at most 10 % a benign one called refer (chosen on 40 and 80 "
        f"patients). {CONDITIONS}"
    )
    for words in (
        "on average over draws",
        "exchangeable",
        "nothing of another hospital",
        "all members",
    ):
        assert words in text
    assert f"The bands' promise: {text}" in card_markdown(plain, "Champion.")
    rows = dict(card_rows(plain))
    assert rows["bands: conformal"] == "malignant implausible below 0.125, benign above 0.75"
    assert rows["held-out images by band"] == "refer 25.0 %, review 50.0 %, routine 25.0 %"
    assert (
        rows["promise: patients with a malignant image called routine"]
        == "at most 5 % of 40 with malignant images"
    )


def test_ties_at_the_cut_are_not_counted_beyond_it() -> None:
    tied = ensemble(LABEL, np.where(LABEL == 1, 1.0, -1.0))
    found = conformal_bands(tied, CALIBRATION, BandShares(0.1, 0.2), "study s1")
    assert (found.routine.beyond, found.refer.beyond) == (0, 0)


def test_patients_with_images_of_both_classes_count_for_each_promise() -> None:
    """Each of 60 patients has a benign image that looks benign and a malignant one that does not.

    That their benign image is routine breaks no promise, which is of their malignant one.
    """
    label = np.arange(120) % 2
    both = ensemble(label, np.where(label == 1, 2.0, -2.0) + RNG.normal(0, 0.1, 120))
    both = dataclasses.replace(both, unit=np.repeat(np.arange(60), 2).astype(object))
    found = conformal_bands(both, CALIBRATION, BandShares(0.1, 0.1), "study s1")
    assert (found.routine.patients, found.refer.patients) == (60, 60)
    cuts = BandCuts(found.routine.cut, found.refer.cut)
    is_routine = score_bands(CALIBRATION.probability(both.margin), cuts) == "routine"
    assert len(set(both.unit[is_routine])) / 60 > 0.5
    assert len(set(both.unit[is_routine & (label == 1)])) / 60 <= 0.1
    text = promise_text(a_card(1, bands=found.model_dump()).model_dump(mode="json"))
    assert text
    assert "Of patients with malignant images at most 10 % have a malignant image called" in text


def test_groups_that_stand_for_patients_are_counted_and_named() -> None:
    unit = SCORES.group.copy()
    unit[:100] = [f"p{place}" for place in range(100)]
    some = dataclasses.replace(SCORES, unit=unit)
    found = conformal_bands(some, CALIBRATION, BandShares(0.1, 0.2), "study s1")
    assert found.groups == len(set(SCORES.group[100:]))
    text = promise_text(a_card(1, bands=found.model_dump()).model_dump(mode="json"))
    assert text
    assert f"Of {found.groups} groups of near-duplicates no patient was known" in text
    known = promise_text(a_card(1, bands=BANDS | {"groups": 0}).model_dump(mode="json"))
    assert known
    assert "no patient was known" not in known


def test_without_patients_the_promise_says_that_it_is_not_of_patients() -> None:
    data = a_card(1).data.model_dump() | {"patients": 0}
    text = promise_text(a_card(1, bands=BANDS, data=data).model_dump(mode="json"))
    assert text
    assert "No patient was known" in text
    assert "nothing is promised" in text


@pytest.mark.parametrize(
    "wrong", [{"routine_share": 0.2}, {"refer_share": 0.2}, {"bands": "other"},
              {"bands": "conformal", "routine_share": 0.0},
              {"bands": "conformal", "refer_share": 0.51}],
)  # fmt: skip
def test_shares_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PromotionConfig.model_validate({"study_id": "s" + "0" * 16} | wrong)


def test_who_does_not_ask_gets_the_model_of_before(finished) -> None:
    from thyro_core.registry.build import BundleSpec, _model_id

    plan = finished[1]
    deciding = {
        "study_id": plan.study_id, "architecture": "resnet18", "members": ["a"],
        "target_sensitivity": 0.95, "recipe": RECIPE, "card_version": CARD_VERSION,
    }  # fmt: skip
    spec = BundleSpec(plan, "resnet18", 0.95, PromotionConfig(study_id=plan.study_id).shares)
    assert spec.shares is None
    assert _model_id(spec, {"f": "a"}) == content_id("b", deciding)
    other = BundleSpec(plan, "resnet18", 0.95, BandShares(0.05, 0.1))
    assert _model_id(other, {"f": "a"}) != content_id("b", deciding)


@pytest.mark.usefixtures("one_thread")
def test_a_promotion_with_conformal_bands(finished, tmp_path) -> None:
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    few = PromotionConfig(study_id=plan.study_id, bands="conformal")
    with pytest.raises(InputError, match="at least 19 malignant patients"):
        promote(store, few, tmp_path)
    assert store.keys("registry") == [], "a refused model leaves nothing"
    config = few.model_copy(update={"routine_share": 0.25, "refer_share": 0.25})
    bundle = promote(store, config, tmp_path).bundle
    assert bundle.cuts == BandCuts(
        bundle.card["bands"]["routine"]["cut"], bundle.card["bands"]["refer"]["cut"]
    )
    assert load_bundle(store, bundle.model_id) == bundle
    from thyro_core.screening.config import ScreeningRules
    from thyro_core.screening.model import ScreeningModel

    model = ScreeningModel(store, bundle.model_id, tmp_path)
    assert model.limits(ScreeningRules()).cuts == bundle.cuts
    assert model.promise == promise_text(bundle.card)
