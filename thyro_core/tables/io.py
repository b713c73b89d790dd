"""Tables in a store: one part at one key, read back whole."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core.store.keys import table_key, table_prefix
from thyro_core.store.store import Store
from thyro_core.tables import schemas


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
    conformed_table = schemas.conform(name, table)
    buffer = io.BytesIO()
    pq.write_table(conformed_table, buffer, compression="zstd", store_schema=True)
    key = table_key(name, **keys)
    store.write(key, buffer.getvalue())
    return key


def read_table(store: Store, name: str, **keys: str | int) -> pa.Table:
    """All rows of a registered table whose leading hive keys are `keys`; may be empty.

    Columns that an older version of the program did not write are null.
    """
    hive = "".join(f"/{key}={value}" for key, value in keys.items())
    parts = store.keys(table_prefix(name) + hive)
    schema = schemas.TABLES[name].schema
    # Not pq.read_table: its scanner's threads can abort a process that exits right after.
    tables = [
        schemas.with_later_columns(pq.ParquetFile(io.BytesIO(store.read(key))).read(), schema)
        for key in parts
    ]
    return pa.concat_tables(tables) if tables else schema.empty_table()
