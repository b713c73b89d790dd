"""What a batch holds beside its images: set aside by its name, counted, and never read."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from thyro_core.store.listing import is_folder_entry, is_of_system, is_under_dot

NO_IMAGES = frozenset({".csv", ".txt", ".json", ".xml", ".md", ".html", ".pdf", ".md5", ".sha256"})
"""Suffixes of files that a batch may hold beside its images; all others count as images, with or
without a suffix, and appear in the worklist."""

_NO_IMAGE_NAMES = frozenset({"dicomdir", "thumbs.db", "desktop.ini"})

_UPLOAD_SUFFIXES = frozenset({".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload"})

ASIDE: Mapping[str, str] = MappingProxyType(
    {
        "aside_hidden": "hidden (below a name that begins with a dot)",
        "aside_system": "in folders of a system (such as @eaDir or lost+found)",
        "aside_unfinished": "unfinished by their names (such as .part)",
        "aside_companion": "no images by their names (such as .csv, DICOMDIR)",
        "aside_folder": "folders' entries or links to folders of the batch",
    }
)
"""Why an entry of a batch is set aside: the names of `rules.Counts`, in words after a number."""


def aside_reason(name: str, *, is_folder: bool = False) -> str | None:
    """Why an entry is no file of a night, by its path below the batch; None: it is one.

    Args:
        name: the path.
        is_folder: whether it is a folder that cannot be read: its suffix says nothing.
    """
    path = PurePosixPath(name)
    kind = path.suffix.lower()
    if is_folder_entry(name):
        return "aside_folder"
    if is_of_system(name):
        return "aside_system"
    if is_under_dot(name):
        return "aside_hidden"
    if not is_folder and kind in _UPLOAD_SUFFIXES:
        return "aside_unfinished"
    if not is_folder and (kind in NO_IMAGES or path.name.lower() in _NO_IMAGE_NAMES):
        return "aside_companion"
    return None


def aside_text(numbers: Mapping[str, int]) -> str:
    """How many entries are set aside for each reason, in one line; empty: none is.

    Args:
        numbers: by the names of `ASIDE`; others are passed over.
    """
    return ", ".join(f"{numbers[name]} {words}" for name, words in ASIDE.items() if numbers[name])
