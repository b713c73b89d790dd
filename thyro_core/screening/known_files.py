"""Files that a model has scored: sorted hashes in one object, searched without reading it whole.

Half of each SHA-256 is kept, 32 hexadecimal digits an image, in a file that all workers of a node
map into memory: a million images are 32 MB of disk and no memory of their own.
"""

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa

from thyro_core.store.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_HASH_DIGITS = 32
_SORT_MEMORY = "256MB"
_BATCH_ROWS = 65_536


class KnownFiles:
    """Answers whether a file's hash is known: `file_id in known`.

    Args:
        store: where the object is.
        key: its key; what it holds must never change, because it is kept on the node.
        scratch: node-local folder.
    """

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        with store.local(key, scratch).open("rb") as file:
            size = file.seek(0, 2)
            # Nothing can be mapped of an empty file.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._hashes = np.frombuffer(mapping, dtype=f"S{_HASH_DIGITS}")

    def __contains__(self, file_id: object) -> bool:
        digits = np.bytes_(str(file_id)[:_HASH_DIGITS].encode())
        place = int(np.searchsorted(self._hashes, digits))
        return place < len(self._hashes) and self._hashes[place] == digits

    def __len__(self) -> int:
        return len(self._hashes)


def write_known(parts: Iterable[pa.Table], out: IO[bytes]) -> None:
    """Write the hashes of several tables as `KnownFiles` reads them, in bounded memory.

    Args:
        parts: tables with the column `file_id`, taken one at a time.
        out: where it goes.
    """
    with tempfile.TemporaryDirectory(prefix="thyro-") as folder:
        import duckdb

        connection = duckdb.connect(
            f"{folder}/known.duckdb", config={"memory_limit": _SORT_MEMORY, "threads": 1}
        )
        try:
            connection.execute("CREATE TABLE known (hash VARCHAR)")
            for part in parts:
                connection.register("part", part.select(["file_id"]))
                connection.execute("INSERT INTO known SELECT left(file_id, 32) FROM part")
                connection.unregister("part")
            for batch in _hashes_in_order(connection):
                out.write("".join(batch).encode())
        finally:
            connection.close()


def _hashes_in_order(connection: "DuckDBPyConnection") -> Iterator[list[str]]:
    reader = connection.sql("SELECT DISTINCT hash FROM known ORDER BY hash").to_arrow_reader(
        _BATCH_ROWS
    )
    for batch in reader:
        yield batch["hash"].to_pylist()
