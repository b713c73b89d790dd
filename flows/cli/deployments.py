"""`thyro deployments`: what is to be edited: Prefect's work pools, demo's config, a notebook."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import say
from thyro_core.errors import InputError, amount

_SUFFIXES = (".yaml", ".json", ".ipynb")


def deployment_files() -> dict[str, bytes]:
    """What Thyro brings along: content by file name."""
    return {
        entry.name: entry.read_bytes()
        for entry in sorted(files("deployments").iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(_SUFFIXES)
    }


def deployments(
    to: Annotated[Path, typer.Option("--to", help="Folder to write them to.")] = Path(
        "deployments"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that were changed.")
    ] = False,
) -> None:
    """Write the deployments for Prefect's work pools, the demo's config and a notebook.

    `demo.yaml` is a study's config, `quickstart.ipynb` a study from Python; the others are for
    `prefect deploy` and `prefect automation`.
    """
    contents = deployment_files()
    to.mkdir(parents=True, exist_ok=True)
    if not overwrite:
        _refuse_changed(to, contents)
    for name, content in contents.items():
        (to / name).write_bytes(content)
        say(escape(str(to / name)))
    say(f"{amount(len(contents), 'file')} written; the first lines of each say how it is used")


def _refuse_changed(folder: Path, contents: dict[str, bytes]) -> None:
    """Raise an InputError if a file is there with another content: somebody may have edited it."""
    other_files = [
        name
        for name, content in contents.items()
        if (folder / name).exists() and (folder / name).read_bytes() != content
    ]
    if other_files:
        msg = (
            f"{folder}: expected no file of the same name with another content, found "
            f"{', '.join(other_files)}; write to another folder, or add --overwrite to replace them"
        )
        raise InputError(msg)
