"""Parquet objects put together, sorted and rid of doubles, in bounded memory whatever their size.

Objects are fetched to a temporary folder; DuckDB sorts on disk what does not fit.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core.store.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY = "512MB"
_ROWS = 61_440
_STREAM = 1 << 22


@contextmanager
def local_copies(store: Store, keys: Sequence[str]) -> Iterator[list[str]]:
    """Local copies of objects, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="thyro-") as folder:
        paths = []
        for number, key in enumerate(keys):
            path = Path(folder, f"{number}.parquet")
            with store.fs.open(store.path(key), "rb") as source, path.open("wb") as out:
                shutil.copyfileobj(source, out, _STREAM)
            paths.append(str(path))
        yield paths


@contextmanager
def open_connection() -> "Iterator[DuckDBPyConnection]":
    """A DuckDB that keeps to a bounded memory and spills to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="thyro-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": 1,
            "temp_directory": folder,
        }
        import duckdb

        connection = duckdb.connect(config=config)
        try:
            yield connection
        finally:
            connection.close()


def select(
    connection: "DuckDBPyConnection",
    sql: str,
    files: Sequence[str],
    schema: pa.Schema | None = None,
    *,
    whole: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of a query over Parquet files, which it calls `parts`.

    Args:
        connection: from `connected`.
        sql: one SELECT; the table's name in it is `parts`. Beside the files' columns a row has its
            `part_number`, the position of its file, from 1.
        files: local files, at least one.
        schema: columns that all rows have; those that the files of an older version lack are null.
        whole: a local file of another table, which the query may call `whole`.
    """
    file_list = "[" + ", ".join("'" + file.replace("'", "''") + "'" for file in files) + "]"
    options = "hive_partitioning = false, union_by_name = true, filename = true"
    rows = f"FROM read_parquet({file_list}, {options})"
    present = connection.sql(f"{rows} LIMIT 0").columns
    lacking = [name for name in (schema.names if schema else ()) if name not in present]
    extra = "".join(f", NULL AS {name}" for name in lacking)
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW parts AS SELECT * EXCLUDE (filename), "
        f"list_position({file_list}, filename) AS part_number{extra} {rows}"
    )
    if whole is not None:
        file = whole.replace("'", "''")
        view = f"SELECT * FROM read_parquet('{file}', hive_partitioning = false)"  # noqa: S608
        connection.execute(f"CREATE OR REPLACE TEMP VIEW whole AS {view}")
    yield from connection.sql(sql).to_arrow_reader(_ROWS)


def distinct(keys: Sequence[str]) -> str:
    """A query for `parts` without doubles, sorted by their key."""
    file_list = ", ".join(keys)
    return (
        f"SELECT * FROM parts QUALIFY row_number() OVER (PARTITION BY {file_list}) = 1 "  # noqa: S608
        f"ORDER BY {file_list}"
    )


def write_merged(
    store: Store,
    target: str,
    sources: Sequence[str],
    schema: pa.Schema,
    sql: str,
    *,
    whole: str | None = None,
) -> int:
    """Write what a query gives over several Parquet objects as one; may replace one of them.

    Args:
        store: holds them all.
        target: key of the result.
        sources: keys of the objects, all of the schema; with none, the result has no rows.
        schema: of the result; a column that no source has is null.
        sql: as for `select`, with the schema's columns.
        whole: key of the object of another table, which the query may call `whole`.

    Returns:
        Rows written.
    """
    rows = 0
    with (
        local_copies(store, sources) as files,
        local_copies(store, [whole] if whole else []) as others,
        open_connection() as connection,
        store.writing(target) as out,
        pq.ParquetWriter(out, schema, compression="zstd") as writer,
    ):
        other = others[0] if others else None
        for batch in select(connection, sql, files, schema, whole=other) if files else ():
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            writer.write_table(table)
            rows += table.num_rows
    return rows
