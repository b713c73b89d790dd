"""The one place where an exception becomes a sentence for a person, and an exit code."""

import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.markup import escape

from flows.cli.console import err, say
from flows.serving.child_process import end_soon
from thyro_core.errors import InputError, StoppedError, ThyroError, sentence
from thyro_core.urls import redact

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound="BaseModel")


@contextmanager
def errors_for_people(*, debug: bool) -> Iterator[None]:
    """End the program with one sentence on stderr where the block raises an expected error.

    A bug keeps its traceback.

    Args:
        debug: show the traceback of every error.

    Raises:
        SystemExit: with the error's exit code, after its sentence.
    """
    try:
        with _settings_named():
            yield
    except (ThyroError, OSError) as error:
        code = error.exit_code if isinstance(error, ThyroError) else 1
        if isinstance(error, ThyroError) and isinstance(error, ConnectionError):
            end_soon(code)  # Prefect's server is lost
        if debug:
            raise
        say(f"[red]thyro:[/] {escape(redact(sentence(error)))}", err)
        raise SystemExit(code) from error


@contextmanager
def _settings_named() -> Iterator[None]:
    """Say which environment variable holds no value of its setting."""
    try:
        yield
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError) or error.title != "Settings":
            raise
        facts = "; ".join(map(_setting_fact, error.errors(include_url=False)))
        # Without its cause, which shows the values: one may be a secret.
        raise InputError(facts) from None


def _setting_fact(problem: "ErrorDetails") -> str:
    from thyro_core.settings import Settings

    name, reason = _place_and_reason(problem)
    is_secret = "SecretStr" in str(Settings.model_fields[name].annotation)
    what = "a value that is not shown" if is_secret else repr(problem["input"])
    message = reason.removeprefix("Input should be ")
    return f"THYRO_{name.upper()}: expected {message}, found {what}; correct or unset it"


@contextmanager
def resumable() -> Iterator[None]:
    """Work that goes on where it stopped when the same command is given again.

    Raises:
        StoppedError: somebody interrupted it.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        msg = "stopped; what is finished is kept, and the same command goes on"
        raise StoppedError(msg) from interrupt


def parse_values(
    model: type[Model], values: Mapping[str, object], place: str, kind: str = ""
) -> Model:
    """Values that a person gave, checked by a pydantic model.

    Args:
        model: what they are to be.
        values: by their keys.
        place: what the message begins with.
        kind: what a key is called that may be misspelled, such as "config key"; empty: the keys
            are not the person's own words.

    Raises:
        InputError: a key is unknown, or a value out of its bounds.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        msg = f"{place}: {_validation_facts(error, kind, sorted(model.model_fields))}"
        raise InputError(msg) from error


def _validation_facts(error: "ValidationError", kind: str, keys: Collection[str]) -> str:
    """What pydantic found wrong: key, expectation, value."""
    facts = []
    for problem in error.errors():
        name, reason = _place_and_reason(problem)
        if not problem["loc"]:  # a rule between keys: its message names them
            facts.append(reason)
        elif problem["type"] == "too_short" and problem["input"]:
            continue  # pydantic counts only the valid items, and reports the others one by one
        elif problem["type"] == "extra_forbidden" and kind:
            nearest = get_close_matches(name, keys, 1)
            guess = f", did you mean {nearest[0]}?" if nearest else ";"
            facts.append(
                f"{name or repr(name)} is no {kind}{guess} the {kind}s are {', '.join(keys)}"
            )
        else:
            facts.append(f"{name}: {reason}, found {problem['input']!r}")
    return "; ".join(facts)


def _place_and_reason(problem: "ErrorDetails") -> tuple[str, str]:
    """The key that pydantic refuses, empty for a rule between keys, and its reason."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    return name, problem["msg"].removeprefix("Value error, ")


def read_input(file: Path, place: str, expectation: str, cure: str = "") -> bytes:
    """A file that a person named.

    Args:
        file: its path.
        place: what the message begins with.
        expectation: what the file is to be.
        cure: the end of the message.

    Raises:
        InputError: it cannot be read, or is no regular file: whoever reads a pipe waits for its
            writer, and a device may have no end.
    """
    try:
        mode = file.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket or a device"
            msg = f"{place}: expected {expectation}, found {kind}; save its contents as a file"
            raise InputError(msg)
        return file.read_bytes()
    except OSError as error:
        msg = f"{place}: expected {expectation}, found: {error.strerror}{cure}"
        raise InputError(msg) from error
