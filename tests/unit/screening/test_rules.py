"""Bands, ranks, reasons and sums: the rules of a screening by themselves."""

from dataclasses import asdict
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.errors import InputError, ThyroError
from thyro_core.evaluation.conformal import BandCuts
from thyro_core.screening.aside import ASIDE
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import IMAGE_REASONS
from thyro_core.screening.rules import (
    BANDS,
    FAILURE_REASONS,
    WHY,
    BandLimits,
    Counts,
    Night,
    Totals,
    band_of,
    date_number,
    is_unlike,
    near_quantile,
    rank_key,
    sum_totals,
    unscored_columns,
    unscored_status,
)

LIMITS = BandLimits(threshold=0.5, review_sds=1.0, outlier=10.0, near=8.0)
CONFORMAL, APART = (
    BandLimits(0.5, 1.0, 10.0, 8.0, cuts) for cuts in (BandCuts(0.2, 0.8), BandCuts(0.8, 0.2))
)
SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("mean", "sd", "distance", "expected"),
    [
        (0.5, 0.0, 1.0, ("refer", None)),
        (0.9, 0.3, 9.0, ("refer", None)),
        (0.45, 0.05, 1.0, ("review", "uncertain")),
        (0.45, 0.049, 1.0, ("routine", None)),
        (0.45, 0.05, 9.0, ("review", "uncertain")),
        (0.1, 0.05, 8.0, ("routine", None)),
        (0.1, 0.05, 8.1, ("review", "near_outlier")),
        (0.1, nan, 1.0, ("routine", None)),
        (0.6, nan, 1.0, ("refer", None)),
    ],
)
def test_bands_by_hand(mean, sd, distance, expected) -> None:
    assert band_of(mean, sd, distance, LIMITS) == expected


@pytest.mark.parametrize(
    ("probability", "distance", "expected"),
    [
        (0.1, 1.0, ("routine", None)),
        (0.1, 8.1, ("review", "near_outlier")),
        (0.2, 1.0, ("review", "both_plausible")),
        (0.6, 1.0, ("review", "both_plausible")),
        (0.81, 9.0, ("refer", None)),
    ],
)
def test_conformal_bands_take_the_place_of_threshold_and_spread(
    probability, distance, expected
) -> None:
    assert band_of(probability, 0.9, distance, CONFORMAL) == expected


@given(SHARES, SHARES, SHARES, st.floats(0, 10), st.sampled_from([0, 1, 2]))
def test_a_higher_probability_never_lowers_the_band(low, high, sd, distance, which) -> None:
    low, high = sorted((low, high))
    limits = (LIMITS, CONFORMAL, APART)[which]
    order = ("refer", "review", "routine")
    below, above = (band_of(p, sd, distance, limits)[0] for p in (low, high))
    assert order.index(above) <= order.index(below)


# Sums lose what is smaller than 1e-15; the worklist sorts by the probability after the key.
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["refer", "review", "routine"]),
            st.integers(0, 10**12).map(lambda n: n / 10**12),
        ),
        min_size=2,
    )
)
def test_ranks_follow_the_bands_and_then_the_probability(images) -> None:
    ranked = sorted(images, key=lambda image: -rank_key(*image))
    places = [BANDS.index(band) for band, _ in ranked]
    assert places == sorted(places)
    for band in BANDS:
        shares = [p for b, p in ranked if b == band]
        assert shares == sorted(shares, reverse=True)


def test_what_is_not_scored_stands_between_review_and_routine() -> None:
    nothing = rank_key("not scored", None)
    assert rank_key("review", 0.0) > nothing > rank_key("routine", 1.0)


@pytest.mark.parametrize(
    ("distance", "outlier", "expected"),
    [(1, 2, False), (2, 2, False), (2.1, 2, True), (nan, 2, True), (inf, nan, False),
     (nan, nan, True)],
)  # fmt: skip
def test_an_image_is_unlike_beyond_the_bound_or_without_a_distance(
    distance, outlier, expected
) -> None:
    assert is_unlike(distance, BandLimits(0.5, 1, outlier, outlier)) is expected


@pytest.mark.parametrize(("outlier", "near"), [(0.99, 0.98), (1.0, 1.0), (0.4, 0.0)])
def test_as_many_again_are_near(outlier, near) -> None:
    assert near_quantile(outlier) == pytest.approx(near)


def test_every_reason_has_its_words_and_its_status() -> None:
    assert set(IMAGE_REASONS) | set(FAILURE_REASONS) <= WHY.keys()
    assert {reason: unscored_status(reason) for reason in ("undecodable", "blurred")} == {
        "undecodable": "failed",
        "blurred": "rejected",
    }
    assert unscored_columns("crashed_decoder") == {
        "status": "failed",
        "reason": "crashed_decoder",
        "band": "not scored",
        "rank_key": rank_key("not scored", None),
    }


TOTALS = st.builds(Totals, *[st.integers(0, 50)] * 7)


@given(TOTALS)
def test_totals_that_do_not_add_up_are_refused(totals: Totals) -> None:
    fits = totals.received == totals.scored + totals.rejected + totals.failed
    fits = fits and totals.scored == totals.refer + totals.review + totals.routine
    if fits:
        totals.check("here")
    else:
        with pytest.raises(ThyroError, match=r"here: expected received = scored"):
            totals.check("here")


def test_totals_that_add_up_pass_and_their_sums_too() -> None:
    one, two = Totals(6, 3, 2, 1, 1, 1, 1), Totals(3, 2, 0, 1, 2, 0, 0)
    for totals in (one, two, sum_totals([one, two]), sum_totals([])):
        totals.check("here")
    assert sum_totals([one, two]) == Totals(9, 5, 2, 2, 3, 1, 1)


def test_files_that_are_lost_are_noticed() -> None:
    total = Counts(3, 1, 0, 2, 5, 4) + Counts(2, 0, 1, 1, 1, 0)
    assert total == Counts(5, 1, 1, 3, 6, 4)
    total.check()
    with pytest.raises(ThyroError, match="expected each of 5 files"):
        (total + Counts(known=1)).check()


def test_what_is_set_aside_adds_up_with_the_files_to_what_is_listed() -> None:
    counts = Counts(files=3, fresh=3, aside_hidden=2) + Counts(aside_hidden=1, aside_unfinished=1)
    counts.check()
    assert counts.aside == 4
    assert counts.aside_sentence == (
        "7 listed = 3 files + 4 set aside: 3 hidden (below a name that begins with a dot), 1 "
        "unfinished by their names (such as .part)"
    )
    assert counts.sentence.endswith(counts.aside_sentence)
    assert (Counts(files=3, fresh=3).aside_sentence, Counts().aside_reasons) == ("", "")
    assert ASIDE.keys() == {name for name in asdict(counts) if name.startswith("aside")}


@pytest.mark.parametrize("text", ["2026-1-1", "20261125", "2026-02-30", "today", "2026-W48-3", ""])
def test_no_date_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="date: expected"):
        date_number(text)


@given(st.dates())
def test_a_date_as_a_number_keeps_the_order(day) -> None:
    number = date_number(day.isoformat())
    assert number == int(day.strftime("%Y%m%d").lstrip("0"))


def test_a_batch_has_one_id_for_all_nights_and_another_for_another_model() -> None:
    def batch_id(date: str, batch: str, model_id: str, **rules: float) -> str:
        made = ScreeningRules.model_validate(rules)
        return Night(date=date, batch=batch, model_id=model_id, rules=made).batch_id

    first = batch_id("2026-11-25", "s3://b/in", "b1")
    assert first == batch_id("2026-11-26", "s3://b/in", "b1", blur_bound=0.1)
    assert len({first, batch_id("2026-11-25", "s3://b/in", "b2"),
                batch_id("2026-11-25", "s3://b/other", "b1")}) == 3  # fmt: skip
    assert first[0] == "n"
    assert (
        Night(date="2026-11-25", batch="", model_id="", rules=ScreeningRules()).number == 20261125
    )
