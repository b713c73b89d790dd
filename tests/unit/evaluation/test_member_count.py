"""The variance that averaging more networks takes away, by hand and in simulation."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evaluation.test_out_of_fold import ensemble, rows
from thyro_core.evaluation.member_count import (
    MemberVariance,
    class_variances,
    member_variance,
)
from thyro_core.evaluation.out_of_fold import out_of_fold_ensemble


def test_the_parts_by_hand() -> None:
    each = dataclasses.replace(
        ensemble([0, 1, 1], [-3.0, 0.0, 3.0]),
        members=np.array([1, 2, 3]),
        member_variance=np.array([math.nan, 4.0, 1.0]),
    )
    found = member_variance(each)
    assert found.within == pytest.approx((1 * 4.0 + 2 * 1.0) / 3)
    assert found.centre == 0
    assert found.between == pytest.approx(18 / 3 - 2 * (1 + 1 / 2 + 1 / 3) / 3)
    assert found.networks == 10


def test_equivalent_and_matched_scores_by_hand() -> None:
    parts = MemberVariance(centre=1.0, between=3.0, within=4.0, networks=4)
    margin, members = np.array([3.0, 3.0, -1.0]), np.array([1, 4, 2])
    assert parts.equivalent(margin, members) == pytest.approx([1 + 2 * 4 / 7, 3.0, 1 - 2 * 4 / 5])
    root = [math.sqrt(4 / 7), 1.0, math.sqrt(4 / 5)]
    assert parts.rescale(margin, members) == pytest.approx(1 + np.array([2, 2, -2]) * root)


def test_the_classes_by_hand() -> None:
    each = dataclasses.replace(
        ensemble([0, 0, 1, 1, 1], [-3.0, -1.0, 0.0, 3.0, 6.0]),
        members=np.array([1, 2, 1, 1, 2]),
        member_variance=np.array([math.nan, 1.0, math.nan, math.nan, 0.0]),
    )
    found = class_variances(each)
    within = 0.5
    assert found.benign == MemberVariance(-2.0, 1 - (within + within / 2) / 2, within, 10)
    malignant = 18 / 3 - (2 * within + within / 2) / 3
    assert found.malignant == MemberVariance(3.0, pytest.approx(malignant), within, 10)
    pooled = (2 * found.benign.between + 3 * malignant) / 5
    assert found.midway == MemberVariance(0.5, pytest.approx(pooled), within, 10)
    assert found.rescale(each)[0] == found.benign.rescale(each.margin, each.members)[0]
    assert found.rescale(each)[2] == found.malignant.rescale(each.margin, each.members)[2]


def test_scores_have_the_log_odds_of_their_equivalents() -> None:
    """Normal scores in each class: the log odds of the label are known exactly."""
    parts = MemberVariance(centre=0.5, between=2.0, within=4.0, networks=10)
    few, members = np.array([-1.0, 0.5, 2.0]), np.array([1, 2, 4])

    def log_odds(score, networks):  # classes at 0.5 - 1 and 0.5 + 1, equally frequent
        return 2 * (score - 0.5) / (2.0 + 4.0 / networks)

    whole = parts.equivalent(few, members)
    assert log_odds(whole, 10) == pytest.approx(log_odds(few, members))


def test_matched_scores_have_the_variance_of_all_networks() -> None:
    rng = np.random.default_rng(1)
    shared, errors = rng.normal(0.5, 1.5, 40_000), rng.normal(0, 2, (40_000, 10))
    few, whole = shared + errors[:, :3].mean(axis=1), shared + errors.mean(axis=1)
    parts = MemberVariance(0.5, 1.5**2, 2.0**2, 10)
    members = np.full(few.size, 3)
    assert parts.rescale(few, members).std() == pytest.approx(whole.std(), rel=0.02)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.floats(-30, 30)), min_size=1,
                unique_by=lambda row: row[:2]))  # fmt: skip
def test_any_scores_keep_their_order_about_the_centre_and_never_spread_more(each) -> None:
    together = out_of_fold_ensemble(rows(*((s, f"i{i}", f"g{i}", i % 2, m) for s, i, m in each)))
    parts = member_variance(together)
    assert parts.between >= 0
    assert parts.within >= 0
    for move in (parts.equivalent, parts.rescale):
        moved = move(together.margin, together.members)
        assert np.isfinite(moved).all()
        assert (np.abs(moved - parts.centre) <= np.abs(together.margin - parts.centre) + 1e-9).all()


def test_a_part_of_the_images_is_of_the_same_networks() -> None:
    whole = ensemble([0, 1, 1], [-3.0, 0.0, 3.0])
    some = whole.part(np.array([True, False, True]))
    assert some.margin.tolist() == [-3.0, 3.0]
    assert some.image.tolist() == ["i00000", "i00002"]
    assert some.networks == whole.networks
