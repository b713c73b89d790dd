"""Names as people write them in a table, and the files that they mean.

Spreadsheets drop suffixes, tables leave out folders, exports change suffixes, databases change
case, and macOS spells accents as two characters (Unicode form NFD) where other systems have one
(NFC). What fits one file alone is that file.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

from thyro_core.store.listing import IMAGE_SUFFIXES, suffix

NameMatch = str
"""How a name in a table fits a file's: `exact`, or all that differs, such as `in another case`."""

_FORM, _CASE = "in another Unicode form", "in another case"
ARCHIVE_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
"""Of files of an archive."""


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_case(name: str) -> str:
    return _compose(_compose(name).casefold())


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _stem(name: str) -> str:
    return _without_case(_bare(name))


def _last_part(name: str) -> str:
    return _without_case(name.rpartition("/")[2])


# From the closest to the loosest.
_SPELLINGS: Mapping[NameMatch, Callable[[str], str]] = {
    _FORM: _compose,
    _CASE: _without_case,
}


def _also(name: str, file: str) -> str:
    """How the parts that two names have in common differ: they are one when neither counts."""
    if name == file:
        return ""
    return f" and {_FORM if _compose(name) == _compose(file) else _CASE}"


class FileNames:
    """The files of a set, found by names that are spelled otherwise.

    Args:
        names: paths of all files.
        images: those of them that may lack their suffix in a table.
    """

    def __init__(self, names: Iterable[str], images: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._by_spelling = {
            match: _group_names(self._names, spelling) for match, spelling in _SPELLINGS.items()
        }
        all_images = list(images)
        pictures = [name for name in all_images if suffix(name) in IMAGE_SUFFIXES]
        archive_names = [name for name in self._names if suffix(name) in ARCHIVE_SUFFIXES]
        # A picture before the object of an archive that it may be exported from.
        archive_names += sorted(set(all_images).difference(pictures, archive_names))
        self._by_stem = [_group_names(pictures, _stem), _group_names(archive_names, _stem)]
        self._by_last_part = _group_names([*pictures, *archive_names], _last_part)

    def find(self, name: str) -> tuple[str, NameMatch] | None:
        """The one file that a name means, and how it fits; None: none does, or several do."""
        if name in self._names:
            return name, "exact"
        for match, spelling in _SPELLINGS.items():
            files = self._by_spelling[match].get(spelling(name), [])
            if len(files) == 1:
                return files[0], match
        # The whole name is taken as a stem: what follows its last point need not be a suffix.
        file = self._of_stem(_without_case(name))
        if file is not None:
            return file, f"without a suffix{_also(name, _bare(file))}"
        is_suffixed = suffix(name) in IMAGE_SUFFIXES | ARCHIVE_SUFFIXES
        file = self._of_stem(_stem(name)) if is_suffixed else None
        if file is not None:
            return file, f"with another suffix{_also(_bare(name), _bare(file))}"
        files = [] if "/" in name else self._by_last_part.get(_without_case(name), [])
        if len(files) != 1:
            return None
        return files[0], f"without its folder{_also(name, files[0].rpartition('/')[2])}"

    def _of_stem(self, stem: str) -> str | None:
        """The one file with this stem; None: there is none, or there are several."""
        groups = (group[stem] for group in self._by_stem if stem in group)
        files = next(groups, [])
        return files[0] if len(files) == 1 else None


def _group_names(names: Iterable[str], spelling: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[spelling(name)].append(name)
    return dict(groups)
