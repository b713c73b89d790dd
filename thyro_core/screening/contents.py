"""The bytes of a batch's file, or the reason why there are none.

A file that was listed has a row whatever happens to it: only what is gone, or still grows, is left
to the next run.
"""

import hashlib
from dataclasses import dataclass

import fsspec

from thyro_core.errors import StoreError
from thyro_core.screening.files import FoundFile
from thyro_core.store.listing import refusal_types
from thyro_core.store.refused import object_refusal
from thyro_core.store.store import is_s3


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    file_id: str | None = None
    """SHA-256 of the bytes, hexadecimal; None: there are none, or they cannot be read."""
    data: bytes | None = None
    """None: more than the rules allow, or they cannot be read."""
    fault: str | None = None
    """Why they cannot be read."""
    detail: str | None = None
    """The fault's particulars: numbers and words of closed lists."""


def read_contents(
    fs: fsspec.AbstractFileSystem, root: str, file: FoundFile, max_bytes: int
) -> Contents | None:
    """What a file of a batch holds; None: it is gone or still growing.

    Args:
        fs: the batch's file system.
        root: the batch on it.
        file: as it was listed.
        max_bytes: of a larger one only the hash is taken.

    Raises:
        InputError: the store refuses not this object, but everything.
        StoreError: it does not answer.
    """
    if file.fault is not None:
        return None if file.fault == "vanished" else Contents(fault=file.fault)
    path = f"{root}/{file.name}"
    refusals: tuple[type[Exception], ...] = (*refusal_types(fs), StoreError)
    try:
        if file.size > max_bytes:
            with fs.open(path, "rb") as stream:
                return Contents(hashlib.file_digest(stream, "sha256").hexdigest())
        data = bytes(fs.cat_file(path))
    except refusals as error:
        if is_s3(fs):
            detail = object_refusal(fs, path, error)
            return None if detail is None else Contents(fault="refused_object", detail=detail)
        is_gone = isinstance(error, FileNotFoundError)
        return None if is_gone else Contents(fault="unreadable")
    # An object of S3 is whole whenever it is read, whatever size it had when it was listed.
    if len(data) != file.size and not is_s3(fs):
        return None
    # All empty files have one hash, and each of them is to be a row.
    return Contents(hashlib.sha256(data).hexdigest() if data else None, data)
