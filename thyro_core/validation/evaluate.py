"""Evaluate a model on an external image set; nothing is fitted on it but what is marked."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import canonical_json, content_id
from thyro_core.datasets.manifest import Manifest
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.evaluation.out_of_fold import sigmoid
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS, Bundle, reference
from thyro_core.registry.fingerprints import (
    make_fingerprints,
    same_picture_of,
    training_fingerprints,
)
from thyro_core.store.keys import evaluation_chunk_key, evaluation_folder, evaluation_key
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray
from thyro_core.urls import redact
from thyro_core.validation.adaptation import Adaptation, adapt
from thyro_core.validation.config import EVALUATION_VERSION, EvaluationConfig, EvaluationRecord
from thyro_core.validation.figures import SamplePair, drift_rows, metric_rows
from thyro_core.validation.maps import map_rows
from thyro_core.validation.overlap import UNCHECKED_NOTE, Exclusion, exclusions
from thyro_core.validation.promise import promise_rows
from thyro_core.validation.sample import Sample, external_sample, internal_sample
from thyro_core.validation.score import device_in_use, member_margins

ScoringProgress = Callable[[int, int], None]

SCORED_COUNT = "scored"
"""In an evaluation's counts: the images that take part."""


@dataclass(frozen=True)
class EvaluationTask:
    """What is evaluated on what.

    Attributes:
        bundle: the model.
        manifest: the image set, packed at the model's size.
        source: its address; None: names are not kept.
        config: how.
    """

    bundle: Bundle
    manifest: Manifest
    source: str | None
    config: EvaluationConfig

    @property
    def evaluation_id(self) -> str:
        """Hash of everything that decides the figures."""
        return content_id(
            "e",
            {
                "model_id": self.bundle.model_id,
                "manifest_id": self.manifest.manifest_id,
                "config": self.config.model_dump(mode="json"),
                "version": EVALUATION_VERSION,
            },
        )


def run_evaluation(
    store: Store,
    task: EvaluationTask,
    scratch: Path,
    progress: ScoringProgress = lambda _n_done, _total: None,
) -> EvaluationRecord:
    """Score an image set and set the figures beside the model's own; what is done stays.

    Args:
        store: holds the model, its study and the manifest; takes tables and record.
        task: what is evaluated on what.
        scratch: node-local folder.
        progress: called with the number of images scored and the number of all.

    Raises:
        InputError: nothing is left to score, the model is of an earlier version, its study's
            tables are gone, or a file of it is gone or damaged.
    """
    evaluation_id = task.evaluation_id
    if store.exists(evaluation_key(evaluation_id)):
        return load_evaluation(store, evaluation_id)
    bundle, images = task.bundle, task.manifest.table
    if bundle.is_of_version_1:
        msg = f"model {bundle.model_id}: expected a model with figures of its own, found that "
        raise InputError(msg + FIGURES_OF_MEMBERS)
    if task.manifest.view != bundle.view:
        msg = (
            f"model {bundle.model_id}: expected images as it learned to see them "
            f"({bundle.view.words}), found {task.manifest.view.words}; ingest them by the model's "
            "view"
        )
        raise InputError(msg)
    internal = internal_sample(store, bundle)
    left_out, notes = _left_out(store, task, scratch)
    image_ids = [image_id for image_id in pack_index(images) if image_id not in left_out]
    counts = Counter(each.reason for each in left_out.values())
    _require_images(task, image_ids, counts)
    margins = member_margins(
        store, bundle, images, image_ids, place=(evaluation_id, scratch), progress=progress
    )
    for name, table in evaluation_tables(
        store, task, margins, internal=internal, left_out=left_out
    ).items():
        write_table(store, name, table, evaluation_id=evaluation_id)
    of_maps = map_rows(store, bundle, images, image_ids, config=task.config, scratch=scratch)
    keys = {"evaluation_id": evaluation_id, "model_id": bundle.model_id}
    table = rows_to_table("evaluation_maps", [keys | row for row in of_maps])
    write_table(store, "evaluation_maps", table, evaluation_id=evaluation_id)
    record = EvaluationRecord(
        evaluation_id=evaluation_id,
        version=EVALUATION_VERSION,
        model_id=bundle.model_id,
        manifest_id=task.manifest.manifest_id,
        source=None if task.source is None else redact(task.source),
        config=task.config,
        device=device_in_use(),
        members=len(bundle.members),
        counts={SCORED_COUNT: len(image_ids), **counts},
        notes=(*notes, *task.manifest.notes),
    )
    store.write(evaluation_key(evaluation_id), canonical_json(record).encode())
    for key in store.keys(evaluation_folder(evaluation_id)):
        if key.startswith(evaluation_chunk_key(evaluation_id, 0).rpartition("-")[0]):
            store.delete(key)
    return record


def evaluation_tables(
    store: Store,
    task: EvaluationTask,
    margins: FloatArray,
    *,
    internal: Sample,
    left_out: Mapping[str, Exclusion],
) -> dict[str, pa.Table]:
    """`evaluations` and `evaluation_metrics`, from the members' scores.

    Args:
        store: holds the model and its study.
        task: what is evaluated on what.
        margins: (n, members), log odds of the images that are not left out, in order of image_id.
        internal: the model's own images, see `internal_sample`.
        left_out: image_id -> why.
    """
    bundle, images = task.bundle, task.manifest.table
    image_ids = [image_id for image_id in pack_index(images) if image_id not in left_out]
    external = external_sample(images, image_ids, margins, bundle)
    adaptation = adapt(external, bundle.card["operating_point"]["target_sensitivity"])
    samples = SamplePair(external, internal, adaptation, bundle.threshold)
    scored_images = images.filter(
        pc.and_(images["included"], pc.is_in(images["image_id"], pa.array(image_ids)))
    )
    rows = {
        "evaluations": _image_rows(
            task, external, margins, adaptation=adaptation, left_out=left_out
        ),
        "evaluation_metrics": [
            *metric_rows(samples, task.config),
            *promise_rows(external, internal, bundle),
            *drift_rows(scored_images, reference(store, bundle.model_id)),
        ],
    }
    keys = {"evaluation_id": task.evaluation_id, "model_id": bundle.model_id}
    return {name: rows_to_table(name, [keys | row for row in of]) for name, of in rows.items()}


def load_evaluation(store: Store, evaluation_id: str) -> EvaluationRecord:
    """The record of an evaluation that is done.

    Raises:
        InputError: there is none, or its record is damaged.
    """
    key = evaluation_key(evaluation_id)
    if not store.exists(key):
        names = ", ".join(evaluation_ids(store)) or "none"
        msg = (
            f"{redact(store.url)}: expected an evaluation {evaluation_id}, found {names}; check "
            "the id and --store, or run `thyro evaluate`"
        )
        raise InputError(msg)
    try:
        return EvaluationRecord.model_validate(json.loads(store.read(key)))
    except ValueError as error:  # pydantic's, too
        msg = (
            f"{key}: expected the record of an evaluation, found a damaged one; delete this file "
            "and start its `thyro evaluate` command again"
        )
        raise InputError(msg) from error


def evaluation_ids(store: Store) -> list[str]:
    """Ids of all evaluations of a store that are done, sorted."""
    folder = store.path("evaluations")
    if not store.fs.exists(folder):
        return []
    names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in store.fs.ls(folder, detail=False)}
    return sorted(name for name in names if store.exists(evaluation_key(name)))


def evaluation_figures(store: Store, evaluation_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The figures by image, as (adaptation, metric) -> row of `evaluation_metrics`.

    Raises:
        InputError: they are gone.
    """
    rows = read_table(store, "evaluation_metrics", evaluation_id=evaluation_id).to_pylist()
    if not rows:
        msg = (
            f"evaluation {evaluation_id}: expected its rows of evaluation_metrics, found none; "
            f"delete {evaluation_key(evaluation_id)} and start its `thyro evaluate` command again"
        )
        raise InputError(msg)
    return {
        (row["adaptation"], row["metric"]): row
        for row in rows
        if row["level"] in {"image", "set"} and row["point"] is None
    }


def _left_out(
    store: Store, task: EvaluationTask, scratch: Path
) -> tuple[Mapping[str, Exclusion], list[str]]:
    """The images that are left out, and what could not be checked."""
    bundle, manifest = task.bundle, task.manifest
    study_images = frozenset(reference(store, bundle.model_id)["image_id"].to_pylist())
    training = training_fingerprints(store, bundle, scratch)
    if training is None:
        return exclusions(manifest.table, study_images, {}), [UNCHECKED_NOTE]
    index = pack_index(manifest.table)
    pack = open_pack(store, manifest.manifest_id, bundle.side, scratch, len(index))
    own = make_fingerprints(
        manifest.table, pack, index.keys() - study_images, pad=bundle.view.is_padded
    )
    return exclusions(manifest.table, study_images, same_picture_of(own, training)), []


def _require_images(task: EvaluationTask, image_ids: list[str], counts: Mapping[str, int]) -> None:
    if not image_ids:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
        place = task.source and redact(task.source)
        msg = (
            f"{place or task.manifest.manifest_id}: expected labelled images that model "
            f"{task.bundle.model_id} was not trained on, found none ({reasons or 'no images'}); "
            "give an image set of another place, with labels"
        )
        raise InputError(msg)


def _image_rows(
    task: EvaluationTask,
    external: Sample,
    margins: FloatArray,
    *,
    adaptation: Adaptation,
    left_out: Mapping[str, Exclusion],
) -> list[dict[str, Any]]:
    places = {image_id: place for place, image_id in enumerate(external.ensemble.image)}
    rows = []
    for row in task.manifest.table.to_pylist():
        if not row["included"]:
            continue
        facts = {
            name: row[name]
            for name in ("manifest_id", "image_id", "patient_id", "group_id", "label")
        }
        place = places.get(row["image_id"])
        if place is None:
            reason, training_image = left_out[row["image_id"]]
            rows.append(facts | _nothing() | _exclusion_columns(reason, training_image))
            continue
        margin, least = external.ensemble.margin[place], adaptation.threshold_margin[place]
        probability = float(external.probability[place])
        rows.append(
            facts
            | _exclusion_columns(None, None)
            | {
                "members": sigmoid(margins[place]),
                "margins": margins[place],
                "prob_raw": float(sigmoid(margin)),
                "prob_calibrated": probability,
                "call": int(probability >= task.bundle.threshold),
                "prob_recalibrated": float(adaptation.local_probability[place]),
                "call_local": None if np.isnan(least) else int(margin >= least),
            }
        )
    return rows


def _exclusion_columns(reason: str | None, training_image: str | None) -> dict[str, str | None]:
    return {"excluded": reason, "training_image": training_image}


def _nothing() -> dict[str, None]:
    return dict.fromkeys(
        (
            "members",
            "margins",
            "prob_raw",
            "prob_calibrated",
            "call",
            "prob_recalibrated",
            "call_local",
        )
    )
