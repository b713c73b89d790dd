"""Rows as CSV, JSON or Parquet."""

import csv
import io
import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core.errors import InputError

Format = Literal["csv", "json", "parquet"]

_EXPORT_ROWS = 1024


def render(table: pa.Table, fmt: Format, out: BinaryIO) -> None:
    """Write rows as UTF-8 CSV, as a JSON array of one object a row, or as zstd Parquet.

    In CSV, null is an empty cell, NaN is `NaN`, and a list or struct is JSON. In JSON, null, NaN
    and infinity are `null`. In both, times are ISO 8601, bytes hexadecimal, whole decimals
    (DuckDB's sums of integers) integers, and float32 has the digits of the double it equals.

    Args:
        table: the rows; its column names differ from each other.
        fmt: the format.
        out: where it goes; it stays open.

    Raises:
        InputError: Parquet cannot hold a column's type, such as an interval.
    """
    if fmt == "parquet":
        _write_parquet(table, out)
        return
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    (_write_csv if fmt == "csv" else _write_json)(table, text)
    text.detach()


def cell_text(value: object) -> str:
    """One value, as `Table.to_pylist` gives it, as the text of a cell; null is empty."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else str(value)
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _write_parquet(table: pa.Table, out: BinaryIO) -> None:
    whole = io.BytesIO()
    try:
        pq.write_table(table, whole, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        msg = f"query: expected types that Parquet has, found: {error}; cast the column to VARCHAR"
        raise InputError(msg) from error
    out.write(whole.getbuffer())


def _rows(table: pa.Table) -> Iterator[dict[str, object]]:
    for batch in table.to_batches(max_chunksize=_EXPORT_ROWS):
        yield from batch.to_pylist()


def _write_csv(table: pa.Table, out: io.TextIOWrapper) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in _rows(table):
        writer.writerow([cell_text(value) for value in row.values()])


def _write_json(table: pa.Table, out: io.TextIOWrapper) -> None:
    start = "[\n"
    for row in _rows(table):
        out.write(start + json.dumps(_plain(row), ensure_ascii=False, allow_nan=False))
        start = ",\n"
    out.write("\n]\n" if table.num_rows else "[]\n")


def _plain(value: object) -> object:
    """The value with nothing in it that JSON does not have."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    # Not every tuple: an interval is one, too, and reads better by its own text.
    if type(value) in (list, tuple):
        return [_plain(part) for part in value]  # type: ignore[attr-defined]
    return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
