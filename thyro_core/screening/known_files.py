"""What a model has an answer for: sorted hashes in two objects, searched on disk.

Half of each SHA-256 is kept, 32 hexadecimal digits a file or picture, in files that all workers of
a node map into memory: a million files of one image are 32 MB and 126 MB of disk and no memory of
their own.

A file is known by its contents and its path together: the same bytes at another path are another
file, which is a copy. A row of an earlier version has no path; its file is known by contents alone.
"""

import hashlib
import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from thyro_core.screening.rules import BANDS, WHY, ReadingBand
from thyro_core.store.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KNOWN_SCHEMA = pa.schema(
    [
        ("date", pa.int32()),
        ("file_id", pa.string()),
        ("path_id", pa.string()),
        ("image_id", pa.string()),
        ("picture_id", pa.string()),
        ("pattern_id", pa.string()),
        ("patient_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("band", pa.string()),
    ]
)
"""Columns of `screening` that decide what is known."""

_KEY_DIGITS = 32
_SHA_DIGITS = 64
_DATE_DIGITS = 8
_CODE_DIGITS = 2
_PATIENT_DIGITS = 10
_FORM_DIGITS = 8
_SORT_MEMORY = "256MB"
_BATCH_ROWS = 65_536
_REASONS = ("", *WHY)
_RECORD = [
    _KEY_DIGITS, _SHA_DIGITS, _DATE_DIGITS, _CODE_DIGITS, _CODE_DIGITS, _PATIENT_DIGITS,
    _FORM_DIGITS,
]  # fmt: skip
# A row of an earlier version has no pattern; its picture is found as it lies.
_PATTERN = "coalesce(pattern_id, picture_id)"

# A copy has an answer as long as its original has one: that one's part may be gone by now, or its
# refusal may be one to be tried again.
_KNOWN_FILES = f"""
WITH answered AS (SELECT * FROM known WHERE status != 'copy')
SELECT DISTINCT left(
    CASE WHEN path_id IS NULL THEN file_id ELSE sha256(path_id || '/' || file_id) END, {_KEY_DIGITS}
) AS record
FROM known
WHERE status != 'copy'
    OR picture_id IN (SELECT picture_id FROM answered)
    OR pattern_id IN (SELECT pattern_id FROM answered)
ORDER BY record
"""  # noqa: S608
_KNOWN_PICTURES = f"""
SELECT left({_PATTERN}, {_KEY_DIGITS}) || image_id || date || reason_code || band_code
    || rpad(coalesce(patient_id, ''), {_PATIENT_DIGITS}, ' ') || left(picture_id, {_FORM_DIGITS})
    AS record
FROM (
    SELECT * REPLACE (left(patient_id, {_PATIENT_DIGITS}) AS patient_id) FROM known
    WHERE status != 'copy' AND picture_id IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY left({_PATTERN}, {_KEY_DIGITS}) ORDER BY status = 'scored' DESC, date, image_id
    ) = 1
)
ORDER BY record
"""  # noqa: S608


class Original(NamedTuple):
    """The row that a picture has already."""

    image_id: str
    date: int
    """Night, such as 20261125."""
    reason: str | None
    """Why it is not scored; None: it is."""
    band: ReadingBand | None
    """None: not decided yet."""
    patient: str | None
    """Digits of its patient's pseudonym."""
    is_turned: bool = False
    """Whether it shows another form of the picture: turned or mirrored."""

    @property
    def night(self) -> str:
        """The night as 2026-11-25."""
        return f"{self.date // 10_000}-{self.date // 100 % 100:02d}-{self.date % 100:02d}"


def digits_of(patient_id: str) -> str:
    """What is kept of a patient's pseudonym."""
    return patient_id[:_PATIENT_DIGITS]


def is_other_patient(patient_id: str | None, original: Original) -> bool:
    """Whether a copy and its original name two patients."""
    if patient_id is None or original.patient is None:
        return False
    return digits_of(patient_id) != original.patient


class KnownFiles:
    """Answers whether a file has an answer already.

    Args:
        store: where the object is.
        key: its key; what it holds must never change, because it is kept on the node.
        scratch: node-local folder.
    """

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._records = _Records(store, key, scratch, [_KEY_DIGITS])

    def has(self, path_id: str, file_id: str) -> bool:
        """Whether the file of these contents at this path has one."""
        of_path = hashlib.sha256(f"{path_id}/{file_id}".encode()).hexdigest()
        return any(self._records.find(name) is not None for name in (of_path, file_id))

    def __len__(self) -> int:
        return len(self._records)


class KnownPictures:
    """Finds the row of a picture: `pictures.original(picture_id, pattern_id)`.

    Args:
        store: where the object is.
        key: its key, as for `KnownFiles`.
        scratch: node-local folder.
    """

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._records = _Records(store, key, scratch, _RECORD)

    def original(self, picture_id: str, pattern_id: str | None) -> Original | None:
        """The row that has the model's answer for a picture in any form; None: there is none."""
        record = self._records.find(picture_id)
        if record is None and pattern_id is not None:
            record = self._records.find(pattern_id)
        if record is None:
            return None
        _, image_id, date, reason, band, patient, form = record
        return Original(
            image_id,
            int(date),
            _REASONS[int(reason)] or None,
            BANDS[int(band)],
            patient.strip() or None,
            is_turned=not picture_id.startswith(form),
        )

    def __len__(self) -> int:
        return len(self._records)


class _Records:
    """Sorted records of fixed widths in a mapped file, found by their first field."""

    def __init__(self, store: Store, key: str, scratch: Path, widths: list[int]) -> None:
        with store.local(key, scratch).open("rb") as file:
            size = file.seek(0, 2)
            # Nothing can be mapped of an empty file.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        fields = [(f"f{place}", f"S{width}") for place, width in enumerate(widths)]
        self._records = np.frombuffer(mapping, dtype=np.dtype(fields))

    def find(self, name: str) -> tuple[str, ...] | None:
        """The fields of the record whose first one is the half of a hash."""
        digits, keys = np.bytes_(name[:_KEY_DIGITS].encode()), self._records["f0"]
        place = int(np.searchsorted(keys, digits))
        if place == len(keys) or keys[place] != digits:
            return None
        return tuple(field.decode() for field in self._records[place].item())

    def __len__(self) -> int:
        return len(self._records)


def write_known(parts: Iterable[pa.Table], files: IO[bytes], pictures: IO[bytes]) -> None:
    """Write what some rows make known as the two classes read it, in bounded memory.

    Args:
        parts: tables of `KNOWN_SCHEMA`, taken one at a time: the rows that have an answer, and all
            copies.
        files: where the files go.
        pictures: where the pictures go.
    """
    with tempfile.TemporaryDirectory(prefix="thyro-") as folder:
        import duckdb

        connection = duckdb.connect(
            f"{folder}/known.duckdb", config={"memory_limit": _SORT_MEMORY, "threads": 1}
        )
        try:
            connection.register("part", KNOWN_SCHEMA.empty_table())
            reason = "CASE WHEN status != 'scored' THEN reason END"
            codes = f"{_code(reason, _REASONS)} AS reason_code, {_code('band', BANDS)} AS band_code"
            rows = f"SELECT * EXCLUDE (reason, band), {codes} FROM part"  # noqa: S608
            connection.execute(f"CREATE TABLE known AS {rows}")
            for part in parts:
                connection.register("part", part)
                connection.execute(f"INSERT INTO known {rows}")
            _write_records(connection, _KNOWN_FILES, files)
            _write_records(connection, _KNOWN_PICTURES, pictures)
        finally:
            connection.close()


def _code(word: str, values: tuple[str, ...]) -> str:
    """A word of a closed list as its two-digit place in it."""
    value_list = ", ".join(f"'{value}'" for value in values)
    place = f"coalesce(list_position([{value_list}], coalesce({word}, '')), 1) - 1"
    return f"lpad(cast({place} AS VARCHAR), {_CODE_DIGITS}, '0')"


def _write_records(connection: "DuckDBPyConnection", sql: str, out: IO[bytes]) -> None:
    for batch in connection.sql(sql).to_arrow_reader(_BATCH_ROWS):
        out.write("".join(batch["record"].to_pylist()).encode())
