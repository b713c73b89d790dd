"""The search for candidates on made-up features, where the truth is known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.imaging import candidates as search
from thyro_core.imaging.candidates import candidates
from thyro_core.imaging.local_features import PATTERN, PATTERN_NORM, LocalFeatures, odd_columns

SIDE = 192


def drawn(seed, n=60):
    rng = np.random.default_rng(seed)
    places = np.stack([*rng.uniform(0, SIDE, (2, n)), rng.uniform(1, 4, n)], axis=1)
    patterns = rng.normal(size=(n, PATTERN))
    return places, patterns / np.linalg.norm(patterns, axis=1, keepdims=True)


def features(places, patterns):
    whole = np.clip(np.rint(patterns * PATTERN_NORM), -127, 127).astype(np.int8)
    return LocalFeatures(SIDE, SIDE, np.rint(places * 16).astype(np.int16), whole)


def copied(seed, factor=1.0, shift=(0, 0), mirror=False, kept=60, noise=0.05):
    places, patterns = drawn(seed)
    rng = np.random.default_rng(seed + 1000)
    places, patterns = places[:kept].copy(), patterns[:kept].copy()
    if mirror:
        places[:, 0] = SIDE - 1 - places[:, 0]
        patterns[:, odd_columns()] *= -1
    places[:, :2] = places[:, :2] * factor + shift
    places[:, 2] += np.log2(factor)
    patterns += rng.normal(0, noise, patterns.shape)
    return features(places, patterns / np.linalg.norm(patterns, axis=1, keepdims=True))


def test_copies_are_found_through_shift_scale_and_mirror_and_no_stranger_is():
    strangers = [features(*drawn(seed)) for seed in range(40)]
    copies = [
        copied(0), copied(1, factor=1.6), copied(2, shift=(-50, 30)), copied(3, mirror=True),
        copied(4, factor=0.6, shift=(20, 9), mirror=True, kept=20),
    ]  # fmt: skip
    assert candidates([*strangers, *copies]).tolist() == [[k, 40 + k] for k in range(5)]


def test_the_same_features_elsewhere_in_disorder_are_no_candidate():
    places, patterns = drawn(0)
    places[:2, :2] = (60, 60), (130, 110)
    swapped = places[[1, 0]]
    swapped[:, 2] = places[:2, 2]
    found = candidates([features(places, patterns), features(swapped, patterns[:2])])
    assert found.tolist() == []


def test_none_one_and_images_without_features_have_no_pair():
    nothing = LocalFeatures(9, 9, np.empty((0, 3), np.int16), np.empty((0, PATTERN), np.int8))
    for images in (
        [],
        [nothing],
        [nothing] * 3,
        [features(*drawn(1))],
        [
            features(
                *drawn(1),
            ),
            nothing,
        ],
    ):
        assert candidates(images).shape == (0, 2)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_order_only_names_the_images(order):
    images = [features(*drawn(k)) for k in range(6)] + [
        copied(k, mirror=k % 2 == 0) for k in range(6)
    ]
    named = {tuple(sorted((order[i], order[j]))) for i, j in candidates([images[k] for k in order])}
    assert named == {(k, 6 + k) for k in range(6)}


def test_patterns_are_not_changed_by_the_search():
    images = [copied(k, mirror=True) for k in range(3)]
    before = [image.patterns.copy() for image in images]
    candidates(images)
    assert all(
        np.array_equal(image.patterns, own) for image, own in zip(images, before, strict=True)
    )


def test_random_signs_stay_what_they_are():
    """Other signs would give the same set another manifest; the stream is PCG64's."""
    signs = search._signs()
    assert signs.shape == (PATTERN, 64)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05


def test_codes_of_alike_features_differ_in_few_bits_and_of_strangers_in_half():
    patterns = features(*drawn(3, 400)).patterns
    near = copied(3).patterns
    codes, own = search._codes(patterns), search._codes(near)
    strangers = np.bitwise_count(codes[1:] ^ codes[:-1])
    assert 28 < strangers.mean() < 36
    alike = np.bitwise_count(search._codes(features(*drawn(3)).patterns) ^ own)
    assert np.median(alike) <= search._DISTANCE
