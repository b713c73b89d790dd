"""Grad-CAM maps: whole or refused, and stored faithfully."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thyro_core.explain.maps import CamError, cams_table, check_maps, stored_maps
from thyro_core.tables.schemas import TABLES

MAPS = np.random.default_rng(1).random((2, 2, 2, 2), np.float32)
KEYS = {"study_id": "s1", "split": 3, "architecture": "resnet18"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_bad_map_is_named_by_its_image(value):
    maps = np.ones((40, 2, 3, 3), np.float32)
    maps[33, 1, 2, 2] = value
    with pytest.raises(CamError, match=r"found others in 1: images at positions 33;"):
        check_maps(maps, 40)
    with pytest.raises(CamError, match="positions 33;"):
        cams_table(KEYS, [f"i{i}" for i in range(40)], "layer4", maps)


def test_many_bad_maps_are_counted_and_a_few_named():
    with pytest.raises(
        CamError, match=r"found others in 9: images at positions 0, 1, 2, 3, 4, \.\.\.;"
    ):
        check_maps(np.full((9, 2, 1, 1), np.nan, np.float32), 9)


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (4, 2, 3, 3), (3, 1, 3, 3), (3, 2, 0, 3), (3, 2)])
def test_missing_maps_fail_the_job(shape):
    with pytest.raises(CamError, match="expected 3 x 2 Grad-CAM maps, found an array of shape"):
        check_maps(np.ones(shape, np.float32), 3)


def test_the_table_says_which_map_is_whose():
    maps = np.arange(2 * 2 * 2 * 3, dtype=np.float32).reshape(2, 2, 2, 3)
    maps[0, 1] = 0
    table = cams_table(KEYS, ["b", "a"], "layer4", maps)
    assert table.schema.equals(TABLES["cams"].schema, check_metadata=True)
    assert str(table.schema.field("map").type.value_type) == "halffloat"
    rows = table.to_pylist()
    assert [(row["image_id"], row["target_class"]) for row in rows] == [
        ("b", 0), ("b", 1), ("a", 0), ("a", 1),
    ]  # fmt: skip
    assert [row["peak"] for row in rows] == [5, 0, 17, 23]
    assert [row["is_empty"] for row in rows] == [False, True, False, False]
    assert {(row["height"], row["width"], row["layer"]) for row in rows} == {(2, 3, "layer4")}
    assert {(row["study_id"], row["split"], row["architecture"]) for row in rows} == {
        ("s1", 3, "resnet18")
    }
    assert rows[0]["map"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=5e-4)
    assert rows[1]["map"] == [0] * 6
    np.testing.assert_allclose(stored_maps(table), maps.reshape(4, 2, 3), rtol=2**-11)


def test_every_column_is_documented():
    assert all(field.metadata[b"doc"] for field in TABLES["cams"].schema)


@settings(max_examples=60)
@given(
    arrays(np.float32, (2, 2, 2, 3), elements=st.floats(0, 1, width=32)),
    st.sampled_from([1e-40, 1e-30, 1e-9, 1e-5, 1.0, 7e4, 1e20, 3e38]),
)
def test_no_magnitude_is_lost(shares, scale):
    maps = (shares.astype(np.float64) * scale).astype(np.float32)
    table = cams_table(KEYS, ["a", "b"], "layer4", maps)
    back = stored_maps(table).reshape(maps.shape)
    peaks = maps.max(axis=(2, 3), keepdims=True).astype(np.float64)
    assert table["peak"].to_pylist() == peaks.ravel().tolist()
    assert table["is_empty"].to_pylist() == (peaks.ravel() == 0).tolist()
    error = np.abs(back.astype(np.float64) - maps)
    # Below float32's smallest normal number the value itself is coarser than float16.
    assert (error <= maps * 2.0**-11 + peaks * 2.0**-25 + 1.5e-45).all()
    assert ((back.max(axis=(2, 3)) > 0) == (peaks[:, :, 0, 0] > 0)).all()


def test_maps_of_several_networks_are_not_mixed():
    small = cams_table(KEYS, ["a"], "layer4", np.ones((1, 2, 2, 2), np.float32))
    large = cams_table(KEYS, ["a"], "layer4", np.ones((1, 2, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"maps of sizes \[\(2, 2\), \(3, 3\)\]"):
        stored_maps(pa.concat_tables([small, large]))
    np.testing.assert_array_equal(stored_maps(pa.concat_tables([small, small])), 1)
    np.testing.assert_array_equal(stored_maps(large.slice(1)), 1)


def test_stored_maps_open_everywhere(tmp_path):
    """16-bit numbers in lists are what a reader might not know."""
    file = str(tmp_path / "part-0.parquet")
    table = cams_table(KEYS, ["a", "b"], "layer4", MAPS)
    pq.write_table(table, file)
    found = {
        "pyarrow": pq.read_table(file)["map"].to_pylist(),
        "pandas": pd.read_parquet(file)["map"].to_list(),
        "polars": pl.read_parquet(file)["map"].to_list(),
        "duckdb": [row for (row,) in duckdb.sql(f"SELECT map FROM '{file}'").fetchall()],
    }
    expected = np.array(table["map"].to_pylist())
    for reader, values in found.items():
        np.testing.assert_array_equal(np.array([*map(list, values)]), expected, reader)
