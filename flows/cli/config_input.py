"""A study's config from a YAML file and `--set key=value`, with errors for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import yaml

from flows.cli.errors import parse_values, read_input
from thyro_core.config import StudyConfig
from thyro_core.errors import InputError


def read_config(
    file: Path | None, assignments: Sequence[str], options: Mapping[str, str] = MappingProxyType({})
) -> StudyConfig:
    """The config of a study: defaults, then the file, then the assignments, then the options.

    Args:
        file: a YAML mapping of config keys.
        assignments: `key=value`, the value read as YAML; lists may be written `a,b`.
        options: config keys that the command has as options, as texts; empty: not given.

    Raises:
        InputError: a key is unknown or a value out of bounds.
    """
    values = _from_file(file) if file else {}
    for assignment in assignments:
        name, text = split_assignment(assignment)
        values[name] = _value(name, text)
    values |= {name: _tuple(name, text) for name, text in options.items() if text}
    place = f"config ({file})" if file else "config"
    return parse_values(StudyConfig, values, place, "config key")


def split_assignment(assignment: str) -> tuple[str, str]:
    """Name and value of `--set key=value`, without spaces around them.

    Raises:
        InputError: there is no `=`.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        msg = f"--set {assignment}: expected key=value, found no '='"
        raise InputError(msg)
    return name.strip(), text.strip()


def _from_file(file: Path) -> dict[str, object]:
    data = read_input(file, f"--config {file}", "a YAML file")
    try:
        values = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"--config {file}: expected YAML, found: {_one_line(error)}"
        raise InputError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        msg = f"--config {file}: expected key: value lines, found a {type(values).__name__}"
        raise InputError(msg)
    return {str(name): _tuple(str(name), value) for name, value in values.items()}


def _value(name: str, text: str) -> object:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"--set {name}={text}: expected a YAML value, found: {_one_line(error)}"
        raise InputError(msg) from error
    return _tuple(name, value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _tuple(name: str, value: object) -> object:
    """A list where the config wants one, also from `a,b` and a single value."""
    field = StudyConfig.model_fields.get(name)
    if field is None or "tuple" not in str(field.annotation):
        # YAML 1.1 reads 1e-4, without a point, as a text; pydantic turns it into the number.
        return value
    parts = str(value).split(",") if not isinstance(value, list) else value
    return tuple(str(part).strip() for part in parts)
