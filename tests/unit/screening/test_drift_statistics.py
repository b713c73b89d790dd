"""PSI, KS and MMD against closed forms, short second implementations and their own null."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyro_core.screening.drift_statistics import PSEUDO_COUNT, ks, mmd, psi, psi_chance


def test_psi_by_hand() -> None:
    """Quartiles of 1 to 8 are 2.75, 4.5, 6.25: two values a bin; the batch has 0, 1, 1, 4."""
    found = psi(range(1, 9), [3, 6, 7, 8, 9, 10], bins=4)
    p = [(2 + PSEUDO_COUNT) / (8 + 4 * PSEUDO_COUNT)] * 4
    q = [(n + PSEUDO_COUNT) / (6 + 4 * PSEUDO_COUNT) for n in (0, 1, 1, 4)]
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert found == pytest.approx(expected, rel=1e-12)


def test_psi_of_a_shifted_normal_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    cuts = stats.norm.ppf(np.arange(1, 10) / 10)
    p, q = (np.diff(stats.norm.cdf([-np.inf, *cuts, np.inf], loc)) for loc in (0.0, 0.5))
    expected = float(((q - p) * np.log(q / p)).sum())
    found = psi(rng.normal(0, 1, 200_000), rng.normal(0.5, 1, 200_000))
    assert found == pytest.approx(expected, rel=0.03)
    assert 0.2 < expected < 0.3


def test_psi_stays_finite_at_empty_bins_and_ties() -> None:
    assert 0 < psi(np.arange(100), np.full(20, 1e9)) < 10
    assert psi(np.zeros(50), np.zeros(50)) == 0.0
    assert 0 < psi(np.zeros(50), np.zeros(20)) < 0.02
    assert psi(np.zeros(50), np.ones(20)) > 1
    assert math.isnan(psi([], [1.0]))
    assert math.isnan(psi([1.0], []))


samples = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=40)


@given(samples, samples)
def test_psi_is_never_negative_and_knows_no_scale(known, asked) -> None:
    found = psi(known, asked)
    assert found >= 0
    # Times four is exact: nothing on a bin's edge is rounded to its other side.
    turned = psi([v * 4 for v in known], [v * 4 for v in asked[::-1]])
    assert turned == pytest.approx(found, abs=1e-9)


@given(samples)
def test_a_sample_does_not_differ_from_itself(known) -> None:
    assert psi(known, known) == pytest.approx(0.0, abs=1e-12)
    assert ks(known, known) == (0.0, 1.0)


@pytest.mark.parametrize(("m", "n"), [(400, 60), (400, 400)])
def test_chance_is_bounded_as_declared(m: int, n: int) -> None:
    """400 batches without drift: about 5 % pass the 95 % bound, and hardly any the 99.9 %."""
    rng = np.random.default_rng(1)
    found = np.array([psi(rng.normal(size=m), rng.normal(size=n)) for _ in range(400)])
    # The pseudo-counts draw the index towards 0: fewer may pass, hardly more.
    assert 2 <= (found > psi_chance(m, n, 0.95)).sum() <= stats.binom.ppf(0.999, 400, 0.05)
    assert (found > psi_chance(m, n, 0.999)).sum() <= 3
    if n == 60:
        assert (found > 0.25).sum() > 10, "the customary bound alone cries wolf"


def test_ks_by_hand() -> None:
    found = ks([1, 2, 3, 4], [3.5, 4.5, 5.5])
    assert found.distance == pytest.approx(3 / 4)
    assert ks(range(100), range(50, 150)).p < 1e-6
    assert all(math.isnan(value) for value in (*ks([], [1.0]), *ks([1.0], [])))


def test_ks_of_shifted_normals_is_its_closed_form() -> None:
    rng = np.random.default_rng(2)
    found = ks(rng.normal(0, 1, 50_000), rng.normal(0.5, 1, 50_000))
    assert found.distance == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.01)
    assert found.p < 1e-9


def mmd_by_loops(known: np.ndarray, asked: np.ndarray) -> float:
    pooled = np.concatenate([known, asked])
    sd = pooled.std(axis=0)
    known, asked = known / sd, asked / sd
    every = [*known, *asked]
    median = np.median([((a - b) ** 2).sum() for a, b in itertools.combinations(every, 2)])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-((a - b) ** 2).sum() / (2 * median))

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(each, 2)])
              for each in (known, asked)]  # fmt: skip
    return sum(within) - 2 * np.mean([kernel(a, b) for a in known for b in asked])


def test_mmd_by_loops() -> None:
    rng = np.random.default_rng(3)
    known, asked = rng.normal(0, [1, 2, 5], (7, 3)), rng.normal(0.5, 1, (4, 3))
    found = mmd(known, asked, permutations=99)
    assert found.value == pytest.approx(mmd_by_loops(known, asked), rel=1e-9)


def test_mmd_p_is_the_share_of_all_relabellings() -> None:
    """Four and three vectors: of the 35 relabellings the observed one is the most extreme."""
    known = np.array([[0.0], [0.1], [0.2], [0.3]])
    asked = np.array([[5.0], [5.1], [5.2]])
    everything = np.concatenate([known, asked])
    values = []
    for chosen in itertools.combinations(range(7), 4):
        first = np.isin(np.arange(7), chosen)
        values.append(mmd(everything[first], everything[~first], permutations=1).value)
    reached = np.mean(np.array(values) >= values[0] - 1e-12)
    found = mmd(known, asked, permutations=4999)
    assert found.value == pytest.approx(values[0])
    assert found.p == pytest.approx(reached, abs=0.01)


def test_mmd_finds_a_shift_and_its_size_is_the_kernels() -> None:
    """500 dimensions shifted by 0.3 SD: 2 (e^-(1/2) - e^-(1/2 (1 + 0.3^2/2))), near enough."""
    rng = np.random.default_rng(4)
    known, asked = rng.normal(0, 1, (300, 500)), rng.normal(0.3, 1, (300, 500))
    found = mmd(known, asked, permutations=199)
    squares = 2 * 500 / (1 + 0.3**2 / 4)  # in pooled SDs
    apart = 500 * 0.3**2 / (1 + 0.3**2 / 4)
    median = squares + apart / 2
    expected = 2 * (math.exp(-squares / 2 / median) - math.exp(-(squares + apart) / 2 / median))
    assert found.value == pytest.approx(expected, rel=0.1)
    assert found.p == 1 / 200


def test_the_permutation_test_keeps_its_level() -> None:
    """Over 300 pairs without a difference P is uniform: at most as often small as it says."""
    rng = np.random.default_rng(5)
    found = np.array(
        [
            mmd(rng.normal(size=(20, 3)), rng.normal(size=(12, 3)), permutations=99, seed=seed).p
            for seed in range(300)
        ]
    )
    for level in (0.05, 0.1, 0.5):
        low, high = stats.binom.interval(0.999, 300, level)
        assert low <= (found <= level).sum() <= high


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_order_and_repetition_change_nothing(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, asked = rng.normal(size=(m, 2)), rng.normal(size=(n, 2))
    found = mmd(known, asked, size=5, permutations=19, seed=seed)
    assert mmd(known[::-1], asked[::-1], size=5, permutations=19, seed=seed) == found
    assert 1 / 20 <= found.p <= 1


def test_the_memory_is_bounded_by_drawing() -> None:
    rng = np.random.default_rng(6)
    known, asked = rng.normal(size=(3000, 2)), rng.normal(2, 1, (2500, 2))
    one, two = (mmd(known, asked, size=100, permutations=99, seed=seed) for seed in (0, 1))
    assert one.value != two.value
    assert one.p == two.p == 0.01


def test_what_has_no_spread_or_no_pair() -> None:
    same = np.ones((5, 3))
    assert mmd(same, same, permutations=19) == (0.0, 1.0)
    assert all(math.isnan(value) for value in mmd(same[:1], same))
    assert all(math.isnan(value) for value in mmd(same, np.empty((0, 0))))


@pytest.mark.parametrize(
    "asked", [np.ones((4, 2)), np.full((4, 3), np.nan), np.full((4, 3), np.inf)]
)
def test_vectors_that_cannot_be_compared_are_refused(asked) -> None:
    with pytest.raises(ValueError, match="expected finite vectors of one length"):
        mmd(np.ones((5, 3)), asked)
