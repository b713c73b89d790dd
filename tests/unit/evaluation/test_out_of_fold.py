"""Each image once, by the networks whose split tested it."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.evaluation.out_of_fold import (
    OutOfFoldEnsemble,
    OutOfFoldPredictions,
    ensemble_margin,
    member_sd,
    out_of_fold_ensemble,
    out_of_fold_predictions,
    sigmoid,
)


def rows(*each) -> OutOfFoldPredictions:
    """Held-out rows from (split, image, group, label, margin); groups are the units."""
    split, image, group, label, margin = zip(*each, strict=True)
    groups = np.array(group, object)
    return OutOfFoldPredictions(
        np.array(split), np.array(image, object), groups, groups, np.array(label),
        np.array(margin, float),
    )  # fmt: skip


def ensemble(label, margin, unit=None) -> OutOfFoldEnsemble:
    """An ensemble's scores; without units each image is its own."""
    names = np.array([f"i{i:05d}" for i in range(len(label))], object)
    units = names if unit is None else np.array([f"u{u:05d}" for u in unit], object)
    return OutOfFoldEnsemble(
        names, units, units, np.asarray(label), np.asarray(margin, float),
        np.full(len(label), 3), np.zeros(len(label)), 10,
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
    names = ("split", "architecture", "image_id", "label", "logit_benign", "logit_malignant",
             "patient_id")  # fmt: skip
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in each])


ALL = (
    (1, "vgg16", "b", 1, 0.5, 2.0, "p"),
    (0, "vgg16", "c", 0, 1.0, -1.0, None),
    (0, "vgg16", "a", 0, 1.0, 0.25, None),
    (0, "resnet18", "a", 0, 9.0, 9.0, None),
)


def test_predictions_are_joined_with_their_groups_in_order() -> None:
    found = out_of_fold_predictions(predictions(*ALL), SPLITS, "vgg16")
    assert found.split.tolist() == [0, 0, 1]
    assert found.image.tolist() == ["a", "c", "b"]
    assert found.group.tolist() == ["g", "g", "h"]
    assert found.unit.tolist() == ["g", "g", "p"], "the patient, where one is known"
    assert found.label.tolist() == [0, 0, 1]
    assert found.margin.tolist() == [-0.75, -2.0, 1.5]


@pytest.mark.parametrize(
    "wrong",
    [ALL[:2], ALL[:1] + ALL[2:], (*ALL[:3], (1, "vgg16", "a", 0, 0.0, 0.0, None)), ALL[3:]],
)
def test_predictions_of_other_images_than_the_test_parts_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected a prediction of each of the 3 test images"):
        out_of_fold_predictions(predictions(*wrong), SPLITS, "vgg16")


def test_an_ensemble_by_hand() -> None:
    found = rows(
        (0, "b", "g", 1, 0.0), (1, "a", "h", 0, -1.0), (1, "b", "g", 1, math.log(3))
    )  # fmt: skip
    together = out_of_fold_ensemble(found)
    assert together.image.tolist() == ["a", "b"]
    assert together.group.tolist() == ["h", "g"]
    assert together.label.tolist() == [0, 1]
    assert together.members.tolist() == [1, 2]
    assert together.networks == 2
    assert math.isnan(together.member_variance[0])
    assert together.member_variance[1] == pytest.approx(math.log(3) ** 2 / 2)
    assert sigmoid(together.margin) == pytest.approx([1 / (1 + math.e), (0.5 + 0.75) / 2])
    sd = member_sd(found, sigmoid(found.margin))
    assert math.isnan(sd[0])
    assert sd[1] == pytest.approx(np.std([0.5, 0.75], ddof=1))


cases = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.floats(-40, 40)),
    min_size=1, unique_by=lambda row: row[:2],
)  # fmt: skip


@given(cases)
def test_it_is_the_mean_probability_of_the_networks_that_tested_the_image(each) -> None:
    together = out_of_fold_ensemble(rows(*((s, f"i{i}", f"g{i}", i % 2, m) for s, i, m in each)))
    for image, margin, members in zip(
        together.image, together.margin, together.members, strict=True
    ):
        own = np.array([m for _, i, m in each if f"i{i}" == image])
        assert members == len(own)
        assert sigmoid(margin) == pytest.approx(sigmoid(own).mean(), rel=1e-9)
        assert margin == pytest.approx(float(ensemble_margin(own)), rel=1e-9, abs=1e-9)


def test_probabilities_that_round_to_one_keep_their_order() -> None:
    assert ensemble_margin([[800.0, 900.0], [900.0, 1000.0]]).tolist() == pytest.approx(
        [800 + math.log(2), 900 + math.log(2)]
    )
    assert ensemble_margin([-2000.0]) == -2000.0


@given(st.lists(st.floats(-1e4, 1e4), min_size=1))
def test_sigmoid_is_the_softmax_and_never_overflows(margins) -> None:
    found = sigmoid(np.array(margins))
    assert ((found >= 0) & (found <= 1)).all()
    small = [m for m in margins if abs(m) < 500]
    expected = [1 / (1 + math.exp(-m)) for m in small]
    assert sigmoid(np.array(small)) == pytest.approx(expected, rel=1e-12)
