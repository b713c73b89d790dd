"""One object at one key, whole or not at all, on any fsspec file system."""

import errno
import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import DiskFullError, InputError, StoreError
from thyro_core.settings import Settings

# Not beside the objects: whoever reads a table's folder takes every file in it for a part.
TEMPORARY = ".tmp"
"""Folder of a local store for what is no object: half-written files, guards of a swap."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

NOT_KEPT = (OSError, StoreError, DiskFullError)
"""What a write raises that the store could not take."""


@dataclass(frozen=True)
class Store:
    """A place for objects: every key is relative to `root` on `fs`."""

    url: str
    fs: fsspec.AbstractFileSystem
    root: str

    def path(self, key: str) -> str:
        """The file system's path of a key."""
        return f"{self.root}/{key}" if key else self.root

    def exists(self, key: str) -> bool:
        """Whether the object, and so the step that makes it, is done."""
        return bool(self.fs.exists(self.path(key)))

    def read(self, key: str) -> bytes:
        """All bytes of an object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return bytes(self.fs.cat_file(self.path(key)))

    def read_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Bytes of many small objects, asked for at once; one that is not there is left out."""
        if not keys:
            return {}
        places = {self.path(key): key for key in keys}
        # Not "omit": it leaves out what could not be read, too.
        found = self.fs.cat(list(places), on_error="return")
        for error in found.values():
            if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                raise error
        return {
            places[place]: bytes(data)
            for place, data in found.items()
            if not isinstance(data, Exception)
        }

    def write(self, key: str, data: bytes) -> None:
        """Put an object: readers see the old one or the new one, never a part."""
        with self.writing(key) as file:
            file.write(data)

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        """Stream an object into place; it appears when the block ends, and only if it ends well."""
        if isinstance(self.fs, LocalFileSystem):
            where = Path(self.path(key))
            with (
                room(Path(self.root), key),
                _atomic_file(where, Path(self.root, TEMPORARY)) as file,
            ):
                yield file
        else:
            # Closing a remote file after an error would publish its half: upload it whole instead.
            with tempfile.NamedTemporaryFile(prefix="thyro-") as file:
                with room(Path(tempfile.gettempdir()), key, "TMPDIR"):
                    yield file
                    file.flush()
                self.fs.put_file(file.name, self.path(key))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(key))

    def hasty(self) -> "Store":
        """The same store, each of whose requests is tried once: for what is better left out."""
        if not _is_s3(self.url):
            return self
        return replace(self, fs=filesystem(self.url, patience=0.0)[0])

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a folder, sorted; temporary files are not objects."""
        folder = self.path(prefix)
        try:
            names = self.fs.find(folder)
        except FileNotFoundError:
            return []
        # Some S3 servers call a folder that was emptied an object: it is not below itself.
        below = (name for name in names if len(name) > len(folder))
        found = (self._relative(name) for name in below)
        return sorted(key for key in found if not key.startswith(f"{TEMPORARY}/"))

    def _relative(self, name: str) -> str:
        return name[len(self.root) :].lstrip("/")

    def local(self, key: str, scratch: Path) -> Path:
        """A local file with the object's bytes, fetched once per node however many jobs ask.

        A local store's own file serves as it is, so it is shared by memory-mapping.
        """
        if isinstance(self.fs, LocalFileSystem):
            return Path(self.path(key))
        target = self.scratch_copy(key, scratch)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                with self.fs.open(self.path(key), "rb") as file, _scratch_file(target, file) as out:
                    shutil.copyfileobj(file, out, 1 << 22)
        return target

    def scratch_copy(self, key: str, scratch: Path) -> Path:
        """Where a node keeps its copy of a remote object, if it has one."""
        name = hashlib.sha256(f"{self.url}/{key}".encode()).hexdigest()[:16]
        return scratch / name / Path(key).name


@contextmanager
def _scratch_file(target: Path, source: Any) -> Iterator[IO[bytes]]:  # noqa: ANN401 - fsspec's
    """A node's copy in the making."""
    with (
        room(
            target.parent,
            f"its copy of {target.name}",
            "THYRO_SCRATCH",
            getattr(source, "size", None),
        ),
        _atomic_file(target, target.parent) as out,
    ):
        yield out


@contextmanager
def room(
    folder: Path, what: str, setting: str = "--store", size: int | None = None
) -> Iterator[None]:
    """Turn a full disk's error into a sentence.

    Args:
        folder: where is written while the block runs.
        what: what is written.
        setting: what says where that folder is.
        size: bytes that are needed, if known.

    Raises:
        DiskFullError: there was no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        needed = "room" if size is None else f"{size:,} bytes"
        there = next(path for path in (folder, *folder.parents) if path.exists())
        msg = (
            f"{folder}: expected {needed} for {what}, found the disk full (on "
            f"{socket.gethostname()}, {shutil.disk_usage(there).free:,} bytes free); make room, or "
            f"name a larger disk by {setting}, and start the same command again"
        )
        raise DiskFullError(msg) from error


@contextmanager
def _atomic_file(path: Path, folder: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    temporary = folder / f"{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem(url: str, patience: float | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an fsspec URL, and the absolute path on it without a trailing slash.

    Args:
        url: a folder, or s3://bucket/prefix, or what else fsspec knows.
        patience: how long a request to S3 is tried for [s]; None: THYRO_STORE_PATIENCE.

    Raises:
        InputError: the URL's protocol is unknown or its package is missing.
    """
    if _is_s3(url):
        # Here: it takes a while to import, and a store in a folder needs none of it.
        from thyro_core.store.s3 import PatientS3

        seconds = Settings().store_patience if patience is None else patience
        return PatientS3(seconds), str(fsspec.core.strip_protocol(url)).rstrip("/")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        msg = f"{url}: expected a folder or an fsspec URL such as s3://bucket/prefix; {error}"
        raise InputError(msg) from error
    return fs, str(path).rstrip("/")


def open_store(url: str) -> Store:
    """The store at an fsspec URL; nothing is created until something is written.

    Raises:
        InputError: the URL's protocol is unknown, or a remote store does not let us in.
        StoreError: a store on S3 did not answer for all our patience.
    """
    fs, root = filesystem(url)
    absolute = str(fs.unstrip_protocol(root))
    if not isinstance(fs, LocalFileSystem):
        _knock(fs, root, absolute)
    return Store(url=absolute, fs=fs, root=root)


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def _knock(fs: fsspec.AbstractFileSystem, root: str, url: str) -> None:
    """One question, so that a wrong key is met here and not in the middle of a step."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        if _is_s3(url):
            # Not `exists`: of a whole bucket it says no whatever went wrong.
            bucket, _, prefix = root.partition("/")
            fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            fs.exists(root)
    except (OSError, BotoCoreError) as error:
        msg = (
            f"{url}: expected a store that lets us in, found: {error}; check the URL and the "
            "AWS_* variables (endpoint, access key, secret)"
        )
        raise InputError(msg) from error
