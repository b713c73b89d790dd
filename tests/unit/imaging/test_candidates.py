"""The search for candidates: what it must find, and what it must not depend on."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, shift

from thyro_core.imaging import candidates as search
from thyro_core.imaging.candidates import approximate_candidates, candidates

SIDE = 32


@cache
def scenes(n, seed=0):
    """int8 (n, SIDE, SIDE): smooth fields, each a picture of its own."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(n, SIDE, SIDE)), (0, 1.5, 1.5))
    return np.clip(np.rint(fields / fields.std() * 40), -127, 127).astype(np.int8)


def zeros(n):
    return np.zeros(n, np.uint64)


def shaken(descriptors, seed, noise=8):
    rng = np.random.default_rng(seed)
    moved = np.stack([shift(one.astype(float), rng.uniform(-0.7, 0.7, 2)) for one in descriptors])
    return np.clip(np.rint(moved + rng.normal(0, noise, moved.shape)), -127, 127).astype(np.int8)


def met(codes):
    """Pairs of rows with a value in common, by looking at every pair."""
    sets = [set(row.tolist()) for row in codes]
    return {(i, j) for i, j in combinations(range(len(sets)), 2) if sets[i] & sets[j]}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 64))
def test_in_a_set_of_usual_size_every_pair_is_looked_at(seed, n, distance):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64) & np.uint64(2**40 - 1)
    expected = [
        [i, j]
        for i, j in combinations(range(n), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    ]
    assert candidates(scenes(1).repeat(n, axis=0), hashes, distance).tolist() == expected


def test_a_set_one_image_too_large_is_searched(monkeypatch):
    monkeypatch.setattr(search, "EXACT", 5)
    assert len(candidates(scenes(5), zeros(5), 0)) == 10
    assert len(candidates(scenes(6), zeros(6), 0)) < 15


def test_shaken_copies_are_found_and_few_strangers_looked_at():
    n = 300
    originals = scenes(n)
    both = np.concatenate([originals, shaken(originals, 1)])
    found = approximate_candidates(both, zeros(2 * n), 0)
    pairs = {tuple(pair) for pair in found.tolist()}
    assert {(k, n + k) for k in range(n)} <= pairs
    assert len(pairs) - n < 0.01 * 2 * n * (2 * n - 1) / 2


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 64))
def test_the_same_descriptor_is_always_met_and_the_hash_decides(seed, distance):
    rng = np.random.default_rng(seed)
    descriptor = rng.integers(-127, 128, (1, SIDE, SIDE)).astype(np.int8)
    hashes = rng.integers(0, 2**64, 6, dtype=np.uint64) & np.uint64(
        2 ** int(rng.integers(1, 65)) - 1
    )
    found = approximate_candidates(descriptor.repeat(6, axis=0), hashes, distance)
    expected = [
        [i, j]
        for i, j in combinations(range(6), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    ]
    assert found.tolist() == expected


@settings(max_examples=10)
@given(st.permutations(range(40)), st.integers(2, 40))
def test_a_pair_depends_on_its_two_images_alone(order, kept):
    originals = scenes(20)
    both = np.concatenate([originals, shaken(originals, 2, noise=30)])
    whole = {tuple(pair) for pair in approximate_candidates(both, zeros(40), 0).tolist()}
    chosen = np.array(order[:kept])
    part = approximate_candidates(both[chosen], zeros(kept), 0)
    named = {tuple(sorted((int(chosen[i]), int(chosen[j])))) for i, j in part}
    assert named == {pair for pair in whole if set(pair) <= set(chosen.tolist())}
    assert part.tolist() == sorted(part.tolist())
    assert len(whole) > 10


def test_none_and_one_image_have_no_pair():
    for n in (0, 1):
        for search_ in (candidates, approximate_candidates):
            assert search_(scenes(3)[:n], zeros(n), 64).shape == (0, 2)


def test_waves_are_those_of_the_windowed_cosine_transform():
    descriptors = scenes(5)
    offsets = np.arange(SIDE) - (SIDE - 1) / 2
    window = np.exp(-0.5 * (offsets / (SIDE * search._WINDOW)) ** 2)
    spectrum = dctn(descriptors * np.outer(window, window), axes=(1, 2), norm="ortho")
    squared = {(y, x): y * y + x * x for y, x in product(range(SIDE), repeat=2)}
    lowest = sorted(squared, key=lambda wave: squared[wave])[1:65]
    expected = [spectrum[:, y, x] * np.exp(-0.01 * squared[y, x]) for y, x in lowest]
    found = search._waves(descriptors) / search._UNIT
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=0.05)


def test_sums_are_whole_numbers_in_whatever_portions_they_are_taken(monkeypatch):
    descriptors = scenes(30)
    waves = search._waves(descriptors)
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", 7)
    assert np.array_equal(search._waves(descriptors), waves)
    assert np.array_equal(waves, np.rint(waves))
    assert np.abs(waves).max() * search._WAVES < 2**53


def test_random_signs_stay_what_they_are():
    """Other signs would give the same set another manifest; the stream is PCG64's."""
    signs = search._signs()
    assert signs.shape == (8, 64, 28)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05
    assert (signs[0, 0, :8] > 0).tolist() == [bit == "1" for bit in f"{0x5F:08b}"]


def test_codes_flip_every_choice_of_the_least_sure_bits(monkeypatch):
    monkeypatch.setattr(search, "_BITS", 4)
    monkeypatch.setattr(search, "_UNSURE", 2)
    codes = search._codes(np.array([[5.0, -1.0, 2.0, -9.0], [-1.0, 1.0, -1.0, 8.0]]))
    assert sorted(codes[0].tolist()) == sorted([0b0101, 0b0111, 0b0001, 0b0011])
    assert codes[0, 0] == 0b0101
    assert sorted(codes[1].tolist()) == sorted([0b1010, 0b1011, 0b1000, 0b1001])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 7), st.sampled_from([3, 10**6])
)
def test_meetings_are_all_pairs_with_a_code_in_common(seed, n, kinds, portion):
    rng = np.random.default_rng(seed)
    codes = np.array([rng.permutation(30)[:kinds] for _ in range(n)], np.uint64).reshape(n, kinds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_PAIRS_AT_ONCE", portion)
        found = [(int(i), int(j)) for left, right in search._meetings(codes)
                 for i, j in zip(left, right, strict=True)]  # fmt: skip
    assert {tuple(sorted(pair)) for pair in found} == met(codes)
    assert all(i != j for i, j in found)


def test_the_largest_code_keeps_its_owner():
    codes = np.array([[2**28 - 1], [0], [2**28 - 1]], np.uint64)
    pairs = [(left.tolist(), right.tolist()) for left, right in search._meetings(codes)]
    assert pairs == [([0], [2])]
