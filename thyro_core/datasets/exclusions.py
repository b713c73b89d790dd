"""A specialist's exclusions, by the files that they name."""

from collections.abc import Sequence

from thyro_core.datasets.dicom_files import ExamNames
from thyro_core.datasets.file_names import FileNames
from thyro_core.datasets.labels import read_exclusions
from thyro_core.datasets.table_files import TableFiles
from thyro_core.errors import amount
from thyro_core.store.listing import Listing

_EXCLUSIONS = "exclusions.csv"


def exclusion_reasons(
    folder: Listing, exams: ExamNames, names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """The reason of each image that `exclusions.csv` names, and notes on the table.

    Args:
        folder: the image set.
        exams: its DICOM objects.
        names: its images.

    Raises:
        InputError: the table cannot be read.
    """
    table = folder.find(_EXCLUSIONS)
    if table is None:
        return {}, []
    exclusions = read_exclusions(folder.uri(table), folder.read(table))
    rows = exclusions.rows
    images = set(names)
    finder = TableFiles(
        _EXCLUSIONS, FileNames(names, names), exams, rows.keys(), exclusions.has_identifiers
    )
    reasons: dict[str, str] = {}
    unknown = []
    for image, (line, reason) in sorted(rows.items(), key=lambda row: row[1]):
        files = images.intersection(finder.all_of_cell(image, line))
        unknown += [] if files else [line]
        for file in files:
            reasons.setdefault(file, reason)
    notes = [f"{amount(len(reasons), 'image')} excluded by {_EXCLUSIONS}", *finder.notes]
    if unknown:
        lines = ", ".join(map(str, unknown))
        notes.append(f"{_EXCLUSIONS} names images that the set lacks, in line {lines}")
    return reasons, notes
