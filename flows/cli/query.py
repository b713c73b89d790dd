"""`thyro query` and `thyro tables`: what a store holds, queried and explained."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.cli.console import print_unbroken, say
from flows.cli.options import StoreUrl
from thyro_core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from thyro_core.tables.export import Format as FileFormat

_MOST_ROWS = 200
_MOST_LETTERS = 60


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
    import pyarrow as pa

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for field in rows.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        number = number or pa.types.is_decimal(field.type)
        table.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for row in rows.slice(0, _MOST_ROWS).to_pylist():
        table.add_row(*(_cell(value) for value in row.values()))
    print_unbroken(table)
    if rows.num_rows > _MOST_ROWS:
        say(f"first {_MOST_ROWS} of {rows.num_rows} rows; --format csv gives all")


def _cell(value: object) -> Text:
    from thyro_core.tables.export import cell_text

    if isinstance(value, float):
        return Text(f"{value:.6g}" if value == value else "NaN")  # noqa: PLR0124
    whole = "null" if value is None else cell_text(value)
    # Ids are shown whole; a map of hundreds of values is not for reading.
    if isinstance(value, list) and len(whole) > _MOST_LETTERS:
        return Text(f"{whole[:_MOST_LETTERS]}... ({len(value)} values)")
    return Text(whole)
