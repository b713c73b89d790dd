"""Change an object only if no other writer has: compare and swap on every supported store.

On S3 the server compares (If-None-Match, If-Match); where it answers that it does not know how
(501, 400), the comparison comes before the put, which is enough for one program at a time. On a
local disk and in memory a guard that dies with its process is held around compare and write; the
write itself is atomic as always.
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

from thyro_core.errors import InputError, NoConditionalWritesError
from thyro_core.store.store import TEMPORARY, Store, is_s3
from thyro_core.urls import redact

_MEMORY_GUARD = threading.RLock()


@dataclass(frozen=True)
class Versioned:
    """The content of a key at one moment."""

    data: bytes | None
    """The object's bytes; None: there was no object."""
    version: str | None
    """What `compare_and_swap` compares: an ETag on S3, else a hash; None: there was no object."""


def read_versioned(store: Store, key: str) -> Versioned:
    """An object with its version, for a later `compare_and_swap`.

    Raises:
        InputError: the store's file system cannot compare and swap.
    """
    if not is_s3(store.fs):
        _check_supported(store)
        # In memory an object is written in place, and readers share its position.
        with _MEMORY_GUARD if isinstance(store.fs, MemoryFileSystem) else nullcontext():
            data = store.read(key) if store.exists(key) else None
        return Versioned(data, None if data is None else hashlib.sha256(data).hexdigest())
    try:
        # The version first: if the object changes in between, the swap fails, as it should.
        etag = str(store.fs.info(store.path(key))["ETag"])
        return Versioned(store.read(key), etag)
    except FileNotFoundError:
        return Versioned(None, None)


def compare_and_swap(store: Store, key: str, data: bytes, old: Versioned) -> bool:
    """Put an object if the old one is still in place; readers see the old one or the new one.

    Args:
        store: file, memory or S3.
        key: the object's key.
        data: its new bytes; they should differ from those of any other writer.
        old: the result of `read_versioned`.

    Returns:
        Whether `data` is in place now; False: another writer was faster, read the object again.

    Raises:
        InputError: the store's file system cannot compare and swap.
        OSError: the store could not be written.
    """
    if is_s3(store.fs):
        try:
            return _compare_and_swap_on_s3(store, key, data, old)
        except NoConditionalWritesError:
            if read_versioned(store, key).version != old.version:
                return False
            store.write(key, data)
            return True
    _check_supported(store)
    with _guard(store, key):
        if read_versioned(store, key).version != old.version:
            return False
        store.write(key, data)
        return True


def _compare_and_swap_on_s3(store: Store, key: str, data: bytes, old: Versioned) -> bool:
    path = store.path(key)
    try:
        if old.version is None:
            store.fs.pipe_file(path, data, mode="create")
        else:
            store.fs.pipe_file(path, data, IfMatch=old.version)
    except OSError:
        # Servers name the conflict differently, and a retry after a lost response meets our own
        # put.
        current = read_versioned(store, key)
        if current.data == data:
            return True
        if current.version == old.version:
            raise
        return False
    return True


def conditional_writes_fault(store: Store, key: str) -> str | None:
    """Why two programs could overwrite each other's objects in this store; None: they cannot.

    Some S3 servers do not know conditional writes, and some ignore the condition. It tries a put
    that must be refused. If the server accepts it, the object ends with one more space.

    Args:
        store: file, memory or S3.
        key: an existing object, whose readers do not mind the space.
    """
    data = read_versioned(store, key).data
    swap = _compare_and_swap_on_s3 if is_s3(store.fs) else compare_and_swap
    fault = "ignores them"
    try:
        if data is None or not swap(store, key, data + b" ", Versioned(None, None)):
            return None
    except NoConditionalWritesError:
        fault = "does not know them"
    return (
        f"{redact(store.url)}: expected a server that honours conditional writes "
        f"(If-None-Match), found one that {fault}, so two programs could overwrite each "
        "other; run one program at a time, or use another S3 server or a folder"
    )


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


def _check_supported(store: Store) -> None:
    if not isinstance(store.fs, LocalFileSystem | MemoryFileSystem):
        msg = (
            f"{redact(store.url)}: expected a store that can compare and swap (a folder, memory "
            "or s3://), found another; keep what several programs change at once on one of those"
        )
        raise InputError(msg)
