"""Options that several commands have, each declared once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thyro_core.store.store import Store

StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="fsspec URL for everything that is kept [THYRO_STORE]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLast = Annotated[bool, typer.Option("--json", help="Print one JSON object last.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of config keys.")]


def _config_keys(incomplete: str) -> list[str]:
    """For the shell: what a config key may be called."""
    from thyro_core.config import StudyConfig

    return [f"{name}=" for name in StudyConfig.model_fields if name.startswith(incomplete)]


ConfigKeys = Annotated[
    list[str] | None,
    typer.Option("--set", help="A config key=value.", autocompletion=_config_keys),
]
ImageColumn = Annotated[str, typer.Option(help="Column of the labels with the image's path.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the labels with the class.")]
PatientColumn = Annotated[
    str, typer.Option(help="Column of the labels with the patient, or another unit to keep whole.")
]
LabelMap = Annotated[
    str, typer.Option(help="What the labels' words mean, as benign=B,malignant=M.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, one line; kept for ever: name nobody.")]
ImageSource = Annotated[str, typer.Argument(help="Folder or fsspec URL of the image set.")]
ImageSources = Annotated[
    list[str],
    typer.Argument(help="Folder or fsspec URL of the image set; of several each is a centre."),
]
StudyId = Annotated[
    str, typer.Argument(help="The study, or enough of its id; default: the store's only one.")
]


def label_options(
    image_column: str, label_column: str, patient_column: str, label_map: str
) -> dict[str, str]:
    """The options on how labels are read, by their config keys; empty: not given."""
    return {
        "image_column": image_column,
        "label_column": label_column,
        "patient_column": patient_column,
        "label_map": label_map,
    }


def open_store_at(url: str | None) -> "Store":
    """The store of `--store`, or else of THYRO_STORE."""
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    return open_store(url or Settings().store)
