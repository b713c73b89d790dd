"""Tables of labels and exclusions.csv, which people write by hand, read strictly."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from thyro_core.config import IngestConfig
from thyro_core.datasets.personal_columns import kept_contents
from thyro_core.datasets.workbook import workbook_rows
from thyro_core.errors import InputError

_NO_LABEL = {"": None, "none": None, "nan": None}
_WORDS = {"benign": 0, "malignant": 1} | _NO_LABEL
_CLASSES = {"benign": 0, "malignant": 1, "unlabelled": None}
_LETTER_LABELS = {"b": 0, "m": 1}
# A column with an empty cell comes out of many programs as 0.0 and 1.0.
_NUMBERS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_LABELS = _WORDS | _LETTER_LABELS | _NUMBERS
_NO_REASON = "no reason given"
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+")
_IDENTIFYING = frozenset(
    {
        "uid",
        "surname",
        "forename",
        "dob",
        "mrn",
        "acc",
        "accno",
        "accnr",
        "accnum",
        "street",
        "city",
        "zip",
        "postcode",
    }
    | {"postal", "mobile", "fax", "ssn", "passport", "nhs", "telefon"}
)
# What DICOM calls an image, an exam, or its order; the first that is there stands for a path.
_IDENTIFIER_COLUMNS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber")
_IDENTIFYING_PARTS = (
    "instanceuid",
    "accession",
    "referring",
    "referrer",
    "physician",
    "patient",
    "name",
    "birth",
    "phone",
    "mail",
    "address",
    "insurance",
)


@dataclass(frozen=True)
class LabelRow:
    """One row of labels.csv: `label` is 0, 1 or None; `attributes` are its filled other cells.

    `mask` is the path of the nodule's mask below the source, also an attribute as it was written.
    """

    line: int
    image: str
    label: int | None
    patient: str | None
    attributes: Mapping[str, str]
    mask: str | None = None


@dataclass(frozen=True)
class LabelTable:
    """All rows of labels.csv, and what was left out.

    Attributes:
        rows: Those that name an image of the folder.
        dropped_columns: Names of the columns that identify people.
        faults: What is wrong with the rows and masks that are set aside, with their line.
        meanings: How other words than the names of the classes were read; empty: there are none.
        notes: What is not kept of columns whose cells may tell of a person.
        has_identifiers: Whether the images are named by identifiers of DICOM, by the column's name.
    """

    rows: tuple[LabelRow, ...]
    dropped_columns: tuple[str, ...]
    faults: tuple[str, ...] = ()
    meanings: str = ""
    notes: tuple[str, ...] = ()
    has_identifiers: bool = False


@dataclass(frozen=True)
class ExclusionTable:
    """The rows of exclusions.csv.

    Attributes:
        rows: line and reason by the image as it is named.
        has_identifiers: as `LabelTable` has it.
    """

    rows: Mapping[str, tuple[int, str]]
    has_identifiers: bool


def read_labels(where: str, data: bytes, rules: IngestConfig = IngestConfig()) -> LabelTable:  # noqa: B008
    """Read a table of labels: `image,label[,patient_id]` and any other columns.

    The header's spelling may vary in case, spaces and underscores; the delimiter is a comma or
    a semicolon. Columns that identify a person are dropped unread.

    Args:
        where: The file's address, for messages.
        data: Its bytes: CSV in UTF-8, with or without a byte order mark, or an Excel workbook.
        rules: Say which columns hold image, label and patient, and what the words of a label mean.

    A row whose image lies outside the folder is set aside, and so is such a mask: one slip in a
    table of thousands is no reason to refuse the others.

    Raises:
        InputError: a column is missing or named twice, a row has another number of cells than
            the header, or a label is unknown.
    """
    header, lines = _table(where, data)
    columns = _role_places(where, header, rules)
    role_places = set(columns.values())
    other = [name for place, name in enumerate(header) if name and place not in role_places]
    dropped_columns = tuple(name for name in other if is_identifying(name))
    attribute_columns = [name for name in other if name not in dropped_columns]
    if "mask" in columns:
        attribute_columns.append(header[columns["mask"]])
    words = _label_words(rules)
    rows, faults, values = [], [], set()
    for line, cells in lines:
        by_role = {role: cells[place] for role, place in columns.items()}
        label = _label(f"{where} line {line}", by_role["label"], words)
        values.add(by_role["label"].lower())
        fault = _fault(by_role["image"])
        if fault:
            faults.append(f"line {line}: {fault} instead of an image's path: the row is set aside")
            continue
        mask = by_role.get("mask", "")
        mask_fault = _fault(mask) if mask else None
        if mask_fault:
            faults.append(f"line {line}: {mask_fault} instead of a mask's path: no mask")
        cell_by_column = dict(zip(header, cells, strict=True))
        rows.append(
            LabelRow(
                line=line,
                image=_plain(by_role["image"]),
                label=label,
                patient=by_role.get("patientid") or None,
                attributes={
                    name: cell_by_column[name] for name in attribute_columns if cell_by_column[name]
                },
                mask=_plain(mask) if mask and not mask_fault else None,
            )
        )
    safe_rows, notes = _without_persons(
        rows, [name for name in other if name not in dropped_columns]
    )
    return LabelTable(
        safe_rows,
        dropped_columns,
        tuple(faults),
        _meanings(values, rules),
        notes,
        _is_identifier(header[columns["image"]]),
    )


def _without_persons(
    rows: Sequence[LabelRow], columns: Sequence[str]
) -> tuple[tuple[LabelRow, ...], tuple[str, ...]]:
    """The rows without the dates and sentences in these columns, and notes on those."""
    contents = {
        name: kept_contents(name, {row.attributes[name] for row in rows if name in row.attributes})
        for name in columns
    }

    def attributes(row: LabelRow) -> dict[str, str]:
        cells = {
            name: contents[name].cells.get(text, "") if name in contents else text
            for name, text in row.attributes.items()
        }
        return {name: text for name, text in cells.items() if text}

    notes = tuple(content.note for content in contents.values() if content.note)
    return tuple(replace(row, attributes=attributes(row)) for row in rows), notes


def _role_places(where: str, header: list[str], rules: IngestConfig) -> dict[str, int]:
    """The places of the columns for image, label, patient and mask, as far as they are there."""
    image = _image_column(header, rules.image_column)
    names = {
        "image": image,
        "label": rules.label_column,
        "patientid": rules.patient_column,
        "mask": "mask",
    }
    # A column that is named on purpose has to be there.
    required_columns = [image, rules.label_column]
    if column_key(rules.patient_column) != "patientid":
        required_columns.append(rules.patient_column)
    columns = _columns(where, header, tuple(required_columns))
    places = {role: columns.get(column_key(name)) for role, name in names.items()}
    return {role: place for role, place in places.items() if place is not None}


def _image_column(header: Sequence[str], name: str = "image") -> str:
    """The column that says which image is meant: of this name, or of an identifier of DICOM."""
    keys = [column_key(column) for column in header]
    if column_key(name) in keys or name != "image":
        return name
    return next((column for column in _IDENTIFIER_COLUMNS if column_key(column) in keys), name)


def _is_identifier(column: str) -> bool:
    return column_key(column) in map(column_key, _IDENTIFIER_COLUMNS)


def _label_words(rules: IngestConfig) -> Mapping[str, int | None]:
    """What each word in the label column means; a map leaves no other meaning.

    Raises:
        InputError: the map gives a word two meanings.
    """
    meanings: dict[str, int | None] = {}
    for part in rules.label_map:
        name, _, word = (text.strip().lower() for text in part.partition("="))
        label = _CLASSES[name]
        if meanings.setdefault(word, label) != label:
            msg = f"label_map: expected one meaning for each word, found two for {word!r}"
            raise InputError(msg)
    return meanings | _NO_LABEL if meanings else _LABELS


def _meanings(values: set[str], rules: IngestConfig) -> str:
    """How the words that are not the classes' names were read."""
    pairs = [("0", "1")] if values & _NUMBERS.keys() else []
    pairs += [("B", "M")] if values & _LETTER_LABELS.keys() else []
    if rules.label_map:
        meanings = _label_words(rules)
        words = [[word for word, label in meanings.items() if label == n] for n in range(2)]
        pairs = [(", ".join(words[0]) or "nothing", ", ".join(words[1]) or "nothing")]
    return "; ".join(
        f"{first} is taken as benign, {second} as malignant" for first, second in pairs
    )


def read_exclusions(where: str, data: bytes) -> ExclusionTable:
    """Read exclusions.csv (`image,reason`): line and reason of each image excluded.

    An image named twice keeps its first reason; an empty reason becomes "no reason given".

    Raises:
        InputError: as `read_labels` does.
    """
    header, lines = _table(where, data)
    image_column = _image_column(header)
    columns = _columns(where, header, required_columns=(image_column,))
    reasons: dict[str, tuple[int, str]] = {}
    for line, cells in lines:
        image = relative_path(f"{where} line {line}", cells[columns[column_key(image_column)]])
        reason = cells[columns["reason"]] if "reason" in columns else ""
        reasons.setdefault(image, (line, reason or _NO_REASON))
    return ExclusionTable(reasons, _is_identifier(image_column))


def _table(where: str, data: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    if where.lower().endswith(".xlsx"):
        records = workbook_rows(where, data)
        _, header = next(records, (1, []))
        return header, _check_rows(where, header, records)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{where}: expected UTF-8 text, found other bytes at {error.start}; save it as UTF-8"
        raise InputError(msg) from error
    records = _records(where, text)
    _, header = next(records, (1, []))
    return header, _check_rows(where, header, records)


def _records(where: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Stripped rows that are not blank, with the line each ends on."""
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        msg = f"{where} line {reader.line_num}: expected CSV, found {error}; mend the quotes"
        raise InputError(msg) from error


def _check_rows(
    where: str, header: list[str], records: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    for line, cells in records:
        if len(cells) != len(header):
            msg = (
                f"{where} line {line}: expected {len(header)} cells as in the header, "
                f"found {len(cells)}; put cells that hold the delimiter in quotes"
            )
            raise InputError(msg)
        yield line, cells


def _columns(where: str, header: list[str], required_columns: tuple[str, ...]) -> dict[str, int]:
    keys = [column_key(name) for name in header]
    missing = [name for name in required_columns if column_key(name) not in keys]
    if missing:
        options = ", ".join(f"--{name}-column" for name in ("image", "label") if name in missing)
        otherwise = f", or name the columns that hold them by {options}" if options else ""
        msg = (
            f"{where}: expected the columns {', '.join(required_columns)}, found "
            f"{', '.join(header) or 'nothing'}; add {' and '.join(missing)} to the first line"
            f"{otherwise}"
        )
        raise InputError(msg)
    twice = sorted({name for name in header if name and keys.count(column_key(name)) > 1})
    if twice:
        msg = f"{where}: expected each column once, found {', '.join(twice)} again; rename one"
        raise InputError(msg)
    return {key: index for index, key in enumerate(keys)}


def _words(column: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(column)]


def merged_attributes(rows: Sequence[LabelRow]) -> dict[str, str]:
    """The filled other cells of all rows that name an image; the first row, in order, counts."""
    attributes: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: sorted(row.attributes.items()), reverse=True):
        attributes.update(row.attributes)
    return attributes


def column_key(column: str) -> str:
    """What counts of a column's name: its words in small letters, without what parts them."""
    return "".join(_words(column)) or column


def is_identifying(column: str) -> bool:
    """Whether a column's name says that it identifies a person (name, birth date, phone, ...)."""
    words = _words(column)
    # StudyID of DICOM, however it is spelled.
    return column_key(column) == "studyid" or any(
        word in _IDENTIFYING or any(part in word for part in _IDENTIFYING_PARTS) for word in words
    )


def _label(where: str, cell: str, words: Mapping[str, int | None]) -> int | None:
    if cell.lower() not in words:
        # Numbers with a point are for programs; people write them without.
        choices = ", ".join(
            word for word in words if word and word not in {*_NO_LABEL, "0.0", "1.0"}
        )
        msg = (
            f"{where}: expected a label among {choices}, found {cell[:40]!r}; correct it, leave it "
            "empty for unlabelled, or say what your words mean by "
            "--label-map benign=WORD,malignant=WORD"
        )
        raise InputError(msg)
    return words[cell.lower()]


def relative_path(where: str, cell: str) -> str:
    """A path in the table as a plain posix path below the image set's folder.

    Backslashes separate too. The path itself is not repeated in messages: it may name a person.

    Raises:
        InputError: it is empty, absolute, a URL, or leads out of the folder.
    """
    fault = _fault(cell)
    if fault:
        msg = f"{where}: expected an image's path inside the folder, found {fault}; correct it"
        raise InputError(msg)
    return _plain(cell)


def _plain(cell: str) -> str:
    return str(PurePosixPath(cell.replace("\\", "/")))


def _fault(cell: str) -> str | None:
    """What keeps a cell from being a path below the folder."""
    path = cell.replace("\\", "/")
    parts = PurePosixPath(path).parts
    faults = {
        "no path": not parts,
        "a URL": "://" in path,
        "an absolute path": path.startswith("/"),
        "a drive letter": re.match(r"[A-Za-z]:", path) is not None,
        "a path with ..": ".." in parts,
        "a control character": any(ord(character) < 32 for character in path),
    }
    return next((fault for fault, present in faults.items() if present), None)
