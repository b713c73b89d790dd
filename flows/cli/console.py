"""What the commands print: results on stdout, progress and errors on stderr."""

import json
from math import isnan

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from thyro_core import NOTICE

out = Console()
err = Console(stderr=True)


def say(markup: str, console: Console = out) -> None:
    """Print one line of rich markup, never broken by the width of a terminal."""
    console.print(markup, highlight=False, soft_wrap=True)


def note(text: str, console: Console = out) -> None:
    """Print plain text as a note."""
    say(f"[yellow]Note:[/] {escape(text)}", console)


def result_table(*headers: str, title: str) -> Table:
    """A table of results, with the notice below it."""
    return Table(*headers, title=title, caption=NOTICE, box=SIMPLE_HEAD, pad_edge=False)


def shorten(address: str, width: int) -> str:
    """An address in so many letters: its end, which tells it from others.

    Args:
        address: a path or URL; of a local one the path alone is shown.
        width: in letters; at least 8 are shown.
    """
    width, text = max(8, width), address.removeprefix("file://")
    return text if len(text) <= width else f"...{text[3 - width :]}"


def full_width(table: Table, console: Console) -> int:
    """What a table takes with no cell broken [letters]."""
    wide_options = console.options.update(width=1 << 20)
    return Measurement.get(console, wide_options, table).maximum


def print_unbroken(table: Table) -> None:
    """Print a table of any width: a pipe has none, and a wrapped row is no row."""
    console = Console()
    if not console.is_terminal:
        console.width = full_width(table, console)
    console.print(table)


def print_json(value: dict[str, object]) -> None:
    """Print one JSON object on one line; JSON knows no NaN: an undefined figure is null."""
    typer.echo(json.dumps(_without_nan(value), allow_nan=False))


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and isnan(value) else value
