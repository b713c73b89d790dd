"""One temperature: known minima, bounds, and no judge of its own choice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evaluation.test_out_of_fold import rows
from thyro_core.evaluation import calibration as module
from thyro_core.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    calibration_quality,
    cross_fitted_calibration,
    fit_temperature,
    negative_log_likelihood,
)
from thyro_core.evaluation.out_of_fold import sigmoid


def test_the_loss_by_hand() -> None:
    label, margin = np.array([1, 0, 0]), np.array([2.0, -1.0, 3.0])
    probability = [1 / (1 + math.exp(-m / 2)) for m in margin]
    expected = -(math.log(probability[0]) + math.log(1 - probability[1])
                 + math.log(1 - probability[2])) / 3  # fmt: skip
    assert negative_log_likelihood(label, margin, 2.0) == pytest.approx(expected, rel=1e-12)
    assert negative_log_likelihood(np.array([1]), np.array([-4000.0]), 1.0) == 4000.0


@pytest.mark.parametrize(("share", "margin"), [(0.75, 1.0), (0.9, 5.0), (0.6, 1.0)])
def test_the_minimum_has_a_closed_form_where_all_margins_are_alike(share, margin) -> None:
    """With margins +-m, right in a share s: sigmoid(m / T) = s, so T = m / log(s / (1 - s))."""
    n = 100
    label = np.array([1] * n)
    margins = np.where(np.arange(n) < share * n, margin, -margin)
    expected = margin / math.log(share / (1 - share))
    assert fit_temperature(label, margins) == pytest.approx(expected, rel=1e-6)


def test_bounds_are_met_exactly() -> None:
    label, margin = np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0])
    assert fit_temperature(label, margin) == LOWEST
    assert fit_temperature(1 - label, margin) == HIGHEST


def test_a_true_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 4, 20_000)
    label = (rng.random(20_000) < sigmoid(margin / 2.5)).astype(np.int64)
    assert fit_temperature(label, margin) == pytest.approx(2.5, rel=0.03)
    before, after = calibration_quality(label, margin, 1.0), calibration_quality(label, margin, 2.5)
    assert after.ece < 0.02
    assert before.ece > 0.1
    assert after.brier < before.brier
    assert after.nll < before.nll


margins = st.lists(
    st.tuples(st.integers(0, 1), st.floats(-8, 8, allow_subnormal=False)), min_size=1, max_size=40
)


@given(margins, st.floats(LOWEST, HIGHEST))
def test_no_other_temperature_within_the_bounds_is_better(each, other) -> None:
    label = np.array([row[0] for row in each])
    margin = np.array([row[1] for row in each])
    best = fit_temperature(label, margin)
    assert LOWEST <= best <= HIGHEST
    loss = negative_log_likelihood(label, margin, best)
    assert loss <= negative_log_likelihood(label, margin, other) + 1e-7


def test_figures_are_those_of_the_metrics() -> None:
    found = calibration_quality(np.array([1, 0]), np.array([0.0, math.log(1 / 3)]), 1.0)
    assert found.brier == pytest.approx((0.5**2 + 0.25**2) / 2)
    assert found.ece == pytest.approx((0.5 + 0.25) / 2)
    assert found.nll == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


@pytest.mark.parametrize("margin", [[], [math.nan], [math.inf], [1.0, 2.0]])
def test_what_cannot_be_fitted_is_refused(margin) -> None:
    with pytest.raises(ValueError, match="expected finite margins, one a label"):
        fit_temperature(np.array([1] * min(1, len(margin))), np.array(margin))


def test_a_split_is_judged_by_a_temperature_that_never_saw_it(monkeypatch) -> None:
    found = rows(
        (0, "a", "a", 1, 1.0), (0, "b", "b", 0, -2.0),
        (1, "c", "c", 1, -3.0), (1, "a", "a", 1, 4.0),
        (2, "d", "d", 0, 5.0),
    )  # fmt: skip
    chosen_on = []

    def fit(label, margin):
        chosen_on.append(sorted(margin.tolist()))
        return 2.0

    monkeypatch.setattr(module, "fit_temperature", fit)
    crossed = cross_fitted_calibration(found)
    assert chosen_on == [[-3.0, 5.0], [-2.0, 5.0], [-3.0, -2.0, 1.0, 4.0]]
    assert crossed.n == 3
    parts = [([1, 0], [1.0, -2.0]), ([1, 1], [-3.0, 4.0]), ([0], [5.0])]
    for figures, value in ((crossed.before, 1.0), (crossed.after, 2.0)):
        each = [calibration_quality(np.array(y), np.array(m), value) for y, m in parts]
        assert figures == pytest.approx(np.mean(each, axis=0).tolist())


def test_without_any_other_image_nothing_is_judged() -> None:
    crossed = cross_fitted_calibration(rows((0, "a", "g", 1, 1.0), (1, "a", "g", 1, 2.0)))
    assert crossed.n == 0
    assert all(math.isnan(value) for value in (*crossed.before, *crossed.after))
