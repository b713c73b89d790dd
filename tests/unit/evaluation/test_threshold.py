"""The threshold whose lower bound meets the declared sensitivity, and how often it does."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyro_core.evaluation.threshold import (
    bounded_threshold,
    least_patients,
    operating_rates,
    patient_share,
    threshold_text,
)


def units(n: int, each: int = 1) -> np.ndarray:
    return (np.arange(n) // each).astype(object)


@given(threshold=st.floats(0, 1), digits=st.sampled_from([4, 6]))
def test_who_uses_the_text_of_a_threshold_misses_no_image(threshold: float, digits: int) -> None:
    """A score is at least the threshold that it made, and so at least the threshold's text."""
    text = float(threshold_text(threshold, digits))
    assert text <= threshold + 1e-12
    assert threshold - text < 10.0**-digits + 1e-9


def test_a_threshold_is_cut_and_not_rounded() -> None:
    assert threshold_text(0.46518743, 4) == "0.4651"
    assert threshold_text(0.30375265, 4) == "0.3037"
    assert threshold_text(0.29, 4) == "0.29"
    assert threshold_text(0.0123456789) == "0.012345"
    assert threshold_text(1.0) == "1"
    assert threshold_text(math.nan) == "nan"


def test_the_bounds_are_clopper_and_pearsons() -> None:
    found = patient_share(np.array([True] * 9 + [False]), units(10))
    assert (found.value, found.n) == (0.9, 10)
    assert found.interval_low == pytest.approx(stats.beta.ppf(0.025, 9, 2))
    assert found.interval_high == pytest.approx(stats.beta.ppf(0.975, 10, 1))
    assert found.low == pytest.approx(stats.binomtest(9, 10, alternative="greater")
                                      .proportion_ci(0.95, "exact").low)  # fmt: skip


def test_no_miss_is_no_proof() -> None:
    found = patient_share(np.array([True] * 20), units(20))
    assert found.value == 1
    assert found.low == pytest.approx(0.05 ** (1 / 20))
    assert found.interval_high == 1
    nothing = patient_share(np.array([False] * 20), units(20))
    assert (nothing.value, nothing.low, nothing.interval_low) == (0, 0, 0)
    assert nothing.interval_high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert math.isnan(patient_share(np.array([], bool), units(0)).value)


def test_a_patient_counts_once_by_the_share_of_their_images() -> None:
    found = patient_share(
        np.array([True, True, True, False, True]), np.array(list("aaabb"), object)
    )
    assert (found.value, found.n) == (0.75 + 0, 2) or found.n == 2
    assert found.value == pytest.approx((1 + 0.5) / 2)
    many = patient_share(np.array([True] * 300), units(300, 30))
    assert many.low == pytest.approx(0.05 ** (1 / 10)), "ten patients, not 300 images"


def test_the_threshold_of_93_malignant_patients_allows_one_miss() -> None:
    """P(Bin(93, 0.05) <= 1) = 0.0499: the second smallest score is the threshold (Wilks 1941)."""
    score = np.concatenate([np.arange(1, 94) / 100, [0.005, 0.5]])
    label = np.array([1] * 93 + [0, 0])
    found = bounded_threshold(label, score, units(95), 0.95)
    assert found == (0.02, True)
    rates = operating_rates(label, score, units(95), found.threshold)
    assert rates.sensitivity.value == pytest.approx(92 / 93)
    assert rates.sensitivity.low >= 0.95
    assert rates.specificity.value == 0.5
    assert rates.referral_share == pytest.approx(93 / 95)


def test_too_few_patients_show_nothing_and_that_is_said() -> None:
    assert least_patients(0.95) == 59
    assert least_patients(0.9) == 29
    assert least_patients(1.0) is None
    for n, met in ((58, False), (59, True)):
        label, score = np.ones(n, np.int64), np.arange(1, n + 1) / 100
        assert bounded_threshold(label, score, units(n), 0.95) == (0.01, met)
    assert bounded_threshold(np.ones(500, np.int64), np.arange(500) / 500, units(500), 1.0) == (
        0.0, False,
    )  # fmt: skip
    none = bounded_threshold(np.array([0]), np.array([0.5]), units(1), 0.9)
    assert math.isnan(none.threshold)


rows_of_images = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda i: i / 20), st.integers(0, 9)),
    min_size=1, max_size=60,
)  # fmt: skip


@given(rows_of_images, st.integers(1, 99).map(lambda i: i / 100))
def test_it_is_the_largest_that_meets_the_level(each, level: float) -> None:
    label, score, unit = (np.array(column) for column in zip(*each, strict=True))
    found = bounded_threshold(label, score, unit, level)
    malignant = label == 1
    if not malignant.any():
        assert math.isnan(found.threshold)
        return

    def bound(threshold: float) -> float:
        return patient_share(score[malignant] >= threshold, unit[malignant]).low

    assert found.is_met == (bound(found.threshold) >= level)
    if not found.is_met:
        assert found.threshold == score[malignant].min()
    for other in score[malignant][score[malignant] > found.threshold]:
        assert bound(other) < level


@pytest.mark.parametrize("level", [0.0, -0.1, 1.01, math.nan])
def test_a_level_is_a_share_above_nothing(level: float) -> None:
    with pytest.raises(ValueError, match="sensitivity above 0 and at most 1"):
        bounded_threshold(np.array([1]), np.array([0.5]), units(1), level)


def test_a_score_must_be_a_number() -> None:
    with pytest.raises(ValueError, match=r"0\.9 and 1 that are not finite"):
        bounded_threshold(np.array([1, 0]), np.array([0.5, np.nan]), units(2), 0.9)


@pytest.mark.parametrize(("n", "level"), [(93, 0.95), (210, 0.9)])
def test_in_at_most_one_study_of_twenty_the_true_sensitivity_is_below_the_declared(
    n: int, level: float
) -> None:
    """Scores are uniform, so that the true sensitivity of a threshold t is 1 - t."""
    rng = np.random.default_rng(5)
    label, unit = np.ones(n, np.int64), units(n)
    true = [1 - bounded_threshold(label, rng.random(n), unit, level).threshold for _ in range(200)]
    assert np.mean(np.array(true) < level) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_with_several_images_a_patient_too() -> None:
    """Images share their patient's luck: as if independent, far too many studies fall short."""
    rng = np.random.default_rng(6)
    label = np.ones(240, np.int64)
    below = {"patients": 0, "images": 0}
    for _ in range(120):
        z = np.repeat(rng.normal(size=60), 4) * 0.9 + rng.normal(size=240) * math.sqrt(0.19)
        score = stats.norm.cdf(z)
        for name, unit in (("patients", units(240, 4)), ("images", units(240))):
            below[name] += 1 - bounded_threshold(label, score, unit, 0.9).threshold < 0.9
    assert below["patients"] / 120 <= 0.06
    assert below["images"] / 120 > 0.1
