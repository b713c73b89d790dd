"""The files of a batch, one after the other: a list of a million would fill the memory.

What cannot be listed or must not be followed is an entry too, with the reason: a night goes on
without it, and says so.
"""

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import InputError
from thyro_core.store.listing import explain_refusal, is_hidden, stays_inside
from thyro_core.store.store import filesystem, refuse_password
from thyro_core.urls import redact

NO_IMAGES = frozenset(
    {".csv", ".txt", ".json", ".xml", ".md", ".html", ".pdf", ".md5", ".sha256", ".tmp", ".part"}
)
"""Suffixes of files that a batch may hold beside its images; all others count as images, with or
without a suffix, and appear in the worklist."""

_NO_IMAGE_NAMES = frozenset({"dicomdir", "thumbs.db", "desktop.ini"})

_LINK_FAULTS = frozenset({"outside_link", "broken_link"})


class FoundFile(NamedTuple):
    """A file of a batch."""

    name: str
    """Path below the batch; of a name that is no UTF-8 as `os.fsdecode` gives it."""
    size: int
    """Size when it was listed [bytes]."""
    fault: str | None = None
    """Why it is not to be read: a reason of `rules.WHY`, or `vanished`."""


def stream_files(batch: str) -> Iterator[FoundFile]:
    """Every file of a batch that counts as an image; hidden ones do not.

    Args:
        batch: folder or fsspec URL.

    Raises:
        InputError: it does not exist or refuses to be read, or holds nothing but links out of it.
    """
    fs, root = filesystem(batch)
    links = others = 0
    with explain_refusal(redact(batch), fs):
        for file in _walk(fs, root):
            if file.name and (file.fault == "unreadable_folder" or _is_image(file.name)):
                links += file.fault in _LINK_FAULTS
                others += file.fault not in _LINK_FAULTS
                yield file
    if links and not others:
        msg = (
            f"{redact(batch)}: expected images, found nothing but links that lead out of the "
            f"folder or nowhere ({links}), which are not followed; give the folder that they lead "
            "to"
        )
        raise InputError(msg)


def blocks(batch: str, size: int) -> Iterator[tuple[FoundFile, ...]]:
    """The files of a batch, so many at a time.

    Raises:
        InputError: as `stream_files`.
    """
    files = stream_files(batch)
    while block := tuple(islice(files, size)):
        yield block


def check_batch(batch: str) -> None:
    """Make sure that a batch can be listed, before anything is started for it.

    Raises:
        InputError: it cannot.
    """
    refuse_password(batch)
    fs, root = filesystem(batch)
    with explain_refusal(redact(batch), fs):
        if not fs.isdir(root):
            msg = f"{redact(batch)}: expected a folder of images, found none; check the address"
            raise InputError(msg)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    is_other = path.suffix.lower() in NO_IMAGES or path.name.lower() in _NO_IMAGE_NAMES
    return not is_other and not is_hidden(name)


def _walk(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[FoundFile]:
    """Every file; fsspec's own listings are whole lists."""
    if isinstance(fs, LocalFileSystem):
        yield from _walk_local(root)
    elif hasattr(fs, "call_s3"):
        yield from _walk_s3(fs, root)
    else:
        for path, info in fs.find(root, detail=True).items():
            yield FoundFile(str(path)[len(root) :].removeprefix("/"), int(info["size"]))


def _walk_local(root: str) -> Iterator[FoundFile]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(folder)
        except OSError as error:
            if folder == root:
                raise
            fault = "vanished" if isinstance(error, FileNotFoundError) else "unreadable_folder"
            yield FoundFile(_below(root, folder), 0, fault)
            continue
        with entries:
            try:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path).as_posix())
                    elif (file := _local_file(entry, root)) is not None:
                        yield file
            # A folder whose names can be read and nothing else, or a disk that fails halfway.
            except OSError:
                yield FoundFile(_below(root, folder), 0, "unreadable_folder")


def _below(root: str, path: str) -> str:
    return Path(path).as_posix()[len(root) :].removeprefix("/")


def _local_file(entry: os.DirEntry[str], root: str) -> FoundFile | None:
    """A file, or the reason why it is none; None: a link to a folder whose files are met there."""
    name = _below(root, entry.path)
    try:
        is_link = entry.is_symlink()
        # Of a link that leads back to itself no path can say whether it exists.
        if is_link and not os.path.exists(entry.path):  # noqa: PTH110
            return FoundFile(name, 0, "broken_link")
        if is_link and not stays_inside(Path(root), entry.path):
            return FoundFile(name, 0, "outside_link")
        status = entry.stat()
    except FileNotFoundError:
        return FoundFile(name, 0, "vanished")
    except PermissionError:
        raise  # of the folder, and so of all its files
    except OSError:
        return FoundFile(name, 0, "unreadable")
    if stat.S_ISDIR(status.st_mode):
        return None
    is_file = stat.S_ISREG(status.st_mode)
    return FoundFile(name, status.st_size if is_file else 0, None if is_file else "not_a_file")


def _walk_s3(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[FoundFile]:
    bucket, _, prefix = root.partition("/")
    start = len(prefix) + 1 if prefix else 0
    query = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    while True:
        page = fs.call_s3("list_objects_v2", **query)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                # What follows may begin with a slash: the store's keys are no paths.
                yield FoundFile(str(entry["Key"])[start:], int(entry["Size"]))
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]
