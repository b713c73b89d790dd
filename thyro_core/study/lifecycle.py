"""The steps of a study around its jobs: prepare before them, conclude after them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from thyro_core.config import Architecture, StudyConfig
from thyro_core.datasets.attributes import image_nodules
from thyro_core.datasets.centres import centre_notes, with_one_split_a_centre
from thyro_core.datasets.hidden_paths import HidePath
from thyro_core.datasets.joined_sources import Sources
from thyro_core.datasets.leakage import check_leakage
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.datasets.periods import check_sources
from thyro_core.datasets.splits import (
    SplitCoverage,
    make_splits,
    split_coverage,
    split_notes,
)
from thyro_core.errors import IncompleteStudyError
from thyro_core.evaluation.tables import metrics_table
from thyro_core.explain.tables import cam_checks_table, cam_families_table, cam_tests_table
from thyro_core.store.keys import table_key, table_prefix
from thyro_core.store.store import Store
from thyro_core.study.derived import DERIVED_TABLES, Derivation, check_columns, derived_tables
from thyro_core.study.job import is_finished
from thyro_core.study.plan import PlannedPrecision, StudyPlan, make_plan, save_plan
from thyro_core.study.records import runs_table, train_aucs
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.training.pretrained import resolve_weights
from thyro_core.types import Grey


def ingest_for_study(
    sources: str | Sequence[str],
    config: StudyConfig,
    store: Store,
    progress: Callable[[int, int], None] | None = None,
    *,
    hide_path: HidePath | None = None,
) -> Manifest:
    """The manifest of an image set, with a pack for each of the study's input sizes.

    Args:
        sources: fsspec URL of the image set; of several each is a centre.
        config: the study's config.
        store: where manifest and packs are kept; existing ones are not made again.
        progress: called with the images decoded so far and all images.
        hide_path: what the manifest says instead of a file's URL; None: the URL.

    Raises:
        InputError: the source or its labels cannot be used, or the scheme cannot use several sets.
    """
    check_sources(config, 1 if isinstance(sources, str) else len(sources))
    sides = sorted({config.side(architecture) for architecture in config.architectures})
    addresses = (sources,) if isinstance(sources, str) else sources
    source = Sources(addresses, config.centre_column)
    return ingest(source, config.ingest(), store, sides, progress, hide_path=hide_path)


def prepare_study(
    manifest: Manifest,
    config: StudyConfig,
    precision: PlannedPrecision,
    store: Store,
    *,
    scratch: Path,
    mirror: str | None = None,
) -> StudyPlan:
    """Decide the starting weights, name the study and make its splits.

    A step whose result is in the store is not repeated. The splits pass the leakage gate before
    anything is trained, each time.

    Args:
        manifest: the images.
        config: the study's config.
        precision: the arithmetic that the jobs will train in.
        store: where the plan, the weights and the splits are kept.
        scratch: node-local folder.
        mirror: folder or URL of ImageNet weights; None: there is none.

    Raises:
        InputError: the images are too few, the weights cannot be used, or a column that the
            config names is not there.
        LeakageError: images that belong together stand on both sides of a split.
    """
    config = with_one_split_a_centre(config, manifest.table)
    check_columns(manifest.table, config)
    notes = (*manifest.notes, *centre_notes(manifest.table, config))
    weights = resolve_weights(config.weights, config.architectures, mirror, store, scratch)
    plan = make_plan(config, manifest.manifest_id, precision, weights, notes)
    if not store.exists(table_key("splits", study_id=plan.study_id)):
        splits = make_splits(plan.study_id, manifest.table, plan.config)
        write_table(store, "splits", splits, study_id=plan.study_id)
    splits = read_table(store, "splits", study_id=plan.study_id)
    pack = open_gate_pack(store, manifest.table, config, scratch)
    check_leakage(splits, manifest.table, pack, pad=config.is_padded)
    save_plan(store, plan)
    return plan


def open_gate_pack(store: Store, images: pa.Table, config: StudyConfig, scratch: Path) -> Grey:
    """The pack in which the leakage gate looks for pictures: the study's smallest.

    Args:
        store: where the packs lie.
        images: the `images` table of the study's manifest.
        config: the study's config.
        scratch: node-local folder for packs of a remote store.

    Raises:
        InputError: there is no such pack, or it is damaged.
    """
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    side = min(config.side(architecture) for architecture in config.architectures)
    return open_pack(store, manifest_id, side, scratch, len(pack_index(images)))


def unfinished_runs(store: Store, plan: StudyPlan) -> list[tuple[int, Architecture]]:
    """The splits x architectures without predictions."""
    return [
        (split, architecture)
        for split in range(plan.config.splits)
        for architecture in plan.config.architectures
        if not is_finished(store, plan.study_id, split, architecture)
    ]


CONCLUSION: tuple[str, ...] = (
    "metrics", "cam_families", "cam_checks", *DERIVED_TABLES, "cam_tests",
)  # fmt: skip
"""Tables of a study as a whole, in the order in which they are made."""


def concluding_tables(config: StudyConfig) -> tuple[str, ...]:
    """Those of `CONCLUSION` that a study has."""
    without = DERIVED_TABLES.keys() - derived_tables(config)
    return tuple(name for name in CONCLUSION if name not in without)


def conclude_study(
    store: Store, plan: StudyPlan, begin: Callable[[str], None] = lambda _: None
) -> None:
    """Write the tables of the study as a whole: runs, metrics, ensemble, CAM tests and so on.

    `runs` is written even if jobs failed: it holds their errors.

    Args:
        store: where the study lies.
        plan: the study.
        begin: called with the name of each of `CONCLUSION` before it is made.

    Raises:
        IncompleteStudyError: a split x architecture has no predictions.
    """
    write_table(store, "runs", runs_table(store, plan), study_id=plan.study_id)
    runs = unfinished_runs(store, plan)
    if runs:
        names = ", ".join(f"split {split} {architecture}" for split, architecture in runs[:8])
        more = f" and {len(runs) - 8} more" if len(runs) > 8 else ""
        msg = (
            f"study {plan.study_id}: {len(runs)} runs are not finished ({names}{more}); what is "
            "finished is kept: start the same command again"
        )
        raise IncompleteStudyError(msg)
    predictions, features, trust, splits = (
        read_table(store, name, study_id=plan.study_id)
        for name in ("predictions", "cam_features", "cam_trust", "splits")
    )
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    begin("metrics")
    metrics = metrics_table(
        plan.study_id,
        predictions,
        splits,
        plan.config,
        nodules=image_nodules(images),
        train_aucs=train_aucs(store, plan),
    )
    write_table(store, "metrics", metrics, study_id=plan.study_id)
    for name, make_table, source in (
        ("cam_families", cam_families_table, features),
        ("cam_checks", cam_checks_table, trust),
    ):
        begin(name)
        table = make_table(plan.study_id, source, splits, plan.config)
        write_table(store, name, table, study_id=plan.study_id)
    sources = {"predictions": predictions, "splits": splits, "images": images, "metrics": metrics}
    derivation = Derivation(plan, sources)
    for name in derived_tables(plan.config):
        begin(name)
        write_table(store, name, derivation.table(name), study_id=plan.study_id)
    begin("cam_tests")
    tests = cam_tests_table(plan.study_id, features, predictions, splits, config=plan.config)
    write_table(store, "cam_tests", tests, study_id=plan.study_id)


def study_notes(store: Store, plan: StudyPlan) -> tuple[str, ...]:
    """What a reader of the results must know, one sentence each."""
    splits = read_table(store, "splits", study_id=plan.study_id)
    return (*plan.notes, *split_notes(splits, plan.config))


def study_coverage(store: Store, plan: StudyPlan) -> SplitCoverage:
    """Distinct test sets of a study, and how often its images are tested."""
    return split_coverage(read_table(store, "splits", study_id=plan.study_id))


def table_locations(store: Store, plan: StudyPlan) -> dict[str, str]:
    """URL of each table of a study."""
    urls = {
        name: f"{store.url}/{table_prefix(name)}/study_id={plan.study_id}"
        for name in schemas.STUDY_TABLES
        if name not in DERIVED_TABLES.keys() - derived_tables(plan.config)
    }
    images = f"{store.url}/{table_prefix('images')}/manifest_id={plan.manifest_id}"
    return {"images": images, **{name: urls[name] for name in schemas.TABLES if name in urls}}
