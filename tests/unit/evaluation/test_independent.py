"""Differences of figures of two samples that share no patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyro_core.evaluation.bounded import (
    NO_INTERVAL,
    Interval,
    independent_difference,
    wilson_interval,
)
from thyro_core.evaluation.delong import RankedImages, auc_influences, independent_delong


def sample(rng: np.random.Generator, n: int, shift: float, each: int = 1) -> RankedImages:
    """`n` patients with `each` images, malignant ones shifted; images of one are alike."""
    label = np.repeat(rng.permutation(np.arange(n) % 2), each)
    patient = np.repeat(rng.normal(size=n), each)
    score = patient + 0.3 * rng.normal(size=n * each) + shift * label
    return RankedImages(label, score, np.repeat(np.arange(n), each))


def brute_force(images: RankedImages) -> tuple[float, float]:
    """AUC and DeLong's variance from all pairs, one image a patient."""
    ill, well = images.score[images.label == 1], images.score[images.label == 0]
    wins = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
    parts = wins.mean(axis=1), wins.mean(axis=0)
    return float(wins.mean()), sum(float(part.var(ddof=1)) / part.size for part in parts)


def test_two_aucs_by_the_formula() -> None:
    rng = np.random.default_rng(1)
    first, second = sample(rng, 61, 0.6), sample(rng, 90, 1.5)
    (a, var_a), (b, var_b) = brute_force(first), brute_force(second)
    z = (a - b) / np.sqrt(var_a + var_b)
    test = independent_delong(first, second)
    assert test[:3] == pytest.approx((a, b, a - b))
    assert (test.z, test.p) == pytest.approx((z, 2 * stats.norm.sf(abs(z))))
    assert test.ci_high - test.difference == pytest.approx(1.959964 * np.sqrt(var_a + var_b))
    assert independent_delong(second, first).p == pytest.approx(test.p)


def test_patients_with_several_images_are_no_evidence_of_their_own() -> None:
    rng = np.random.default_rng(2)
    single = sample(rng, 60, 1.0)
    other = sample(rng, 60, 1.0)
    copies = RankedImages(*(np.repeat(column, 7) for column in single))
    once, often = independent_delong(single, other), independent_delong(copies, other)
    assert often.p == pytest.approx(once.p)
    assert independent_delong(copies._replace(cluster=np.arange(420)), other).p < once.p


def test_chance_is_significant_in_five_of_a_hundred() -> None:
    """Two samples of one law, patients with three images each."""
    rng = np.random.default_rng(3)
    tests = [
        independent_delong(sample(rng, 80, 1.0, each=3), sample(rng, 50, 1.0, each=3))
        for _ in range(800)
    ]
    share = np.mean([test.p < 0.05 for test in tests])
    # Three standard errors of 800 draws around 0.05.
    assert 0.027 < share < 0.078
    assert all((test.p < 0.05) == (test.ci_low > 0 or test.ci_high < 0) for test in tests)


def test_without_spread_there_is_no_delong_test() -> None:
    rng = np.random.default_rng(4)
    apart = RankedImages(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.arange(4))
    test = independent_delong(apart, sample(rng, 40, 1.0))
    assert test.auc_a == 1.0
    assert np.isnan([test.p, test.ci_low, test.z]).all()
    one_class = RankedImages(np.zeros(4, int), np.arange(4.0), np.arange(4))
    assert np.isnan(independent_delong(one_class, apart).difference)


def test_difference_of_shares_by_newcombes_example() -> None:
    """Newcombe 1998, table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339."""
    ends = [wilson_interval(hits / n, n) for hits, n in ((56, 70), (48, 80))]
    difference = independent_difference(56 / 70, ends[0], 48 / 80, ends[1])
    assert difference[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert 0.001 < difference.p < 0.05


def test_shares_at_the_edge_have_a_difference_with_an_end() -> None:
    """Newcombe 1998: 10/10 - 0/20, method 10: 0.6791 to 1."""
    ends = wilson_interval(1.0, 10), wilson_interval(0.0, 20)
    difference = independent_difference(1.0, ends[0], 0.0, ends[1])
    assert difference[:3] == pytest.approx((1.0, 0.6791, 1.0), abs=5e-5)
    assert difference.p < 0.001


figures = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(figures, figures)
def test_p_is_below_five_hundredths_where_the_interval_leaves_zero_out(one, other) -> None:
    (low, value, high), (other_low, other_value, other_high) = one, other
    test = independent_difference(
        value, Interval(low, high), other_value, Interval(other_low, other_high)
    )
    if np.isnan(test.p):
        return
    assert test.low <= test.value <= test.high
    margin = min(abs(test.low), abs(test.high))
    if margin > 1e-9:
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


def test_without_an_interval_there_is_no_test() -> None:
    test = independent_difference(0.9, NO_INTERVAL, 0.8, Interval(0.7, 0.9))
    assert test.value == pytest.approx(0.1)
    assert np.isnan(test[1:]).all()


def test_influences_and_placements_agree() -> None:
    images = sample(np.random.default_rng(6), 30, 1.0)
    assert auc_influences(images.label, images.score)[0] == brute_force(images)[0]
