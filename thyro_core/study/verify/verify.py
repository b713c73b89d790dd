"""Verification: whether what a study left in its store still holds together.

Hashes, completeness and leakage are checked, and that splits, predictions and figures follow from
one another; nothing is written.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import RECIPE
from thyro_core.datasets.leakage import check_leakage
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import StoreError, ThyroError
from thyro_core.evaluation.tables import comparisons_table, metrics_table
from thyro_core.explain.tables import cam_families_table, cam_tests_table
from thyro_core.store.keys import (
    manifest_key,
    model_key,
    run_key,
    study_key,
    table_key,
    table_prefix,
)
from thyro_core.store.store import Store
from thyro_core.study.job import is_finished
from thyro_core.study.plan import StudyPlan, load_plan, make_plan
from thyro_core.study.records import runs_table
from thyro_core.study.verify import cam_checks, object_checks, table_checks
from thyro_core.tables import schemas

_NAMED = 5  # faults that a check's detail spells out
_AGAIN = "start the same command again"
_DAMAGE = (ThyroError, ValueError, TypeError, LookupError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was checked.
        passed: Whether it holds.
        detail: What was seen; of a failed check the culprits, the cure, and which later checks
            are left out because they need this one.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class _Study:
    store: Store
    plan: StudyPlan
    tables: dict[str, pa.Table]
    """The tables read so far."""


@dataclass(frozen=True)
class _Findings:
    faults: Sequence[str]
    seen: str = ""
    cure: str = _AGAIN


_Look = Callable[[_Study], _Findings]


def verify_study(store: Store, study_id: str) -> Iterator[Check]:
    """Check a study, one check after the other; a failed one does not stop the others.

    Only a check that needs what has failed is left out, so that one cause is one failure; the
    failed check names those. Image files that are gone are counted, not failed.

    Args:
        store: The store that holds the study.
        study_id: The study.

    Yields:
        `plan`, `table <name>` for each table, then `manifest`, `images`, `packs`, `weights`,
        `splits`, `leakage`, `completeness`, `runs`, `models`, `predictions`, `metrics`,
        `comparisons`, `cams`, `cam_features`, `cam_trust`, `cam_tests` and `cam_families`. Only
        `plan`, if the plan itself cannot be read.

    Raises:
        InputError: there is no such study.
        StoreError: a store on S3 failed meanwhile.
    """
    try:
        plan = load_plan(store, study_id)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        cure = "restore it; nothing else can be checked without it"
        yield Check("plan", False, f"{study_key(study_id)} is damaged, {found}; {cure}")
        return
    # Objects are looked for under the name asked for, whatever a mixed-up plan calls itself.
    study = _Study(store, replace(plan, study_id=study_id), {})
    yield _checked("plan", partial(_plan, own_id=plan.study_id), study)
    failed: set[str] = set()
    for name, (look, needs) in _CHECKS.items():
        check = None if failed & set(needs) else _checked(name, look, study)
        if check is not None:
            yield check
        if check is None or not check.passed:
            failed.add(name)


def _checked(name: str, look: _Look, study: _Study) -> Check:
    try:
        found = look(study)
    except StoreError:
        raise  # it says nothing of the study
    except _DAMAGE as error:
        kind = "" if isinstance(error, ThyroError) else f"{type(error).__name__}: "
        return Check(name, False, f"{kind}{error}{_left_out(name)}")
    if not found.faults:
        return Check(name, True, found.seen)
    hidden = len(found.faults) - _NAMED
    more = f" (and {hidden} more)" if hidden > 0 else ""
    what = "; ".join(found.faults[:_NAMED])
    return Check(name, False, f"{what}{more}; {found.cure}{_left_out(name)}")


def _left_out(failed: str) -> str:
    out = [name for name, (_, needs) in _CHECKS.items() if _depends(needs, failed)]
    return f" (left out for this: {', '.join(out)})" if out else ""


def _depends(needs: Sequence[str], on: str) -> bool:
    return any(name == on or _depends(_CHECKS[name][1], on) for name in needs)


def _plan(study: _Study, own_id: str) -> _Findings:
    plan, key = study.plan, study_key(study.plan.study_id)
    recipe = json.loads(study.store.read(key)).get("recipe")
    if recipe != RECIPE:
        fault = f"{key}: expected recipe {RECIPE}, found {recipe}"
        return _Findings([fault], cure="verify with the version that made the study")
    made = make_plan(plan.config, plan.manifest_id, plan.precision, plan.weights, plan.notes)
    if not made.study_id == own_id == plan.study_id:
        fault = f"{key}: it names study {own_id}, its contents make it {made.study_id}"
        return _Findings([fault], cure="restore this file")
    return _Findings([], "the study's id follows from its contents")


def _table(study: _Study, name: str) -> _Findings:
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
        except _DAMAGE as error:
            faults.append(f"{key}: {error}")
    if not keys and name in {"images", "splits"}:
        faults.append(f"{table_prefix(name)}/{owner}: expected a part, found none")
    study.tables[name] = pa.concat_tables(parts)
    seen = f"{len(keys)} parts, {study.tables[name].num_rows} rows"
    return _Findings(faults, seen, f"delete what is damaged and {_AGAIN}")


def _manifest(study: _Study) -> _Findings:
    key = manifest_key(study.plan.manifest_id)
    if not study.store.exists(key):
        return _Findings([f"{key}: expected the ingest's summary, found none"])
    summary, rules = json.loads(study.store.read(key)), study.plan.config.ingest()
    faults = table_checks.summary_faults(summary, study.tables["images"], rules)
    seen = f"{study.tables['images'].num_rows} files; counts and rules agree"
    return _Findings(faults, seen, f"restore {key} or the `images` table")


def _images(study: _Study) -> _Findings:
    table = study.tables["images"]
    faults, gone = object_checks.changed_images(table)
    kept = table.num_rows - table["image_id"].null_count - gone
    seen = f"{kept} files have the recorded bytes, {gone} cannot be reached any more"
    return _Findings(faults, seen, "their place is in the `images` table; put the originals back")


def _packs(study: _Study) -> _Findings:
    config, images = study.plan.config, study.tables["images"]
    sides = sorted({config.side(architecture) for architecture in config.architectures})
    sample = object_checks.sample_images(images, config.ingest())
    faults = list(object_checks.pack_faults(study.store, images, sides, sample))
    faults += object_checks.mask_faults(study.store, images)
    seen = f"sides {', '.join(map(str, sides))}; {len(sample)} images equal a fresh decode"
    return _Findings(faults, seen, f"delete the pack and {_AGAIN}")


def _weights(study: _Study) -> _Findings:
    starts = study.plan.weights.values()
    wanted = {start.key: start.sha256 for start in starts if start.key is not None}
    seen = f"{len(wanted)} files, {len(starts) - len(wanted)} random starts"
    faults = object_checks.changed_objects(study.store, wanted)
    return _Findings(faults, seen, f"delete what is damaged and {_AGAIN}")


def _splits(study: _Study) -> _Findings:
    images, plan = study.tables["images"], study.plan
    expected = make_splits(plan.study_id, images, plan.config)
    return _follows(study, "splits", ("split", "image_id"), expected)


def _leakage(study: _Study) -> _Findings:
    check_leakage(study.tables["splits"], study.tables["images"])
    return _Findings([], "no image, patient or group on both sides of a split")


def _completeness(study: _Study) -> _Findings:
    store, plan = study.store, study.plan
    epochs = study.tables["epochs"].select(["split", "architecture", "epoch"]).to_pandas()
    runs = [(n, name) for n in range(plan.config.splits) for name in plan.config.architectures]
    lacking = {run: ", ".join(_lacking(study, *run, epochs)) for run in runs}
    faults = [f"split {split} {name}: {what}" for (split, name), what in lacking.items() if what]
    seen = f"{len(runs) - len(faults)} of {len(runs)} runs are finished"
    faults += [
        f"no table {name}"
        for name in ("runs", "metrics", "comparisons", "cam_tests", "cam_families")
        if not store.exists(table_key(name, study_id=plan.study_id))
    ]
    return _Findings([seen, *faults] if faults else [], seen)


def _lacking(study: _Study, split: int, architecture: str, epochs: pd.DataFrame) -> Iterator[str]:
    store, study_id, wanted = study.store, study.plan.study_id, study.plan.config.epochs
    if not is_finished(store, study_id, split, architecture):
        yield "no predictions"
    own = (epochs["split"] == split) & (epochs["architecture"] == architecture)
    if epochs.loc[own, "epoch"].tolist() != list(range(1, wanted + 1)):
        yield f"{own.sum()} rows for epochs 1 to {wanted}"
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


def _runs(study: _Study) -> _Findings:
    expected = runs_table(study.store, study.plan)
    return _follows(study, "runs", ("split", "architecture"), expected)


def _models(study: _Study) -> _Findings:
    wanted = {
        model_key(study.plan.study_id, row["split"], row["architecture"]): row["model_sha256"]
        for row in study.tables["runs"].to_pylist()
        if row["model_sha256"] is not None
    }
    faults = object_checks.changed_objects(study.store, wanted)
    cure = f"restore it, or delete that run's predictions too and {_AGAIN}"
    return _Findings(faults, f"{len(wanted)} kept models", cure)


def _predictions(study: _Study) -> _Findings:
    tables = study.tables
    faults = table_checks.prediction_faults(tables["predictions"], tables["splits"])
    found = set(tables["predictions"]["architecture"].to_pylist())
    strangers = sorted(found - set(study.plan.config.architectures))
    faults += [f"{name} is no architecture of the study" for name in strangers]
    rows = tables["predictions"].num_rows
    seen = f"{rows} of exactly the test images, probabilities follow from logits"
    return _Findings(faults, seen, f"delete these predictions and {_AGAIN}")


def _cams(study: _Study) -> _Findings:
    faults = table_checks.cam_faults(study.tables["cams"], study.tables["predictions"])
    seen = f"{study.tables['cams'].num_rows} maps, one for each prediction and class"
    return _Findings(faults, seen, f"delete the predictions of these runs and {_AGAIN}")


def _cam_features(study: _Study) -> _Findings:
    tables, config = study.tables, study.plan.config
    faults = cam_checks.row_faults(tables["cam_features"], tables["predictions"])
    if not faults:
        sides: dict[str, int] = {name: config.side(name) for name in config.architectures}
        faults = cam_checks.feature_faults(study.store, tables, sides)
    seen = (
        f"{tables['cam_features'].num_rows} rows, one for each prediction and share; "
        f"{cam_checks.SAMPLE} images of each run follow from maps and pixels"
    )
    return _Findings(faults, seen, f"delete the predictions of these runs and {_AGAIN}")


def _cam_trust(study: _Study) -> _Findings:
    table = study.tables["cam_trust"]
    faults = cam_checks.row_faults(table, study.tables["predictions"])
    seen = f"{table.num_rows} rows, one for each prediction"
    return _Findings(faults, seen, f"delete the predictions of these runs and {_AGAIN}")


def _cam_tests(study: _Study) -> _Findings:
    plan, features = study.plan, study.tables["cam_features"]
    expected = cam_tests_table(plan.study_id, features, study.tables["splits"], plan.config)
    return _follows(study, "cam_tests", ("architecture", "threshold", "feature"), expected)


def _cam_families(study: _Study) -> _Findings:
    """Computed anew at the declared share only: it takes seconds a share."""
    plan, features = study.plan, study.tables["cam_features"]
    share = pc.field("threshold") == plan.config.cam_share
    part = replace(study, tables={"cam_families": study.tables["cam_families"].filter(share)})
    splits = study.tables["splits"]
    expected = cam_families_table(plan.study_id, features.filter(share), splits, plan.config)
    return _follows(part, "cam_families", ("architecture", "threshold", "family"), expected)


def _metrics(study: _Study) -> _Findings:
    plan, predictions = study.plan, study.tables["predictions"]
    expected = metrics_table(plan.study_id, predictions, study.tables["splits"], plan.config)
    return _follows(study, "metrics", ("split", "architecture", "metric"), expected)


def _comparisons(study: _Study) -> _Findings:
    plan, predictions = study.plan, study.tables["predictions"]
    expected = comparisons_table(plan.study_id, predictions, study.tables["splits"], plan.config)
    return _follows(study, "comparisons", ("split", "baseline", "metric"), expected)


def _follows(study: _Study, name: str, keys: Sequence[str], expected: pa.Table) -> _Findings:
    faults = table_checks.differences(study.tables[name], expected, keys)
    seen = f"{expected.num_rows} rows equal the recomputed ones"
    return _Findings(faults, seen, f"delete the table {name} of this study and {_AGAIN}")


_CHECKS: dict[str, tuple[_Look, tuple[str, ...]]] = {
    **{
        f"table {name}": (partial(_table, name=name), ())
        for name in ("images", *schemas.STUDY_TABLES)
    },
    "manifest": (_manifest, ("table images",)),
    "images": (_images, ("table images",)),
    "packs": (_packs, ("table images",)),
    "weights": (_weights, ()),
    "splits": (_splits, ("table images", "table splits")),
    "leakage": (_leakage, ("table images", "table splits")),
    "completeness": (_completeness, ("table epochs",)),
    "runs": (_runs, ("table runs", "completeness")),
    "models": (_models, ("table runs",)),
    "predictions": (_predictions, ("table predictions", "splits")),
    "metrics": (_metrics, ("table metrics", "completeness", "predictions")),
    "comparisons": (_comparisons, ("table comparisons", "completeness", "predictions")),
    "cams": (_cams, ("table cams", "completeness", "predictions")),
    "cam_features": (_cam_features, ("table cam_features", "packs", "cams")),
    "cam_trust": (_cam_trust, ("table cam_trust", "completeness", "predictions")),
    "cam_tests": (_cam_tests, ("table cam_tests", "cam_features")),
    "cam_families": (_cam_families, ("table cam_families", "cam_features")),
}
"""Each check, and the earlier ones that it cannot do without."""
