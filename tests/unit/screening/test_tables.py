"""The screening tables in the readers people use: the same rows, keys and types in each."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support.worklists import batch_row, row
from tests.unit.tables.test_readers import READERS, is_text
from thyro_core.screening.score import screening_cams
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.query import run_query

NIGHTS = (20261125, 20261126)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(str(tmp_path_factory.mktemp("store")))
    for date in NIGHTS:
        for batch_id in ("n1", "n2"):
            keys: dict[str, Any] = {"date": date, "batch_id": batch_id}
            rows = [row(i, "refer", 0.5 + i / 10, **keys) for i in range(3)]
            write_table(opened, "screening", schemas.rows_to_table("screening", rows), **keys)
            maps = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)
            write_table(opened, "screening_cams", screening_cams(rows, "layer4", maps), **keys)
        batches = [batch_row(date=date, batch_id=batch_id) for batch_id in ("n1", "n2")]
        table = schemas.rows_to_table("screening_batches", batches)
        write_table(opened, "screening_batches", table, date=date)
    return opened


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["screening", "screening_batches", "screening_cams"])
def test_every_reader_sees_the_same_rows_and_keys(store: Store, reader: str, name: str) -> None:
    found = READERS[reader](store.path(f"tables/{name}"))
    wanted = read_table(store, name)
    assert found.column_names == wanted.column_names
    assert pa.types.is_integer(found.schema.field("date").type)
    assert is_text(found.schema.field("batch_id").type)
    columns = ["date", "batch_id", "model_id"]
    if name != "screening_batches":
        columns += ["image_id", "height"]
    order = [(column, "ascending") for column in columns]
    same = [column for column in columns if column != "date"]
    one, other = found.sort_by(order), wanted.sort_by(order)
    assert one["date"].to_pylist() == other["date"].to_pylist()
    assert one.select(same).to_pylist() == other.select(same).to_pylist()


def test_the_maps_are_the_raw_ones(store: Store, tmp_path: Path) -> None:
    rows = read_table(store, "screening_cams", date=NIGHTS[0], batch_id="n1").to_pylist()
    assert [(r["target_class"], r["peak"], r["is_empty"]) for r in rows[:2]] == [
        (0, 3.0, False), (1, 7.0, False),
    ]  # fmt: skip
    assert rows[1]["map"] == pytest.approx([4 / 7, 5 / 7, 6 / 7, 1], abs=1e-3)
    assert {(r["model_id"], r["layer"], r["height"], r["width"]) for r in rows} == {
        ("b1", "layer4", 2, 2)
    }


def test_a_night_is_asked_for_by_its_number(store: Store) -> None:
    sql = "SELECT count(*) AS n FROM screening WHERE date = 20261126 AND band = 'refer'"
    assert run_query(store.url, sql).to_pylist() == [{"n": 6}]
