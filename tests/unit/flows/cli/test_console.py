"""What the commands print commands no terminal, whatever files are called."""

import io

import pyarrow as pa
import pytest
from rich.table import Table

from flows.cli.console import open_console, visible
from flows.cli.query import _print_rows

_NAME = "a\x1b[31mred\x07\x9b\u202egnp.\udce9\tb\nc"
_SHOWN = r"a\x1b[31mred\x07\x9b\u202egnp.\xe9" + "\tb\nc"


def test_control_characters_are_escapes_and_letters_stay() -> None:
    assert visible(_NAME) == _SHOWN
    assert visible("Größe 甲状腺 🩺 [1]*?") == "Größe 甲状腺 🩺 [1]*?"


@pytest.mark.parametrize("kind", ["line", "markup", "table"])
def test_a_terminal_gets_the_programs_own_colours_alone(kind: str) -> None:
    console = open_console()
    console.file = io.StringIO()
    if kind == "table":
        table = Table("name")
        table.add_row(_NAME.replace("\t", " "))
        console.print(table)
    else:
        console.print(f"[red]{_NAME}[/]" if kind == "markup" else _NAME, soft_wrap=True)
    text = console.file.getvalue()
    assert r"a\x1b[31mred" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\udce9"}


def test_a_query_shows_a_name_whole(capsys: pytest.CaptureFixture[str]) -> None:
    _print_rows(pa.table({"name": ["a\x1b[31mred.png"]}))
    assert r"a\x1b[31mred.png" in capsys.readouterr().out
