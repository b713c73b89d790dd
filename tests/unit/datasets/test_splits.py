import hashlib
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import images_table
from thyro_core.config import StudyConfig
from thyro_core.datasets.splits import make_splits, split_coverage, split_notes
from thyro_core.errors import InputError
from thyro_core.evaluation.uncertainty import mean_test_train_ratio


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
    assert digest(splits) == "f39cd49fb91ebd64c5b4"
    coverage = split_coverage(splits)
    assert (coverage.test_sets, coverage.splits, coverage.images) == (10, 10, 508)
    tested = Counter(row["image_id"] for row in splits.to_pylist() if row["role"] == "test")
    never = sum(f"{i:064x}" not in tested for i in range(508))
    assert sum(coverage.never) == never > 0
    assert coverage.most == max(tested.values())
    (note,) = split_notes(splits, StudyConfig())
    assert note == (
        f"{never} of 508 images ({coverage.never[0]} benign, {coverage.never[1]} malignant) are "
        "never tested in 10 splits drawn at random; scheme=repeated_kfold tests every image "
        "equally often"
    )


def digest(splits: pa.Table) -> str:
    """Golden value of who is in which part."""
    return hashlib.sha256(repr(splits["role"].to_pylist()).encode()).hexdigest()[:20]


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
@settings(max_examples=30, deadline=None)
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


@given(
    order=st.permutations(range(30)), scheme=st.sampled_from(["holdout", "kfold", "repeated_kfold"])
)
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_changes_nothing(order: list[int], scheme: str) -> None:
    images = images_table([0] * 18 + [1] * 12, [f"g{i // 2}" for i in range(30)])
    config = StudyConfig(scheme=scheme, splits=3, folds=3)
    assert make_splits("s", images.take(order), config) == make_splits("s", images, config)


def test_sizes_that_groups_force_are_reported() -> None:
    labels = [0] * 20 + [1] * 20
    groups = [f"b{i}" for i in range(20)] + [f"m{i // 5}" for i in range(20)]
    config = StudyConfig(splits=20)
    splits = make_splits("s", images_table(labels, groups), config)
    sizes = [counts(splits, split)["test", 1] for split in range(20)]
    assert set(sizes) == {5, 10}
    (note,) = [note for note in split_notes(splits, config) if "whole groups" in note]
    assert note == (
        f"test parts hold 5 to 10 malignant images (mean {np.mean(sizes):.1f}) instead of 6, "
        "because whole groups stay together"
    )


def test_one_patient_with_all_malignant_images_is_refused_by_name() -> None:
    images = images_table([0] * 10 + [1] * 10, [f"b{i}" for i in range(10)] + ["m"] * 10)
    for scheme in ("holdout", "kfold", "repeated_kfold"):
        with pytest.raises(InputError, match=r"all 10 malignant images stand in one group \(m: "):
            make_splits("s", images, StudyConfig(scheme=scheme, splits=2, folds=2))


def test_a_set_with_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="5 benign"):
        make_splits("s", images_table([0] * 5), StudyConfig())


@pytest.mark.parametrize("scheme", ["kfold", "repeated_kfold"])
def test_too_many_folds_are_refused_with_the_number_that_fits(scheme) -> None:
    config = StudyConfig(scheme=scheme, splits=10, folds=10)
    setting = "splits" if scheme == "kfold" else "folds"
    with pytest.raises(InputError, match=f"set {setting} to at most 3"):
        make_splits("s", images_table([0] * 9 + [1] * 3), config)


def test_two_malignant_images_still_make_two_folds() -> None:
    splits = make_splits(
        "s", images_table([0] * 9 + [1] * 2), StudyConfig(scheme="kfold", splits=2)
    )
    assert [counts(splits, split)["test", 1] for split in (0, 1)] == [1, 1]


def test_three_malignant_images_blame_the_rounding_and_its_cure_helps() -> None:
    images = images_table([0] * 30 + [1] * 3)
    with pytest.raises(InputError) as found:
        make_splits("s", images, StudyConfig())
    assert str(found.value) == (
        "the test part would have no malignant image: test_fraction 0.3 of 3 malignant images is "
        "0.9, rounded down 0; set test_fraction to at least 0.34, or add malignant images"
    )
    splits = make_splits("s", images, StudyConfig(test_fraction=0.34))
    assert all(counts(splits, split)["test", 1] == 1 for split in range(10))


@given(n=st.integers(2, 300), fraction=st.floats(0.001, 0.3))
@settings(max_examples=25, deadline=None)
def test_the_fraction_that_an_error_names_is_enough(n: int, fraction: float) -> None:
    images = images_table([0] * 400 + [1] * n)
    try:
        make_splits("s", images, StudyConfig(splits=2, test_fraction=fraction))
    except InputError as error:
        cure = float(re.findall(r"at least ([0-9.]+)", str(error))[0])
        splits = make_splits("s", images, StudyConfig(splits=2, test_fraction=cure))
        assert counts(splits, 0)["test", 1] >= 1


def test_validation_has_both_classes_or_is_refused_with_the_reason() -> None:
    images = images_table([0] * 40 + [1] * 8)
    with pytest.raises(InputError) as found:
        make_splits("s", images, StudyConfig(val_fraction=0.1))
    assert str(found.value) == (
        "the val part would have no malignant image: val_fraction 0.1 of 8 malignant images is "
        "0.8, rounded down 0; set val_fraction to at least 0.13, or to 0 (none), or add malignant "
        "images"
    )
    for scheme in ("holdout", "kfold", "repeated_kfold"):
        config = StudyConfig(val_fraction=0.13, scheme=scheme, splits=4, folds=2)
        splits = make_splits("s", images, config)
        for split in range(4):
            found_counts = counts(splits, split)
            assert (found_counts["val", 0], found_counts["val", 1]) == (5, 1)


def test_groups_too_few_for_a_validation_part_are_named() -> None:
    labels, groups = [0] * 12 + [1] * 12, [f"g{i % 12}" for i in range(12)] + ["x"] * 6 + ["y"] * 6
    with pytest.raises(InputError, match="with benign and 1 with malignant images, too few"):
        make_splits("s", images_table(labels, groups), StudyConfig(val_fraction=0.2))


def test_two_patients_with_both_classes_repeat_a_test_set_and_it_is_said() -> None:
    images = images_table([0] * 10 + [1] * 10, ["a", "b"] * 10)
    splits = make_splits("s", images, StudyConfig())
    assert split_coverage(splits).test_sets == 2
    note = split_notes(splits, StudyConfig())[0]
    assert note.startswith(
        "only 2 of the 10 test sets are distinct: the images form 2 groups (patients, "
        "near-duplicates) that stay whole"
    )
    sets = {row["split"]: row["test_set"] for row in splits.to_pylist()}
    tests = {
        split: frozenset(
            row["image_id"]
            for row in splits.to_pylist()
            if row["split"] == split and row["role"] == "test"
        )
        for split in sets
    }
    assert sets == {s: min(o for o in tests if tests[o] == tests[s]) for s in tests}


def test_one_patient_with_most_images_is_named_and_tested() -> None:
    labels = [0] * 40 + [1] * 50
    groups = [f"b{i}" for i in range(40)] + ["giant"] * 40 + [f"m{i}" for i in range(10)]
    config = StudyConfig(splits=40)
    splits = make_splits("s", images_table(labels, groups), config)
    assert split_coverage(splits).test_sets == 40
    notes = split_notes(splits, config)
    assert notes[0] == (
        "group giant holds 40 of the 50 malignant images, more than the 15 of a test part: the "
        "figures hang on whether it is trained on or tested"
    )
    rows = splits.to_pylist()
    tested = [row["group_id"] == "giant" for row in rows if row["role"] == "test"]
    assert 0.1 < sum(tested) / 40 / 40 < 0.5


@pytest.mark.parametrize("grouped", [False, True])
def test_repeated_kfold_tests_every_image_equally_often(grouped: bool) -> None:
    labels = [0] * 47 + [1] * 23
    groups = [f"{label}{i // 3}" for i, label in enumerate(labels)] if grouped else None
    config = StudyConfig(scheme="repeated_kfold", splits=15, folds=5)
    splits = make_splits("s", images_table(labels, groups), config)
    coverage = split_coverage(splits)
    assert (coverage.fewest, coverage.most, coverage.never) == (3, 3, (0, 0))
    assert coverage.test_sets == 15
    assert split_notes(splits, config) == ()
    assert set(splits["times_tested"].to_pylist()) == {3}
    for repetition in range(3):
        tested = Counter(
            row["image_id"]
            for row in splits.to_pylist()
            if row["role"] == "test" and row["split"] // 5 == repetition
        )
        assert len(tested) == 70
        assert set(tested.values()) == {1}
    malignant = [counts(splits, split)["test", 1] for split in range(15)]
    assert set(malignant) <= ({3, 4, 5, 6} if grouped else {4, 5})


def test_nadeau_and_bengios_ratio_of_repeated_kfold_is_that_of_its_folds() -> None:
    config = StudyConfig(scheme="repeated_kfold", splits=20, folds=5)
    splits = make_splits("s", images_table([0] * 50 + [1] * 25), config)
    assert mean_test_train_ratio(splits) == pytest.approx(1 / 4)
    kfold = StudyConfig(scheme="kfold", splits=5)
    splits = make_splits("s", images_table([0] * 50 + [1] * 25), kfold)
    assert mean_test_train_ratio(splits) == pytest.approx(1 / 4)


def test_coverage_in_words() -> None:
    images = images_table([0] * 20 + [1] * 10)
    splits = make_splits("s", images, StudyConfig(scheme="repeated_kfold", splits=10))
    assert split_coverage(splits).text == (
        "10 distinct test sets in 10 splits; an image is tested 2 times, none never"
    )
