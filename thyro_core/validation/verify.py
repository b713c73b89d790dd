"""Verification of evaluations: whether rows and figures follow from the members' scores."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from thyro_core.datasets.manifest import load_manifest
from thyro_core.errors import StoreError, ThyroError, amount
from thyro_core.explain.trust import TRUST_CHECKS
from thyro_core.registry.bundle import load_bundle
from thyro_core.store.keys import evaluation_key, evaluation_page_key
from thyro_core.store.store import Store
from thyro_core.study.verify.table_checks import differences
from thyro_core.study.verify.verify import StudyCheck
from thyro_core.tables.io import read_table
from thyro_core.types import FloatArray
from thyro_core.validation.config import EVALUATION_VERSION
from thyro_core.validation.evaluate import (
    SCORED_COUNT,
    EvaluationTask,
    evaluation_ids,
    evaluation_tables,
    load_evaluation,
)
from thyro_core.validation.maps import MAP_MEASURES
from thyro_core.validation.overlap import Exclusion
from thyro_core.validation.sample import internal_sample

_KEYS = {
    "evaluations": ("image_id",),
    "evaluation_metrics": ("level", "adaptation", "metric", "point"),
}
_LEAD_TOLERANCE = 1e-5  # leads are rounded before they are averaged
_MOST_MARGIN = 40.0  # where a probability is 0 or 1 to the last bit, its log odds are lost


def verify_evaluations(store: Store) -> Iterator[StudyCheck]:
    """Check each evaluation; nothing is scored again and nothing is written.

    Yields:
        `<evaluation_id>`: its counts, and that probabilities, calls and all figures follow from
        the members' log odds, by the model's own calibration and threshold; where an earlier
        version kept probabilities alone, from these. Which images are copies of the model's own is
        not looked for again.

    Raises:
        StoreError: a store on S3 failed.
    """
    for evaluation_id in evaluation_ids(store):
        try:
            faults, summary = _faults(store, evaluation_id)
        except StoreError:
            raise  # no statement about the evaluation
        except (ThyroError, OSError, ValueError, LookupError, pa.ArrowException) as error:
            kind = "" if isinstance(error, ThyroError) else f"{type(error).__name__}: "
            faults, summary = [f"{kind}{error}"], ""
        cure = f"delete {evaluation_key(evaluation_id)} and start its `thyro evaluate` again"
        detail = f"{'; '.join(faults)}; {cure}" if faults else summary
        yield StudyCheck(evaluation_id, not faults, detail)


def _faults(store: Store, evaluation_id: str) -> tuple[list[str], str]:
    record = load_evaluation(store, evaluation_id)
    if record.version != EVALUATION_VERSION:
        text = (
            f"expected figures of version {EVALUATION_VERSION}, found {record.version}, which "
            "cannot be worked out again"
        )
        return [text], ""
    bundle = load_bundle(store, record.model_id)
    manifest = load_manifest(store, record.manifest_id)
    task = EvaluationTask(bundle, manifest, record.source, record.config)
    table_by_name = {name: read_table(store, name, evaluation_id=evaluation_id) for name in _KEYS}
    rows = table_by_name["evaluations"].sort_by("image_id").to_pylist()
    left_out = {
        row["image_id"]: Exclusion(row["excluded"], row["training_image"])
        for row in rows
        if row["excluded"] is not None
    }
    counts = Counter(row["excluded"] or SCORED_COUNT for row in rows)
    faults = []
    if task.evaluation_id != evaluation_id:
        faults.append("its id does not follow from its model, images and settings")
    if dict(counts) != record.counts:
        faults.append(f"its record counts {record.counts}, its rows {dict(counts)}")
    if not store.exists(evaluation_page_key(evaluation_id)):
        faults.append("it has no page")
    scored_rows = [row for row in rows if row["excluded"] is None]
    # Evaluations of earlier versions keep probabilities alone.
    has_margins = any(row["margins"] is not None for row in scored_rows)
    column = "margins" if has_margins else "members"
    member_scores = [row[column] for row in scored_rows]
    odd = sum(members is None or len(members) != record.members for members in member_scores)
    if odd:
        of_members = f"{amount(odd, 'image')} without the scores of {record.members} members"
        return [*faults, of_members], ""
    internal = internal_sample(store, bundle)
    margins = np.array(member_scores) if has_margins else _margins(member_scores)
    fresh = evaluation_tables(store, task, margins, internal=internal, left_out=left_out)
    for name, keys in _KEYS.items():
        pair = table_by_name[name], fresh[name]
        if name == "evaluations" and not has_margins:
            # What all else is worked out from, and which log odds and back do not keep to the bit.
            pair = pair[0].drop_columns("members"), pair[1].drop_columns("members")
        faults += differences(name, *pair, keys)
    of_maps = read_table(store, "evaluation_maps", evaluation_id=evaluation_id).to_pylist()
    faults += map_faults(of_maps, min(record.config.map_images, len(member_scores)))
    n_rows = amount(table_by_name["evaluation_metrics"].num_rows, "figure")
    return faults, (
        f"{amount(len(member_scores), 'image')} scored, {n_rows} as recomputed; not checked: which "
        "images are copies of the model's own, the values of the maps' checks, the page's contents"
    )


def map_faults(rows: Sequence[Mapping[str, Any]], images: int) -> list[str]:
    """Where rows of `evaluation_maps` can't be of an evaluation that drew so many images.

    Args:
        rows: of one evaluation.
        images: how many got a map.
    """
    expected_keys = {
        (row[0], row[1]) for row in TRUST_CHECKS if row[0] in {*MAP_MEASURES, "is_empty"}
    }
    keys = Counter((row["measure"], row["baseline"]) for row in rows)
    if keys != Counter(expected_keys if images else ()):
        n_checks = len(expected_keys) if images else 0
        text = f"{len(rows)} rows of {len(keys)} checks"
        return [f"evaluation_maps: expected each of {n_checks} checks once, found {text}"]
    faults = []
    for row in rows:
        name = f"evaluation_maps: {row['measure']} against {row['baseline']}"
        if not 0 <= row["n"] <= images:
            faults.append(f"{name}: expected 0 to {images} images, found {row['n']}")
        lead = row["value"] - row["reference"]
        if math.isfinite(lead) and not math.isclose(lead, row["lead"], abs_tol=_LEAD_TOLERANCE):
            faults.append(f"{name}: expected a lead of {lead:g}, found {row['lead']:g}")
    return faults


def _margins(probability: list[list[float]]) -> FloatArray:
    values = np.array(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        margins = np.log(values) - np.log1p(-values)
    return np.asarray(np.clip(margins, -_MOST_MARGIN, _MOST_MARGIN))
