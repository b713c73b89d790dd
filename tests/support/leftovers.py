"""Everything that a run left behind, as bytes in which a text can be looked for."""

import io
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from thyro_core.store.store import Store


def in_store(store: Store) -> dict[str, bytes]:
    """Every object of a store by key."""
    return {key: plain(store.read(key)) for key in store.keys("")}


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path; sockets and links are none."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): plain(path.read_bytes()) for path in files}


def plain(data: bytes) -> bytes:
    """The bytes, and behind them what is compressed in them: a text in Parquet is not in sight."""
    if data.startswith(b"PAR1"):
        file = pq.ParquetFile(io.BytesIO(data))
        return data + repr([file.read().to_pylist(), file.metadata.metadata]).encode()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return data + b"".join(archive.read(name) for name in archive.namelist())
    if data.startswith(b"\x1f\x8b"):
        return data + zlib.decompress(data, zlib.MAX_WBITS | 16)
    return data


def holders(left: dict[str, bytes], texts: Iterable[str]) -> list[tuple[str, str]]:
    """Which of the texts stands where; nothing but this is to be shown if one is a secret."""
    return [
        (name, text)
        for text in texts
        for name, data in left.items()
        if text.encode() in data or text.encode("utf-16-le") in data
    ]
