"""`thyro query` and `thyro tables`: what a store holds, queried and explained."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeGuard, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.cli.console import full_width, open_console, print_unbroken, say, shorten, visible
from flows.cli.options import StoreUrl
from thyro_core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from thyro_core.tables.export import Format as FileFormat

_MOST_ROWS = 200
_MOST_LETTERS = 60
_LEAST_ADDRESS = 20
"""What an address is cut to at most [letters]."""


class Format(StrEnum):
    """How the rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, DESCRIBE, SUMMARIZE... in DuckDB's SQL.")],
    store: StoreUrl = None,
    format_: Annotated[
        Format, typer.Option("--format", help="A table to look at, or a file on stdout.")
    ] = Format.TABLE,
) -> None:
    """Ask the tables in SQL; nothing is changed. `thyro tables` lists them."""
    from thyro_core.settings import Settings
    from thyro_core.tables.export import render
    from thyro_core.tables.query import run_query

    file = sys.stdout.buffer
    if format_ is Format.PARQUET and file.isatty():
        msg = "query: expected a file for Parquet, found a terminal; add `> FILE`"
        raise InputError(msg)
    rows = run_query(store or Settings().store, sql)
    if format_ is Format.TABLE:
        _print_rows(rows)
    else:
        render(rows, cast("FileFormat", format_.value), file)
        file.flush()


def tables(
    name: Annotated[str | None, typer.Argument(help="Only this table; default: all.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
) -> None:
    """Say what every table and column means."""
    from thyro_core.tables.describe import tables_markdown, tables_text

    typer.echo((tables_markdown if markdown else tables_text)(name))


def _print_rows(rows: "pa.Table") -> None:
    console = open_console()
    first_rows = rows.slice(0, _MOST_ROWS).to_pylist()
    table = _row_table(rows.schema, first_rows)
    excess = full_width(table, console) - console.width
    if console.is_terminal and excess > 0:
        addresses = [v for row in first_rows for v in row.values() if _is_address(v)]
        most = max(map(len, addresses), default=0) - excess
        table = _row_table(rows.schema, first_rows, max(most, _LEAST_ADDRESS))
        if full_width(table, console) > console.width:
            table = _record_table(first_rows)
    print_unbroken(table)
    if rows.num_rows > _MOST_ROWS:
        say(f"first {_MOST_ROWS} of {rows.num_rows} rows; --format csv gives all")


def _row_table(schema: "pa.Schema", rows: list[dict[str, object]], most: int = 1 << 20) -> Table:
    """A line a row; addresses are cut to so many letters."""
    import pyarrow as pa

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for field in schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        number = number or pa.types.is_decimal(field.type)
        table.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        cells = (shorten(v, most) if _is_address(v) and len(v) > most else v for v in row.values())
        table.add_row(*map(_cell, cells))
    return table


def _record_table(rows: list[dict[str, object]]) -> Table:
    """A line a column, for rows wider than the terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for number, row in enumerate(rows, 1):
        table.add_row(Text(f"- row {number}"), "")
        for name, value in row.items():
            table.add_row(Text(name), _cell(value))
    return table


def _is_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and "://" in value and " " not in value


def _cell(value: object) -> Text:
    from thyro_core.tables.export import cell_text

    if isinstance(value, float):
        return Text(f"{value:.6g}" if value == value else "NaN")  # noqa: PLR0124
    whole = "null" if value is None else visible(cell_text(value))
    # Ids are shown whole; a map of hundreds of values is not for reading.
    if isinstance(value, list) and len(whole) > _MOST_LETTERS:
        return Text(f"{whole[:_MOST_LETTERS]}... ({len(value)} values)")
    return Text(whole)
