"""What every table and column means, written from the registered schemas."""

import textwrap
from collections.abc import Sequence

import pyarrow as pa

from thyro_core.errors import InputError
from thyro_core.tables.schemas import TABLES, Table

_WIDTH = 100
_SHORT = {"halffloat": "float16", "float": "float32", "double": "float64"}


def readme_table() -> str:
    """The table of tables as the README shows it: Markdown, one row a table."""
    rows = [(f"`{t.name}`", ", ".join(t.hive), t.row) for t in TABLES.values()]
    return "\n".join(["| table | keys | a row is |", "|---|---|---|", *map(_markdown_row, rows)])


def tables_markdown(name: str | None = None) -> str:
    """Every table and column in Markdown: a heading and a table of columns each.

    Args:
        name: only this table.

    Raises:
        InputError: there is no such table.
    """
    return "\n\n".join(_table_markdown(table) for table in _chosen(name))


def tables_text(name: str | None = None) -> str:
    """Every table and column as plain text of at most 100 columns, for a terminal.

    Args:
        name: only this table.

    Raises:
        InputError: there is no such table.
    """
    return "\n\n".join(_table_text(table) for table in _chosen(name))


def type_name(kind: pa.DataType) -> str:
    """A column's type as NumPy and Polars spell it: `float64`, `list<float16>`."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return _SHORT.get(str(kind), str(kind))


def _chosen(name: str | None) -> list[Table]:
    if name is None:
        return list(TABLES.values())
    if name not in TABLES:
        msg = f"{name}: expected the name of a table, one of {', '.join(TABLES)}"
        raise InputError(msg)
    return [TABLES[name]]


def _column_lines(table: Table) -> list[tuple[str, str, str]]:
    return [
        (field.name, type_name(field.type), field.metadata[b"doc"].decode())
        for field in table.schema
    ]


def _table_markdown(table: Table) -> str:
    rows = [(f"`{name}`", kind, doc) for name, kind, doc in _column_lines(table)]
    return "\n".join(
        [
            f"## `{table.name}`",
            "",
            f"A row is: {table.row}. Keys: {', '.join(table.hive)}.",
            "",
            "| column | type | meaning |",
            "|---|---|---|",
            *map(_markdown_row, rows),
        ]
    )


def _markdown_row(cells: Sequence[str]) -> str:
    safe = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _table_text(table: Table) -> str:
    columns = _column_lines(table)
    first = max(len(name) for name, _, _ in columns)
    second = max(len(kind) for _, kind, _ in columns)
    lines = [f"{table.name}: a row is {table.row}; keys: {', '.join(table.hive)}"]
    for name, kind, doc in columns:
        start = f"  {name:<{first}}  {kind:<{second}}  "
        lines.append(
            textwrap.fill(
                doc,
                _WIDTH,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)
