"""Change an object only if nobody else has: compare and swap, on every kind of store we support.

On S3 the server compares (If-None-Match, If-Match). On a local disk and in memory a guard that
dies with its process is held around compare and write; the write itself is atomic as always.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from thyro_core.errors import InputError
from thyro_core.store.store import TEMPORARY, Store
from thyro_core.urls import redact

_MEMORY_GUARD = threading.RLock()


@dataclass(frozen=True)
class Seen:
    """An object as it was when it was read."""

    data: bytes | None
    """Its bytes; None: there was no object."""
    version: str | None
    """What `swap` compares: an ETag on S3, else a hash; None: there was no object."""


def read_seen(store: Store, key: str) -> Seen:
    """An object, with what is needed to swap it later.

    Raises:
        InputError: the store's file system cannot compare and swap.
    """
    if not _is_s3(store):
        _check_supported(store)
        # In memory an object is written in place, and readers share its position.
        with _MEMORY_GUARD if isinstance(store.fs, MemoryFileSystem) else nullcontext():
            data = store.read(key) if store.exists(key) else None
        return Seen(data, _digest(data))
    try:
        # The version first: if the object changes in between, the swap fails, as it should.
        etag = str(store.fs.info(store.path(key))["ETag"])
        return Seen(store.read(key), etag)
    except FileNotFoundError:
        return Seen(None, None)


def swap(store: Store, key: str, data: bytes, seen: Seen) -> bool:
    """Put an object if it is still the one that was seen; readers see the old one or the new one.

    Args:
        store: file, memory or S3.
        key: the object's key.
        data: its new bytes; they should differ from what anyone else would write.
        seen: what `read_seen` gave.

    Returns:
        Whether `data` is in place now; False: somebody else was faster, read it again.

    Raises:
        InputError: the store's file system cannot compare and swap.
        OSError: the store could not be written.
    """
    if _is_s3(store):
        return _swap_on_s3(store, key, data, seen)
    _check_supported(store)
    with _guard(store, key):
        if read_seen(store, key).version != seen.version:
            return False
        store.write(key, data)
        return True


def _swap_on_s3(store: Store, key: str, data: bytes, seen: Seen) -> bool:
    path = store.path(key)
    try:
        if seen.version is None:
            store.fs.pipe_file(path, data, mode="create")
        else:
            store.fs.pipe_file(path, data, IfMatch=seen.version)
    except OSError:
        # Servers name the conflict differently, and a retry after a lost answer meets our own put.
        now = read_seen(store, key)
        if now.data == data:
            return True
        if now.version == seen.version:
            raise
        return False
    return True


def check_honoured(store: Store, key: str) -> None:
    """Make sure that the store compares before it swaps: some S3 servers ignore the condition.

    A put that must be refused is tried. Where it is not, the object has one more space at its end.

    Args:
        store: file, memory or S3.
        key: an object that is there, whose readers do not mind the space.

    Raises:
        InputError: the put was not refused.
    """
    data = read_seen(store, key).data
    if data is not None and swap(store, key, data + b" ", Seen(None, None)):
        msg = (
            f"{redact(store.url)}: expected a server that honours conditional writes "
            "(If-None-Match), found one that ignores them, so two programs could overwrite each "
            "other; use another S3 server, or run one program at a time on a folder"
        )
        raise InputError(msg)


@contextmanager
def _guard(store: Store, key: str) -> Iterator[None]:
    if isinstance(store.fs, MemoryFileSystem):
        with _MEMORY_GUARD:
            yield
        return
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = Path(store.root, TEMPORARY, f"{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def _is_s3(store: Store) -> bool:
    protocol = store.fs.protocol
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


def _check_supported(store: Store) -> None:
    if not isinstance(store.fs, LocalFileSystem | MemoryFileSystem):
        msg = (
            f"{redact(store.url)}: expected a store that can compare and swap (a folder, memory "
            "or s3://), found another; keep what several programs change at once on one of those"
        )
        raise InputError(msg)


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
