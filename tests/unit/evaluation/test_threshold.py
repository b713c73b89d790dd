"""The threshold for a sensitivity: exact at ties, and judged on images that did not choose it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.unit.evaluation.test_out_of_fold import rows
from thyro_core.evaluation.out_of_fold import sigmoid
from thyro_core.evaluation.threshold import (
    SplitThreshold,
    cross_fitted_threshold,
    proportion,
    rates,
    threshold_for,
)
from thyro_core.evaluation.uncertainty import mean_interval


def arrays(each) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in each]), np.array([row[1] for row in each], float)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(1.0, 0.1), (0.95, 0.1), (0.8, 0.3), (0.75, 0.3), (0.6, 0.3), (0.4, 0.7), (0.2, 0.9),
     (0.01, 0.9)],
)  # fmt: skip
def test_the_threshold_by_hand(target: float, expected: float) -> None:
    label = np.array([1, 0, 1, 1, 0, 1, 1])
    probability = np.array([0.1, 0.95, 0.9, 0.3, 0.2, 0.3, 0.7])
    assert threshold_for(label, probability, target) == expected


@pytest.mark.parametrize(("target", "n"), [(0.95, 20), (0.7, 10), (0.1, 30), (0.9, 10), (0.3, 10)])
def test_a_share_that_is_a_whole_number_of_images_asks_for_no_more(target: float, n: int) -> None:
    probability = np.arange(n) / n
    needed = int(Fraction(str(target)) * n)
    assert threshold_for(np.ones(n, int), probability, target) == (n - needed) / n


rows_of_images = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 12).map(lambda i: i / 12)), min_size=1
)


@given(rows_of_images, st.integers(1, 100).map(lambda i: i / 100))
def test_it_reaches_the_sensitivity_and_no_higher_one_does(each, target: float) -> None:
    label, probability = arrays(each)
    threshold = threshold_for(label, probability, target)
    malignant = probability[label == 1]
    if not malignant.size:
        assert math.isnan(threshold)
        return
    assert (malignant >= threshold).mean() >= target - 1e-9
    higher = np.nextafter(threshold, 2.0)
    assert (malignant >= higher).mean() < target
    for other in malignant[malignant > threshold]:
        assert (malignant >= other).mean() < target


@given(rows_of_images, st.integers(1, 100).map(lambda i: i / 100))
def test_benign_images_and_order_change_nothing(each, target: float) -> None:
    label, probability = arrays(each)
    turned = arrays([row for row in each[::-1] if row[0] == 1] or [(0, 0.5)])
    found = threshold_for(label, probability, target)
    assert found == pytest.approx(threshold_for(*turned, target), nan_ok=True)


@pytest.mark.parametrize("target", [0.0, -0.1, 1.01, math.nan])
def test_a_sensitivity_is_a_share_above_nothing(target: float) -> None:
    with pytest.raises(ValueError, match="sensitivity above 0 and at most 1"):
        threshold_for(np.array([1]), np.array([0.5]), target)


def test_a_probability_must_be_a_number() -> None:
    with pytest.raises(ValueError, match=r"0\.9 and 1 that are not finite"):
        threshold_for(np.array([1, 0]), np.array([0.5, np.nan]), 0.9)


def test_rates_by_hand() -> None:
    found = rates(np.array([1, 1, 1, 0, 0]), np.array([True, False, True, True, False]))
    assert found == (2 / 3, 1 / 2)
    assert np.isnan(rates(np.array([0]), np.array([True]))).tolist() == [True, False]


def test_the_exact_interval() -> None:
    found = proportion(9, 10)
    assert found.value == 0.9
    # Clopper and Pearson 1934 by the beta quantiles.
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 9, 2))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, 10, 1))
    assert proportion(10, 10).low == pytest.approx(0.025 ** (1 / 10))
    assert proportion(10, 10).high == 1.0
    assert all(math.isnan(value) for value in proportion(0, 0)[:3])


MARGINS = (
    (0, "a", "a", 1, 2.0), (0, "b", "b", 0, -1.0), (0, "c", "c", 1, -0.5),
    (1, "d", "d", 1, 1.0), (1, "e", "e", 0, 1.5), (1, "a", "a", 1, 3.0),
    (2, "f", "f", 1, 0.0), (2, "g", "g", 0, -2.0), (2, "d", "d", 1, 0.5),
)  # fmt: skip


def test_cross_fitting_by_hand() -> None:
    """Of split 0 the malignant d, f, d are outside: the threshold for all of them is f's."""
    found = rows(*MARGINS)
    point = cross_fitted_threshold(found, sigmoid(found.margin), 1.0)
    half, c = 0.5, float(sigmoid(np.array([-0.5]))[0])
    assert point.splits == (
        SplitThreshold(0, half, 1 / 2, 1.0),  # a is found, c is not; b is left alone
        SplitThreshold(1, c, 1.0, 0.0),  # outside: a, c, f (d of split 2 is tested here too)
        SplitThreshold(2, c, 1.0, 1.0),  # outside: a, c, a
    )
    assert point.sensitivity == mean_interval([0.5, 1.0, 1.0], 0.5)
    assert point.specificity == mean_interval([1.0, 0.0, 1.0], 0.5)
    # Images once: a, d, f are found, c is not; of b, e, g, e is called malignant.
    assert point.image_sensitivity == proportion(3, 4)
    assert point.image_specificity == proportion(2, 3)


def test_an_image_is_judged_by_the_thresholds_that_it_did_not_choose() -> None:
    """Its mean probability over splits against the mean of their thresholds."""
    found = rows(
        (0, "a", "a", 1, 0.0), (1, "a", "a", 1, 0.0), (0, "b", "b", 1, 0.0), (1, "c", "c", 1, 0.0)
    )
    probability = np.array([0.4, 0.6, 0.7, 0.2])
    point = cross_fitted_threshold(found, probability, 1.0)
    assert [each.threshold for each in point.splits] == [0.2, 0.7]
    # a: mean 0.5 against 0.45; b: 0.7 against 0.2; c: 0.2 against 0.7.
    assert point.image_sensitivity == proportion(2, 3)
    assert point.image_specificity.n == 0


def test_a_split_whose_threshold_nothing_can_choose_is_undefined_and_left_out() -> None:
    found = rows((0, "a", "a", 1, 1.0), (0, "b", "b", 0, 0.0), (1, "c", "c", 0, -1.0))
    point = cross_fitted_threshold(found, sigmoid(found.margin), 0.9)
    assert math.isnan(point.splits[0].threshold)
    assert math.isnan(point.splits[0].specificity)
    assert point.splits[1].specificity == 1.0
    assert math.isnan(point.splits[1].sensitivity)
    assert point.sensitivity.n == 0
    assert point.specificity.n == 1
    assert point.image_sensitivity.n == 0
    assert point.image_specificity == proportion(1, 1)


def test_the_estimate_is_honest_where_reuse_is_not() -> None:
    """Scores without any information: chosen and judged on the same images they look better."""
    rng = np.random.default_rng(3)
    reused, crossed = [], []
    for _ in range(30):
        each = [
            (split, f"{split}-{i}", f"{split}-{i}", int(i < 6), float(rng.normal()))
            for split in range(5)
            for i in range(18)
        ]
        found = rows(*each)
        probability = sigmoid(found.margin)
        threshold = threshold_for(found.label, probability, 0.9)
        reused.append(rates(found.label, probability >= threshold)[0])
        crossed.append(cross_fitted_threshold(found, probability, 0.9).sensitivity.mean)
    assert min(reused) >= 0.9
    # The k-th largest of 24 draws leaves k / 25 of new ones above it: 22 / 25.
    assert np.mean(crossed) == pytest.approx(22 / 25, abs=0.03)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(-9, 9)),
        min_size=1, max_size=30, unique_by=lambda row: row[:2],
    ),
    st.sampled_from([0.5, 0.9, 1.0]),
)  # fmt: skip
def test_changing_a_splits_own_images_changes_nothing_of_its_threshold(each, target) -> None:
    def point(turned: int | None):
        found = rows(
            *((s, f"i{i}", f"g{i}", i % 2, float(-m if s == turned else m)) for s, i, m in each)
        )
        return cross_fitted_threshold(found, sigmoid(found.margin), target)

    before = point(None)
    for split in range(3):
        after = point(split)
        for old, new in zip(before.splits, after.splits, strict=True):
            if old.split == split:
                assert new.threshold == pytest.approx(old.threshold, nan_ok=True)
