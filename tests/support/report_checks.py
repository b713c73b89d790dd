"""The numbers of a report against the tables they come from."""

import json
import math
import re
from collections.abc import Iterator, Sequence

import duckdb

from tests.support.html_page import Element
from thyro_core.config import StudyConfig
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table

UNREAD = {"data", "svg", "style", "title", "head"}
ACCOUNTED = {"data-id", "data-note", "data-finding"}
SPELLINGS = {
    "count": ",.0f", "whole": ".0f", "one": ",.1f", "two": ",.2f", "three": ",.3f", "p": ".3f",
    "bounded": ",.3f", "percent": ",.1f", "permille": ",.3f", "mebibytes": ",.0f", "short": ".4g",
    "threshold": ".4g",
}  # fmt: skip


def numbers(page: Element) -> list[Element]:
    return page.find("data")


def spelled(value: float, form: str) -> str:
    """The forms of `traced`, spelled independently."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else f"{value:+}".replace("+inf", "\N{INFINITY}")
    if form == "p" and value < 0.001:
        return "<\N{NO-BREAK SPACE}0.001"
    if form == "bounded":
        value = 0.0 if value < 0 else 1.0 if value > 1 else value
    if form == "threshold":
        value = math.floor(value * 1e4 + 1e-6) / 1e4
    scale = {"percent": 100, "permille": 1000, "mebibytes": 1 / 1048576}.get(form, 1)
    text = format(value * scale, SPELLINGS[form])
    if not text.strip("-0."):
        text = text.lstrip("-")
    unit = {"percent": "\N{NO-BREAK SPACE}%", "permille": "\N{NO-BREAK SPACE}\N{PER MILLE SIGN}"}
    return text.replace("-", "\N{MINUS SIGN}") + unit.get(form, "")


def check_shown(element: Element, value: object) -> None:
    """The element's exact value and its text are those of `value`."""
    written, form = element.attributes["value"], element.attributes["data-form"]
    where = f"{element.text} {element.attributes}"
    if value is None:
        assert (written, element.text) == ("", "\N{EN DASH}"), where
    elif form == "text" or isinstance(value, str):
        assert written == element.text == value, where
    else:
        number = float(value)
        assert (
            written == "nan"
            if math.isnan(number)
            else math.isclose(float(written), number, rel_tol=1e-9, abs_tol=1e-12)
        ), f"{number} {where}"
        # Of the written value: a last bit more or less must not decide a tie.
        assert element.text == spelled(float(written), form), where


def check_traces(page: Element, store: Store, plan: StudyPlan) -> dict[str, int]:
    """Every number of the page against its origin; how many there are of each kind."""
    found = {"sql": 0, "config": 0, "source": 0}
    # Keys that a study leaves as they were before there were such keys do not stand in its plan.
    written = json.loads(store.read(study_key(plan.study_id)))["config"]
    fields = StudyConfig.model_fields
    config = {name: written.get(name, field.default) for name, field in fields.items()}
    origins = [element.attributes.get("data-sql") for element in numbers(page)]
    values = answers(store, [sql for sql in origins if sql])
    for element in numbers(page):
        (kind,) = [name for name in found if f"data-{name}" in element.attributes]
        origin = element.attributes[f"data-{kind}"]
        found[kind] += 1
        if kind == "sql":
            check_shown(element, values[origin])
        elif kind == "config":
            expected = as_shown(config[origin])
            if origin == "weights":  # no folder of the machine
                expected = str(expected).rpartition("/")[2]
            check_shown(element, expected)
        else:
            assert origin in {"paper", "literature", "definition", "simulation"}
            check_shown(element, float(element.attributes["value"]))
    return found


def answers(store: Store, queries: Sequence[str]) -> dict[str, object]:
    """The one value that each query gives."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # Not through `query`: the tables as they are read elsewhere.
    for name, table in schemas.TABLES.items():
        if not any("halffloat" in str(kind) for kind in table.schema.types):
            connection.register("rows", read_table(store, name))
            connection.execute(f"CREATE TABLE {name} AS FROM rows")
            connection.unregister("rows")
    values: dict[str, object] = {}
    # One statement for many: each has to be planned, and a page has over a thousand.
    different = list(dict.fromkeys(queries))
    for some in (different[i : i + 50] for i in range(0, len(different), 50)):
        columns = ", ".join(f"(SELECT list(value) FROM ({sql}) AS rows(value))" for sql in some)
        (rows,) = connection.execute(f"SELECT {columns}").fetchall()
        for sql, (value,) in zip(some, rows, strict=True):
            is_time = hasattr(value, "strftime")
            values[sql] = value.strftime("%Y-%m-%d %H:%M UTC") if is_time else value
    connection.close()
    return values


def as_shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return "auto" if value is None else value


def untraced(element: Element) -> Iterator[str]:
    """Every visible text with a digit that no origin stands behind."""
    for child in element.children:
        if isinstance(child, str):
            if re.search(r"\d", child):
                yield f"<{element.tag}> {child.strip()}"
        elif child.tag in {"svg", "style", "title", "head"} or (
            child.tag == "data"
            or {"data-id", "data-note", "data-finding"} & child.attributes.keys()
        ):
            continue
        else:
            yield from untraced(child)
