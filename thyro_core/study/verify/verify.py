"""Verification: whether the objects and tables of a study are whole and consistent.

Hashes, completeness and leakage are checked, and that splits, predictions and figures follow from
one another; nothing is written.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import RECIPE
from thyro_core.datasets.attributes import image_nodules
from thyro_core.datasets.leakage import check_leakage
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError, StoreError, ThyroError, amount
from thyro_core.evaluation.tables import metrics_table
from thyro_core.explain.tables import cam_checks_table, cam_families_table, cam_tests_table
from thyro_core.store.keys import (
    manifest_key,
    model_key,
    run_key,
    study_key,
    table_key,
    table_prefix,
)
from thyro_core.store.store import Store
from thyro_core.study.derived import DERIVED_TABLES, derived_table
from thyro_core.study.job import is_finished
from thyro_core.study.lifecycle import concluding_tables, open_gate_pack
from thyro_core.study.plan import StudyPlan, load_plan, plan_recipe
from thyro_core.study.records import runs_table, train_aucs
from thyro_core.study.study_table import check_row
from thyro_core.study.verify import cam_checks, object_checks, table_checks
from thyro_core.study.verify.plan_check import plan_fault
from thyro_core.tables import schemas

_LISTED_FAULTS = 5  # most faults that the detail of a check lists
_START_AGAIN = "start the same command again"
_DAMAGE_ERRORS = (ThyroError, ValueError, TypeError, LookupError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class StudyCheck:
    """The result of one check.

    Attributes:
        name: What was checked.
        is_passed: Whether it holds.
        detail: What holds; of a failed check the faults, the cure, and which later checks are
            skipped because they need this one.
    """

    name: str
    is_passed: bool
    detail: str


@dataclass(frozen=True)
class _StudyTables:
    store: Store
    plan: StudyPlan
    tables: dict[str, pa.Table]
    """The tables read so far."""


@dataclass(frozen=True)
class _Findings:
    faults: Sequence[str]
    summary: str = ""
    """What holds if there is no fault."""
    cure: str = _START_AGAIN


_CheckFunction = Callable[[_StudyTables], _Findings]


def verify_study(store: Store, study_id: str) -> Iterator[StudyCheck]:
    """Check a study, one check after the other; a failed one does not stop the others.

    Only a check that needs what has failed is skipped, so that one cause is one failure; the
    failed check names the skipped ones. Image files that are gone are counted, not failed.

    Args:
        store: The store that holds the study.
        study_id: The study.

    Yields:
        `plan`, `table <name>` for each table, then `studies`, `manifest`, `images`, `packs`,
        `weights`, `splits`, `leakage`, `completeness`, `runs`, `models`, `predictions`, `metrics`,
        those of `DERIVED_TABLES`, `cams`, `cam_features`, `cam_trust`, `cam_tests`,
        `cam_families` and `cam_checks`. Only `plan`, if the plan itself cannot be read; of a study
        of another recipe only it and those of files: `table images`, `images`, `weights`,
        `table runs` and `models`.

    Raises:
        InputError: there is no such study.
        StoreError: a store on S3 failed.
    """
    try:
        plan = load_plan(store, study_id)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
        cure = "restore it; nothing else can be checked without it"
        yield StudyCheck("plan", False, f"{study_key(study_id)} is damaged, {fault}; {cure}")
        return
    # Objects are looked up under the id given, whatever id a mixed-up plan contains.
    study = _StudyTables(store, replace(plan, study_id=study_id), {})
    recipe = plan_recipe(store, study_id)
    yield _run_check("plan", partial(_check_plan, own_id=plan.study_id, recipe=recipe), study)
    failed_names: set[str] = set()
    checks = _CHECKS
    if recipe != RECIPE:
        checks = {name: _CHECKS[name] for name in _CHECKS_OF_ANY_RECIPE}
    for name, (function, needs) in checks.items():
        check = None if failed_names & set(needs) else _run_check(name, function, study)
        if check is not None:
            yield check
        if check is None or not check.is_passed:
            failed_names.add(name)


def _run_check(name: str, check: _CheckFunction, study: _StudyTables) -> StudyCheck:
    try:
        findings = check(study)
    except StoreError:
        raise  # no statement about the study
    except _DAMAGE_ERRORS as error:
        kind = "" if isinstance(error, ThyroError) else f"{type(error).__name__}: "
        return StudyCheck(name, False, f"{kind}{error}{_skipped_note(name)}")
    if not findings.faults:
        return StudyCheck(name, True, findings.summary)
    rest = len(findings.faults) - _LISTED_FAULTS
    faults = "; ".join(findings.faults[:_LISTED_FAULTS]) + f" (and {rest} more)" * (rest > 0)
    return StudyCheck(name, False, f"{faults}; {findings.cure}{_skipped_note(name)}")


def _skipped_note(failed_check: str) -> str:
    names = [name for name, (_, needs) in _CHECKS.items() if _depends(needs, failed_check)]
    return f" (left out for this: {', '.join(names)})" if names else ""


def _depends(needs: Sequence[str], on: str) -> bool:
    return any(name == on or _depends(_CHECKS[name][1], on) for name in needs)


def _check_plan(study: _StudyTables, own_id: str, recipe: object) -> _Findings:
    fault = plan_fault(study.plan, own_id, recipe)
    if fault is not None:
        return _Findings([fault[0]], cure=fault[1])
    return _Findings([], "the study's id follows from its contents")


def _check_table(study: _StudyTables, name: str) -> _Findings:
    """Read all parts of a table into `study.tables`."""
    plan = study.plan
    owner = f"manifest_id={plan.manifest_id}" if name == "images" else f"study_id={plan.study_id}"
    keys = study.store.keys(f"{table_prefix(name)}/{owner}")
    faults, parts = [], [schemas.TABLES[name].schema.empty_table()]
    for key in keys:
        try:
            parts.append(table_checks.read_part(study.store, name, key))
        except StoreError:
            raise
        except _DAMAGE_ERRORS as error:
            faults.append(f"{key}: {error}")
    if not keys and name in {"images", "splits"}:
        faults.append(f"{table_prefix(name)}/{owner}: expected a part, found none")
    study.tables[name] = pa.concat_tables(parts)
    summary = f"{amount(len(keys), 'part')}, {amount(study.tables[name].num_rows, 'row')}"
    return _Findings(faults, summary, f"delete what is damaged and {_START_AGAIN}")


def _check_manifest(study: _StudyTables) -> _Findings:
    key = manifest_key(study.plan.manifest_id)
    if not study.store.exists(key):
        return _Findings([f"{key}: expected the ingest's summary, found none"])
    ingest, rules = json.loads(study.store.read(key)), study.plan.config.ingest()
    faults = table_checks.summary_faults(ingest, study.tables["images"], rules)
    summary = f"{amount(study.tables['images'].num_rows, 'file')}; counts and rules agree"
    return _Findings(faults, summary, f"restore {key} or the `images` table")


def _check_images(study: _StudyTables) -> _Findings:
    table = study.tables["images"]
    faults, unreachable = object_checks.changed_images(table)
    summary = object_checks.reach_summary(table, unreachable)
    return _Findings(faults, summary, "put the originals back where the `images` table says")


def _check_packs(study: _StudyTables) -> _Findings:
    config, images = study.plan.config, study.tables["images"]
    sides = sorted({config.side(architecture) for architecture in config.architectures})
    sample = object_checks.sample_images(images, config.ingest())
    faults = list(object_checks.pack_faults(study.store, images, sides, sample, view=config))
    faults += object_checks.mask_faults(study.store, images)
    summary = f"sides {', '.join(map(str, sides))}; {len(sample)} images equal a fresh decode"
    return _Findings(faults, summary, f"delete the pack and {_START_AGAIN}")


def _check_weights(study: _StudyTables) -> _Findings:
    starts = study.plan.weights.values()
    hashes = {start.key: start.sha256 for start in starts if start.key is not None}
    summary = f"{amount(len(hashes), 'file')}, {amount(len(starts) - len(hashes), 'random start')}"
    faults = object_checks.changed_objects(study.store, hashes)
    return _Findings(faults, summary, f"delete what is damaged and {_START_AGAIN}")


def _check_splits(study: _StudyTables) -> _Findings:
    images, plan = study.tables["images"], study.plan
    fresh = make_splits(plan.study_id, images, plan.config)
    return _compare(study, "splits", ("split", "image_id"), fresh)


def _check_leakage(study: _StudyTables) -> _Findings:
    splits, images = study.tables["splits"], study.tables["images"]
    with TemporaryDirectory(prefix="thyro-") as scratch:
        try:
            pack = open_gate_pack(study.store, images, study.plan.config, Path(scratch))
        except InputError:
            check_leakage(splits, images)
            nothing = "no image, patient or group on both sides of a split"
            return _Findings([], f"{nothing}; pictures are not compared, as there is no pack")
        check_leakage(splits, images, pack, pad=study.plan.config.is_padded)
    return _Findings([], "no image, patient, group or picture on both sides of a split")


def _check_completeness(study: _StudyTables) -> _Findings:
    store, plan = study.store, study.plan
    epochs = study.tables["epochs"].select(["split", "architecture", "epoch"]).to_pandas()
    runs = [(n, name) for n in range(plan.config.splits) for name in plan.config.architectures]
    gaps = {run: ", ".join(_run_gaps(study, *run, epochs)) for run in runs}
    faults = [f"split {split} {name}: {text}" for (split, name), text in gaps.items() if text]
    summary = f"{len(runs) - len(faults)} of {len(runs)} runs are finished"
    faults += [
        f"no table {name}"
        for name in ("runs", *concluding_tables(plan.config))
        if not store.exists(table_key(name, study_id=plan.study_id))
    ]
    return _Findings([summary, *faults] if faults else [], summary)


def _run_gaps(
    study: _StudyTables, split: int, architecture: str, epochs: pd.DataFrame
) -> Iterator[str]:
    store, study_id, n_epochs = study.store, study.plan.study_id, study.plan.config.epochs
    if not is_finished(store, study_id, split, architecture):
        yield "no predictions"
    rows = (epochs["split"] == split) & (epochs["architecture"] == architecture)
    if epochs.loc[rows, "epoch"].tolist() != list(range(1, n_epochs + 1)):
        yield f"{rows.sum()} rows for epochs 1 to {n_epochs}"
    key = run_key(study_id, split, architecture)
    if not store.exists(key):
        yield "no record"
        return
    try:
        status = json.loads(store.read(key))["status"]
    except (ValueError, LookupError, TypeError):
        yield f"{key} is damaged"
    else:
        if status != "finished":
            yield f"its record says {status}"


def _check_runs(study: _StudyTables) -> _Findings:
    fresh = runs_table(study.store, study.plan)
    return _compare(study, "runs", ("split", "architecture"), fresh)


def _check_models(study: _StudyTables) -> _Findings:
    hashes = {
        model_key(study.plan.study_id, row["split"], row["architecture"]): row["model_sha256"]
        for row in study.tables["runs"].to_pylist()
        if row["model_sha256"] is not None
    }
    faults = object_checks.changed_objects(study.store, hashes)
    cure = f"restore it, or delete that run's predictions too and {_START_AGAIN}"
    return _Findings(faults, f"{len(hashes)} kept models", cure)


def _check_predictions(study: _StudyTables) -> _Findings:
    tables = study.tables
    faults = table_checks.prediction_faults(tables["predictions"], tables["splits"])
    architectures = set(tables["predictions"]["architecture"].to_pylist())
    strangers = sorted(architectures - set(study.plan.config.architectures))
    faults += [f"{name} is no architecture of the study" for name in strangers]
    rows = tables["predictions"].num_rows
    summary = f"{rows} of exactly the test images, probabilities follow from logits"
    return _Findings(faults, summary, f"delete these predictions and {_START_AGAIN}")


def _check_cams(study: _StudyTables) -> _Findings:
    faults = table_checks.cam_faults(study.tables["cams"], study.tables["predictions"])
    summary = f"{study.tables['cams'].num_rows} maps, one for each prediction and class"
    return _Findings(faults, summary, f"delete the predictions of these runs and {_START_AGAIN}")


def _check_cam_features(study: _StudyTables) -> _Findings:
    tables, config = study.tables, study.plan.config
    faults = cam_checks.row_faults(tables["cam_features"], tables["predictions"])
    if not faults:
        faults = cam_checks.feature_faults(study.store, tables, config)
    summary = (
        f"{tables['cam_features'].num_rows} rows, one for each prediction and share; "
        f"{cam_checks.IMAGES_PER_RUN} images of each run follow from maps and pixels"
    )
    return _Findings(faults, summary, f"delete the predictions of these runs and {_START_AGAIN}")


def _check_cam_trust(study: _StudyTables) -> _Findings:
    table = study.tables["cam_trust"]
    faults = cam_checks.trust_faults(table, study.tables["predictions"])
    summary = f"{table.num_rows} rows, one for each prediction"
    return _Findings(faults, summary, f"delete the predictions of these runs and {_START_AGAIN}")


def _check_cam_tests(study: _StudyTables) -> _Findings:
    plan = study.plan
    sources = (study.tables[name] for name in ("cam_features", "predictions", "splits"))
    fresh = cam_tests_table(plan.study_id, *sources, config=plan.config)
    return _compare(study, "cam_tests", ("architecture", "threshold", "feature"), fresh)


def _check_cam_checks(study: _StudyTables) -> _Findings:
    plan, tables = study.plan, study.tables
    fresh = cam_checks_table(plan.study_id, tables["cam_trust"], tables["splits"], plan.config)
    return _compare(study, "cam_checks", ("architecture", "measure", "baseline"), fresh)


def _check_cam_families(study: _StudyTables) -> _Findings:
    """Recomputed at the declared share only: each share takes seconds."""
    plan, features = study.plan, study.tables["cam_features"]
    share = pc.field("threshold") == plan.config.cam_share
    subset = replace(study, tables={"cam_families": study.tables["cam_families"].filter(share)})
    splits = study.tables["splits"]
    fresh = cam_families_table(plan.study_id, features.filter(share), splits, plan.config)
    return _compare(subset, "cam_families", ("architecture", "threshold", "family"), fresh)


def _check_metrics(study: _StudyTables) -> _Findings:
    plan, tables = study.plan, study.tables
    fresh = metrics_table(
        plan.study_id,
        tables["predictions"],
        tables["splits"],
        plan.config,
        nodules=image_nodules(tables["images"]),
        train_aucs=train_aucs(study.store, plan),
    )
    return _compare(study, "metrics", ("split", "architecture", "level", "metric"), fresh)


def _check_derived_table(study: _StudyTables, name: str) -> _Findings:
    return _compare(
        study, name, DERIVED_TABLES[name], derived_table(name, study.plan, study.tables)
    )


def _compare(study: _StudyTables, name: str, keys: Sequence[str], fresh: pa.Table) -> _Findings:
    faults = table_checks.differences(name, study.tables[name], fresh, keys)
    summary = f"{amount(fresh.num_rows, 'row')} as recomputed"
    return _Findings(faults, summary, f"delete the table {name} of this study and {_START_AGAIN}")


_CHECKS: dict[str, tuple[_CheckFunction, tuple[str, ...]]] = {
    **{
        f"table {name}": (partial(_check_table, name=name), ())
        for name in ("images", *schemas.STUDY_TABLES)
    },
    "studies": (lambda s: _Findings(*check_row(s.tables["studies"], s.plan)), ("table studies",)),
    "manifest": (_check_manifest, ("table images",)),
    "images": (_check_images, ("table images",)),
    "packs": (_check_packs, ("table images",)),
    "weights": (_check_weights, ()),
    "splits": (_check_splits, ("table images", "table splits")),
    "leakage": (_check_leakage, ("table images", "table splits")),
    "completeness": (_check_completeness, ("table epochs",)),
    "runs": (_check_runs, ("table runs", "completeness")),
    "models": (_check_models, ("table runs",)),
    "predictions": (_check_predictions, ("table predictions", "splits")),
    "metrics": (_check_metrics, ("table images", "table metrics", "completeness", "predictions")),
    **{
        name: (
            partial(_check_derived_table, name=name),
            (f"table {name}", "table images", "completeness", "predictions")
            + (("metrics",) if name == "predictive_values" else ()),
        )
        for name in DERIVED_TABLES
    },
    "cams": (_check_cams, ("table cams", "completeness", "predictions")),
    "cam_features": (_check_cam_features, ("table cam_features", "packs", "cams")),
    "cam_trust": (_check_cam_trust, ("table cam_trust", "completeness", "predictions")),
    "cam_tests": (_check_cam_tests, ("table cam_tests", "cam_features")),
    "cam_families": (_check_cam_families, ("table cam_families", "cam_features")),
    "cam_checks": (_check_cam_checks, ("table cam_checks", "cam_trust")),
}

_CHECKS_OF_ANY_RECIPE = ("table images", "images", "weights", "table runs", "models")
"""Each check, and the earlier ones that it needs."""
