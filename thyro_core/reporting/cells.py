"""Numbers with their origin, from which a reader, or a test, can derive them again."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from markupsafe import Markup

from thyro_core.evaluation.threshold import threshold_text
from thyro_core.reporting.simulated import (
    SIMULATED_SPLITS,
    SIMULATION_FIGURES,
    nearest_simulated,
)

UNDEFINED_TEXT = "undefined"
"""How a page spells NaN: a figure whose definition divides by zero here."""

ABSENT = "\N{EN DASH}"
"""How a page spells null: there is no such figure."""

_MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"


def _decimal(value: float, digits: int) -> str:
    # Adding zero turns what is rounded to -0 into 0.
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", _MINUS)


def _p_value(value: float) -> str:
    return f"<{_SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def _short(value: float) -> str:
    return f"{value + 0.0:.4g}".replace("-", _MINUS)


FORMATS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {
        "count": lambda value: _decimal(value, 0),
        "whole": lambda value: _decimal(value, 0).replace(",", ""),
        "one": lambda value: _decimal(value, 1),
        "two": lambda value: _decimal(value, 2),
        "three": lambda value: _decimal(value, 3),
        # Intervals over splits are not cut at the metric's bounds; a page does it.
        "bounded": lambda value: _decimal(min(max(value, 0.0), 1.0), 3),
        "percent": lambda value: f"{_decimal(100 * value, 1)}{_SPACE}%",
        "p": _p_value,
        "short": _short,
        "threshold": lambda value: threshold_text(value + 0.0, 4).replace("-", _MINUS),
        "permille": lambda value: f"{_decimal(1000 * value, 3)}{_SPACE}\N{PER MILLE SIGN}",
        "mebibytes": lambda value: _decimal(value / 2**20, 0),
    }
)
"""How a number is shown, by name; what is neither finite nor a number is shown alike in all."""


@dataclass(frozen=True)
class Cell:
    """A number, or a word, of a page, with its origin; templates render it as `<data>`."""

    value: float | str | None
    """NaN: undefined; None: there is none."""
    form: str
    """A name of `FORMATS`, or `text`."""
    origin: tuple[str, str]
    """The attribute that says where from, and what it says: ("sql", a SELECT of one cell),
    ("config", a field of the study's config), ("source", paper, literature, definition or
    simulation)."""

    @property
    def text(self) -> str:
        """What is shown: the exact value, so that no last bit decides how it is rounded."""
        if isinstance(self.value, float):
            return display(float(exact(self.value)), self.form)
        return display(self.value, self.form)

    def __html__(self) -> Markup:
        """The element, escaped; Jinja and other markup take it as it is."""
        where, what = self.origin
        return Markup('<data class="n" value="{}" data-form="{}" data-{}="{}">{}</data>').format(
            exact(self.value), self.form, where, what, self.text
        )


def display(value: float | str | None, form: str) -> str:
    """A value as a page shows it.

    Raises:
        KeyError: the form is unknown.
    """
    if value is None:
        return ABSENT
    if isinstance(value, str) or form == "text":
        return str(value)
    if math.isnan(value):
        return UNDEFINED_TEXT
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{_MINUS}\N{INFINITY}"
    return FORMATS[form](value)


def exact(value: float | str | None) -> str:
    """A value for a program: ten significant digits, so that the order of a sum does not show."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.10g}"


def definition(value: float | str, form: str = "short") -> Cell:
    """A number that holds by definition: a level, a bound, a scale."""
    return Cell(value, form, ("source", "definition"))


def simulation(name: str, form: str = "short", *, splits: int | None = None) -> Cell:
    """A number that this program's benchmarks measured on simulated studies.

    Args:
        name: of `SIMULATION_FIGURES`, or of those of a number of splits.
        form: how it is shown.
        splits: of the study that is spoken of: the nearest number that was simulated counts. None:
            it has none.
    """
    own = {} if splits is None else SIMULATED_SPLITS[nearest_simulated(splits)]
    value = own[name] if name in own else SIMULATION_FIGURES[name]
    return Cell(value, form, ("source", "simulation"))


def literature(value: float | str, form: str = "short") -> Cell:
    """A number that others published."""
    return Cell(value, form, ("source", "literature"))


def paper(value: float, form: str = "three") -> Cell:
    """A number of the paper that this study repeats."""
    return Cell(value, form, ("source", "paper"))
