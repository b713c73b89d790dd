"""Commands that take their time say something first: before what is slow to load, not after it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.console import err
from flows.cli.main import app


@pytest.mark.parametrize(
    "arguments",
    [("promote",), ("verify",), ("screen", "images"), ("study", "images"), ("ingest", "images")],
    ids=lambda arguments: arguments[0],
)
def test_a_command_says_something_before_it_looks_into_the_store(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []

    def status(text: str) -> AbstractContextManager[None]:
        words.append(text)
        return nullcontext()

    monkeypatch.setattr(err, "status", status)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments, "--store", str(tmp_path / "nothing")])
    assert result.exception is not None
    assert words, "nothing was said until the refusal"
