"""The search for candidates on made-up features, where the truth is known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from thyro_core.imaging.alike_features import alike_features, codes, random_signs
from thyro_core.imaging.candidates import candidates
from thyro_core.imaging.local_features import (
    LEAST_COSINE,
    PATTERN,
    PATTERN_NORM,
    LocalFeatures,
)
from thyro_core.imaging.near_duplicates import group_labels
from thyro_core.imaging.pattern_symmetry import signs
from thyro_core.imaging.symmetry import MIRROR

SIDE = 192
SIGNS = [-1, 1, -1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, 1, -1]


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
        patterns *= signs()[MIRROR]
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
    mirrored = [0, 0, 0, MIRROR, MIRROR]
    assert candidates([*strangers, *copies]).tolist() == [
        [k, 40 + k, mirrored[k]] for k in range(5)
    ]


def test_the_same_features_elsewhere_in_disorder_are_no_candidate():
    places, patterns = drawn(0)
    places[:2, :2] = (60, 60), (130, 110)
    swapped = places[[1, 0]]
    swapped[:, 2] = places[:2, 2]
    found = candidates([features(places, patterns), features(swapped, patterns[:2])])
    assert found.tolist() == []


def two_images(offsets, octaves, repeats=1):
    """Two features far apart, and where a zoom by 1.5 with sizes that are off brings them."""
    places, patterns = drawn(0)
    places[:2] = (60, 20, 2), (70, 100, 2)
    goal = places[:2].copy()
    goal[:, :2] = goal[:, :2] * 1.5 + offsets
    goal[:, 2] += octaves
    goal = np.concatenate([goal[:1]] * repeats + [goal[1:]])
    copy = np.concatenate([patterns[:1]] * repeats + [patterns[1:2]])
    return [features(places, patterns), features(goal, copy)]


def test_sizes_that_overstate_a_zoom_lose_no_pair_but_features_elsewhere_do():
    """The way between the two is 120; the scale of their sizes, 1.65, would make it 132."""
    octaves = np.log2([1.65, 1.65])
    assert candidates(two_images([0, -20], octaves)).tolist() == [[0, 1, 0]]
    assert candidates(two_images([[0, -20], [30, -20]], octaves)).tolist() == []


def test_a_feature_that_matches_three_times_counts_once():
    """At one place in three sizes, of which one alone agrees with the other feature."""
    octaves = np.log2(1.5) + np.array([0.0, 0.0])
    image, copy = two_images([0, -20], octaves, repeats=3)
    copy.places[1:3, 2] += 11  # two thirds of an octave: beyond what proposals may differ
    assert candidates([image, copy]).tolist() == [[0, 1, 0]]


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
        assert candidates(images).shape == (0, 3)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_order_only_names_the_images(order):
    images = [features(*drawn(k)) for k in range(6)] + [
        copied(k, mirror=k % 2 == 0) for k in range(6)
    ]
    found = candidates([images[k] for k in order])
    named = {tuple(sorted((order[i], order[j]))) for i, j, _ in found}
    assert named == {(k, 6 + k) for k in range(6)}


def test_patterns_are_not_changed_by_the_search():
    images = [copied(k, mirror=True) for k in range(3)]
    before = [image.patterns.copy() for image in images]
    candidates(images)
    assert all(
        np.array_equal(image.patterns, own) for image, own in zip(images, before, strict=True)
    )


def joined(image, other):
    """The first features of one image, then all of another."""
    halves = zip(image, other, strict=True)
    return features(*(np.concatenate([side[:30], rest]) for side, rest in halves))


def test_print_that_all_images_show_makes_no_candidates_and_hides_no_copy():
    """Equal, at equal places: 40 images of one scanner, and a copy of one of them."""
    printed = drawn(99, 15)
    images = [joined((seen[0][:30], seen[1][:30]), printed) for seen in map(drawn, range(40))]
    places, patterns = drawn(7)
    moved = joined((places[:30] + np.array([9, 5, 0]), patterns[:30]), printed)
    assert candidates([*images, moved]).tolist() == [[7, 40, 0]]


def test_a_half_that_stands_beside_a_dozen_other_halves_is_a_candidate_each_time():
    half = drawn(0, 30)
    images = [features(*half), *(joined(half, drawn(seed, 60)) for seed in range(1, 13))]
    assert len(candidates(images)) == 13 * 12 // 2


def test_a_hundred_copies_of_one_picture_hang_together():
    copies = [copied(0, shift=(k / 10, 0)) for k in range(100)]
    pairs = candidates([features(*drawn(1)), *copies])
    assert 0 not in pairs[:, :2]
    assert group_labels(pairs[:, :2].tolist(), 101).tolist() == [0, *[1] * 100]


def test_the_search_finds_most_alike_features_among_many():
    """Against every two compared; a candidate needs two that agree."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4000, PATTERN))
    patterns[2000:] = patterns[:2000] + rng.normal(0, 0.5, (2000, PATTERN))
    patterns *= PATTERN_NORM / np.linalg.norm(patterns, axis=1, keepdims=True)
    whole = np.rint(np.clip(patterns, -127, 127)).astype(np.int8)
    products = whole.astype(np.float32) @ whole.T.astype(np.float32)
    alike = np.argwhere(np.triu(products >= LEAST_COSINE * PATTERN_NORM**2, 1)).tolist()
    places, owners = np.zeros((4000, 3), np.int16), np.arange(4000)
    pairs = np.stack(alike_features(whole, places, owners), axis=1).tolist()
    known = {tuple(pair) for pair in alike}
    assert {tuple(pair) for pair in pairs} <= known
    assert sorted(pairs) == pairs
    assert len(pairs) > 0.8 * len(known) > 1500


def test_sizes_apart_and_features_of_one_image_are_not_alike():
    whole = np.repeat(features(*drawn(1, 1)).patterns, 3, axis=0)
    places = np.array([[0, 0, 16], [0, 0, 32], [0, 0, 48]], np.int16)
    left, right = alike_features(whole, places, np.array([0, 0, 1]))
    assert (left.tolist(), right.tolist()) == ([1], [2])


def test_random_signs_stay_what_they_are():
    """Other signs would give the same set another manifest; the stream is PCG64's."""
    signs = random_signs()
    assert signs.shape == (PATTERN, 256)
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.mean()) < 0.05
    assert signs[0, :16].tolist() == SIGNS


def test_codes_of_alike_features_differ_in_few_bits_and_of_strangers_in_half():
    symbols, words = codes(features(*drawn(3, 400)).patterns)
    strangers = np.bitwise_count(words[1:] ^ words[:-1])
    assert 28 < strangers.mean() < 36
    symbol_pairs = (symbols[:, 1:] == symbols[:, :-1]).mean()
    assert symbol_pairs < 0.03
    symbols, words = codes(features(*drawn(3)).patterns)
    near_symbols, near_words = codes(copied(3).patterns)
    assert np.median(np.bitwise_count(words ^ near_words).sum(axis=1)) <= 28
    assert (symbols == near_symbols).mean() > 0.4


def test_codes_are_of_the_sums():
    patterns = features(*drawn(5, 50)).patterns
    sums = patterns.astype(np.int64) @ random_signs()
    symbols, words = codes(patterns)
    blocks = sums.reshape(50, 8, 32)
    place = np.abs(blocks).argmax(axis=2)
    value = np.take_along_axis(blocks, place[..., None], axis=2)[..., 0]
    assert np.array_equal(symbols.T, 2 * place + (value > 0))
    assert int(words[9, 1]) == int("".join(str(int(v > 0)) for v in sums[9, 64:128]), 2)


def test_products_are_taken_on_one_thread_each(monkeypatch):
    """Parts have threads of their own: more of the library's take several times as long."""
    threads = []

    def noted(*args):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if is_blas(pool))
        return alike_features(*args)

    def is_blas(pool):
        return pool["user_api"] == "blas"

    monkeypatch.setattr("thyro_core.imaging.candidates.alike_features", noted)
    with threadpool_limits(2, "blas"):
        assert len(candidates([features(*drawn(0)), copied(0)])) == 1
        after = [pool["num_threads"] for pool in threadpool_info() if is_blas(pool)]
    assert set(threads) == {1}
    assert set(after) == {2}


def test_blocks_of_an_order_join_without_a_gap(monkeypatch):
    """The search in blocks of seven places finds what it finds in one."""
    patterns = np.concatenate([copied(k, noise=0.02).patterns for k in (0, 0, 1, 1, 2, 2)])
    places, owners = np.zeros((len(patterns), 3), np.int16), np.repeat(range(6), 60)
    whole = alike_features(patterns, places, owners)
    monkeypatch.setattr("thyro_core.imaging.alike_features._PLACES_AT_ONCE", 7)
    parts = alike_features(patterns, places, owners)
    assert len(whole[0]) >= 170
    assert [side.tolist() for side in parts] == [side.tolist() for side in whole]
