"""The one place that uses what DuckDB does not document, as of DuckDB 2.0 and pyarrow 26.

DuckDB takes any Arrow dataset. Of one it calls `scanner(columns, filter)`, and of the scanner
`to_reader()`: neither package promises that. A dataset of our own stands behind these two calls.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from thyro_core.errors import InputError, StoreError
from thyro_core.store.store import Store, read_files
from thyro_core.tables import schemas

# Objects read at once: what hides a remote store's delay without filling the memory.
_TOGETHER = 32


class PartsOfTable(ds.FileSystemDataset):  # type: ignore[misc]
    """A table's parts, as DuckDB wants them for pushing columns and filters down.

    DuckDB could read the files by itself, through a file system of ours that is registered with it.
    But for each query it opens every part two to four times, one after the other and before it
    looks at the keys: over a store that answers in 20 ms, 400 parts took 11 s, and 10 s where a
    condition on `split` leaves one part (DuckDB 2.0); this way it is 1.5 s and 0.04 s.

    Arrow's own scanner reads ahead in threads of its own. On an fsspec file system these enter
    Python, and a process that ends meanwhile hangs or aborts ("terminate called without an
    active exception"). Here the thread that pulls a batch fetches and decodes it.
    """

    def __init__(
        self, store: Store, table: schemas.Table, keys: list[str], failures: list[StoreError]
    ) -> None:
        kind = ds.ParquetFileFormat()
        # Never opened: a fragment is the key of a part and what its path says of its rows.
        nowhere = pyarrow.fs.LocalFileSystem()
        fragments = [
            kind.make_fragment(key, nowhere, partition_expression=_path_says(table, key))
            for key in keys
        ]
        super().__init__(fragments, _readable(table.schema), kind, nowhere)
        self.store = store
        self.failures = failures
        self.more_rows: pa.Table | None = None
        """Rows that stand in no part."""

    def scanner(
        self,
        columns: list[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002
    ) -> SimpleNamespace:
        """What DuckDB asks for; of a scanner it uses `to_reader` alone."""
        names = self.schema.names if columns is None else columns
        schema = pa.schema([self.schema.field(name) for name in names])
        batches = self._batches(names, filter)
        return SimpleNamespace(to_reader=lambda: pa.RecordBatchReader.from_batches(schema, batches))

    def _batches(
        self, columns: list[str], condition: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        keys = [fragment.path for fragment in self.get_fragments(filter=condition)]
        for start in range(0, len(keys), _TOGETHER):
            some = keys[start : start + _TOGETHER]
            try:
                contents = _fetch(self.store, some)
            except StoreError as error:
                self.failures.append(error)
                raise
            for key, data in zip(some, contents, strict=True):
                yield from _read(key, data, self.schema, columns, condition)
        if self.more_rows is not None:
            more = self.more_rows if condition is None else self.more_rows.filter(condition)
            yield from more.select(columns).to_batches()


def _readable(schema: pa.Schema) -> pa.Schema:
    """The registered columns as DuckDB can take them from Arrow: it knows no float16."""
    wider = {pa.float16(): pa.float32(), pa.list_(pa.float16()): pa.list_(pa.float32())}
    return pa.schema([pa.field(field.name, wider.get(field.type, field.type)) for field in schema])


def _path_says(table: schemas.Table, key: str) -> pc.Expression:
    """What the hive folders of a part's key promise of all its rows."""
    promise = pc.scalar(True)
    for folder in key.split("/")[2:-1]:
        name, _, value = folder.partition("=")
        if name not in table.hive:
            continue
        kind = table.schema.field(name).type
        try:
            promise &= pc.field(name) == pa.scalar(value).cast(kind)
        except pa.ArrowInvalid as error:
            msg = f"{key}: expected {kind} after `{name}=`, found {value!r}; move it elsewhere"
            raise InputError(msg) from error
    return promise


def _fetch(store: Store, keys: list[str]) -> list[bytes]:
    places = [store.path(key) for key in keys]
    return cast("list[bytes]", read_files(store.fs, places, on_error="raise"))


def _read(
    key: str, data: bytes, schema: pa.Schema, columns: list[str], condition: pc.Expression | None
) -> list[pa.RecordBatch]:
    """A part's rows that meet the condition; a column that an older version lacks is null."""
    # A copy outside Python's memory: a thread of Arrow may be the last to let go of it.
    copy = pa.BufferOutputStream()
    copy.write(data)
    try:
        fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(copy.getvalue()))
        rows = fragment.to_table(
            schema=schema, columns=columns, filter=condition, use_threads=False
        )
    except (pa.ArrowException, OSError) as error:
        msg = f"{key}: expected a part of the table, found: {error}; `thyro verify` says more"
        raise InputError(msg) from error
    batches: list[pa.RecordBatch] = rows.to_batches()
    return batches
