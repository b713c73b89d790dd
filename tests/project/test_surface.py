"""What others build on - tables, config, settings, commands - changes only on purpose.

`python -m tests.project.test_surface` writes the list anew.
"""

import json
from typing import Any, get_type_hints

import pytest
import typer
from pydantic import BaseModel

from flows.cli.main import app
from tests.support.places import GOLDEN
from thyro_core.config import StudyConfig
from thyro_core.settings import Settings
from thyro_core.tables import schemas
from thyro_core.tables.views import VIEWS

SURFACE = GOLDEN / "surface.json"

WHY = {
    "schema_version": "It stands in every table; raise it only with a change of a column.",
    "tables": "Columns are a public promise: people's queries and old stores hold them. "
    "Raise SCHEMA_VERSION and tell users.",
    "views": "People's queries name them. Tell users.",
    "config": "People's YAML files, and the ids of all their studies, depend on the fields and "
    "their defaults. Raise RECIPE if the same config now gives other numbers, and tell users.",
    "settings": "Deployments set these as THYRO_* variables. Tell users.",
    "cli": "Scripts call these commands with these options. Tell users.",
}


def surface() -> dict[str, Any]:
    """The public surface as plain JSON."""
    return {
        "schema_version": schemas.SCHEMA_VERSION,
        "tables": {name: _table(table) for name, table in schemas.TABLES.items()},
        "views": {name: _table(view.table) for name, view in VIEWS.items()},
        "config": _fields(StudyConfig),
        "settings": _fields(Settings),
        "cli": _commands(),
    }


def _table(table: schemas.Table) -> dict[str, Any]:
    columns = [f"{field.name}: {field.type}" for field in table.schema]
    return {"hive": list(table.hive), "columns": columns}


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Type, bounds, choices and default of each field; its texts may improve."""
    properties = model.model_json_schema()["properties"]
    texts = {"title", "description"}
    return {
        name: {key: value for key, value in field.items() if key not in texts}
        for name, field in properties.items()
    }


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    functions = {info.name or info.callback.__name__: info for info in app.registered_commands}
    assert functions.keys() == group.commands.keys()
    assert app.registered_callback
    verbs = {"": (group, app.registered_callback)}
    verbs |= {verb: (group.commands[verb], info) for verb, info in functions.items()}
    return {
        verb: [_parameter(each, get_type_hints(info.callback)) for each in command.params]
        for verb, (command, info) in verbs.items()
    }


def _parameter(parameter: Any, hints: dict[str, Any]) -> str:
    spelled = "/".join([*parameter.opts, *parameter.secondary_opts])
    # Those of shell completion are typer's own.
    hint = hints.get(parameter.name, bool)
    kind = hint.__name__ if isinstance(hint, type) else str(hint)
    word = "required" if parameter.required else f"default {parameter.default!r}"
    return f"{parameter.param_type_name} {spelled}: {kind}, {word}"


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two surfaces differ, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for name in sorted(old.keys() | new.keys())
            for line in differences(old.get(name), new.get(name), f"{where}/{name}")
        ]
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list) and set(old) != set(new):
        gone = [f"{where}: gone: {item}" for item in old if item not in new]
        return gone + [f"{where}: new: {item}" for item in new if item not in old]
    return [f"{where}: was {old}, is {new}"]


@pytest.mark.parametrize("part", WHY)
def test_the_public_surface_is_what_it_was(part: str) -> None:
    found = differences(json.loads(SURFACE.read_text()).get(part), surface()[part], part)
    assert found == [], (
        f"The public surface changed. {WHY[part]} If it is meant: "
        "python -m tests.project.test_surface"
    )


def test_every_part_has_its_reason() -> None:
    assert surface().keys() == json.loads(SURFACE.read_text()).keys() == WHY.keys()


def test_a_change_is_noticed_and_named() -> None:
    old = {"runs": {"columns": ["a: int32", "b: string"]}, "gone": 1}
    new = {"runs": {"columns": ["a: int64", "b: string"]}, "new": [2]}
    assert differences(old, new, "t") == [
        "t/gone: was 1, is None",
        "t/new: was None, is [2]",
        "t/runs/columns: gone: a: int32",
        "t/runs/columns: new: a: int64",
    ]
    assert differences({"x": ["a", "b"]}, {"x": ["b", "a"]}) == [
        "/x: was ['a', 'b'], is ['b', 'a']"
    ]
    assert differences(new, new) == []


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface(), indent=1) + "\n")
