"""`thyro phantom` and `thyro ingest`: image sets, drawn and checked."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.console import err, note, out, print_json, say
from flows.cli.image_sets import read_manifest
from flows.cli.options import (
    ConfigFile,
    ConfigKeys,
    ImageColumn,
    ImageSources,
    Json,
    LabelColumn,
    LabelMap,
    PatientColumn,
    StoreUrl,
    label_options,
    open_store_at,
)
from thyro_core.errors import InputError, amount
from thyro_core.urls import redact

if TYPE_CHECKING:
    from thyro_core.datasets.manifest import Manifest


def phantom(
    dest: Annotated[str, typer.Argument(help="Folder or fsspec URL to write to.")],
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 508,
    malignant: Annotated[int, typer.Option(min=0, help="How many of them malignant.")] = 93,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same images.")] = 0,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Also train ResNet18 and AlexNet on other phantoms, as starting weights of a "
            "study of these; kept in this folder, and made once."
        ),
    ] = None,
) -> None:
    """Write a set of synthetic ultrasound images with labels.csv."""
    from thyro_core.datasets.phantoms.generate import write_phantoms
    from thyro_core.datasets.phantoms.weights import check_seed, write_starting_weights

    check_seed(seed)
    with err.status("drawing phantoms") as status:
        write_phantoms(
            dest,
            images=images,
            malignant=malignant,
            seed=seed,
            progress=lambda n_done: status.update(f"drawing phantoms: {n_done} of {images}"),
        )
    say(f"{images} synthetic images, {malignant} malignant: {escape(dest)}")
    if weights is None:
        return
    with err.status("starting weights") as status:
        write_starting_weights(weights, progress=status.update)
    say(f"starting weights, of other synthetic images: {escape(weights)}")


def ingest(
    source: ImageSources,
    config: ConfigFile = None,
    set_: ConfigKeys = None,
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
    patient_column: PatientColumn = "",
    label_map: LabelMap = "",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Check an image set, or several, say what is wrong with it, and pack it for training."""
    from flows.cli.config_input import read_config

    options = label_options(image_column, label_column, patient_column, label_map)
    study = read_config(config, set_ or [], options)
    manifest = read_manifest(source, study, open_store_at(store))
    _show_manifest(manifest, as_json=as_json)
    if not any(manifest.table["included"].to_pylist()):
        msg = (
            f"{', '.join(map(redact, source))}: expected images that a study can use, found none "
            f"among {amount(manifest.table.num_rows, 'file')}; the states say why: replace the "
            "files, or change the bounds with --set"
        )
        raise InputError(msg)


def _show_manifest(manifest: "Manifest", *, as_json: bool) -> None:
    from thyro_core.study.summary import state_counts

    counts = state_counts(manifest.table)
    notes = list(manifest.notes)
    if as_json:
        print_json({"manifest_id": manifest.manifest_id, "counts": counts, "notes": notes})
        return
    out.print(f"Manifest [bold]{manifest.manifest_id}[/] ({manifest.layout})")
    table = Table("state", "images")
    for state, number in counts.items():
        table.add_row(state, str(number))
    out.print(table)
    for text in notes:
        note(text)
