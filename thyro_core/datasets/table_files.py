"""From the rows of a table that people write to the files that they mean."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from thyro_core.datasets.dicom_files import ExamNames
from thyro_core.datasets.file_names import ARCHIVE_SUFFIXES, FileNames, NameMatch
from thyro_core.datasets.path_names import UID
from thyro_core.errors import amount
from thyro_core.store.listing import IMAGE_SUFFIXES, suffix


@dataclass
class TableFiles:
    """Finds the files that the cells of one table mean, and counts how these are written.

    Attributes:
        table: the table's name, for notes.
        files: the set's files by their names.
        exams: its DICOM objects by their identifiers.
        exact: the cells of all rows: a file that one of them names exactly is that row's.
        has_identifiers: whether the cells are identifiers of DICOM by their column's name.
    """

    table: str
    files: FileNames
    exams: ExamNames
    exact: Collection[str]
    has_identifiers: bool = False
    _matches: Counter[NameMatch] = field(default_factory=Counter)
    _rows: Counter[str] = field(default_factory=Counter)
    _objects: dict[str, set[str]] = field(default_factory=dict)

    def of_name(self, cell: str) -> str:
        """The one file that a name means; the cell itself, if there is none."""
        file, match = self.files.find(cell) or (cell, "exact")
        if match == "exact" or file in self.exact:
            return cell
        self._matches[match] += 1
        return file

    def of_cell(self, cell: str) -> list[str]:
        """The files that a cell means: one by its name, or all that bear an identifier.

        The cell itself, where it means none; none at all, where files of several patients bear it.
        """
        match = None if self.files.find(cell) else self.exams.find(cell)
        if match is None:
            return [self.of_name(cell)]
        names, kind = match
        if self.exams.patients(names) > 1:
            return []
        self._rows[kind] += 1
        self._objects.setdefault(kind, set()).update(names)
        return names

    def is_no_path(self, cell: str) -> bool:
        """Whether a cell that means no file may be an identifier, which no table may keep."""
        if UID.fullmatch(cell) or self.has_identifiers:
            return True
        return bool(len(self.exams)) and suffix(cell) not in IMAGE_SUFFIXES | ARCHIVE_SUFFIXES

    @property
    def notes(self) -> list[str]:
        """How the cells were understood, where they are no files' own names."""
        by_spelling = [
            f"{amount(number, 'name')} in {self.table} written {match}, and matched to the one "
            "file that fits"
            for match, number in sorted(self._matches.items())
        ]
        by_header = [
            f"{amount(number, 'row')} of {self.table} taken for {kind}: "
            f"{amount(len(self._objects[kind]), 'DICOM file')}"
            for kind, number in sorted(self._rows.items())
        ]
        return by_spelling + by_header


def ambiguous_notes(table: str, lines: Sequence[int]) -> list[str]:
    """A note on rows that are set aside because files of several patients bear their identifier."""
    if not lines:
        return []
    rows = f"{amount(len(lines), 'row')} of {table} set aside"
    places = ", ".join(map(str, lines))
    return [f"{rows}: files of several patients bear the identifier in line {places}"]
