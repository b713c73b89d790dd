"""From the rows of a table that people write to the files that they mean."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from thyro_core.datasets.dicom_files import ExamNames
from thyro_core.datasets.file_names import ARCHIVE_SUFFIXES, FileNames, NameMatch
from thyro_core.datasets.path_names import UID
from thyro_core.errors import amount
from thyro_core.store.listing import IMAGE_SUFFIXES, suffix

_SEVERAL_PATIENTS = "files of several patients bear the identifier"
_SEVERAL_EXAMS = "files of several exams, not all of a known patient, bear the identifier"
_TWO_WAYS = "a file bears the name and DICOM files of other names bear the identifier"
_NO_IDENTIFIER = "no DICOM file bears the identifier, which is a file's name,"


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
    _lines_aside: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _doubts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def of_name(self, cell: str) -> str:
        """The one file that a name means; the cell itself, if there is none."""
        file, match = self.files.find(cell) or (cell, "exact")
        if match == "exact" or file in self.exact:
            return cell
        self._matches[match] += 1
        return file

    def of_cell(self, cell: str, line: int) -> list[str]:
        """The files that a cell means: one by its name, or all that bear an identifier.

        The cell itself, where it means none; none at all, where it is set aside, as `notes` say.

        Args:
            cell: of the column that says which image is meant.
            line: where it stands.
        """
        file = self._file(cell)
        match = self.exams.find(cell)
        if match is None:
            # A name of a file that is no identifier of any must not come back as that file.
            is_a_file = self.has_identifiers and len(self.exams) and self.files.find(cell)
            return self._set_aside(_NO_IDENTIFIER, line) if is_a_file else [self.of_name(cell)]
        names, kind = match
        if file is not None:
            return [self.of_name(cell)] if file in names else self._set_aside(_TWO_WAYS, line)
        if self.exams.patients(names) > 1:
            return self._set_aside(_SEVERAL_PATIENTS, line)
        if self.exams.may_be_several_patients(names):
            return self._set_aside(_SEVERAL_EXAMS, line)
        self._count(kind, names)
        return names

    def all_of_cell(self, cell: str, line: int) -> list[str]:
        """All files that a cell may mean, where too many are better than too few."""
        file = self._file(cell)
        names, kind = self.exams.find(cell) or ([], "")
        if file is not None:
            if names and file not in names:
                self._doubts[_TWO_WAYS].append(line)
            return sorted({self.of_name(cell), file, *names})
        if self.exams.patients(names) > 1:
            self._doubts[_SEVERAL_PATIENTS].append(line)
        elif self.exams.may_be_several_patients(names):
            self._doubts[_SEVERAL_EXAMS].append(line)
        if names:
            self._count(kind, names)
        return names

    def _file(self, cell: str) -> str | None:
        """The file of this name; None: there is none, or the column holds identifiers."""
        # Exported pictures are named by identifiers; objects may be named by those of others.
        if self.has_identifiers and len(self.exams):
            return None
        match = self.files.find(cell)
        return None if match is None else match[0]

    def _count(self, kind: str, names: Sequence[str]) -> None:
        self._rows[kind] += 1
        self._objects.setdefault(kind, set()).update(names)

    def _set_aside(self, reason: str, line: int) -> list[str]:
        self._lines_aside[reason].append(line)
        return []

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
        rows_aside = [
            f"{amount(len(lines), 'row')} of {self.table} set aside: {reason} in line "
            f"{', '.join(map(str, lines))}"
            for reason, lines in self._lines_aside.items()
        ]
        doubts = [
            f"{amount(len(lines), 'row')} of {self.table} taken for all files that may be meant: "
            f"{reason} in line {', '.join(map(str, lines))}"
            for reason, lines in self._doubts.items()
        ]
        return by_spelling + by_header + rows_aside + doubts
