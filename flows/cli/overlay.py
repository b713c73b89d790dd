"""`thyro overlay`: what a network looked at in one image, as a picture."""

import inspect
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Target(StrEnum):
    """The class whose evidence is shown."""

    MALIGNANT = "malignant"
    BENIGN = "benign"


@dataclass(frozen=True)
class Asked:
    """The command's argument and options, which are more than a function should take."""

    image_id: Annotated[str, typer.Argument(help="The image's id, or enough of its beginning.")]
    study: Annotated[str, typer.Option(help="The study's id.")]
    architecture: Annotated[
        str | None, typer.Option(help="Network; default: the study's first.")
    ] = None
    split: Annotated[
        int | None, typer.Option(min=0, help="Default: the first split that tested the image.")
    ] = None
    target: Annotated[Target, typer.Option(help="Class whose evidence is shown.")] = (
        Target.MALIGNANT
    )
    output: Annotated[
        Path | None, typer.Option(help="PNG file; default: <image>-<architecture>.png here.")
    ] = None
    store: Annotated[
        str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
    ] = None


def overlay(**asked: object) -> None:
    """Draw a test image beside itself with the Grad-CAM map over it."""
    _draw(Asked(**asked))  # type: ignore[arg-type]


# What Typer reads the command's parameters from.
overlay.__signature__ = inspect.signature(Asked)  # type: ignore[attr-defined]
overlay.__annotations__ = Asked.__annotations__


def _draw(asked: Asked) -> None:
    from thyro_core.explain.overlay import png_bytes
    from thyro_core.reporting.map_lookup import Wanted, explained_image
    from thyro_core.reporting.overlay import overlay_sheet, sheet_text
    from thyro_core.settings import Settings, scratch_folder
    from thyro_core.store.store import open_store

    settings = Settings()
    target = int(asked.target is Target.MALIGNANT)
    wanted = Wanted(asked.study, asked.image_id, target, asked.architecture, asked.split)
    store = open_store(asked.store or settings.store)
    image = explained_image(store, wanted, scratch_folder(settings))
    file = asked.output or Path(f"{image.image_id[:12]}-{image.architecture}.png")
    file.write_bytes(png_bytes(overlay_sheet(image)))
    typer.echo(f"{file}: {sheet_text(image)}")
