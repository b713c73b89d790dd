"""`thyro phantom` and `thyro ingest`: image sets, drawn and checked."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.console import err, note, out, print_json, say
from flows.cli.options import (
    ConfigFile,
    ConfigKeys,
    ImageColumn,
    ImageSource,
    Json,
    LabelColumn,
    LabelMap,
    PatientColumn,
    StoreUrl,
    label_options,
    open_store_at,
)
from thyro_core.errors import InputError, counted
from thyro_core.urls import redact

if TYPE_CHECKING:
    from thyro_core.datasets.manifest import Manifest


def phantom(
    dest: Annotated[str, typer.Argument(help="Folder or fsspec URL to write to.")],
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 508,
    malignant: Annotated[int, typer.Option(min=0, help="How many of them malignant.")] = 93,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same images.")] = 0,
) -> None:
    """Write a set of synthetic ultrasound images with labels.csv."""
    from thyro_core.datasets.phantoms.generate import write_phantoms

    with err.status("drawing phantoms") as status:
        write_phantoms(
            dest,
            images=images,
            malignant=malignant,
            seed=seed,
            progress=lambda n_done: status.update(f"drawing phantoms: {n_done} of {images}"),
        )
    say(f"{images} synthetic images, {malignant} malignant: {escape(dest)}")


def ingest(
    source: ImageSource,
    config: ConfigFile = None,
    set_: ConfigKeys = None,
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
    patient_column: PatientColumn = "",
    label_map: LabelMap = "",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Check an image set, say what is wrong with it, and pack it for training."""
    from flows.cli.config_input import read_config
    from thyro_core.datasets.manifest import ingest as run
    from thyro_core.pseudonyms import path_hider
    from thyro_core.settings import Settings

    options = label_options(image_column, label_column, patient_column, label_map)
    study = read_config(config, set_ or [], options)
    sides = sorted({study.side(architecture) for architecture in study.architectures})
    opened_store = open_store_at(store)
    with err.status("reading images") as status:
        manifest = run(
            source,
            study.ingest(),
            opened_store,
            sides,
            lambda n_done, total: status.update(f"decoded {n_done} of {total} images"),
            hide_path=path_hider(Settings()),
        )
    _show_manifest(manifest, as_json=as_json)
    if not any(manifest.table["included"].to_pylist()):
        msg = (
            f"{redact(source)}: expected images that a study can use, found none among "
            f"{counted(manifest.table.num_rows, 'file')}; the states say why: replace the files, "
            "or change the bounds with --set"
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
