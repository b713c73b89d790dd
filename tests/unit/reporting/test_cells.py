"""Numbers that say where they come from, and how they are shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from thyro_core.reporting.cells import FORMATS, Cell, definition, display, exact, literature, paper


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1234567.0, "count", "1,234,567"),
        (0.9385, "three", "0.939"),
        (-0.0004, "three", "0.000"),
        (-0.0006, "three", "\N{MINUS SIGN}0.001"),
        (1.27, "bounded", "1.000"),
        (-0.2, "bounded", "0.000"),
        (0.18, "percent", "18.0\N{NO-BREAK SPACE}%"),
        (0.00099, "p", "<\N{NO-BREAK SPACE}0.001"),
        (0.001, "p", "0.001"),
        (0.049999, "p", "0.050"),
        (0.0001, "short", "0.0001"),
        (-12345.6, "short", "\N{MINUS SIGN}1.235e+04"),
        (2.5 * 2**20, "mebibytes", "2"),
        (1336065969.0, "whole", "1336065969"),
        (math.nan, "three", "undefined"),
        (math.inf, "two", "\N{INFINITY}"),
        (-math.inf, "two", "\N{MINUS SIGN}\N{INFINITY}"),
        (None, "three", "\N{EN DASH}"),
        ("bf16", "text", "bf16"),
    ],
)
def test_a_value_is_shown_as_declared(value, form, text) -> None:
    assert display(value, form) == text


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(KeyError):
        display(1.0, "fancy")


@given(st.sampled_from(sorted(FORMATS)), st.floats(-1e6, 1e6))
def test_no_form_shows_a_negative_zero_or_an_ascii_minus(form, value) -> None:
    text = display(value, form)
    assert text.strip()
    assert not text.startswith("-")
    assert text.strip("\N{MINUS SIGN}0.") or not text.startswith("\N{MINUS SIGN}0")


@given(st.floats(-1e300, 1e300))
def test_the_exact_value_survives_to_nine_digits(value) -> None:
    assert math.isclose(float(exact(value)), value, rel_tol=1e-9)


def test_an_undefined_value_stays_so_for_programs() -> None:
    assert exact(math.nan) == "nan"
    assert exact(None) == ""
    assert exact("cpu") == "cpu"


def test_it_is_one_element_with_its_origin() -> None:
    sql = "SELECT value FROM metrics WHERE metric = 'auc'"
    assert Cell(0.5, "three", ("sql", sql)).__html__() == (
        '<data class="n" value="0.5" data-form="three" '
        'data-sql="SELECT value FROM metrics WHERE metric = &#39;auc&#39;">0.500</data>'
    )


def test_nothing_in_it_can_become_markup() -> None:
    nasty = '"><script>alert(1)</script>'
    page = Environment(autoescape=True).from_string("{{ it }}")
    text = page.render(it=Cell(nasty, "text", ("sql", f"SELECT '{nasty}' < 1")))
    assert "<script" not in text
    assert text.count("<") == 2
    assert text.count('"') == 8


def test_numbers_that_no_table_holds_say_so() -> None:
    assert definition(95).origin == ("source", "definition")
    assert literature(0.931).origin == ("source", "literature")
    assert paper(0.997).origin == ("source", "paper")
    assert paper(0.997).text == "0.997"
