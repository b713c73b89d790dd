import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import images_table
from thyro_core.config import StudyConfig
from thyro_core.datasets.splits import choose_groups, make_splits, split_notes
from thyro_core.errors import InputError


def counts(splits: pa.Table, split: int) -> Counter[tuple[str, int]]:
    rows = [row for row in splits.to_pylist() if row["split"] == split]
    return Counter((row["role"], row["label"]) for row in rows)


def test_the_papers_image_set_gives_exactly_table_1_in_each_of_ten_splits() -> None:
    splits = make_splits("s", images_table([0] * 415 + [1] * 93), StudyConfig())
    for split in range(10):
        assert counts(splits, split) == {
            ("train", 0): 291,
            ("train", 1): 66,
            ("test", 0): 124,
            ("test", 1): 27,
        }
    assert split_notes(splits, StudyConfig()) == ()


def test_a_round_fraction_is_not_lost_to_floating_point() -> None:
    splits = make_splits("s", images_table([0] * 10 + [1] * 10), StudyConfig(splits=2))
    assert counts(splits, 0)[("test", 0)] == 3


def test_splits_differ_from_each_other_and_between_seeds() -> None:
    images = images_table([0] * 40 + [1] * 20)
    first = make_splits("s", images, StudyConfig(splits=3))
    tests = [
        frozenset(
            r["image_id"] for r in first.to_pylist() if r["split"] == s and r["role"] == "test"
        )
        for s in range(3)
    ]
    assert len(set(tests)) == 3
    assert make_splits("s", images, StudyConfig(splits=3, seed=1)) != first


def test_every_image_is_as_likely_to_be_tested_as_any_other() -> None:
    splits = make_splits("s", images_table([0] * 20 + [1] * 10), StudyConfig(splits=100))
    tested = Counter(r["image_id"] for r in splits.to_pylist() if r["role"] == "test")
    shares = np.array([tested[f"{i:064x}"] for i in range(30)]) / 100
    assert shares.mean() == pytest.approx(0.3)
    # Binomial SD at 100 draws is 0.046: five of them on either side.
    assert shares.min() > 0.07
    assert shares.max() < 0.53


def test_unlabelled_and_excluded_images_take_no_part() -> None:
    labels = [0] * 6 + [1] * 6 + [None] * 3
    included = [False] + [True] * 14
    splits = make_splits("s", images_table(labels, included=included), StudyConfig(splits=2))
    seen = {row["image_id"] for row in splits.to_pylist()}
    assert seen == {f"{i:064x}" for i in range(1, 12)}


grouped_sets = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 12)), min_size=24, max_size=60
).filter(lambda rows: min(len({g for label, g in rows if label == c}) for c in (0, 1)) >= 6)


@given(rows=grouped_sets, seed=st.integers(0, 99), val=st.sampled_from([0.0, 0.2]))
@settings(max_examples=60, deadline=None)
def test_holdout_is_a_partition_with_disjoint_groups(
    rows: list[tuple[int, int]], seed: int, val: float
) -> None:
    images = images_table([label for label, _ in rows], [f"g{g}" for _, g in rows])
    config = StudyConfig(splits=3, seed=seed, val_fraction=val)
    splits = make_splits("s", images, config)
    for split in range(3):
        part = [row for row in splits.to_pylist() if row["split"] == split]
        assert sorted(r["image_id"] for r in part) == [f"{i:064x}" for i in range(len(rows))]
        roles: dict[str, set[str]] = {}
        for row in part:
            roles.setdefault(row["group_id"], set()).add(row["role"])
        assert all(len(found) == 1 for found in roles.values())
        assert {row["role"] for row in part} == {"train", "test"} | ({"val"} if val else set())


@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25)), min_size=50, max_size=80),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_kfold_tests_every_image_once_and_keeps_groups_whole(
    rows: list[tuple[int, int]], seed: int
) -> None:
    images = images_table([label for label, _ in rows], [f"g{g}" for _, g in rows])
    config = StudyConfig(scheme="kfold", splits=2, seed=seed)
    try:
        splits = make_splits("s", images, config).to_pylist()
    except InputError:
        return
    tested = Counter(row["image_id"] for row in splits if row["role"] == "test")
    assert set(tested.values()) == {1}
    assert len(tested) == len(rows)
    for split in range(2):
        sides = {"train": set(), "test": set()}
        for row in splits:
            if row["split"] == split:
                sides[row["role"]].add(row["group_id"])
        assert not sides["train"] & sides["test"]


@given(order=st.permutations(range(30)), scheme=st.sampled_from(["holdout", "kfold"]))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_changes_nothing(order: list[int], scheme: str) -> None:
    images = images_table([0] * 18 + [1] * 12, [f"g{i // 2}" for i in range(30)])
    config = StudyConfig(scheme=scheme, splits=3)
    assert make_splits("s", images.take(order), config) == make_splits("s", images, config)


def deviation(sizes: np.ndarray, chosen: np.ndarray, target: np.ndarray) -> float:
    found = sizes[chosen].sum(axis=0)
    cost = (np.abs(found - target) / np.maximum(target, 1)).sum()
    return float(cost + 1000 * ((found == 0) & (target > 0)).sum())


@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9),
    fraction=st.sampled_from([0.3, 0.5]),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_no_other_choice_of_whole_groups_comes_closer(
    sizes: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    array = np.array(sizes, dtype=np.int64)
    target = np.floor(array.sum(axis=0) * fraction).astype(np.int64)
    chosen = choose_groups(array, target, np.random.default_rng(seed))
    best = min(
        deviation(array, np.array(mask, dtype=bool), target)
        for mask in itertools.product([False, True], repeat=len(array))
    )
    assert deviation(array, chosen, target) == pytest.approx(best)


def test_a_large_grouped_set_still_hits_the_target_exactly() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 5, (20_000, 2))
    target = np.floor(sizes.sum(axis=0) * 0.3).astype(np.int64)
    chosen = choose_groups(sizes, target, rng)
    assert np.array_equal(sizes[chosen].sum(axis=0), target)


def test_a_deviation_forced_by_groups_is_reported() -> None:
    labels = [0] * 20 + [1] * 20
    groups = [f"b{i}" for i in range(20)] + [f"m{i // 5}" for i in range(20)]
    config = StudyConfig(splits=2)
    splits = make_splits("s", images_table(labels, groups), config)
    notes = split_notes(splits, config)
    assert len(notes) == 2
    assert "6 benign and 5 malignant test images instead of 6 and 6" in notes[0]


def test_one_patient_with_all_malignant_images_is_refused_by_name() -> None:
    images = images_table([0] * 10 + [1] * 10, [f"b{i}" for i in range(10)] + ["m"] * 10)
    with pytest.raises(InputError, match="split 0: its train part has no malignant image"):
        make_splits("s", images, StudyConfig(splits=2))


def test_a_set_with_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="5 benign"):
        make_splits("s", images_table([0] * 5), StudyConfig())


def test_too_many_folds_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(InputError, match="set splits to at most 3"):
        make_splits("s", images_table([0] * 9 + [1] * 3), StudyConfig(scheme="kfold", splits=10))
