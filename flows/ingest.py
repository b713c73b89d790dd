"""The check of an image set as a Prefect flow, and what a run shows of it."""

from collections.abc import Callable, Sequence
from functools import partial

from prefect import flow

from flows.artifacts import ProgressBar, completed_state, name_run, run_of, show_page, show_table
from flows.forms import Address, ImageSize, RulesForm, Source
from flows.observer import current_observer
from flows.retries import step
from thyro_core import NOTICE
from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.datasets.manifest import Manifest
from thyro_core.pseudonyms import path_hider
from thyro_core.settings import Settings
from thyro_core.store.store import open_store
from thyro_core.study.lifecycle import ingest_for_study
from thyro_core.study.summary import state_counts

_MOST_NAMED = 50
_DIGITS = 12

CURES = {
    "missing": "the labels name a file that is not there: add it, or take its line out",
    "not_listed": "the labels do not name it: add its line, or leave it out of the study",
    "label_conflict": "it is called both benign and malignant: correct the labels",
    "excluded_by_specialist": "nothing to do: exclusions.csv names it",
    "undecodable": "it cannot be read as one image: export it again",
    "not_ultrasound": "it is a report or another modality: leave it out of the folder",
    "no_nodule": "give it a mask, or columns `x`, `y`, `w` and `h`, or set `region` to whole",
    "too_small": "export it at full size, or lower `min_side`",
    "artefact": "it has callipers or colour on it: export it without, or raise `overlay_bound`",
    "blurred": "it is out of focus: leave it out, or lower `blur_bound`",
    "dual_view": "two views under one label: cut it in two, or set `dual_views` to keep",
    "near_duplicate_conflict": "it looks like one with the other label: correct the labels",
    "duplicate": "nothing to do: one copy of it takes part",
}
"""What a person can do about each reason for an exclusion."""


@flow(name="ingest")
def ingest(
    source: Source,
    rules: RulesForm = IngestConfig(),  # noqa: B008
    image_size: ImageSize = 224,
    store: Address = "",
) -> str:
    """Check an image set, say what is wrong with it, and pack it for training; research use only.

    Args:
        source: Where the images are: a folder that the server can read, or an address such as
            s3://bucket/folder. It holds the images and a file labels.csv (image, label,
            patient_id), or the folders benign and malignant. Never write a password or a key into
            it: everybody who can open this page can read it.
        rules: When an image is excluded, and what counts as a duplicate. The defaults are good.
        image_size: Side of the network input [pixels] that the images are made ready for.
        store: Where results are kept, such as s3://bucket/thyro. Empty: the server's own store.

    Returns:
        The manifest's id.
    """
    with run_of("ingest"):
        # Every architecture: whichever study comes, its images are ready.
        config = StudyConfig(**rules.model_dump(), image_size=image_size)
        manifest = read_images((source,), config, store or Settings().store)
        name_run(f"ingest-{manifest.manifest_id}")
        counts = {state: n for state, n in state_counts(manifest.table).items() if n}
        states = "; ".join(f"{state}: {n}" for state, n in counts.items())
        return completed_state(manifest.manifest_id, f"{manifest.manifest_id}: {states}")


@step("images")
def read_images(sources: Sequence[str], config: StudyConfig, store: str) -> Manifest:
    """Ingest an image set and show what was found in it.

    Raises:
        InputError: the source or its labels cannot be used.
    """
    return read_and_show(partial(ingest_for_study, sources, config, open_store(store)))


def read_and_show(read: Callable[..., Manifest]) -> Manifest:
    """Read an image set, show how far that is, and then what was found in it.

    Args:
        read: called with `progress` and `hide_path`.
    """
    bar, observer = ProgressBar("images decoded"), current_observer()

    def progress(n_done: int, total: int) -> None:
        observer.on_images(n_done, total)
        bar.count(n_done, total)

    manifest = read(progress=progress, hide_path=path_hider(Settings()))
    bar.show(100.0)
    show_manifest(manifest)
    return manifest


def show_manifest(manifest: Manifest) -> None:
    """The states as a table; the notes and the excluded images as a page."""
    counts = state_counts(manifest.table)
    rows = [["state", "images"], *([state, str(number)] for state, number in counts.items())]
    show_table(f"images-{manifest.manifest_id}", rows, "What became of each file")
    show_page(f"notes-{manifest.manifest_id}", manifest_page(manifest), "What to know of the set")


def manifest_page(manifest: Manifest) -> str:
    """Notes, then the excluded images by the first digits of their SHA-256, with the cure."""
    columns = manifest.table.select(["image_id", "included", "reason"]).to_pylist()
    excluded_rows = [(row["reason"], row["image_id"]) for row in columns if not row["included"]]
    lines = [f"# Images {manifest.manifest_id}", "", *(f"- {note}" for note in manifest.notes), ""]
    if excluded_rows:
        lines += ["| image (SHA-256) | excluded | what to do |", "|---|---|---|"]
    for reason, image_id in sorted(excluded_rows, key=str)[:_MOST_NAMED]:
        name = image_id[:_DIGITS] if image_id else "no file"
        lines.append(f"| {name} | {reason} | {CURES[reason]} |")
    if len(excluded_rows) > _MOST_NAMED:
        rest = len(excluded_rows) - _MOST_NAMED
        lines += ["", f"And {rest} more: see the table `images`, column `reason`."]
    return "\n".join([*lines, "", f"*{NOTICE}*", ""])
