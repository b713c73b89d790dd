"""SQL over the store's tables: the right rows, nothing but reading, and errors for people."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from flows.cli import query as cli_query
from tests.support.places import REPOSITORY
from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import InputError
from thyro_core.store.store import Store, open_store
from thyro_core.tables import duckdb_dataset, schemas
from thyro_core.tables.describe import tables_markdown, tables_text, type_name
from thyro_core.tables.export import render
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.query import open_results, run_query
from thyro_core.tables.views import VIEWS

STUDY = "s0123456789abcdef"


def fill(store: Store, splits: tuple[int, ...] = (0, 2, 10)) -> Store:
    """One epoch in each of the splits x 2 architectures, one run, metrics with NaN and null."""
    for split in splits:
        for architecture in ("resnet18", "vgg16"):
            keys: dict[str, Any] = {
                "study_id": STUDY, "split": split, "architecture": architecture,
            }  # fmt: skip
            row = dict.fromkeys(schemas.TABLES["epochs"].schema.names) | keys | {"loss": split / 4}
            write_table(store, "epochs", schemas.rows_to_table("epochs", [row]), **keys)
    empty = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    rows = [
        empty | {"study_id": STUDY, "architecture": a, "metric": "auc", "split": s, "value": v}
        for a, s, v in [
            ("resnet18", 0, 0.75), ("resnet18", 1, 0.25), ("vgg16", 0, 0.5), ("vgg16", 1, math.nan),
        ]
    ]  # fmt: skip
    write_table(store, "metrics", schemas.rows_to_table("metrics", rows), study_id=STUDY)
    started = datetime(2024, 2, 28, 23, 30, 0, 123456, tzinfo=UTC)
    run = dict.fromkeys(schemas.TABLES["runs"].schema.names) | {
        "study_id": STUDY, "split": 0, "architecture": "vgg16", "started": started,
    }  # fmt: skip
    write_table(store, "runs", schemas.rows_to_table("runs", [run]), study_id=STUDY)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(open_store(str(tmp_path / "store")))


@pytest.fixture
def remote(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield fill(open_store(f"s3://{BUCKET}/{uuid4().hex}"))
    forget_clients()


def answers_as_the_issue_asks(store: Store) -> None:
    found = run_query(
        store.url,
        "SELECT architecture, avg(value) AS mean FROM metrics WHERE metric='auc'"
        " AND NOT isnan(value) GROUP BY 1 ORDER BY 1",
    )
    assert found.to_pylist() == [
        {"architecture": "resnet18", "mean": 0.5}, {"architecture": "vgg16", "mean": 0.5},
    ]  # fmt: skip
    joined = run_query(
        store.url,
        "SELECT e.split, loss, value FROM epochs e JOIN metrics m USING (study_id, split,"
        " architecture) WHERE architecture = 'resnet18'",
    )
    assert joined.to_pylist() == [{"split": 0, "loss": 0.0, "value": 0.75}]


def test_a_question_to_a_local_store(store: Store) -> None:
    answers_as_the_issue_asks(store)


def test_a_question_to_a_store_on_s3(remote: Store) -> None:
    answers_as_the_issue_asks(remote)
    with open_results(remote.url) as connection:
        assert connection.sql("SELECT sum(split) FROM epochs").fetchall() == [(24,)]


def test_every_registered_table_is_a_view_with_its_columns_even_without_a_file(
    tmp_path: Path,
) -> None:
    names = {"float": "FLOAT", "double": "DOUBLE", "string": "VARCHAR", "int8": "TINYINT",
             "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN",
             "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE"}  # fmt: skip
    with open_results(str(tmp_path)) as connection:
        names_shown = {row[0] for row in connection.sql("SHOW TABLES").fetchall()}
        assert names_shown == {*schemas.TABLES, *VIEWS}
        for table in (*schemas.TABLES.values(), *(view.table for view in VIEWS.values())):
            rows = connection.sql(f"DESCRIBE {table.name}").fetchall()
            assert [row[0] for row in rows] == table.schema.names
            for row, field in zip(rows, table.schema, strict=True):
                assert row[1] == names.get(str(field.type), row[1])
            assert connection.sql(f"FROM {table.name}").fetchall() == []
    assert list(tmp_path.iterdir()) == []


def test_rows_come_back_exactly(store: Store) -> None:
    for name in ("epochs", "metrics", "runs"):
        found = run_query(store.url, f"FROM {name}")
        wanted = read_table(store, name)
        assert found.schema.equals(wanted.schema)
        assert str(found.to_pylist()) == str(wanted.to_pylist())  # NaN does not equal itself


def test_a_notebook_gets_frames_of_its_own_library(store: Store) -> None:
    with open_results(store.url) as connection:
        epochs = connection.sql("FROM epochs ORDER BY split, architecture")
        assert epochs.df()["split"].tolist() == [0, 0, 2, 2, 10, 10]
        assert epochs.df()["split"].dtype == "int32"
        assert epochs.pl()["loss"].to_list() == [0.0, 0.0, 0.5, 0.5, 2.5, 2.5]
        assert epochs.to_arrow_table()["architecture"].to_pylist()[0] == "resnet18"
        connection.register("mine", pa.table({"split": pa.array([2], pa.int32())}))
        assert connection.sql("SELECT loss FROM epochs JOIN mine USING (split)").fetchall() == [
            (0.5,), (0.5,),
        ]  # fmt: skip


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the parts that are fetched from now on."""
    keys: list[str] = []
    whole = duckdb_dataset._fetch

    def fetch(store: Store, some: list[str]) -> list[bytes]:
        keys.extend(some)
        return whole(store, some)

    monkeypatch.setattr(duckdb_dataset, "_fetch", fetch)
    return keys


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("split = 10 AND architecture = 'vgg16'", 1),
        ("split IN (0, 2)", 4),
        ("split > 1 AND loss < 1", 4),
        ("study_id = 'another'", 0),
        ("loss >= 0", 6),
    ],
)
def test_only_parts_whose_keys_can_match_are_fetched(
    store: Store, fetched: list[str], condition: str, wanted: int
) -> None:
    run_query(store.url, f"SELECT loss FROM epochs WHERE {condition}")
    assert len(fetched) == wanted
    assert all(key.startswith("tables/epochs/") for key in fetched)


def test_only_the_columns_asked_for_are_decoded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    whole = duckdb_dataset._read

    def read(*arguments: Any) -> list[pa.RecordBatch]:
        asked.append(arguments[3])
        return whole(*arguments)

    monkeypatch.setattr(duckdb_dataset, "_read", read)
    run_query(store.url, "SELECT loss FROM epochs WHERE split = 2 AND seconds IS NULL")
    assert {name for columns in asked for name in columns} <= {"loss", "split", "seconds"}


def test_half_precision_lists_are_readable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = pa.schema([("study_id", pa.string()), ("map", pa.list_(pa.float16()))])
    table = schemas.Table("maps", ("study_id",), "a map", schema)
    monkeypatch.setitem(schemas.TABLES, "maps", table)
    rows = pa.table(
        [["s1"], pa.array([[0.5, math.inf, 65504.0]], pa.list_(pa.float16()))], schema=schema
    )
    write_table(store, "maps", rows, study_id="s1")
    found = run_query(store.url, "SELECT map, list_sum(map[1:1]) AS first FROM maps")
    assert found.schema.field("map").type.value_type == pa.float32()
    assert found.to_pylist() == [{"map": [0.5, math.inf, 65504.0], "first": 0.5}]


def test_a_part_that_lacks_a_column_or_has_a_wider_one_is_read(store: Store) -> None:
    old = pa.table({"study_id": ["s0"], "split": pa.array([7], pa.int64()), "loss": [0.5]})
    folder = Path(store.path("tables/epochs/study_id=s0"))
    folder.mkdir()
    pq.write_table(old, folder / "part-0.parquet")
    sql = "SELECT split, architecture, loss FROM epochs WHERE study_id = 's0'"
    assert run_query(store.url, sql).to_pylist() == [
        {"split": 7, "architecture": None, "loss": 0.5}
    ]


# Nothing but reading.

FORBIDDEN = [
    "COPY metrics TO '{tmp}/out.csv'",
    "ATTACH '{tmp}/new.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA version",
    "CALL pragma_version()",
    "SET threads = 1",
    "RESET threads",
    "CREATE TABLE a AS SELECT 1",
    "DROP VIEW metrics",
    "INSERT INTO metrics SELECT * FROM metrics",
    "DELETE FROM metrics",
    "UPDATE metrics SET value = 1",
    "EXPORT DATABASE '{tmp}/out'",
    "EXPLAIN ANALYZE COPY metrics TO '{tmp}/out.csv'",
    "SELECT * FROM read_csv('{tmp}/secret.csv')",
    "SELECT * FROM read_text('{tmp}/secret.csv')",
    "SELECT * FROM read_blob('{tmp}/secret.csv')",
    "SELECT * FROM read_json('{tmp}/secret.csv')",
    "SELECT * FROM read_parquet('{tmp}/store/tables/metrics/*/*.parquet')",
    "SELECT * FROM parquet_metadata('{tmp}/store/tables/metrics/*/*.parquet')",
    "SELECT * FROM sniff_csv('{tmp}/secret.csv')",
    "SELECT * FROM glob('{tmp}/*')",
    "SELECT * FROM '{tmp}/secret.csv'",
    "SELECT * FROM query('SELECT * FROM ''{tmp}/secret.csv''')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM VISIBLE_FRAME",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY metrics TO '{tmp}/out.csv'",
    "",
    "-- nothing",
]
VISIBLE_FRAME = pa.table({"a": [1]})


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_nothing_but_reading_of_the_tables(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("a,b\n1,hunter2\n")
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        run_query(store.url, sql.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_a_notebooks_connection_reaches_no_file_and_keeps_its_settings(
    store: Store, tmp_path: Path
) -> None:
    with open_results(store.url) as connection:
        for sql in (
            f"COPY metrics TO '{tmp_path}/out.csv'",
            f"SELECT * FROM read_text('{tmp_path}/store')",
            f"ATTACH '{tmp_path}/new.db'",
            "SET enable_external_access = true",
            "SET lock_configuration = false",
            "DELETE FROM metrics",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH a AS (SELECT 1 AS x) SELECT * FROM a", 1),
        ("FROM epochs LIMIT 2", 2),
        ("VALUES (1), (2)", 2),
        ("DESCRIBE epochs", len(schemas.TABLES["epochs"].schema)),
        ("SHOW TABLES", len(schemas.TABLES) + len(VIEWS)),
        ("SUMMARIZE epochs", len(schemas.TABLES["epochs"].schema)),
        ("EXPLAIN SELECT * FROM epochs", 1),
        ("PIVOT epochs ON architecture USING avg(loss) GROUP BY split", 3),
        ("SELECT * FROM epochs WHERE false", 0),
        ("SELECT 1;", 1),
    ],
)
def test_what_reads_is_let_through(store: Store, sql: str, rows: int) -> None:
    assert run_query(store.url, sql).num_rows == rows


def test_a_name_that_stands_twice_is_numbered(store: Store) -> None:
    found = run_query(store.url, "SELECT 1 AS a, 2 AS a_1, 3 AS a, 4 AS a, 5 AS b")
    assert found.to_pylist() == [{"a": 1, "a_1": 2, "a_2": 3, "a_3": 4, "b": 5}]


# Errors.


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT archtecture FROM metrics", r"archtecture\" not found.*\"architecture\".*`thyro t"),
        ("SELECT * FROM metrcs", r"metrcs does not exist! .*\"metrics\"\?.*`thyro tables`"),
        ("SELEC 1", "Parser Error: syntax error at or near \"SELEC\"$"),
        ("SELECT CAST('abc' AS INT)", "Conversion Error: .*abc"),
        ("SELECT 1; SELECT 2", "expected one statement, found 2"),
        ("COPY metrics TO 'x'", "expected a statement that only reads, found COPY"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_with_what_duckdb_says(store: Store, sql: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^query: .*{said}") as caught:
        run_query(store.url, sql)
    assert "\n" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)


def test_a_store_without_tables_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a store with tables, found none; check"):
        run_query(str(tmp_path / "wrong"), "SELECT 1")


def test_a_damaged_part_is_named_without_a_traceback(store: Store) -> None:
    key = store.keys("tables/epochs")[0]
    store.write(key, b"junk")
    with pytest.raises(InputError) as caught:
        run_query(store.url, "FROM epochs")
    assert key in str(caught.value)
    assert "`thyro verify`" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run_query(store.url, "FROM epochs WHERE split = 10").num_rows == 2


def test_a_folder_that_is_no_key_is_named(store: Store) -> None:
    store.write(f"tables/epochs/study_id={STUDY}/split=x/part-0.parquet", b"")
    with pytest.raises(InputError, match=r"split=x/.*expected int32 after `split=`, found 'x'"):
        open_results(store.url)


# A process that ends.

ENDINGS = {
    "done": "run_query(url, 'FROM epochs')",
    "limit": "open_results(url).sql('FROM epochs LIMIT 1').fetchall()",
    "open": "c = open_results(url); r = c.execute('FROM epochs'); r.fetchone()",
    "relation": "c = open_results(url); r = c.sql('FROM epochs'); r.limit(1).fetchall()",
    "kept": """
duckdb_dataset._fetch, duckdb_dataset._TOGETHER = whole, 32
connection = open_results(url)
result = connection.execute('FROM epochs')
result.fetchone()
sys.kept = [connection, result]
sys.kept.append(sys.kept)
""",
    "reader": "c = open_results(url); r = c.sql('FROM epochs').to_arrow_reader(1); next(r)",
}


# One part at a time and slowly: the process ends while there is more to read.
SLOWLY = """
import sys, time
from thyro_core.tables import duckdb_dataset
from thyro_core.tables.query import open_results, run_query
from thyro_core.tables.views import VIEWS
whole = duckdb_dataset._fetch
duckdb_dataset._fetch = lambda *arguments: (time.sleep(0.02), whole(*arguments))[1]
duckdb_dataset._TOGETHER = 1
url = sys.argv[1]
"""


def fatten(store: Store) -> Store:
    """Rows enough that a result read row by row is not yet whole when the process ends."""
    values = np.random.default_rng(0).random(60_000)
    schema = schemas.TABLES["epochs"].schema
    columns = {field.name: pa.nulls(len(values), field.type) for field in schema}
    for split in range(4):
        fat = columns | {"loss": pa.array(values), "seconds": pa.array(values + split)}
        write_table(store, "epochs", pa.table(fat), study_id=STUDY, split=split)
    return store


def ends_cleanly(url: str, ending: str, times: int) -> None:
    script = SLOWLY + ENDINGS[ending]
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", script, url],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_cleanly_whatever_is_still_open(store: Store, ending: str) -> None:
    ends_cleanly(fatten(store).url, ending, 1)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_cleanly_ten_times(store: Store, ending: str) -> None:
    ends_cleanly(fatten(store).url, ending, 10)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_reads_s3_ends_cleanly_ten_times(remote: Store, ending: str) -> None:
    ends_cleanly(remote.url, ending, 10)


# Output.

VALUES = """
    SELECT 1 AS i, sum(2) AS big, 1.5 AS d, 'NaN'::DOUBLE AS nan, '-inf'::DOUBLE AS inf,
    NULL AS nothing, true AS yes, 'a,"b"\né' AS text, [1, NULL] AS list, ['NaN'::DOUBLE] AS nans,
    {'x': [DATE '2024-02-29']} AS struct, 'ab'::BLOB AS bytes,
    TIMESTAMPTZ '2024-02-29 01:30:00.5+02' AS at, INTERVAL 1 DAY AS long
"""


def rendered(table: pa.Table, fmt: Any) -> bytes:
    out = io.BytesIO()
    render(table, fmt, out)
    return out.getvalue()


def test_json_is_an_array_of_objects_without_nan(store: Store) -> None:
    (row,) = json.loads(rendered(run_query(store.url, VALUES), "json"))
    long = row.pop("long")
    assert "days=1" in long
    assert row == {
        "i": 1, "big": 2, "d": 1.5, "nan": None, "inf": None, "nothing": None, "yes": True,
        "text": 'a,"b"\né', "list": [1, None], "nans": [None], "struct": {"x": ["2024-02-29"]},
        "bytes": "6162", "at": "2024-02-28T23:30:00.500000+00:00",
    }  # fmt: skip
    assert isinstance(row["big"], int)


def test_csv_keeps_nan_apart_from_null(store: Store) -> None:
    text = rendered(run_query(store.url, VALUES), "csv").decode()
    header, row = csv.reader(io.StringIO(text, newline=""))
    found = dict(zip(header, row, strict=True))
    assert (found["nan"], found["inf"], found["nothing"]) == ("NaN", "-inf", "")
    assert (found["yes"], found["text"], found["big"]) == ("true", 'a,"b"\né', "2")
    assert json.loads(found["list"]) == [1, None]
    assert found["at"] == "2024-02-28T23:30:00.500000+00:00"


def test_parquet_comes_back_as_it_was(store: Store) -> None:
    table = run_query(store.url, "FROM epochs")
    found = pq.ParquetFile(io.BytesIO(rendered(table, "parquet"))).read()
    assert found.equals(table)
    with pytest.raises(InputError, match="expected types that Parquet has"):
        rendered(run_query(store.url, "SELECT INTERVAL 1 DAY AS i"), "parquet")


@pytest.mark.parametrize(("rows", "wanted"), [(0, []), (2, [0, 1]), (3000, list(range(3000)))])
def test_any_number_of_rows(rows: int, wanted: list[int]) -> None:
    table = pa.table({"n": pa.array(range(rows), pa.int64())})
    assert [row["n"] for row in json.loads(rendered(table, "json"))] == wanted
    assert rendered(table, "csv").decode().split() == ["n", *map(str, wanted)]


# The commands.

app = typer.Typer()
app.command()(cli_query.query)
app.command()(cli_query.tables)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_shows_a_table_and_writes_files(store: Store) -> None:
    sql = "SELECT architecture, split, value, sd FROM metrics ORDER BY ALL"
    lines = said("query", sql, "--store", store.url).splitlines()
    cells = [line.split() for line in lines if line.strip() and "─" not in line]
    assert cells[:2] == [
        ["architecture", "split", "value", "sd"],
        ["resnet18", "0", "0.75", "null"],
    ]
    assert cells[-1] == ["vgg16", "1", "NaN", "null"]
    found = json.loads(said("query", sql, "--store", store.url, "--format", "json"))
    assert found[-1] == {"architecture": "vgg16", "split": 1, "value": None, "sd": None}
    assert said("query", sql, "--store", store.url, "--format", "csv").startswith(
        "architecture,split,value,sd\nresnet18,0,0.75,\n"
    )


def test_a_piped_table_breaks_no_row_and_a_long_one_says_so(store: Store) -> None:
    sql = "SELECT repeat('x', 300) AS [bold], range FROM range(1000)".replace("[bold]", '"[bold]"')
    lines = said("query", sql, "--store", store.url).splitlines()
    assert "[bold]" in lines[1] or "[bold]" in lines[0]
    assert sum("x" * 300 in line for line in lines) == 200
    assert lines[-1] == "first 200 of 1000 rows; --format csv gives all"


def test_parquet_goes_to_a_pipe_but_not_to_a_terminal(store: Store, tmp_path: Path) -> None:
    script = "import typer; from flows.cli.query import query; typer.run(query)"
    command = [sys.executable, "-c", script, "FROM epochs", "--store", store.url]
    file = tmp_path / "out.parquet"
    with file.open("wb") as out:
        subprocess.run([*command, "--format", "parquet"], cwd=REPOSITORY, stdout=out, check=True)
    assert pq.ParquetFile(file).read().num_rows == 6
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [*command, "--format", "parquet"], cwd=REPOSITORY, stdout=slave,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode != 0
    assert "expected a file for Parquet" in done.stderr


# The catalogue.


def test_every_table_and_column_is_explained() -> None:
    text = " ".join(tables_text().split())
    markdown = tables_markdown()
    for table in schemas.TABLES.values():
        assert re.search(
            rf"{table.name}: a row is (an? )?{table.row}; keys: {', '.join(table.hive)}", text
        )
    for table in (*schemas.TABLES.values(), *(view.table for view in VIEWS.values())):
        assert f"## `{table.name}`" in markdown
        for field in table.schema:
            doc = field.metadata[b"doc"].decode()
            assert f"{field.name} {type_name(field.type)} {doc}" in text
            assert f"| `{field.name}` | {type_name(field.type)} | {doc} |" in markdown
    assert max(map(len, tables_text().splitlines())) <= 80


def test_one_table_and_none_of_that_name() -> None:
    assert said("tables", "runs").startswith("runs: a row is a split x architecture")
    assert said("tables", "epochs").startswith("epochs: a row is an epoch; keys: study_id, ")
    assert said("tables", "predictions_by_image").startswith(
        "predictions_by_image: a row is a prediction, with its image; a view"
    )
    assert "epochs:" not in said("tables", "runs")
    assert said("tables", "--markdown").startswith("## `images`\n")
    with pytest.raises(InputError, match="rnus: expected the name of a table, one of images, "):
        tables_text("rnus")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.float64(), "float64"), (pa.float32(), "float32"),
        (pa.list_(pa.float16()), "list<float16>"),
        (pa.timestamp("us", tz="UTC"), "timestamp[us, tz=UTC]"), (pa.string(), "string"),
    ],
)  # fmt: skip
def test_types_are_spelled_as_people_know_them(kind: pa.DataType, name: str) -> None:
    assert type_name(kind) == name


# What fits a terminal.


def printed(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, object]]) -> list[str]:
    """What a terminal of 80 columns shows of rows."""
    lines: list[str] = []
    monkeypatch.setattr(cli_query, "open_console", lambda: Console(width=80, force_terminal=True))

    def keep(table: Table) -> None:
        console = Console(width=80, file=io.StringIO())
        with console.capture() as capture:
            console.print(table)
        lines.extend(line.rstrip() for line in capture.get().splitlines())

    monkeypatch.setattr(cli_query, "print_unbroken", keep)
    cli_query._print_rows(pa.Table.from_pylist(rows))
    return lines


def test_a_terminal_shows_narrow_rows_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(line.split() == ["1", "x"] for line in printed(monkeypatch, [{"a": 1, "b": "x"}]))


def test_addresses_are_shortened_from_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"uri": f"file:///{'far/' * 20}p1.png", "value": 0.5}
    lines = printed(monkeypatch, [row])
    assert any(re.search(r"\.\.\..*/p1\.png +0\.5$", line) for line in lines)
    assert max(map(len, lines)) <= 80


def test_rows_too_wide_are_shown_as_records(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, [{f"column_{n}": "x" * 20 for n in range(6)}] * 2)
    assert [line for line in lines if line.startswith("- row")] == ["- row 1", "- row 2"]
    assert lines[1].split() == ["column_0", "x" * 20]


def test_another_version_of_duckdb_or_arrow_needs_another_look_at_their_scanner() -> None:
    versions = (duckdb.__version__.rpartition(".")[0], pa.__version__.partition(".")[0])
    assert versions == ("2.0", "26"), "read thyro_core/tables/duckdb_dataset.py again"
