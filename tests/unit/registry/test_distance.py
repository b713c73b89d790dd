"""Distances from the training set, against ones worked out by hand and by loops."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thyro_core.registry import distance as module
from thyro_core.registry.bundle import REFERENCE
from thyro_core.registry.distance import distance_bound, embedding_distance, training_distances


def reference(embeddings, held_out=None) -> pa.Table:
    rows = np.asarray(embeddings, dtype=np.float32)
    held = [True] * len(rows) if held_out is None else held_out
    blank = dict.fromkeys(REFERENCE.names)
    found = [
        blank | {"embedding": row.tolist(), "held_out": seen}
        for row, seen in zip(rows, held, strict=True)
    ]
    return pa.Table.from_pylist(found, schema=REFERENCE)


LINE = [[float(i), 7.0] for i in range(8)]
"""Eight images on a line: SD of the first dimension sqrt(63/12), the second never varies."""
UNIT = math.sqrt(63 / 12)


def test_the_fifth_nearest_counts_in_units_of_the_training_sds():
    found = embedding_distance(reference(LINE), [[0.0, 7.0], [10.0, 7.0], [3.0, 9.0]])
    beside = math.hypot(2 / UNIT, 2)  # the five nearest of 3 are 3, 2, 4, 1, 5
    assert found == pytest.approx([4 / UNIT, 7 / UNIT, beside], rel=1e-12)
    assert found.dtype == np.float64


def test_a_training_image_is_not_its_own_neighbour():
    # of 0: 1, 2, 3, 4, 5; of 3: 2, 4, 1, 5, then 0 or 6
    found = training_distances(reference(LINE))
    expected = [5, 4, 3, 3, 3, 3, 4, 5]
    assert found * UNIT == pytest.approx(expected, rel=1e-12)


def test_the_bound_counts_only_what_the_network_had_not_seen():
    everything = reference(LINE)
    some = reference(LINE, [True, False, True, False, False, False, False, True])
    assert distance_bound(everything, 1.0) * UNIT == pytest.approx(5)
    assert distance_bound(everything, 0.5) * UNIT == pytest.approx(4)
    assert distance_bound(some, 0.0) * UNIT == pytest.approx(3)
    assert distance_bound(some, 0.5) * UNIT == pytest.approx(5)
    none = reference(LINE, [False] * 8)
    assert distance_bound(none, 0.5) == distance_bound(everything, 0.5)


def test_images_of_one_patient_are_no_neighbours():
    """At eight frames a patient new patients are not refused for having no frames in the set."""
    rng = np.random.default_rng(0)

    def frames(patients, first):
        centres = np.repeat(rng.normal(size=(patients, 6)), 8, axis=0)
        names = [f"p{first + i // 8}" for i in range(len(centres))]
        return centres + rng.normal(scale=0.1, size=centres.shape), names

    (known, names), (new, _) = frames(150, 0), frames(400, 1000)
    table = reference(known)
    by_image = distance_bound(table, 0.95)
    by_group = table.set_column(
        table.schema.get_field_index("group_id"), "group_id", pa.array(names, pa.string())
    )
    bound = distance_bound(by_group, 0.95)
    found = embedding_distance(by_group, new)
    assert (found > by_image).mean() > 0.3
    assert (found > bound).mean() == pytest.approx(0.05, abs=0.04)


def test_few_images_and_none():
    assert embedding_distance(reference([[0.0], [2.0]]), [[5.0]]) == pytest.approx([5.0])
    assert np.isnan(training_distances(reference([[1.0]]))).all()
    assert math.isnan(distance_bound(reference([[1.0]]), 0.9))
    assert training_distances(reference([[0.0], [2.0]])) == pytest.approx([2.0, 2.0])
    assert embedding_distance(reference(LINE), np.empty((0, 2))).shape == (0,)


def test_what_is_not_finite_has_no_distance():
    found = embedding_distance(reference(LINE), [[np.nan, 7.0], [np.inf, 7.0], [0.0, 7.0]])
    assert np.isnan(found).tolist() == [True, True, False]


@pytest.mark.parametrize("asked", [[[1.0]], [1.0, 2.0], [[1.0, 2.0, 3.0]]])
def test_another_networks_embeddings_are_refused(asked):
    with pytest.raises(ValueError, match=r"shape \(b, 2\), as the 8 of the reference set"):
        embedding_distance(reference(LINE), asked)
    with pytest.raises(ValueError, match="as the 0 of the reference"):
        embedding_distance(reference(np.empty((0, 2))), asked)


@pytest.mark.parametrize("quantile", [-0.1, 1.1, math.nan])
def test_a_quantile_is_a_share(quantile):
    with pytest.raises(ValueError, match="quantile of 0 to 1"):
        distance_bound(reference(LINE), quantile)


def by_loops(known, asked):
    unit = [s if s > 0 else 1.0 for s in known.std(axis=0)]
    found = []
    for row in asked:
        distances = sorted(math.dist(row / unit, other / unit) for other in known)
        found.append(distances[min(5, len(known)) - 1])
    return found


numbers = st.integers(-50, 50).map(lambda i: i / 8)


@given(
    known=st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 3), elements=numbers)),
    asked=st.integers(0, 5).flatmap(lambda n: arrays(np.float64, (n, 3), elements=numbers)),
)
def test_blocks_change_nothing_and_loops_agree(known, asked):
    with pytest.MonkeyPatch.context() as patch:
        whole = embedding_distance(reference(known), asked)
        alone = training_distances(reference(known))
        patch.setattr(module, "_BLOCK_ROWS", 2)
        assert embedding_distance(reference(known), asked).tolist() == whole.tolist()
        assert training_distances(reference(known)).tolist() == pytest.approx(
            alone.tolist(), nan_ok=True
        )
    assert whole.tolist() == pytest.approx(by_loops(known, asked), rel=1e-9, abs=1e-9)
