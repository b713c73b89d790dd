"""The files of a batch, one after the other: a list of a million would fill the memory.

What cannot be listed or must not be followed is an entry too, with the reason: a night goes on
without it, and says so. What is no image by its name is an entry as well, to be counted.
"""

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import InputError
from thyro_core.screening.aside import ASIDE, aside_reason
from thyro_core.store.listing import explain_refusal, stays_inside
from thyro_core.store.store import filesystem, refuse_password
from thyro_core.urls import redact

_LINK_FAULTS = frozenset({"outside_link", "broken_link"})


class FoundFile(NamedTuple):
    """A file of a batch."""

    name: str
    """Path below the batch; of a name that is no UTF-8 as `os.fsdecode` gives it."""
    size: int
    """Size when it was listed [bytes]."""
    fault: str | None = None
    """Why it is not to be read: a reason of `rules.WHY`, or `vanished`, or one of `aside.ASIDE`."""


def stream_files(batch: str) -> Iterator[FoundFile]:
    """Every file of a batch that counts as an image; what is set aside does not.

    Raises:
        InputError: as `stream_entries`.
    """
    return (file for file in stream_entries(batch) if file.fault not in ASIDE)


def stream_entries(batch: str) -> Iterator[FoundFile]:
    """Every entry of a batch: its files, and with the reason what is set aside.

    Args:
        batch: folder or fsspec URL.

    Raises:
        InputError: it does not exist or refuses to be read.
    """
    fs, root = filesystem(batch)
    with explain_refusal(redact(batch), fs):
        for entry in _walk(fs, root):
            reason = aside_reason(entry.name, is_folder=entry.fault == "unreadable_folder")
            # By its name first: a folder of the system that cannot be read is no loss.
            yield entry if reason is None else FoundFile(entry.name, entry.size, reason)


def blocks(batch: str, size: int) -> Iterator[tuple[FoundFile, ...]]:
    """The entries of a batch, so many at a time.

    Raises:
        InputError: as `stream_entries`.
    """
    entries = stream_entries(batch)
    while block := tuple(islice(entries, size)):
        yield block


def check_batch(batch: str) -> None:
    """Make sure that a batch can be listed, before anything is started for it.

    Raises:
        InputError: it cannot, or holds nothing but links out of it.
    """
    refuse_password(batch)
    fs, root = filesystem(batch)
    with explain_refusal(redact(batch), fs):
        if not fs.isdir(root):
            msg = f"{redact(batch)}: expected a folder of images, found none; check the address"
            raise InputError(msg)
    if isinstance(fs, LocalFileSystem):
        _refuse_links_alone(batch)


def _refuse_links_alone(batch: str) -> None:
    links = 0
    for file in stream_files(batch):
        if file.fault not in _LINK_FAULTS:
            return
        links += 1
    if links:
        msg = (
            f"{redact(batch)}: expected images, found nothing but links that lead out of the "
            f"folder or nowhere ({links}), which are not followed; give the folder that they lead "
            "to"
        )
        raise InputError(msg)


def _walk(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[FoundFile]:
    """Every file; fsspec's own listings are whole lists."""
    if isinstance(fs, LocalFileSystem):
        yield from _walk_local(root)
    elif hasattr(fs, "call_s3"):
        yield from _walk_s3(fs, root)
    else:
        for path, info in fs.find(root, detail=True).items():
            if name := str(path)[len(root) :].removeprefix("/"):
                yield FoundFile(name, int(info["size"]))


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
                    else:
                        yield _local_file(entry, root)
            # A folder whose names can be read and nothing else, or a disk that fails halfway.
            except OSError:
                yield FoundFile(_below(root, folder), 0, "unreadable_folder")


def _below(root: str, path: str) -> str:
    return Path(path).as_posix()[len(root) :].removeprefix("/")


def _local_file(entry: os.DirEntry[str], root: str) -> FoundFile:
    """A file, or the reason why it is none."""
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
        return FoundFile(name, 0, "aside_folder")  # its files are met where it leads to
    is_file = stat.S_ISREG(status.st_mode)
    return FoundFile(name, status.st_size if is_file else 0, None if is_file else "not_a_file")


def file_at(path: Path) -> FoundFile:
    """A single file as a batch lists it, but that links are followed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return FoundFile(path.name, 0, "vanished")
    except OSError:
        return FoundFile(path.name, 0, "unreadable")
    is_file = stat.S_ISREG(status.st_mode)
    # To open a pipe would wait for whoever writes to it.
    return FoundFile(path.name, status.st_size, None if is_file else "not_a_file")


def _walk_s3(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[FoundFile]:
    bucket, _, prefix = root.partition("/")
    start = len(prefix) + 1 if prefix else 0
    query = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    while True:
        page = fs.call_s3("list_objects_v2", **query)
        for entry in page.get("Contents", ()):
            # What follows may begin with a slash: the store's keys are no paths.
            if name := str(entry["Key"])[start:]:
                yield FoundFile(name, int(entry["Size"]))
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]
