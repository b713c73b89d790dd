"""What lies beside the images of a set: reported in one line.

Where names do not show what a file is, its first bytes do; and a name like that of a file of an
archive shows nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from thyro_core.imaging.dicom import is_dicom
from thyro_core.store.listing import IMAGE_SUFFIXES, Listing, suffix

ContentKind = Literal["image", "DICOM", "neither"]

MOST_FILES = 100
"""Files that are looked into, of those named like DICOM and of the others; each is a request to an
object store."""

_LISTED_SUFFIXES = 5
_COMPANIONS = frozenset({".csv", ".xlsx", ".xml", ".txt", ".md", ".json", ".db", ".ini"})
DICOM_NAME = re.compile(r".*\.(dcm|dicom|ima)|(.*\D)?\d+(\.\d+){4,}", re.IGNORECASE)
"""Like a file of an archive: `.dcm`, or a name such as US.1.2.840.113619.2.55."""

HEAD_BYTES = 132
"""So many bytes show what a file is."""

_IMAGE_STARTS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


def other_files(folder: Listing, entries: frozenset[str]) -> str:
    """How many files there are of each kind that is neither an image's nor a companion's."""
    names = sorted(name for name in folder.sizes if name not in entries and not is_directory(name))
    like_dicom = [name for name in names if DICOM_NAME.fullmatch(PurePosixPath(name).name)]
    others = sorted(set(names) - set(like_dicom))
    contents = _content_kinds(folder, like_dicom) | _content_kinds(
        folder, [name for name in others if not _is_expected(suffix(name))]
    )
    known_names = {name for name, kind in contents.items() if kind != "neither"}
    by_content = Counter(contents.values())
    kinds = Counter(suffix(name) for name in others if name not in known_names)
    odd = {kind: number for kind, number in kinds.items() if kind and not _is_expected(kind)}
    phrases = [f"{odd[kind]} {kind}" for kind in sorted(odd, key=lambda kind: (-odd[kind], kind))]
    if len(phrases) > _LISTED_SUFFIXES:
        rest = sum(sorted(odd.values())[: len(phrases) - _LISTED_SUFFIXES])
        phrases[_LISTED_SUFFIXES:] = [f"{rest} of {len(odd) - _LISTED_SUFFIXES} other suffixes"]
    neither = sum(contents.get(name) == "neither" for name in like_dicom)
    ends = (
        (kinds[""], "without a suffix"),
        (by_content["image"], "with an image in them: name them as such (.png, .jpg)"),
        (by_content["DICOM"], "with DICOM in them: name them as such (.dcm)"),
        (neither, "named like DICOM that are neither DICOM nor an image"),
        (len(set(like_dicom) - contents.keys()), "named like DICOM and not looked into"),
    )
    return ", ".join([*phrases, *(f"{number} {words}" for number, words in ends if number)])


def is_directory(name: str) -> bool:
    """Whether a file is a DICOMDIR, which only lists others."""
    return PurePosixPath(name).name.lower() == "dicomdir"


def _is_expected(kind: str) -> bool:
    return kind in IMAGE_SUFFIXES or kind in _COMPANIONS


def _content_kinds(folder: Listing, names: Sequence[str]) -> dict[str, ContentKind]:
    """The kinds of files by what they hold; without those that are not looked into.

    Args:
        folder: holds them.
        names: the first `MOST_FILES` of them are looked into.
    """
    kinds: dict[str, ContentKind] = {name: "neither" for name in names if folder.sizes[name] == 0}
    # Without a size: a pipe, whose reader would never return.
    candidates = [name for name in names if folder.sizes[name]][:MOST_FILES]
    for name, data in folder.heads(candidates, HEAD_BYTES).items():
        if is_dicom(data):
            kinds[name] = "DICOM"
        elif data.startswith(_IMAGE_STARTS):
            kinds[name] = "image"
        else:
            kinds[name] = "neither"
    return kinds
