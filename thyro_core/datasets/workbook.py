"""Tables in an Excel workbook, as texts; what reads them is an extra of the installation."""

import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time

from thyro_core.errors import InputError

_MOST_BYTES = 200_000_000
"""Of a workbook unpacked: a few kilobytes can unpack to gigabytes."""


def workbook_rows(where: str, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows of a workbook's first sheet that are not blank, stripped, with their number from 1.

    Args:
        where: the file's address, for messages.
        data: its bytes.

    Raises:
        InputError: what reads workbooks is not installed, or this is none.
    """
    try:
        import openpyxl
    except ImportError as error:
        msg = (
            f"{where}: expected openpyxl, which reads Excel's workbooks, found none installed; "
            'pip install "thyro[excel]", or save the table as labels.csv'
        )
        raise InputError(msg) from error
    try:
        _refuse_large(data)
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        rows = [[_value_text(value) for value in row] for row in book.worksheets[0].values]
    # A damaged workbook raises whatever its XML leads to.
    except Exception as error:
        msg = (
            f"{where}: expected an Excel workbook, found: {type(error).__name__}: {error}; save it "
            "again, or as labels.csv"
        )
        raise InputError(msg) from error
    # Rows of a sheet are as wide as its widest one: cells beyond the header are empty.
    width = max((place for row in rows[:1] for place, cell in enumerate(row, 1) if cell), default=0)
    for number, cells in enumerate(rows, 1):
        if any(cells):
            yield number, cells[:width] if not any(cells[width:]) else cells


def _refuse_large(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > _MOST_BYTES:
        msg = f"{size:,} bytes unpacked, more than {_MOST_BYTES:,}"
        raise ValueError(msg)


def _value_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    return value.isoformat() if isinstance(value, date) else str(value).strip()
