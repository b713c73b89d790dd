"""Conformal bands against an independent package, by brute force, and by what they promise."""

import math

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyro_core.evaluation.conformal import (
    BandCuts,
    band_cuts,
    breach_share,
    least_calibration_patients,
    score_band,
    score_bands,
    unlike_patients,
)

SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.29, 0.3, 0.5])


def own(n: int) -> np.ndarray:
    """Each image its own patient."""
    return np.array([f"u{i:04d}" for i in range(n)], object)


def draw(seed: int, malignant: int = 40, benign: int = 60, *, ties: bool = False):
    rng = np.random.default_rng(seed)
    label = np.repeat([1, 0], [malignant, benign])
    score = rng.normal(1.5 * label, 1.0)
    return label, np.round(score, 1) if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_p_values_are_those_of_another_package(seed: int, ties: bool) -> None:
    """Class-conditional, without smoothing; unlike malignant is a low score, unlike benign a high
    one."""
    label, score = draw(seed, ties=ties)
    _, new = draw(seed + 100, ties=ties)
    unlike = np.where(label == 1, -score, score)
    other = ConformalClassifier()
    other.fit(unlike, bins=label)
    for value in (0, 1):
        expected = other.predict_p(
            np.stack([new if value == 0 else -new] * 2, axis=1),
            bins=np.full(len(new), value), smoothing=False,
        )[:, 0]  # fmt: skip
        unit = own(len(label))
        values = [p_by_hand(score, label, unit, each, value) for each in new]
        assert values == pytest.approx(expected, abs=1e-12)


def p_by_hand(score, label, unit, new, value):
    """(1 + patients with an image of the class at least as unlike it) / (patients + 1)."""
    images = list(zip(score[label == value], unit[label == value], strict=True))
    unlike = {u for s, u in images if (s <= new if value else s >= new)}
    return (1 + len(unlike)) / (len({u for _, u in images}) + 1)


@given(st.integers(0, 10**6), SHARES, SHARES, st.integers(1, 3), st.booleans())
def test_bands_are_those_of_the_p_values(seed, routine, refer, images, ties) -> None:
    label, score = draw(seed, 21, 24, ties=ties)
    unit = np.array([f"u{i // images}" for i in range(len(label))], object)
    sizes = [len(set(unit[label == value])) for value in (1, 0)]
    if any(n < least_calibration_patients(s) for n, s in zip(sizes, (routine, refer), strict=True)):
        with pytest.raises(ValueError, match=r"expected .* malignant and .* benign patients"):
            band_cuts(label, score, unit, routine_share=routine, refer_share=refer)
        return
    cuts = band_cuts(label, score, unit, routine_share=routine, refer_share=refer)
    for new in [*score[::4], *(score[:3] + 1e-9), -9.0, 9.0]:
        # The p values are fractions: no rounding decides.
        malignant = p_by_hand(score, label, unit, new, 1) > routine + 1e-12
        benign = p_by_hand(score, label, unit, new, 0) > refer + 1e-12
        expected = {
            (True, False): ("refer", None), (False, True): ("routine", None),
            (True, True): ("review", "both_plausible"),
            (False, False): ("review", "neither_plausible"),
        }[malignant, benign]  # fmt: skip
        assert score_band(new, cuts) == expected


def test_bands_by_hand() -> None:
    overlap, apart = BandCuts(0.2, 0.8), BandCuts(0.8, 0.2)
    assert [score_band(s, overlap)[0] for s in (0.1, 0.2, 0.8, 0.9)] == [
        "routine", "review", "review", "refer",
    ]  # fmt: skip
    assert [score_band(s, apart) for s in (0.2, 0.5, 0.8)] == [
        ("routine", None), ("review", "neither_plausible"), ("refer", None),
    ]  # fmt: skip
    assert score_bands(np.array([0.1, 0.9]), overlap).tolist() == ["routine", "refer"]


@pytest.mark.parametrize(
    ("share", "least"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.3, 3), (0.5, 1), (0.9, 1)]
)
def test_fewer_patients_than_the_share_takes_promise_nothing(share: float, least: int) -> None:
    assert least_calibration_patients(share) == least
    assert unlike_patients(least - 1, share) == -1 or least == 1
    assert unlike_patients(least, share) >= 0


def test_a_declared_decimal_is_taken_as_it_was_declared() -> None:
    assert 0.29 * 100 < 29
    assert unlike_patients(99, 0.29) == 28


def test_scores_that_are_not_finite_are_refused() -> None:
    label, score = draw(0)
    score[3] = math.nan
    with pytest.raises(ValueError, match="expected finite scores, found 1"):
        band_cuts(label, score, own(100), routine_share=0.1, refer_share=0.1)


def patients_of(rng, n: int, value: int, images: int):
    """Patients of a class whose images are alike; those who look malignant have more of them."""
    nature = rng.normal(1.5 * value, 1.0, n)
    number = np.where(nature > 1.5 * value - 0.3, images, 1) if images > 1 else np.ones(n, int)
    unit = np.repeat(np.arange(n), number)
    return nature[unit] + rng.normal(0, 0.5, unit.size), unit.astype(str).astype(object)


def broken_promises(seed: int, images: int, studies: int = 300, new: int = 200) -> np.ndarray:
    """Of each study, the shares of new malignant patients and images called routine, by patients
    and, the rule that was not taken, by images."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(studies):
        (ill, ill_unit), (well, well_unit) = (patients_of(rng, 39, v, images) for v in (1, 0))
        score, label = np.r_[ill, well], np.repeat([1, 0], [ill.size, well.size])
        unit = np.r_[ill_unit, "b" + well_unit.astype(str)].astype(object)
        fresh, fresh_unit = patients_of(rng, new, 1, images)
        row = []
        for units in (unit, own(unit.size)):
            cuts = band_cuts(label, score, units, routine_share=0.1, refer_share=0.1)
            is_routine = score_bands(fresh, cuts) == "routine"
            missed = len(set(fresh_unit[is_routine])) / new
            by_patient = np.bincount(fresh_unit.astype(int), is_routine) / np.bincount(
                fresh_unit.astype(int)
            )
            row += [missed, by_patient.mean()]
        rows.append(row)
    return np.array(rows)


def test_the_promise_holds_over_draws_of_the_calibration_patients() -> None:
    """39 patients, a tenth: on average exactly (3 + 1) / 40 of new ones, less the refer band's."""
    shares = broken_promises(1, images=1)[:, 0]
    error = shares.std() / np.sqrt(len(shares))
    assert 0.08 < shares.mean() <= 0.1 + 3 * error
    # It is marginal: of single studies many have more, which the card's sentence says.
    assert (shares > 0.1).mean() > 0.2


def test_with_clustered_images_it_holds_by_patient_and_would_not_by_image() -> None:
    shares = broken_promises(2, images=8)
    patients, images, naive_patients, _ = shares.mean(axis=0)
    error = shares.std(axis=0).max() / np.sqrt(len(shares))
    assert images <= patients <= 0.1 + 3 * error
    assert naive_patients > 0.1 + 10 * error


def test_a_breach_is_tested_by_the_law_of_order_statistics() -> None:
    """Of 29 calibration patients and 20 new ones every order is as likely; the cut is the third."""
    rng, n, m, share = np.random.default_rng(3), 29, 20, 0.1
    below = unlike_patients(n, share)
    assert below == 2
    order = rng.random((20_000, n + m))
    cut = np.sort(order[:, :n], axis=1)[:, below]
    counts = (order[:, n:] < cut[:, None]).sum(axis=1)
    for observed in (1, 3, 6):
        called = np.arange(m) < observed
        found = breach_share(called, own(m), calibration=n, share=share)
        assert found.p == pytest.approx((counts >= observed).mean(), abs=0.015)
        assert (found.patients, found.n, found.value) == (observed, m, observed / m)
        exact = stats.binomtest(observed, m).proportion_ci(method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_patients_count_once_in_a_breach_and_none_is_no_share() -> None:
    unit = np.array(["a", "a", "b", "c"], object)
    found = breach_share(np.array([True, True, False, False]), unit, calibration=19, share=0.05)
    assert (found.patients, found.n) == (1, 3)
    nobody = breach_share(np.empty(0, bool), np.empty(0, object), calibration=19, share=0.05)
    assert nobody.n == 0
    assert math.isnan(nobody.value)
    assert math.isnan(nobody.p)
    none, every = (
        breach_share(np.full(3, value), own(3), calibration=19, share=0.05)
        for value in (False, True)
    )
    assert (none.low, none.p) == (0.0, 1.0)
    assert every.high == 1.0
