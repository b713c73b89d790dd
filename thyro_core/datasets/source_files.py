"""The files of an image set with their hashes, and what cannot be read of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import fsspec

from thyro_core.datasets import masks as mask_packs
from thyro_core.datasets import packs
from thyro_core.datasets.eligibility import SourceFile
from thyro_core.datasets.layouts import Entry
from thyro_core.errors import InputError, StoreError, amount

_NAMES_IN_A_NOTE = 5


def hashed_files(
    fs: fsspec.AbstractFileSystem, root: str, entries: Sequence[Entry]
) -> list[SourceFile]:
    """The files with their hashes, by name.

    Args:
        fs: the source's file system.
        root: the source on it.
        entries: what it holds.

    Raises:
        InputError: none of the files can be read, or the store refuses everything.
        StoreError: the store does not answer.
    """
    sorted_entries = sorted(entries, key=lambda entry: entry.name)
    threads = packs.threads_for(fs)
    files = packs.map_threads(lambda entry: _hash(fs, root, entry), sorted_entries, threads=threads)
    present = [file for file in files if file.entry.present]
    if present and all(file.image_id is None for file in present):
        msg = (
            f"{root}: none of {amount(len(present), 'file')} could be read "
            f"({present[0].failure}); check the permissions and the connection, then run again"
        )
        raise InputError(msg)
    return files


def _hash(fs: fsspec.AbstractFileSystem, root: str, entry: Entry) -> SourceFile:
    def digest() -> tuple[str, int]:
        # Streamed, because a file too large to be decoded still gets its hash.
        with fs.open(f"{root}/{entry.name}", "rb") as file:
            image_id = hashlib.file_digest(file, "sha256").hexdigest()
            return image_id, file.seek(0, 2)

    if not entry.present or entry.fault is not None:
        return SourceFile(entry, None, failure=entry.fault)
    try:
        image_id, size = packs.read_with_retries(digest, entry.name)
    except (OSError, StoreError) as error:
        failure = packs.unread_detail(fs, f"{root}/{entry.name}", error)
        return SourceFile(entry, None, failure=failure)
    return SourceFile(replace(entry, size=size), image_id)


def with_masks(
    fs: fsspec.AbstractFileSystem, root: str, files: list[SourceFile]
) -> list[SourceFile]:
    """The files with the hashes of those of their masks that can be read."""
    names = sorted({name for file in files for name in file.entry.masks})
    digests = mask_packs.mask_digests(fs, root, names)
    return [
        replace(file, masks={name: digests[name] for name in file.entry.masks if name in digests})
        for file in files
    ]


def masks_by_image(files: Sequence[SourceFile]) -> dict[str, dict[str, str]]:
    """The masks of each image_id: files with the same bytes are one image."""
    masks: dict[str, dict[str, str]] = {}
    for file in files:
        if file.image_id is not None and file.masks.keys() == set(file.entry.masks):
            masks.setdefault(file.image_id, {}).update(file.masks)
    return masks


def unread_notes(files: Sequence[SourceFile], *, name_files: bool) -> list[str]:
    """What cannot be read at all, by name where names may be given."""
    reasons = {
        file.entry.name: file.failure
        for file in files
        if file.image_id is None and file.failure is not None
    }
    notes = []
    if reasons:
        phrases = [f"{name} ({reason})" for name, reason in sorted(reasons.items())]
        more = ["..."] if len(phrases) > _NAMES_IN_A_NOTE else []
        names = f": {'; '.join([*phrases[:_NAMES_IN_A_NOTE], *more])}" if name_files else ""
        number = amount(len(reasons), "file or folder", "files or folders")
        notes.append(f"{number} left out that cannot be read{names}; mend that, and ingest again")
    lacking = sum(file.masks.keys() != set(file.entry.masks) for file in files)
    if lacking:
        notes.append(f"{amount(lacking, 'image')} with a mask that cannot be read: set aside")
    return notes
