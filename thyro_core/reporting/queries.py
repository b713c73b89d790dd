"""SQL queries on a study's tables; each figure carries the one SELECT that gives it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from duckdb import DuckDBPyConnection

from thyro_core.reporting.cells import Cell
from thyro_core.tables.schemas import TABLES

Expressions = Mapping[str, tuple[str, str]]
"""Name -> (SQL expression, form)."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table, and the columns that tell it from all others."""

    table: str
    key: Mapping[str, object]
    values: Mapping[str, Any]

    def __getitem__(self, column: str) -> Any:  # noqa: ANN401
        """The plain value, for choosing and sorting."""
        return self.values[column]

    def cell(self, column: str, form: str) -> Cell:
        """A value as a page shows it."""
        sql = f"SELECT {column} FROM {self.table} WHERE {condition(self.key)}"
        return Cell(plain(self.values[column]), form, ("sql", sql))


@dataclass(frozen=True)
class Tables:
    """The tables of one study and its image set.

    Attributes:
        connection: as `query.open_results` gives it.
        study_id: the study.
        manifest_id: its images.
    """

    connection: DuckDBPyConnection
    study_id: str
    manifest_id: str

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of any SELECT."""
        relation = self.connection.sql(sql)
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def source(self, table: str, **key: object) -> str:
        """The study's rows of a table, for the FROM of a SELECT."""
        return f"{table} WHERE {condition(self._study_key(table) | key)}"

    def rows(self, table: str, identity: Sequence[str], **key: object) -> list[TableRow]:
        """The study's rows, sorted by what identifies them.

        Args:
            table: its name.
            identity: the columns that, with the study, tell a row from all others.
            key: only rows with these values; None: null.
        """
        order = ", ".join(identity)
        rows = self.query(f"SELECT * FROM {self.source(table, **key)} ORDER BY {order}")
        study = self._study_key(table)
        return [
            TableRow(table, study | {name: row[name] for name in identity}, row) for row in rows
        ]

    def figures(self, source: str, expressions: Expressions) -> dict[str, Cell]:
        """Several figures of one source by one query, each with a SELECT of its own.

        Args:
            source: what stands behind FROM, with its WHERE.
            expressions: the figures, by name.
        """
        columns = ", ".join(f"{sql} AS {name}" for name, (sql, _) in expressions.items())
        (row,) = self.query(f"SELECT {columns} FROM {source}")
        return {
            name: Cell(plain(row[name]), form, ("sql", f"SELECT {sql} FROM {source}"))
            for name, (sql, form) in expressions.items()
        }

    def figure(self, expression: str, source: str, form: str) -> Cell:
        """One figure."""
        return self.figures(source, {"figure": (expression, form)})["figure"]

    def has(self, table: str) -> bool:
        """Whether the study has rows in a table."""
        return bool(self.query(f"SELECT 1 FROM {self.source(table)} LIMIT 1"))

    def _study_key(self, table: str) -> dict[str, object]:
        if "study_id" in TABLES[table].hive:
            return {"study_id": self.study_id}
        return {"manifest_id": self.manifest_id}


def condition(key: Mapping[str, object]) -> str:
    """A WHERE that only rows with these values meet; None stands for null."""
    return " AND ".join(
        f"{column} IS NULL" if value is None else f"{column} = {literal(value)}"
        for column, value in key.items()
    )


def literal(value: object) -> str:
    """A value as SQL spells it: texts quoted, numbers to the last digit."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value!r}::DOUBLE"
    return str(value)


def plain(value: object) -> float | str | None:
    """A cell as a number, a text or None; a time as UTC, a truth as yes or no."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return float(cast("float", value))
