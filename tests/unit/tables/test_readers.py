"""The tables in the readers people use: what opens without options, and the one that needs one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.unit.tables.test_query import STUDY, fill
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table
from thyro_core.tables.query import open_results

KEYS = ["study_id", "split", "architecture"]
WANTED = sorted((STUDY, s, a, s / 4) for s in (0, 2, 10) for a in ("resnet18", "vgg16"))

# How each tool opens a folder of parts, and gives back an Arrow table with every column.
READERS: dict[str, Any] = {
    "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder, partitioning=None)),
    "pyarrow read_table": lambda folder: pq.read_table(folder, partitioning=None),
    "pyarrow dataset": lambda folder: ds.dataset(folder).to_table(),
    "pyarrow dataset hive": lambda folder: ds.dataset(folder, partitioning="hive").to_table(),
    "polars": lambda folder: pl.read_parquet(folder).to_arrow(),
    "polars glob": lambda folder: pl.read_parquet(f"{folder}/**/*.parquet").to_arrow(),
    "polars hive": lambda folder: (
        pl.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect().to_arrow()
    ),
    "duckdb": lambda folder: duckdb.sql(
        f"FROM read_parquet('{folder}/**/*.parquet')"
    ).to_arrow_table(),
    "duckdb hive": lambda folder: duckdb.sql(
        f"FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    ).to_arrow_table(),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(open_store(str(tmp_path / "store")))


def kind(name: str) -> Any:
    return {"split": pa.types.is_integer}.get(name, is_text)


def is_text(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_string_view(found)
    )


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_the_same_rows_with_keys_of_the_right_type(
    store: Store, reader: str
) -> None:
    found = READERS[reader](store.path("tables/epochs"))
    assert found.column_names == schemas.TABLES["epochs"].schema.names
    for name in KEYS:
        assert kind(name)(found.schema.field(name).type), found.schema.field(name)
    rows = zip(*(found[name].to_pylist() for name in [*KEYS, "loss"]), strict=True)
    assert sorted(rows) == WANTED


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["metrics", "runs"])
def test_tables_with_one_key_open_everywhere(store: Store, reader: str, name: str) -> None:
    found = READERS[reader](store.path(f"tables/{name}"))
    wanted = read_table(store, name)
    assert found.column_names == wanted.column_names
    same = [column for column in wanted.column_names if column not in {"value", "started"}]
    assert found.select(same).to_pylist() == wanted.select(same).to_pylist()
    if name == "runs":
        assert (
            found["started"].cast(pa.int64()).to_pylist()
            == wanted["started"].cast(pa.int64()).to_pylist()
        )


def parts(store: Store) -> Iterator[str]:
    return (store.path(key) for key in store.keys("tables/epochs"))


def test_one_part_opens_in_pandas_and_pyarrow_without_options(store: Store) -> None:
    for part in parts(store):
        assert pd.read_parquet(part)["split"].dtype == "int32"
        assert pq.read_table(part).schema.equals(schemas.TABLES["epochs"].schema)
    # The path is taken from the folder given: with no key below it there is none to collide.
    frame = pd.read_parquet(store.path(f"tables/metrics/study_id={STUDY}"))
    assert frame["study_id"].tolist() == [STUDY] * 4


def test_the_connection_gives_frames_of_pandas_polars_and_arrow_without_options(
    store: Store,
) -> None:
    with open_results(store.url) as connection:
        epochs = connection.sql("FROM epochs")
        assert epochs.to_arrow_table().schema.equals(schemas.TABLES["epochs"].schema)
        assert epochs.df()["split"].dtype == "int32"
        assert epochs.pl().schema["split"] == pl.Int32


# Why pandas and `pq.read_table` need `partitioning=None`: they read the keys in the path as
# dictionaries, always, and nothing that Parquet can hold under the same name can be merged with
# that and with the plain text that `dataset(partitioning="hive")` reads. When a version of pyarrow
# ends this, these tests say so and the option can go from the README.


@pytest.mark.parametrize("read", [pq.read_table, pd.read_parquet])
def test_pandas_and_read_table_still_need_the_option(store: Store, read: Any) -> None:
    with pytest.raises(pa.ArrowTypeError, match=r"Unable to merge: Field study_id has incompat"):
        read(store.path("tables/epochs"))


IN_FILE = {
    "text": lambda split: (pa.array(["s1"]), pa.array([split], pa.int32())),
    "dictionary": lambda split: (
        pa.array(["s1"]).dictionary_encode(),
        pa.array([split], pa.int32()).dictionary_encode(),
    ),
    "long": lambda split: (pa.array(["s1"], pa.large_string()), pa.array([split])),
}


@pytest.mark.parametrize("kind", IN_FILE)
def test_no_type_of_the_keys_in_the_file_would_help(tmp_path: Path, kind: str) -> None:
    for split in (0, 1):
        folder = tmp_path / f"study_id=s1/split={split}"
        folder.mkdir(parents=True)
        study_id, number = IN_FILE[kind](split)
        pq.write_table(pa.table({"study_id": study_id, "split": number}), folder / "0.parquet")
    with pytest.raises(pa.ArrowTypeError, match="Unable to merge"):
        pq.read_table(tmp_path)


def test_without_the_keys_in_the_file_they_would_be_categories(tmp_path: Path) -> None:
    for split in (0, 1):
        folder = tmp_path / f"study_id=s1/split={split}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"loss": [0.5]}), folder / "0.parquet")
    assert pd.read_parquet(tmp_path)["split"].dtype == "category"
    assert pl.scan_parquet(f"{tmp_path}/**/*.parquet").collect().columns == ["loss"]
