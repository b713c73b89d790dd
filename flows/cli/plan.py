"""`thyro plan`: what a study of an image set can show, and what it takes, before it is run."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.markup import escape

from flows.cli.console import note, out, print_json, result_table, say
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

if TYPE_CHECKING:
    from thyro_core.config import StudyConfig
    from thyro_core.store.store import Store
    from thyro_core.study.forecast import ExpectedInterval, Forecast


def plan(
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
    """Say what a study of an image set can show and what it takes; nothing is trained."""
    from flows.cli.config_input import read_config

    options = label_options(image_column, label_column, patient_column, label_map)
    show_forecast(
        source, read_config(config, set_ or [], options), open_store_at(store), as_json=as_json
    )


def show_forecast(
    sources: Sequence[str], study: "StudyConfig", store: "Store", *, as_json: bool
) -> None:
    """Read the images, and print what a study of them can show and what it takes."""
    from thyro_core.datasets.centres import with_one_split_a_centre
    from thyro_core.study.derived import check_columns
    from thyro_core.study.forecast import forecast

    manifest = read_manifest(sources, study, store)
    study = with_one_split_a_centre(study, manifest.table)
    check_columns(manifest.table, study)
    outlook = forecast(store, manifest.table, study)
    if as_json:
        values = asdict(outlook) | {"design_effect": outlook.design_effect}
        print_json(values | {"manifest_id": manifest.manifest_id, "notes": list(manifest.notes)})
        return
    _show(outlook)
    for text in manifest.notes:
        note(text)


def _show(outlook: "Forecast") -> None:
    benign, malignant = outlook.images
    benign_units, malignant_units = outlook.units
    say(f"{benign} benign and {malignant} malignant images of {benign_units} and {malignant_units}")
    say("patients or groups; images a patient, the most that a variance grows by:")
    say(f"{outlook.design_effect:.2f}")
    for name, obstacle in outlook.schemes.items():
        say(f"{name:<22} {'possible' if obstacle is None else escape(obstacle)}")
    table = result_table(
        "AUC", "mean of splits", "all images", "one test part",
        title="95 % interval to expect, or a wider one",
    )  # fmt: skip
    rows = zip(outlook.mean, outlook.whole, outlook.test_part, strict=True)
    for mean, whole, part in rows:
        ranges = (_range_text(interval) for interval in (mean, whole, part))
        table.add_row(f"{whole.auc:.2f}", *ranges)
    out.print(table)
    say("Each by patients, as if a patient's images were all alike, and by images, as if they were")
    say("all independent; the truth lies between (Hanley and McNeil). The mean over splits, as a")
    say("report has it, counts how many there are and that they overlap (Nadeau and Bengio). What")
    say("networks differ by for being trained on other images is not known before, and widens it.")
    for run in outlook.runs:
        if run.seconds is None:
            cost = "time not known: the store has no epoch of it; run one with --set epochs=1"
        else:
            cost = (
                f"{run.seconds / 3600:.1f} h in sequence (from {run.epochs_measured} epochs here)"
            )
        say(f"{run.architecture:<22} {cost}")
    say(f"{'memory of a job':<22} {outlook.memory_bytes / 1e9:.1f} GB (estimate for a CPU)")
    say(f"{'packs in the store':<22} {outlook.pack_bytes / 1e9:.2f} GB before compression")
    models = f"{outlook.model_bytes / 1e9:.2f} GB (none with THYRO_KEEP_MODELS=false)"
    say(f"{'models in the store':<22} {models}")


def _range_text(interval: "ExpectedInterval") -> str:
    (low, high), (inner_low, inner_high) = interval.by_patient, interval.by_image
    return f"{low:.2f}-{high:.2f}\n{inner_low:.2f}-{inner_high:.2f}"
