"""Questions to a study's tables: each answer with the one SELECT that gives it."""

import datetime as dt
import math
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import images_table
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.queries import Tables, condition, literal, plain
from thyro_core.tables import schemas

AUC = "study_id = 's1' AND architecture = 'resnet18' AND metric = 'auc' AND split IS NULL"


def metric(split: int | None, value: float, study_id: str = "s1") -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    row |= {"study_id": study_id, "architecture": "resnet18", "metric": "auc", "n": 9}
    return row | {"split": split, "value": value}


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Two splits and their mean of a study, another study, and four images of one manifest."""
    connection = duckdb.connect()
    rows = [metric(1, 0.75), metric(0, 0.5), metric(None, 0.625), metric(0, 0.1, "s2")]
    connection.register("metrics", schemas.rows_to_table("metrics", rows))
    connection.register("images", images_table([0, 0, 1, None]))
    yield Tables(connection, "s1", "m0")
    connection.close()


def test_rows_are_the_studys_own_in_the_order_of_their_identity(tables) -> None:
    rows = tables.rows("metrics", ("architecture", "metric", "split"))
    assert [row["split"] for row in rows] == [0, 1, None]
    assert [row["value"] for row in rows] == [0.5, 0.75, 0.625]


def test_a_cell_leads_back_to_itself_and_null_to_null(tables) -> None:
    rows = tables.rows("metrics", ("architecture", "metric", "split"), split=None)
    cell = rows[0].cell("value", "three")
    assert cell == Cell(
        0.625,
        "three",
        ("sql", f"SELECT value FROM metrics WHERE {AUC}"),
    )
    assert tables.query(cell.origin[1]) == [{"value": 0.625}]
    assert rows[0].cell("sd", "three").value is None


def test_figures_are_asked_at_once_and_traced_one_by_one(tables) -> None:
    source = tables.source("images", label=1)
    assert source == "images WHERE manifest_id = 'm0' AND label = 1"
    found = tables.figures(source, {"n": ("count(*)", "count"), "mean": ("avg(label)", "two")})
    assert {name: each.value for name, each in found.items()} == {"n": 1.0, "mean": 1.0}
    assert found["n"].origin == ("sql", f"SELECT count(*) FROM {source}")
    assert tables.figure("sum(label)", tables.source("images"), "count").value == 1.0


def test_a_table_without_rows_of_the_study_is_none(tables) -> None:
    assert tables.has("metrics")
    assert not Tables(tables.connection, "s3", "m0").has("metrics")


@given(st.text() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.booleans())
def test_a_literal_is_its_value(value) -> None:
    """Whatever it holds, a text stays a text: nothing gets out of its quotes."""
    if isinstance(value, str) and "\0" in value:
        return
    if isinstance(value, float) and math.isinf(value):
        return
    ((found,),) = duckdb.sql(f"SELECT {literal(value)}").fetchall()
    assert found == value
    assert type(found) is type(value)


def test_a_condition_tells_null_from_a_value() -> None:
    assert condition({"a": None, "b": "it's", "c": 0.3}) == (
        "a IS NULL AND b = 'it''s' AND c = 0.3::DOUBLE"
    )


def test_cells_become_numbers_texts_or_nothing() -> None:
    utc = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)
    assert [plain(x) for x in (3, True, False, None, "cpu", utc)] == [
        3.0, "yes", "no", None, "cpu", "2026-01-02 03:04 UTC",
    ]  # fmt: skip
