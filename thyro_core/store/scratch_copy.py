"""Whether a node's copy of an object is what was fetched: a record beside it says how it was left.

Size, time of the last change and owner are compared each time a copy is requested, which costs one
look at the file whatever its size. The bytes of copies of up to 256 MB are compared with their hash
too, once in each process: that takes a quarter of a second at most, and finds what a failing disk
changed. A pack of 100,000 images has 5 GB, which each of forty jobs would read anew.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

HASHED_BYTES = 256 * 1024**2
"""Largest copy whose bytes are compared with their hash when a process first opens it."""

_RECORD_SUFFIX = ".json"
_intact_copies: dict[Path, dict[str, object]] = {}


def is_intact(copy: Path) -> bool:
    """Whether a copy is a plain file of this user's, as it was left by `record`."""
    try:
        note = json.loads(_record_path(copy).read_bytes())
        facts = _copy_facts(copy)
    except (OSError, ValueError):
        return False
    if not isinstance(note, dict) or facts is None:
        return False
    sha256 = note.pop("sha256", None)
    if note != facts:
        return False
    if _intact_copies.get(copy) == facts or copy.stat().st_size > HASHED_BYTES:
        return True
    with copy.open("rb") as file:
        is_same = bool(hashlib.file_digest(file, "sha256").hexdigest() == sha256)
    if is_same:
        _intact_copies[copy] = facts
    return is_same


def record(copy: Path, sha256: str) -> None:
    """Note how a copy was left.

    Args:
        copy: a whole file, under its final name.
        sha256: of the bytes that were fetched.
    """
    text = json.dumps({**(_copy_facts(copy) or {}), "sha256": sha256})
    temporary = copy.with_name(f"{copy.name}{_RECORD_SUFFIX}.tmp")
    temporary.write_text(text)
    temporary.replace(_record_path(copy))


def forget(copy: Path) -> None:
    """Remove the record of a copy that is about to change."""
    _intact_copies.pop(copy, None)
    _record_path(copy).unlink(missing_ok=True)


def _copy_facts(copy: Path) -> dict[str, object] | None:
    status = copy.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        return None
    return {"size": status.st_size, "changed_ns": status.st_mtime_ns}


def _record_path(copy: Path) -> Path:
    return copy.with_name(copy.name + _RECORD_SUFFIX)
