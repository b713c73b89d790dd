"""Which rows may choose what which rows judge."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    image_means,
    out_of_fold_predictions,
    sigmoid,
)


def rows(*each, ratio: float = 0.5) -> OutOfFoldPredictions:
    """Held-out rows from (split, image, group, label, margin)."""
    split, image, group, label, margin = zip(*each, strict=True)
    return OutOfFoldPredictions(
        np.array(split), np.array(image, object), np.array(group, object), np.array(label),
        np.array(margin, float), ratio,
    )  # fmt: skip


SPLITS = pa.table(
    {
        "split": [0, 0, 0, 1, 1, 1],
        "image_id": ["a", "b", "c", "a", "b", "c"],
        "group_id": ["g", "h", "g", "g", "h", "g"],
        "role": ["test", "train", "test", "train", "test", "train"],
    }
)


def predictions(*each) -> pa.Table:
    names = ("split", "architecture", "image_id", "label", "logit_benign", "logit_malignant")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in each])


ALL = (
    (1, "vgg16", "b", 1, 0.5, 2.0),
    (0, "vgg16", "c", 0, 1.0, -1.0),
    (0, "vgg16", "a", 0, 1.0, 0.25),
    (0, "resnet18", "a", 0, 9.0, 9.0),
)


def test_predictions_are_joined_with_their_groups_in_order() -> None:
    found = out_of_fold_predictions(predictions(*ALL), SPLITS, "vgg16")
    assert found.split.tolist() == [0, 0, 1]
    assert found.image.tolist() == ["a", "c", "b"]
    assert found.group.tolist() == ["g", "g", "h"]
    assert found.label.tolist() == [0, 0, 1]
    assert found.margin.tolist() == [-0.75, -2.0, 1.5]
    assert found.ratio == pytest.approx((2 / 1 + 1 / 2) / 2)
    assert found.splits == [0, 1]


@pytest.mark.parametrize(
    "wrong", [ALL[:2], ALL[:1] + ALL[2:], (*ALL[:3], (1, "vgg16", "a", 0, 0.0, 0.0)), ALL[3:]]
)
def test_predictions_of_other_images_than_the_test_parts_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected a prediction of each of the 3 test images"):
        out_of_fold_predictions(predictions(*wrong), SPLITS, "vgg16")


def test_outside_shares_neither_image_nor_group() -> None:
    found = rows(
        (0, "a", "g", 0, 0.0), (0, "b", "h", 1, 0.0),
        (1, "a", "g", 0, 0.0), (1, "c", "g", 0, 0.0), (1, "d", "i", 1, 0.0),
        (2, "d", "i", 1, 0.0), (2, "e", "j", 0, 0.0),
    )  # fmt: skip
    assert found.image[found.outside(0)].tolist() == ["d", "d", "e"]
    assert found.image[found.outside(1)].tolist() == ["b", "e"]
    assert found.image[found.outside(2)].tolist() == ["a", "b", "a", "c"]
    assert found.image[found.inside(1)].tolist() == ["a", "c", "d"]


cases = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 1)), min_size=1, unique=True
)


@given(cases)
def test_what_is_outside_a_split_was_never_in_its_test_part(each) -> None:
    found = rows(*((s, f"i{i}", f"g{i // 2}", label, 0.0) for s, i, label in each))
    for split in found.splits:
        own = {i for s, i, _ in each if s == split}
        groups = {i // 2 for i in own}
        expected = [i for s, i, _ in each if s != split and i // 2 not in groups]
        assert sorted(found.image[found.outside(split)]) == sorted(f"i{i}" for i in expected)


def test_image_means_by_hand() -> None:
    found = rows((0, "b", "g", 1, 0.0), (1, "a", "h", 0, 0.0), (1, "b", "g", 1, 0.0))
    means = image_means(found, np.array([0.2, 0.5, 0.8]))
    assert means.image.tolist() == ["a", "b"]
    assert means.label.tolist() == [0, 1]
    assert means.mean.tolist() == pytest.approx([0.5, 0.5])
    assert math.isnan(means.sd[0])
    assert means.sd[1] == pytest.approx(np.std([0.2, 0.8], ddof=1))


@given(st.lists(st.floats(-1e4, 1e4), min_size=1))
def test_sigmoid_is_the_softmax_and_never_overflows(margins) -> None:
    found = sigmoid(np.array(margins))
    assert ((found >= 0) & (found <= 1)).all()
    small = [m for m in margins if abs(m) < 500]
    expected = [1 / (1 + math.exp(-m)) for m in small]
    assert sigmoid(np.array(small)) == pytest.approx(expected, rel=1e-12)
