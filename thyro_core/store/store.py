"""One object at one key, whole or not at all, on any fsspec file system."""

import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import DiskFullError, InputError, StoreError
from thyro_core.host import existing_folder
from thyro_core.settings import Settings
from thyro_core.store import scratch_copy
from thyro_core.urls import redact

# Not beside the objects: readers of a table's folder take every file in it for a part.
TEMPORARY = ".tmp"
"""Folder of a local store for files that are no objects: partial writes, lock files."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

WRITE_ERRORS = (OSError, StoreError, DiskFullError)
"""What a write raises when the store cannot take it."""

_PASSWORD = r"(?!file:)[A-Za-z0-9+.\-]+://[^/]*@"  # noqa: S105 - a pattern, no password
_UPLOADS = 10
"""Parts of one large object that are sent to S3 at once."""


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
        """Bytes of many small objects, requested at once; missing objects are left out."""
        if not keys:
            return {}
        results = read_files(self.fs, [self.path(key) for key in keys], on_error="return")
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, FileNotFoundError):
                raise result
        return {
            key: bytes(result)
            for key, result in zip(keys, results, strict=True)
            if not isinstance(result, Exception)
        }

    def write(self, key: str, data: bytes) -> None:
        """Put an object: readers see the old one or the new one, never a part."""
        with self.writing(key) as file:
            file.write(data)

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        """Stream an object into place; it appears when the block ends, and only if it ends well."""
        if isinstance(self.fs, LocalFileSystem):
            with (
                disk_full_error(Path(self.root), key),
                _atomic_file(Path(self.path(key)), Path(self.root, TEMPORARY)) as file,
            ):
                yield file
        else:
            # Closing a remote file after an error would publish its half: upload it whole instead.
            with tempfile.NamedTemporaryFile(prefix="thyro-") as file:
                with disk_full_error(Path(tempfile.gettempdir()), key, "TMPDIR"):
                    yield file
                    file.flush()
                options = {"max_concurrency": _UPLOADS} if is_s3(self.fs) else {}
                self.fs.put_file(file.name, self.path(key), **options)

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(key))

    def without_retries(self) -> "Store":
        """The same store with one attempt per request, for writes that may as well be skipped."""
        if not is_s3(self.fs):
            return self
        return replace(self, fs=filesystem(self.url, retry_seconds=0.0)[0])

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a folder, sorted; temporary files are not objects."""
        folder = self.path(prefix)
        try:
            names = self.fs.find(folder)
        except FileNotFoundError:
            return []
        # Some S3 servers call a folder that was emptied an object: it is not below itself.
        below = (name for name in names if len(name) > len(folder))
        keys = (name[len(self.root) :].lstrip("/") for name in below)
        return sorted(key for key in keys if not key.startswith(f"{TEMPORARY}/"))

    def local(self, key: str, scratch: Path) -> Path:
        """A local file with the object's bytes, fetched once per node for all its jobs.

        A local store's own file is returned as it is, so that it is shared by memory-mapping. A
        copy that is no longer what was fetched is fetched again.
        """
        if isinstance(self.fs, LocalFileSystem):
            return Path(self.path(key))
        target = self.scratch_copy(key, scratch)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not scratch_copy.is_intact(target):
                scratch_copy.forget(target)
                with self.fs.open(self.path(key), "rb") as file:
                    what, size = f"its copy of {target.name}", getattr(file, "size", None)
                    with (
                        disk_full_error(target.parent, what, "THYRO_SCRATCH", size),
                        _atomic_file(target, target.parent) as out,
                    ):
                        sha256 = _copy(file, out)
                scratch_copy.record(target, sha256)
        return target

    def scratch_copy(self, key: str, scratch: Path) -> Path:
        """Where a node keeps its copy of a remote object, if it has one."""
        name = hashlib.sha256(f"{self.url}/{key}".encode()).hexdigest()[:16]
        return scratch / name / Path(key).name


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a file; the SHA-256 of its bytes."""
    sha256 = hashlib.sha256()
    while block := source.read(1 << 22):
        sha256.update(block)
        target.write(block)
    return sha256.hexdigest()


@contextmanager
def disk_full_error(
    folder: Path, what: str, setting: str = "--store", size: int | None = None
) -> Iterator[None]:
    """Raise DiskFullError when the disk is full while the block writes.

    Args:
        folder: the folder that the block writes to.
        what: the object that it writes, for people.
        setting: the option or variable that names the folder.
        size: the object's size, if known [bytes].

    Raises:
        DiskFullError: the disk was full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        needed_room = "room" if size is None else f"{size:,} bytes"
        free = f"{shutil.disk_usage(existing_folder(folder)).free:,} bytes free"
        msg = (
            f"{folder}: expected {needed_room} for {what}, found the disk full (on "
            f"{socket.gethostname()}, {free}); make room, or name a larger disk by "
            f"{setting}, and start the same command again"
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
    # Makes the new name itself durable.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_password(url: str) -> None:
    """Refuse an address that would take a password into tables and logs.

    Raises:
        InputError: a user or a password stands in the address; the message does not repeat them.
    """
    if re.match(_PASSWORD, url):
        msg = (
            f"{redact(url)}: expected an address without user and password, found one with them; "
            "addresses stand in tables and logs: give them in the AWS_* variables, or in fsspec's "
            "configuration"
        )
        raise InputError(msg)


def filesystem(
    url: str, retry_seconds: float | None = None
) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an fsspec URL, and the absolute path on it without a trailing slash.

    Args:
        url: a folder, or s3://bucket/prefix, or another URL that fsspec knows.
        retry_seconds: how long a request to S3 is retried [s]; None: THYRO_STORE_PATIENCE.

    Raises:
        InputError: the URL's protocol is unknown or its package is missing, or the path holds
            bytes that are no UTF-8.
    """
    printable = os.fsencode(url).decode("utf-8", "backslashreplace")
    if printable != url:
        msg = (
            f"{printable}: expected a path in UTF-8, found other bytes; rename the folder, or give "
            "a link to it that has such a name"
        )
        raise InputError(msg)
    if url.startswith(("s3://", "s3a://")):
        # Here: it takes a while to import, and a store in a folder needs none of it.
        from thyro_core.store.s3 import RetryingS3FileSystem

        seconds = Settings().store_patience if retry_seconds is None else retry_seconds
        return RetryingS3FileSystem(seconds), str(fsspec.core.strip_protocol(url)).rstrip("/")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        msg = f"{url}: expected a folder or an fsspec URL such as s3://bucket/prefix; {error}"
        raise InputError(msg) from error
    return fs, str(path).rstrip("/")


def full_url(url: str) -> str:
    """An address that means the same from every folder and on every node that has it."""
    fs, root = filesystem(url)
    return str(fs.unstrip_protocol(root))


def read_files(
    fs: fsspec.AbstractFileSystem, paths: Sequence[str], on_error: Literal["raise", "return"]
) -> list[bytes | Exception]:
    """Contents of several files, requested at once where the file system can.

    Args:
        fs: their file system.
        paths: on it; none of them is a pattern.
        on_error: raise the first error, or return each in its file's place.
    """
    # Not `cat`: it takes a path with [, * or ? for a pattern.
    whole = [None] * len(paths)
    contents: list[bytes | Exception] = fs.cat_ranges(list(paths), whole, whole, on_error=on_error)
    return contents


def is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a file system is S3's."""
    return "s3" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def open_store(url: str) -> Store:
    """The store at an fsspec URL; nothing is created until something is written.

    Raises:
        InputError: the URL's protocol is unknown, there is a password in it, or a remote store
            refuses access.
        StoreError: a store on S3 did not answer for THYRO_STORE_PATIENCE.
    """
    refuse_password(url)
    fs, root = filesystem(url)
    store = Store(url=str(fs.unstrip_protocol(root)), fs=fs, root=root)
    if not isinstance(fs, LocalFileSystem):
        _check_access(store)
    return store


def _check_access(store: Store) -> None:
    """One request, so that a wrong password is met here and not in the middle of a step."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        if is_s3(store.fs):
            # Not `exists`: of a whole bucket it says no whatever went wrong.
            bucket, _, prefix = store.root.partition("/")
            store.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            store.fs.exists(store.root)
    except (OSError, BotoCoreError) as error:
        msg = (
            f"{store.url}: expected a store that lets us in, found: {error}; check the URL and the "
            "AWS_* variables (endpoint, access key, secret)"
        )
        raise InputError(msg) from error
