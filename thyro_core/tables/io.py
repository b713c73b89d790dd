"""Tables as bytes of Parquet, and in a store: one part at one key, read back whole."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core.store.keys import table_key, table_prefix
from thyro_core.store.store import Store
from thyro_core.tables import schemas


def to_parquet(table: pa.Table) -> bytes:
    """A table as zstd Parquet: the same rows, the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=True)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """The whole table of a Parquet file."""
    # Not pq.read_table: its scanner's threads can abort a process that exits right after.
    return pq.ParquetFile(io.BytesIO(data)).read()


def write_table(store: Store, name: str, table: pa.Table, **keys: str | int) -> str:
    """Write one part of a registered table as zstd Parquet, byte for byte reproducible.

    Args:
        store: where it goes.
        name: of the registered table.
        table: its rows.
        keys: the part's hive keys, in their order.

    Returns:
        The part's key.

    Raises:
        ValueError: the columns differ from the registered schema.
    """
    key = table_key(name, **keys)
    store.write(key, to_parquet(schemas.conform(name, table)))
    return key


def read_table(store: Store, name: str, **keys: str | int) -> pa.Table:
    """All rows of a registered table whose leading hive keys are `keys`; may be empty.

    Columns that an older version of the program did not write are null.
    """
    hive = "".join(f"/{key}={value}" for key, value in keys.items())
    parts = store.keys(table_prefix(name) + hive)
    schema = schemas.TABLES[name].schema
    tables = [schemas.with_later_columns(from_parquet(store.read(key)), schema) for key in parts]
    return pa.concat_tables(tables) if tables else schema.empty_table()
