"""What the commands print: results on stdout, progress and errors on stderr."""

import json
import re
from collections.abc import Iterable
from math import isnan

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.markup import escape
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from thyro_core import NOTICE

# What a terminal obeys, or cannot show: control characters, marks that turn the direction of text,
# bytes of names that are no UTF-8.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""A text with its control characters as escapes, such as `\x1b`; lines and tabs stay.

    Names of files and of folders may hold any: printed as they are, they command a terminal.
    """
    return _COMMANDS.sub(_escape_of, text)


def _escape_of(match: re.Match[str]) -> str:
    code = ord(match.group())
    # A byte that is no UTF-8 stands in a name as a code of its own (PEP 383).
    is_byte = code <= 0xFF or 0xDC80 <= code <= 0xDCFF
    return f"\\x{code & 0xFF:02x}" if is_byte else f"\\u{code:04x}"


class _VisibleText(RenderHook):
    """Prints everything by way of `visible`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _Visible(each) for each in renderables]


class _Visible:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for segment in console.render(self._renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)


def open_console(*, stderr: bool = False) -> Console:
    """A console that prints no control character of a text."""
    console = Console(stderr=stderr)
    console.push_render_hook(_VisibleText())
    return console


out = open_console()
err = open_console(stderr=True)


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
    console = open_console()
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
