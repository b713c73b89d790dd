import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyro_core.evaluation.bounded import (
    effective_size,
    f1_interval,
    logit_interval,
    newcombe_interval,
    proportion_interval,
    wilson_interval,
)


class TestLogitInterval:
    def test_by_hand(self):
        step = 1.959964 * 0.02 / (0.9 * 0.1)
        ends = [1 / (1 + math.exp(-(math.log(9) + side * step))) for side in (-1, 1)]
        assert logit_interval(0.9, 0.02) == pytest.approx(ends, rel=1e-6)

    @pytest.mark.parametrize(
        ("value", "error"), [(1.0, 0.1), (0.0, 0.1), (0.5, 0.0), (0.5, np.nan), (np.nan, 0.1)]
    )
    def test_none_without_a_scale_or_an_error(self, value, error):
        assert np.isnan(logit_interval(value, error)).all()


class TestWilson:
    @given(st.integers(1, 300), st.data())
    def test_is_scipys(self, n, data):
        hits = data.draw(st.integers(0, n))
        expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert wilson_interval(hits / n, n) == pytest.approx(
            (expected.low, expected.high), abs=1e-12
        )


class TestProportions:
    @given(st.lists(st.booleans(), min_size=1, max_size=80))
    def test_one_image_a_patient_is_wilsons(self, hits):
        hit = np.array(hits)
        expected = wilson_interval(hit.mean(), hit.size)
        assert proportion_interval(hit, np.arange(hit.size)) == pytest.approx(expected, rel=1e-9)

    def test_copies_add_no_certainty(self):
        hit = np.repeat(np.arange(40) % 5 > 0, 3)
        patient = np.repeat(np.arange(40), 3)
        # The quantile is that of 39 degrees of freedom instead of 119.
        few = (stats.t.ppf(0.975, 119) / stats.t.ppf(0.975, 39)) ** 2
        assert effective_size(hit, patient) == pytest.approx(120 * 39 / 119 * few)

    def test_at_the_edge_patients_count_once(self):
        hit, patient = np.ones(30, dtype=bool), np.arange(30) // 3
        assert proportion_interval(hit, patient) == wilson_interval(1.0, 10)
        assert proportion_interval(~hit, patient) == wilson_interval(0.0, 10)

    def test_patients_who_balance_each_other_are_worth_no_more_than_their_images(self):
        hit, patient = np.arange(40) % 2 == 0, np.arange(40) // 2
        assert effective_size(hit, patient) == 20  # no spread between patients: they count once
        hit[0] = False
        assert effective_size(hit, patient) == 40

    def test_none(self):
        assert np.isnan(proportion_interval(np.zeros(0, dtype=bool), np.zeros(0))).all()

    @pytest.mark.parametrize("share", [0.8, 0.95, 0.99])
    @pytest.mark.parametrize("images", [1, 4])
    def test_covers(self, share, images):
        """60 patients, images of one being alike; images as units cover too little."""
        generator = np.random.default_rng(0)
        patient = np.repeat(np.arange(60), images)
        own = generator.normal(size=(250, 60))[:, patient]
        value = math.sqrt(0.7) * own + math.sqrt(0.3) * generator.normal(size=(250, patient.size))
        hits = value < stats.norm.ppf(share)
        ends = [proportion_interval(hit, patient) for hit in hits]
        assert 0.92 <= np.mean([low <= share <= high for low, high in ends]) <= 0.99
        if images > 1 and share < 0.9:
            naive = [wilson_interval(hit.mean(), hit.size) for hit in hits]
            assert np.mean([low <= share <= high for low, high in naive]) < 0.85


class TestF1:
    def test_of_independent_images(self):
        label = np.repeat([1, 0], [20, 60])
        called = np.r_[np.ones(18), np.zeros(2), np.ones(4), np.zeros(56)].astype(bool)
        low, high = wilson_interval(18 / 24, 24)
        found = f1_interval(label, called, np.arange(80))
        assert found == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
        assert found.low < 2 * 18 / (2 * 18 + 2 + 4) < found.high

    def test_undefined(self):
        assert np.isnan(f1_interval(np.zeros(3, int), np.zeros(3, bool), np.arange(3))).all()


class TestNewcombe:
    @given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
    def test_ends_solve_the_equation(self, auc, malignant, benign):
        low, high = newcombe_interval(auc, malignant, benign)
        assert 0 <= low <= auc <= high <= 1
        other = (malignant + benign) / 2 - 1
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9 and abs(end - auc) > 1e-9:
                shape = 1 + other * ((1 - end) / (2 - end) + end / (1 + end))
                error = math.sqrt(end * (1 - end) * shape / (malignant * benign))
                assert abs(auc - end) == pytest.approx(1.959964 * error, rel=1e-4)

    def test_one_pair_is_a_single_draw(self):
        assert newcombe_interval(1.0, 1, 1) == pytest.approx(wilson_interval(1.0, 1))

    def test_both_ways(self):
        low, high = newcombe_interval(0.93, 20, 70)
        assert newcombe_interval(1 - 0.93, 20, 70) == pytest.approx((1 - high, 1 - low))

    def test_undefined(self):
        assert np.isnan(newcombe_interval(math.nan, 3, 3)).all()
