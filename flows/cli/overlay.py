"""`thyro overlay`: what a network looked at in one image, as a picture."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import StoreUrl


class Target(StrEnum):
    """The class whose evidence is shown."""

    MALIGNANT = "malignant"
    BENIGN = "benign"


def overlay(
    image_id: Annotated[str, typer.Argument(help="The image's id, or enough of its beginning.")],
    study: Annotated[
        str, typer.Option(help="The study, or enough of its id; default: the store's only one.")
    ] = "",
    architecture: Annotated[
        str | None, typer.Option(help="Network; default: the study's first.")
    ] = None,
    split: Annotated[
        int | None, typer.Option(min=0, help="Default: the first split that tested the image.")
    ] = None,
    target: Annotated[
        Target, typer.Option(help="Class whose evidence is shown.")
    ] = Target.MALIGNANT,
    output: Annotated[
        Path | None, typer.Option(help="PNG file; default: <image>-<architecture>.png here.")
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Draw a test image beside itself with the Grad-CAM map over it."""
    from thyro_core.explain.overlay import png_bytes
    from thyro_core.host import scratch_folder
    from thyro_core.reporting.map_lookup import MapRequest, explained_image
    from thyro_core.reporting.overlay import overlay_sheet, sheet_text
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.plan import find_study

    settings = Settings()
    opened_store = open_store(store or settings.store)
    study_id, is_malignant = find_study(opened_store, study), int(target is Target.MALIGNANT)
    query = MapRequest(study_id, image_id, is_malignant, architecture, split)
    image = explained_image(opened_store, query, scratch_folder(settings))
    file = output or Path(f"{image.image_id[:12]}-{image.architecture}.png")
    file.write_bytes(png_bytes(overlay_sheet(image)))
    typer.echo(f"{file}: {sheet_text(image)}")
