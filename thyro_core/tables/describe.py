"""What every table and column means, written from the registered schemas."""

import textwrap
from collections.abc import Sequence

import pyarrow as pa

from thyro_core.errors import InputError
from thyro_core.tables.schemas import TABLES, Table
from thyro_core.tables.views import VIEWS

_WIDTH = 80
_SHORT = {"halffloat": "float16", "float": "float32", "double": "float64"}


def tables_markdown(name: str | None = None) -> str:
    """Every table and column in Markdown: a heading and a table of columns each.

    Args:
        name: only this table.

    Raises:
        InputError: there is no such table.
    """
    return "\n\n".join(_table_markdown(table) for table in _chosen_tables(name))


def tables_text(name: str | None = None) -> str:
    """Every table and column as plain text of at most 80 columns, for a terminal.

    Args:
        name: only this table.

    Raises:
        InputError: there is no such table.
    """
    return "\n\n".join(_table_text(table) for table in _chosen_tables(name))


def type_name(kind: pa.DataType) -> str:
    """A column's type as NumPy and Polars spell it: `float64`, `list<float16>`."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return _SHORT.get(str(kind), str(kind))


def _chosen_tables(name: str | None) -> list[Table]:
    known_tables = TABLES | {name: view.table for name, view in VIEWS.items()}
    if name is None:
        return list(known_tables.values())
    if name not in known_tables:
        msg = f"{name}: expected the name of a table, one of {', '.join(known_tables)}"
        raise InputError(msg)
    return [known_tables[name]]


def _row_of(table: Table) -> str:
    """What a row is, with its article."""
    if table.row.startswith(("a ", "an ")):
        return table.row
    return f"{'an' if table.row[0] in 'aeio' else 'a'} {table.row}"


def _keys_of(table: Table) -> str:
    return f"keys: {', '.join(table.hive)}" if table.hive else "a view for queries, no files"


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
            f"A row is {_row_of(table)}; {_keys_of(table)}.",
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
    heading = f"{table.name}: a row is {_row_of(table)}; {_keys_of(table)}"
    lines = [textwrap.fill(heading, _WIDTH, subsequent_indent="    ")]
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
