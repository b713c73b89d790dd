"""Chances of groups to be drawn, and the sizes that come of it."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thyro_core.datasets.group_sampling import (
    NoChoiceError,
    draw_folds,
    draw_groups,
    inclusion_probabilities,
)

GROUPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=14).filter(
    lambda rows: all(sum(row[c] > 0 for row in rows) >= 2 for c in (0, 1))
)
STARVED = [(1, 0)] * 10 + [(0, 10)] * 3 + [(0, 1)] * 5
"""Ten benign images; three malignant groups of ten images and five of one."""


def targets(sizes: np.ndarray, fraction: float) -> np.ndarray:
    return np.floor(sizes.sum(axis=0) * fraction + 1e-9).astype(np.int64)


def frequencies(sizes: np.ndarray, target: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each group is drawn, and the images of each class in each draw."""
    chosen = np.array(
        [draw_groups(sizes, target, np.random.default_rng((1, i))) for i in range(draws)]
    )
    return chosen.mean(axis=0), chosen @ sizes


def test_small_groups_beside_large_ones_are_drawn_as_often() -> None:
    """An exact size of ten is one large group, or none of them: the five small ones never then."""
    sizes = np.array(STARVED)
    target = targets(sizes, 0.3)
    assert target.tolist() == [3, 10]
    shares, counts = frequencies(sizes, target, 1500)
    assert inclusion_probabilities(sizes, target)[10:] == pytest.approx(10 / 35)
    # Binomial SD at 1500 draws is 0.012: four of them on either side.
    assert np.abs(shares - np.array([0.3] * 10 + [10 / 35] * 8)).max() < 0.048
    assert (counts[:, 0] == 3).all()
    # The least mean deviation that equal chances permit is 10/7, by linear programming.
    assert np.abs(counts[:, 1] - 10).mean() == pytest.approx(10 / 7, abs=0.2)
    assert counts[:, 1].min() == 5
    assert counts[:, 1].max() < 15


def fewest_deviation(sizes: list[int], chance: float, target: int) -> float:
    """Least mean deviation of any design with these chances, over all choices of groups."""
    from scipy.optimize import linprog

    choices = np.array(list(itertools.product([0, 1], repeat=len(sizes))))
    cost = np.abs(choices @ np.array(sizes) - target)
    equal = np.vstack([choices.T, np.ones(len(choices))])
    wanted = np.append(np.full(len(sizes), chance), 1.0)
    return float(linprog(cost, A_eq=equal, b_eq=wanted, bounds=(0, 1)).fun)


@pytest.mark.parametrize(
    ("malignant", "slack"),
    [([10, 10, 10, 1, 1, 1, 1, 1], 0.4), ([6, 5, 4, 3, 2, 1], 0.6), ([8, 2, 2, 2, 1, 1], 0.4)],
)
def test_sizes_are_near_the_best_that_equal_chances_permit(malignant, slack) -> None:
    sizes = np.array([(0, count) for count in malignant] + [(1, 0)] * 4)
    target = np.array([1, sum(malignant) * 3 // 10])
    _, counts = frequencies(sizes, target, 500)
    best = fewest_deviation(malignant, target[1] / sum(malignant), int(target[1]))
    assert np.abs(counts[:, 1] - target[1]).mean() < best + slack


@given(rows=GROUPS, fraction=st.sampled_from([0.2, 0.3, 0.5]))
@example(rows=[(0, 1), (1, 0), (1, 2), (0, 0)], fraction=0.5)
@settings(max_examples=40, deadline=None)
def test_chances_are_the_same_in_a_class_and_give_the_size(
    rows: list[tuple[int, int]], fraction: float
) -> None:
    sizes = np.array(rows)
    target = targets(sizes, fraction)
    chance = inclusion_probabilities(sizes, target)
    assert ((chance >= 0) & (chance <= 1)).all()
    for column in (0, 1):
        own = (sizes[:, column] > 0) & (sizes[:, 1 - column] == 0)
        assert not own.any() or np.ptp(chance[own]) < 1e-9
        if target[column]:
            members = sizes[:, column] > 0
            assert chance[members].sum() >= 1 - 1e-9
            assert (1 - chance[members]).sum() >= 1 - 1e-9
    enough = chance @ (sizes > 0) > 1 + 1e-9
    apart = (sizes == 0).any(axis=1).all()
    if apart and enough.all() and (target > 0).all():
        assert chance @ sizes == pytest.approx(target)


def test_a_group_of_both_classes_beside_one_of_each_parts_both() -> None:
    """A class of two groups is parted by one of them: 1/2 each, and 1/2 in the other class then."""
    sizes = np.array([(0, 1), (1, 0), (1, 2)])
    target = targets(sizes, 0.5)
    chance = inclusion_probabilities(sizes, target)
    assert chance[0] == pytest.approx(chance[1])
    assert chance[0] + chance[2] == pytest.approx(1)
    shares, counts = frequencies(sizes, target, 500)
    assert np.abs(shares - chance).max() < 0.09
    assert (counts[:, 0] == 1).all()


@given(rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=7),
       seed=st.integers(0, 99))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_compensation_leaves_every_chance_as_it_was(rows: list[tuple[int, int]], seed) -> None:
    """Over all outcomes of the first draw the others' chances keep their mean, exactly."""
    from thyro_core.datasets import group_sampling as module

    order = sorted((row for row in rows if sum(row)), key=lambda row: 0 in row)
    chance = np.random.default_rng(seed).uniform(0.05, 0.95, len(order)).tolist()
    if len(order) < 2:
        return
    means = np.zeros(len(order))
    for outcome in (1, 0):
        later = list(chance)
        queues = [
            [j for j in range(len(order))[::-1] if kind(order[j])]
            for kind in (lambda row: min(row) > 0, lambda row: not row[1], lambda row: not row[0])
        ]
        module._compensate(
            later, [list(row) for row in order], queues, i=0, change=outcome - chance[0]
        )
        assert min(later) >= 0
        assert max(later) <= 1
        means += (chance[0] if outcome else 1 - chance[0]) * np.array(later)
    assert means[1:] == pytest.approx(chance[1:], abs=1e-9)


@given(rows=GROUPS, fraction=st.sampled_from([0.2, 0.3, 0.5]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_both_classes_stand_on_both_sides(
    rows: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    sizes = np.array(rows)
    target = targets(sizes, fraction)
    try:
        chosen = draw_groups(sizes, target, np.random.default_rng(seed))
    except NoChoiceError:
        masks = itertools.product([False, True], repeat=len(sizes))
        needed = target > 0
        assert not any(
            (sizes[list(mask)][:, needed].sum(axis=0) > 0).all()
            and (sizes[[not m for m in mask]][:, needed].sum(axis=0) > 0).all()
            for mask in masks
        )
        return
    for side in (chosen, ~chosen):
        assert (sizes[side].sum(axis=0) > 0)[target > 0].all()


def test_groups_of_one_image_are_an_exact_simple_sample() -> None:
    sizes = np.array([(1, 0)] * 12 + [(0, 1)] * 9)
    _, counts = frequencies(sizes, np.array([4, 3]), 50)
    assert (counts == [4, 3]).all()


def test_a_large_set_of_groups_of_both_classes_still_hits_the_size() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 5, (20_000, 2))
    target = targets(sizes, 0.3)
    chosen = draw_groups(sizes, target, rng)
    assert np.array_equal(sizes[chosen].sum(axis=0), target)


def test_three_groups_of_ten_are_tested_one_at_a_time() -> None:
    sizes = np.array([(1, 0)] * 20 + [(0, 10)] * 3)
    shares, counts = frequencies(sizes, np.array([6, 9]), 400)
    assert (counts == [6, 10]).all()
    assert shares[20:] == pytest.approx(1 / 3, abs=0.09)


@given(rows=GROUPS, folds=st.integers(2, 4), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_folds_are_a_partition_with_both_classes_in_each(
    rows: list[tuple[int, int]], folds: int, seed: int
) -> None:
    sizes = np.array(rows)
    if (sizes > 0).sum(axis=0).min() < folds:
        return
    try:
        parts = draw_folds(sizes, folds, np.random.default_rng(seed))
    except NoChoiceError:
        return
    assert (np.sum(parts, axis=0) == 1).all()
    assert all((sizes[part].sum(axis=0) > 0).all() for part in parts)


def test_folds_of_single_images_differ_by_one_image_at_most() -> None:
    sizes = np.array([(1, 0)] * 61 + [(0, 1)] * 33)
    counts = np.array([sizes[p].sum(axis=0) for p in draw_folds(sizes, 5, np.random.default_rng())])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_folds_of_unequal_groups_are_even_and_not_always_the_same() -> None:
    sizes = np.array([(i, 0) for i in range(1, 21)] + [(0, i) for i in range(1, 13)])
    partitions = set()
    for seed in range(10):
        parts = draw_folds(sizes, 5, np.random.default_rng(seed))
        counts = np.array([sizes[part].sum(axis=0) for part in parts])
        assert np.ptp(counts, axis=0).tolist() <= [8, 4]
        partitions.add(frozenset(part.tobytes() for part in parts))
    assert len(partitions) == 10
