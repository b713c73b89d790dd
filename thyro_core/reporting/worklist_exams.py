"""The rows of a worklist as a reader meets them: exams, in them files, in them frames and views."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Formatter
from urllib.parse import quote

from thyro_core.errors import InputError
from thyro_core.pseudonyms import EXAM_PREFIX
from thyro_core.screening.rules import BANDS, ScreeningRow

LINK_FIELDS = ("name", "file_id", "image_id", "frame", "exam_id", "patient_id")
"""What the pattern of a viewer's address may name."""


@dataclass(frozen=True)
class WorklistFile:
    """A file, with the rows of its frames and views by rank."""

    rows: tuple[ScreeningRow, ...]

    @property
    def worst(self) -> ScreeningRow:
        """The row with the highest rank, by which the file is placed."""
        return self.rows[0]


@dataclass(frozen=True)
class Exam:
    """The files of one exam, or of one folder where no exam is known, by rank."""

    title: str
    """What it is called, in words."""
    files: tuple[WorklistFile, ...]
    n_images: int
    """Images of the exam in the night, on the page or not."""

    @property
    def band(self) -> str:
        """The band of its first row."""
        return str(self.files[0].worst["band"])

    @property
    def n_here(self) -> int:
        """Images of the exam on the page."""
        return sum(len(file.rows) for file in self.files)

    @property
    def patients(self) -> tuple[str, ...]:
        """The pseudonyms in it; more than one: files are mixed up."""
        ids = (row["patient_id"] for file in self.files for row in file.rows)
        return tuple(sorted({patient for patient in ids if patient}))


def exams_of(rows: Sequence[ScreeningRow]) -> list[Exam]:
    """The rows of a page, which are in order of rank, by exam and by file; each in its first place.

    A row of an earlier version, which notes no exam, is one of its own.
    """
    by_exam: dict[tuple[str, ...], dict[tuple[str, ...], list[ScreeningRow]]] = {}
    for row in rows:
        # Two models that scored one batch each have rows of their own.
        file = (row["batch_id"], row["path_id"] or "", row["file_id"] or row["image_id"])
        exam = (row["model_id"], row["exam_id"]) if row["exam_id"] else file
        by_exam.setdefault(exam, {}).setdefault(file, []).append(row)
    return [_exam([WorklistFile(tuple(f)) for f in files.values()]) for files in by_exam.values()]


def by_band(exams: Sequence[Exam]) -> dict[str, list[Exam]]:
    """Exams by the band of their first row, all bands in a reader's order."""
    return {band: [exam for exam in exams if exam.band == band] for band in BANDS}


def _exam(files: Sequence[WorklistFile]) -> Exam:
    first = files[0].worst
    exam_id, name = first["exam_id"], first["name"]
    if exam_id is None:
        title = "Exam not noted"
    elif exam_id.startswith(EXAM_PREFIX):
        title = f"Exam {exam_id[:12]}"
    elif name is None:
        title = f"Folder {exam_id[:12]}"
    else:
        folder = PurePosixPath(name).parent.as_posix()
        title = "The batch's own folder" if folder == "." else f"Folder {folder}"
    n_here = sum(len(file.rows) for file in files)
    return Exam(title, tuple(files), max(n_here, first.get("exam_images") or 0))


def check_viewer(pattern: str | None) -> None:
    """Make sure that a pattern can give a viewer's address.

    Raises:
        InputError: it is no http address, or names what no row has.
    """
    if pattern is None:
        return
    try:
        fields = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError:
        fields = ["?"]
    if not re.match(r"https?://[^\s{]+", pattern) or not set(fields) <= set(LINK_FIELDS):
        msg = (
            "THYRO_VIEWER_LINK: expected a web address such as https://viewer/open?file={name}, "
            f"with {', '.join(f'{{{name}}}' for name in LINK_FIELDS)} at will, found {pattern}; "
            "correct it, or unset it"
        )
        raise InputError(msg)


def viewer_url(pattern: str | None, row: Mapping[str, object]) -> str | None:
    """The address of a row in a viewer; None: there is no pattern, or the row lacks what it names.

    Args:
        pattern: as `check_viewer` takes it.
        row: of `screening`.
    """
    if pattern is None:
        return None
    fields = {name for _, name, _, _ in Formatter().parse(pattern) if name}
    if any(row[name] is None for name in fields):
        return None
    return pattern.format_map({name: quote(str(row[name]), safe="") for name in fields})
