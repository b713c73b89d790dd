"""When a figure is too good, and that it is said."""

from math import nan

import pytest

from thyro_core.evaluation.plausibility import CHECKS, suspicions


@pytest.mark.parametrize(
    ("auc", "images", "bound"),
    [
        (0.997, 508, 0.97),  # the paper's own
        (0.971, 508, 0.97),
        (0.97, 508, None),
        (0.931, 508, None),
        (0.98, 5000, None),
        (0.98, 999, 0.97),
        (0.98, 1000, None),
        (0.995, 100_000, 0.99),
        (nan, 508, None),
    ],
)
def test_the_bound_depends_on_the_number_of_images(auc, images, bound) -> None:
    found = suspicions({"resnet18": auc}, images)
    assert [each.bound for each in found] == ([] if bound is None else [bound])


def test_each_architecture_is_judged_by_itself() -> None:
    found = suspicions({"resnet18": 0.9, "vgg16": 0.99, "alexnet": 0.98}, 60)
    assert [(each.architecture, each.auc) for each in found] == [("vgg16", 0.99), ("alexnet", 0.98)]


def test_leakage_is_the_first_thing_to_check() -> None:
    assert "patient" in CHECKS[0]
    assert len(CHECKS) == len(set(CHECKS)) >= 5
