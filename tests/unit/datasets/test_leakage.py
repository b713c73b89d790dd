"""The gate must close for every way in which something can stand on both sides."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tests.support.builders import images_table
from thyro_core.datasets.leakage import check_leakage
from thyro_core.errors import LeakageError
from thyro_core.tables import schemas


def splits_table(*splits: dict[int, str]) -> pa.Table:
    """One dict a split: position of an image -> its role. The rows' own groups are nonsense."""
    rows = [
        {
            "study_id": "s0",
            "split": split,
            "image_id": f"{image:064x}",
            "patient_id": None,
            "group_id": f"lie-{split}-{image}",
            "label": image % 2,
            "role": role,
            "test_set": 0,
            "times_tested": 1,
        }
        for split, roles in enumerate(splits)
        for image, role in roles.items()
    ]
    return schemas.rows_to_table("splits", rows)


def with_column(images: pa.Table, name: str, values: list[object]) -> pa.Table:
    index = images.column_names.index(name)
    field = images.schema.field(name)
    return images.set_column(index, field, pa.array(values, field.type))


CLEAN = {0: "train", 1: "train", 2: "test", 3: "val"}


def test_clean_splits_pass():
    images = images_table([0, 1, 0, 1], patients=["pa", "pa", None, None])
    check_leakage(splits_table(CLEAN, {0: "test", 1: "test", 2: "train", 3: "train"}), images)


@pytest.mark.parametrize("column", ["group_id", "patient_id", "pixel_hash"])
@pytest.mark.parametrize("role", ["train", "val"])
def test_a_shared_key_is_refused_by_name_and_count(column, role):
    images = images_table([0, 1, 0, 1, 1])
    images = with_column(images, column, ["k0", "k1", "kx", "kx", "kx"])
    roles = {0: "train", 1: "test", 2: "test", 3: role, 4: "test"}
    with pytest.raises(LeakageError) as caught:
        check_leakage(splits_table({0: "train", 1: "test"}, roles), images)
    assert f"split 1: {column} kx has 1 training and 2 test images" in str(caught.value)
    assert "split 0" not in str(caught.value)


def test_the_same_image_on_both_sides_is_refused():
    splits = pa.concat_tables([splits_table({0: "train", 1: "test"}), splits_table({0: "test"})])
    with pytest.raises(LeakageError, match=f"split 0: image_id {0:064x} has 1 training and 1 test"):
        check_leakage(splits, images_table([0, 1]))


def test_different_sides_in_different_splits_are_no_leakage():
    images = images_table([0, 1], groups=["g", "h"])
    check_leakage(splits_table({0: "train", 1: "test"}, {0: "test", 1: "train"}), images)


def test_train_and_val_are_one_side():
    check_leakage(splits_table({0: "train", 1: "val"}), images_table([0, 1], groups=["g", "g"]))


def test_a_chain_through_an_excluded_image_is_found():
    """0 shares a patient with the excluded 1, which has the pixels of 2."""
    images = images_table([0, 1, 0], patients=["pa", "pa", None], included=[True, False, True])
    images = with_column(images, "pixel_hash", ["x0", "same", "same"])
    with pytest.raises(LeakageError, match="split 0: linked chain"):
        check_leakage(splits_table({0: "train", 2: "test"}), images)


def test_null_keys_are_not_shared():
    images = images_table([0, 1], patients=[None, None])
    check_leakage(
        splits_table({0: "train", 1: "test"}), with_column(images, "pixel_hash", [None] * 2)
    )


@pytest.mark.parametrize("included", [None, [True, False]])
def test_what_cannot_be_checked_is_refused(included):
    images = images_table([0, 1] if included else [0], included=included)
    with pytest.raises(LeakageError, match="found 1 rows of other images"):
        check_leakage(splits_table({0: "train", 1: "test"}), images)


def test_an_unknown_role_is_refused():
    with pytest.raises(LeakageError, match=r"other roles \['holdout'\]"):
        check_leakage(splits_table({0: "holdout"}), images_table([0]))


def test_a_long_list_of_cases_is_cut():
    images = images_table([0] * 20, groups=[f"g{i // 2}" for i in range(20)])
    with pytest.raises(LeakageError, match=r"found 20 cases: .*\(and 15 more\)"):
        check_leakage(splits_table({i: ("train", "test")[i % 2] for i in range(20)}), images)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_gate_agrees_with_the_definition(data):
    """Random keys and roles: refused exactly if two images of a split share a key across sides."""
    n = data.draw(st.integers(1, 7))
    keys = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=n, max_size=n)
    patients, pixels = data.draw(keys), data.draw(keys)
    roles = data.draw(st.lists(st.sampled_from(["train", "test"]), min_size=n, max_size=n))
    images = with_column(images_table([0] * n, patients=patients), "pixel_hash", pixels)
    reach = [{j for j in range(n) if i == j or linked(patients, pixels, i, j)} for i in range(n)]
    for _ in range(n):
        reach = [set().union(*(reach[j] for j in reach[i])) for i in range(n)]
    leaks = any(roles[i] != roles[j] for i in range(n) for j in reach[i])
    splits = splits_table(dict(enumerate(roles)))
    if leaks:
        with pytest.raises(LeakageError):
            check_leakage(splits, images)
    else:
        check_leakage(splits, images)


def linked(patients, pixels, i, j):
    return any(keys[i] is not None and keys[i] == keys[j] for keys in (patients, pixels))


def pictures(*seeds: int) -> np.ndarray:
    fields = [np.random.default_rng(seed).normal(size=(224, 224)) for seed in seeds]
    smooth = [gaussian_filter(field, 2) + 3 * gaussian_filter(field, 6) for field in fields]
    return np.stack([np.clip(110 + 40 * f / f.std(), 0, 255) for f in smooth]).astype(np.uint8)


def test_the_same_picture_on_both_sides_is_found_in_the_pixels_whatever_the_table_says():
    images, pack = images_table([0, 1, 0, 1]), pictures(1, 2, 3, 1)
    pack[3] = np.clip(pack[3][:, ::-1].astype(int) + 20, 0, 255)
    crossing = splits_table({0: "train", 1: "train", 2: "test", 3: "test"})
    check_leakage(crossing, images)
    with pytest.raises(
        LeakageError,
        match=r"split 0: picture .* has 1 training and 1 test images.*lower duplicate_correlation",
    ):
        check_leakage(crossing, images, pack)
    check_leakage(splits_table({0: "train", 1: "test", 2: "test", 3: "train"}), images, pack)
    check_leakage(splits_table({1: "train", 2: "test"}), images, pack)
