"""Questions to the results: every registered table as a view in DuckDB, read-only, on any store."""

import atexit
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import duckdb
import pyarrow as pa
import pyarrow.fs

from thyro_core.errors import InputError, StoreError
from thyro_core.store.keys import table_prefix
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.duckdb_dataset import PartsOfTable
from thyro_core.tables.older_studies import older_studies
from thyro_core.tables.views import VIEWS

_READING = frozenset(
    {
        duckdb.StatementType.SELECT,  # also WITH, FROM, VALUES, DESCRIBE, SHOW and SUMMARIZE
        duckdb.StatementType.EXPLAIN,
        duckdb.StatementType.MULTI,  # a PIVOT that has to look for its columns first
    }
)
_CONFINEMENT: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}


@dataclass(frozen=True)
class Results:
    """A store's tables in DuckDB, and the store's failures meanwhile."""

    connection: duckdb.DuckDBPyConnection
    failures: list[StoreError]
    """Why parts could not be fetched, the first first; DuckDB keeps only its own message."""

    @contextmanager
    def store_errors(self) -> Iterator[None]:
        """Raise a failure of the store within the block as StoreError, not as DuckDB's error."""
        try:
            yield
        except duckdb.Error as error:
            if self.failures:
                raise self.failures[0] from error
            raise


def open_results(store_url: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view for each registered table of a store, and `VIEWS`.

    For notebooks: `open_results(url).sql("SELECT * FROM metrics").df()` (or `.pl()`,
    `.to_arrow_table()`). The views show the parts that stand in the store now; a table without any
    is an empty view. Only the columns that a query needs are decoded, and only the parts whose keys
    (`study_id`, `split`, ...) can match are fetched. float16 columns appear as FLOAT, and times
    in UTC. Nothing of the connection reaches a file, a Python variable or the store's own files,
    and its settings are locked; a DataFrame of your own joins in after `register("mine", frame)`.

    Args:
        store_url: folder or fsspec URL of the store.

    Raises:
        InputError: the store's protocol is unknown, or a remote store does not let us in.
    """
    store = open_store(store_url)
    return connect(store).connection


def run_query(store_url: str, sql: str) -> pa.Table:
    """The rows that one reading statement gives.

    Args:
        store_url: folder or fsspec URL of the store.
        sql: one SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.

    Returns:
        The rows as Arrow; a name that stands twice is numbered (`a`, `a_1`).

    Raises:
        InputError: the store does not let us in or holds no table, the statement does not only
            read, or DuckDB refuses it: then with DuckDB's message, which names the nearest names.
        StoreError: a store on S3 failed meanwhile.
    """
    store = open_store(store_url)
    parts = _parts(store)
    if not any(parts.values()):
        msg = f"{store.url}: expected a store with tables, found none; check the store's address"
        raise InputError(msg)
    results = _connect(store, parts)
    connection = results.connection
    try:
        with results.store_errors():
            _check_reading(connection, sql)
            return _with_own_names(connection.sql(sql).to_arrow_table())
    except duckdb.Error as error:
        raise InputError(_refusal(error)) from error
    finally:
        connection.close()


def _parts(store: Store) -> dict[str, list[str]]:
    """Keys of the parts of every registered table."""
    parts_by_table: dict[str, list[str]] = {name: [] for name in schemas.TABLES}
    for key in store.keys(table_prefix("").rstrip("/")):
        name = key.split("/")[1]
        if name in parts_by_table and key.endswith(".parquet"):
            parts_by_table[name].append(key)
    return parts_by_table


def connect(store: Store) -> Results:
    """As `open_results`, for a store that is open; the caller closes the connection."""
    return _connect(store, _parts(store))


def _connect(store: Store, parts: dict[str, list[str]]) -> Results:
    failures: list[StoreError] = []
    connection = duckdb.connect(config=_CONFINEMENT)
    connection.execute("SET TimeZone = 'UTC'")
    # After two seconds DuckDB draws a bar on standard output, into the rows that are printed there.
    connection.execute("SET enable_progress_bar = false")
    for name, keys in parts.items():
        dataset = PartsOfTable(store, schemas.TABLES[name], keys, failures)
        if name == "studies":
            dataset.more_rows = older_studies(store, parts)
        connection.register(name, dataset)
    for view in VIEWS.values():
        connection.execute(f"CREATE TEMP VIEW {view.table.name} AS {view.sql}")
    connection.execute("SET lock_configuration = true")
    # One that something still holds when the interpreter ends would be torn down without Python:
    # a screenful of leak reports on stderr.
    atexit.register(_close, weakref.ref(connection))
    return Results(connection, failures)


def _close(reference: "weakref.ref[duckdb.DuckDBPyConnection]") -> None:
    connection = reference()
    if connection is not None:
        connection.close()


def _check_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        msg = f"query: expected one statement, found {len(statements)}; give one SELECT at a time"
        raise InputError(msg)
    kind = statements[0].type
    if kind not in _READING:
        msg = (
            f"query: expected a statement that only reads, found {kind.name}; "
            "use SELECT, WITH, PIVOT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN"
        )
        raise InputError(msg)


def _with_own_names(table: pa.Table) -> pa.Table:
    names: list[str] = []
    for name in table.column_names:
        spare = (f"{name}_{number}" for number in count(1))
        names.append(name if name not in names else next(x for x in spare if x not in names))
    return table.rename_columns(names)


def _refusal(error: duckdb.Error) -> str:
    """DuckDB's message in one line, without its drawing of where and without a traceback."""
    text = str(error).split("\n\nLINE ")[0].split(". Detail: Python exception")[0]
    msg = f"query: expected SQL that DuckDB can answer, found: {' '.join(text.split())}"
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        return f"{msg}; `thyro tables` lists every table and column"
    return msg
