"""The registered tables, and how the readers people use see them."""

import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from thyro_core.config import ARCHITECTURES
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import CASCADE_COLUMNS, NODULE_MEASURES
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.merge import write_merged

STUDY = "s0123456789abcdef"
ALL_FIELDS = [(table, field) for table in schemas.TABLES.values() for field in table.schema]


@pytest.mark.parametrize("table", schemas.TABLES.values(), ids=lambda table: table.name)
def test_a_table_says_what_it_is(table: schemas.Table) -> None:
    assert table.row
    assert schemas.TABLES[table.name] is table
    assert table.schema.metadata == {
        b"table": table.name.encode(),
        b"row": table.row.encode(),
        b"schema_version": str(schemas.SCHEMA_VERSION).encode(),
    }
    assert len(set(table.schema.names)) == len(table.schema.names)


@pytest.mark.parametrize("table", schemas.TABLES.values(), ids=lambda table: table.name)
def test_hive_keys_are_columns_with_the_types_a_hive_reader_infers(table: schemas.Table) -> None:
    for key in table.hive:
        wanted = pa.int32() if key in {"split", "date"} else pa.string()
        assert table.schema.field(key).type == wanted


@pytest.mark.parametrize(
    ("table", "field"), ALL_FIELDS, ids=lambda x: getattr(x, "name", None) or str(x)
)
def test_every_column_is_documented_and_read_by_every_tool(
    table: schemas.Table, field: pa.Field
) -> None:
    doc = field.metadata[b"doc"].decode()
    assert doc.endswith("."), f"{table.name}.{field.name}: the doc is no sentence: {doc!r}"
    assert not pa.types.is_unsigned_integer(field.type)
    if pa.types.is_timestamp(field.type):
        assert field.type == pa.timestamp("us", tz="UTC")
    if any(word in field.name for word in ("seconds", "memory", "width", "height", "side")):
        is_no_size = field.name == "images_per_second" or field.name.startswith("aside")
        assert "[" in doc or is_no_size, f"{field.name} names no unit"


def test_the_checks_of_maps_say_what_chance_reaches() -> None:
    columns = {f.name: f.metadata[b"doc"].decode() for f in schemas.TABLES["cam_trust"].schema}
    against_chance = {
        "border_energy": "border_area", "mark_energy": "mark_energy_permuted",
        "deletion": "deletion_random", "insertion": "insertion_random",
    }  # fmt: skip
    for column, chance in against_chance.items():
        assert chance in columns[column]
        assert columns[chance]
    for measure in NODULE_MEASURES:
        for baseline in (f"{measure}_permuted", f"{measure}_mean_map"):
            assert f"Baseline of {measure}" in columns[baseline]
    for column in CASCADE_COLUMNS:
        assert "0: the map follows the weights" in columns[column]
    assert {"null: no mask" in columns[name] for name in columns if name.startswith("nodule")} == {
        True
    }


def epoch(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "study_id": STUDY,
        "split": 0,
        "architecture": "vgg16",
        "epoch": 1,
        "loss": 0.5,
        "val_loss": None,
        "learning_rate": 1e-4,
        "seconds": 2.0,
        "images_per_second": 10.0,
    }
    return row | changes


def test_conform_reorders_casts_and_adds_the_metadata() -> None:
    wanted = schemas.rows_to_table("epochs", [epoch(), epoch(epoch=2)])
    names = sorted(wanted.column_names)
    loose = pa.table({name: wanted[name].to_pylist() for name in names})
    assert loose.schema != wanted.schema
    found = schemas.conform("epochs", loose)
    assert found.schema.equals(wanted.schema, check_metadata=True)
    assert found.equals(wanted)


def test_conform_puts_a_column_into_one_piece() -> None:
    one = schemas.rows_to_table("epochs", [epoch()])
    found = schemas.conform("epochs", pa.concat_tables([one, one]))
    assert all(column.num_chunks == 1 for column in found.columns)
    assert found.num_rows == 2


def test_conform_names_what_is_missing_and_what_is_unknown() -> None:
    table = schemas.rows_to_table("epochs", [epoch()])
    wrong = table.drop_columns(["loss", "epoch"]).append_column("extra", pa.array([1]))
    with pytest.raises(
        ValueError, match=r"epochs: missing columns \['epoch', 'loss'\], unknown .*'extra'"
    ):
        schemas.conform("epochs", wrong)


@pytest.mark.parametrize("value", [2**31, 1.5, "two"])
def test_conform_refuses_a_value_that_does_not_fit(value: object) -> None:
    table = schemas.rows_to_table("epochs", [epoch()])
    at = table.schema.get_field_index("epoch")
    with pytest.raises(ValueError, match=r"[Ii]nteger value|truncated|Failed to parse"):
        schemas.conform("epochs", table.set_column(at, "epoch", pa.array([value])))


def test_rows_must_name_every_column_and_no_other() -> None:
    short = epoch()
    del short["loss"]
    with pytest.raises(ValueError, match=r"epochs: .*\['loss'\]"):
        schemas.rows_to_table("epochs", [epoch(), short])
    with pytest.raises(ValueError, match=r"epochs: .*\['extra'\]"):
        schemas.rows_to_table("epochs", [epoch(extra=1)])


def test_no_rows_are_an_empty_table_of_the_schema() -> None:
    found = schemas.rows_to_table("epochs", [])
    assert found.num_rows == 0
    assert found.schema.equals(schemas.TABLES["epochs"].schema, check_metadata=True)


def run(split: int, architecture: str, started: datetime) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(schemas.TABLES["runs"].schema.names)
    return row | {
        "study_id": STUDY,
        "split": split,
        "architecture": architecture,
        "started": started,
        "seed": 2**31 - 1,
    }


def test_times_are_kept_in_utc_to_the_microsecond(tmp_path: Path) -> None:
    local = datetime(2024, 2, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    store = open_store(str(tmp_path))
    table = schemas.rows_to_table("runs", [run(0, "vgg16", local)])
    write_table(store, "runs", table, study_id=STUDY)
    (found,) = read_table(store, "runs")["started"].to_pylist()
    assert found == datetime(2024, 2, 28, 23, 30, 0, 123456, tzinfo=UTC)
    (seen,) = pl.read_parquet(tmp_path / "tables/runs")["started"]
    assert seen == found
    (seen,) = pd.read_parquet(tmp_path / "tables/runs", partitioning=None)["started"]
    assert seen == found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one epoch in each of 3 splits x 4 architectures; split 10 sorts before 2."""
    store = open_store(str(tmp_path))
    for split in (0, 2, 10):
        for architecture in ARCHITECTURES:
            row = epoch(split=split, architecture=architecture, loss=split / 4)
            keys = {"study_id": STUDY, "split": split, "architecture": architecture}
            write_table(store, "epochs", schemas.rows_to_table("epochs", [row]), **keys)
    return store


ORDER = ("split", "architecture")


def rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    columns = ["study_id", "split", "architecture", "loss"]
    return sorted(frame[columns].itertuples(index=False, name=None))


WANTED = sorted((STUDY, s, a, s / 4) for s in (0, 2, 10) for a in ARCHITECTURES)


def test_pyarrow_reads_the_hive_with_the_files_own_types(store: Store) -> None:
    data = ds.dataset(store.path("tables/epochs"), partitioning="hive")
    assert data.schema.equals(schemas.TABLES["epochs"].schema)
    assert rows(data.to_table().to_pandas()) == WANTED
    some = data.to_table(filter=(ds.field("split") == 10) & (ds.field("architecture") == "vgg16"))
    assert some.select(["split", "architecture", "loss"]).to_pylist() == [
        {"split": 10, "architecture": "vgg16", "loss": 2.5}
    ]


def test_pandas_reads_the_hive_with_the_files_own_types(store: Store) -> None:
    # Left to itself pandas makes categories of the path's texts, which cannot be merged with the
    # column in the file; that column is all it needs.
    frame = pd.read_parquet(store.path("tables/epochs"), partitioning=None)
    assert list(frame.columns) == schemas.TABLES["epochs"].schema.names
    assert frame["split"].dtype == "int32"
    assert rows(frame) == WANTED
    some = pd.read_parquet(
        store.path("tables/epochs"), partitioning=None, filters=[("split", "==", 10)]
    )
    assert rows(some) == [row for row in WANTED if row[1] == 10]


@pytest.mark.parametrize("hive", [None, True, False])
def test_polars_reads_the_hive_with_the_files_own_types(store: Store, hive: bool | None) -> None:
    frame = pl.scan_parquet(store.path("tables/epochs"), hive_partitioning=hive)
    found = frame.collect()
    assert found.columns == schemas.TABLES["epochs"].schema.names
    assert found.schema["split"] == pl.Int32
    assert found.schema["study_id"] == pl.String
    assert rows(found.to_pandas()) == WANTED
    assert frame.filter(pl.col("split") == 10).collect().height == 4
    assert pl.read_parquet(store.path("tables/epochs")).sort(ORDER).equals(found.sort(ORDER))


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ("", "BIGINT"),
        (", hive_partitioning=true", "BIGINT"),
        (", hive_partitioning=false", "INTEGER"),
    ],
)
def test_duckdb_reads_the_hive(store: Store, options: str, split: str) -> None:
    source = f"read_parquet('{store.path('tables/epochs')}/**/*.parquet'{options})"
    with duckdb.connect() as connection:
        types = {row[0]: row[1] for row in connection.sql(f"describe from {source}").fetchall()}
        assert list(types) == schemas.TABLES["epochs"].schema.names
        assert types["split"] == split
        assert types["study_id"] == types["architecture"] == "VARCHAR"
        query = f"select study_id, split, architecture, loss from {source}"
        assert sorted(connection.sql(query).fetchall()) == WANTED
        counted = connection.sql(f"select count(*) from {source} where split = 10").fetchall()
    assert counted == [(4,)]


def test_readers_do_not_see_a_write_that_is_under_way(store: Store) -> None:
    whole = Path(store.path(store.keys("tables/epochs")[0])).read_bytes()
    folder = store.path("tables/epochs")

    def seen() -> set[int]:
        return {
            ds.dataset(folder, partitioning="hive").to_table().num_rows,
            len(pd.read_parquet(folder, partitioning=None)),
            pl.read_parquet(folder).height,
            read_table(store, "epochs").num_rows,
        }

    with store.writing(f"tables/epochs/study_id={STUDY}/split=3/part-0.parquet") as file:
        file.write(whole[:100])
        file.flush()
        assert seen() == {12}
        file.write(whole[100:])
    assert len(store.keys("tables/epochs")) == 13


def test_columns_that_an_older_version_lacks_are_null(store: Store, tmp_path: Path) -> None:
    schema = schemas.TABLES["splits"].schema
    row = dict.fromkeys(schema.names) | {"study_id": STUDY, "split": 0, "image_id": "a"}
    key = write_table(store, "splits", schemas.rows_to_table("splits", [row]), study_id=STUDY)
    old = read_table(store, "splits").select(["image_id", "study_id"])
    pq.write_table(old, tmp_path / "old.parquet")
    store.write(key, (tmp_path / "old.parquet").read_bytes())
    assert read_table(store, "splits").to_pylist() == [row | {"split": None}]
    rows = write_merged(store, "merged.parquet", [key], schema, "SELECT * FROM parts")
    merged = pq.ParquetFile(io.BytesIO(store.read("merged.parquet"))).read()
    assert (rows, merged.schema.names) == (1, schema.names)
    assert merged.to_pylist() == [row | {"split": None}]
