"""Make a bundle from a finished study: members, reference set, card; the card last."""

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core import NOTICE
from thyro_core.config import RECIPE, Architecture, ViewConfig, canonical_json, content_id
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.evaluation.member_count import member_variance
from thyro_core.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    member_sd,
    out_of_fold_ensemble,
    out_of_fold_predictions,
)
from thyro_core.registry.bundle import REFERENCE, REFERENCE_FILE, Bundle, load_bundle
from thyro_core.registry.candidates import count_candidates
from thyro_core.registry.card import (
    CARD_VERSION,
    CandidateCount,
    Card,
    Embedding,
    card_bytes,
)
from thyro_core.registry.card_bands import BandShares, band_warnings, conformal_bands
from thyro_core.registry.card_figures import (
    calibration_figures,
    data_figures,
    ensemble_figures,
    metric_figures,
    number,
    operating_figures,
    versions_of,
    warnings_of,
)
from thyro_core.registry.distance import NEIGHBOURS, QUANTILES, distance_bound
from thyro_core.registry.fingerprints import FINGERPRINT_FILE, make_fingerprints
from thyro_core.store.keys import bundle_prefix, card_key, model_key
from thyro_core.store.store import Store
from thyro_core.study.lifecycle import study_notes
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table, to_parquet

INTENDED_USE = (
    "Research: ordering a day's thyroid ultrasound images for reading, and studying how well that "
    "works, on images like those it was trained on."
)
NOT_INTENDED = (
    "Any diagnosis or treatment; images of other devices, settings or populations without a check "
    "on them; leaving an image unread because of its score."
)
_PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class BundleSpec:
    """The inputs of a bundle, beside the members' bytes."""

    plan: StudyPlan
    architecture: Architecture
    sensitivity: float
    shares: BandShares | None = None
    """Of conformal bands; None: bands by the threshold."""


@dataclass(frozen=True)
class _Tables:
    predictions: pa.Table
    splits: pa.Table
    metrics: pa.Table
    runs: pa.Table
    """The members' own rows, by split."""
    images: pa.Table


def make_bundle(store: Store, spec: BundleSpec, scratch: Path) -> Bundle:
    """The bundle of a finished study's architecture; one that is there already stays as it is.

    The same spec, in a store with the same studies, give the same
    bytes; nothing is stamped with a time. A program that dies half way leaves files without a card,
    which is no model yet.

    Args:
        store: holds the study; the bundle goes to `registry/models/<model_id>`.
        spec: what to bundle.
        scratch: node-local folder.

    Raises:
        InputError: the study kept no models, or one is gone or damaged, or it has too few patients
            for the declared shares.
    """
    tables = _tables(store, spec)
    hashes = _member_hashes(spec, tables.runs)
    model_id = _model_id(spec, hashes)
    if store.exists(card_key(model_id)):
        return load_bundle(store, model_id)
    rows = out_of_fold_predictions(tables.predictions, tables.splits, spec.architecture)
    candidates = count_candidates(store, spec.plan, spec.architecture)
    # Before any file: bands that cannot be promised leave nothing behind.
    card = _card(spec, model_id, hashes, tables=tables, rows=rows, candidates=candidates)
    for split, name in enumerate(hashes):
        source = model_key(spec.plan.study_id, split, spec.architecture)
        _copy_member(store, source, f"{bundle_prefix(model_id)}/{name}", hashes[name])
    reference = _reference(store, card, tables, rows, scratch)
    prints = _fingerprints(store, card, tables.images, reference, scratch)
    files = dict(card.files)
    for name, data in (
        (FINGERPRINT_FILE, to_parquet(prints)),
        (REFERENCE_FILE, to_parquet(reference)),
    ):
        store.write(f"{bundle_prefix(model_id)}/{name}", data)
        files[name] = hashlib.sha256(data).hexdigest()
    notes = (*study_notes(store, spec.plan), *card.warnings)
    update = {"files": files, "embedding": _embedding_facts(card, reference), "warnings": notes}
    store.write(card_key(model_id), card_bytes(card.model_copy(update=update)))
    return load_bundle(store, model_id)


def _tables(store: Store, spec: BundleSpec) -> _Tables:
    study_id = spec.plan.study_id
    runs = read_table(store, "runs", study_id=study_id)
    own = runs.filter(pc.equal(runs["architecture"], spec.architecture)).sort_by("split")
    return _Tables(
        predictions=read_table(store, "predictions", study_id=study_id),
        splits=read_table(store, "splits", study_id=study_id),
        metrics=read_table(store, "metrics", study_id=study_id),
        runs=own,
        images=read_table(store, "images", manifest_id=spec.plan.manifest_id),
    )


def _member_hashes(spec: BundleSpec, runs: pa.Table) -> dict[str, str]:
    """SHA-256 of each member's weights, by file name, in the order of the splits."""
    by_split = dict(zip(runs["split"].to_pylist(), runs["model_sha256"].to_pylist(), strict=True))
    lacking = [split for split in range(spec.plan.config.splits) if by_split.get(split) is None]
    if lacking:
        msg = (
            f"study {spec.plan.study_id}, {spec.architecture}: expected the trained weights of "
            f"all {spec.plan.config.splits} splits, found none of {', '.join(map(str, lacking))}; "
            "run the study with THYRO_KEEP_MODELS=true, in another store or after deleting these "
            "runs' predictions"
        )
        raise InputError(msg)
    return {f"split={split}.safetensors": str(by_split[split]) for split in sorted(by_split)}


def _model_id(spec: BundleSpec, hashes: Mapping[str, str]) -> str:
    deciding = {
        "study_id": spec.plan.study_id,
        "architecture": spec.architecture,
        "members": list(hashes.values()),
        "target_sensitivity": spec.sensitivity,
        "recipe": RECIPE,
        "card_version": CARD_VERSION,
    }
    if spec.shares is not None:
        deciding["conformal_bands"] = list(spec.shares)
    return content_id("b", deciding)


def _copy_member(store: Store, source: str, target: str, sha256: str) -> None:
    """Copy an object if its bytes have this SHA-256, and only then."""
    digest = hashlib.sha256()
    try:
        with store.fs.open(store.path(source), "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except FileNotFoundError as error:
        raise _lost_weights(source, sha256, "no file") from error
    if digest.hexdigest() != sha256:
        raise _lost_weights(source, sha256, digest.hexdigest())
    with store.fs.open(store.path(source), "rb") as file, store.writing(target) as out:
        shutil.copyfileobj(file, out, _PIECE_BYTES)


def _lost_weights(source: str, sha256: str, actual: str) -> InputError:
    return InputError(
        f"{source}: expected the trained weights with SHA-256 {sha256}, found {actual}; restore "
        "the file, or delete that run's predictions and start the study again"
    )


def _card(
    spec: BundleSpec,
    model_id: str,
    hashes: Mapping[str, str],
    *,
    tables: _Tables,
    rows: OutOfFoldPredictions,
    candidates: CandidateCount,
) -> Card:
    """The card but for the reference set and the study's notes."""
    plan = spec.plan
    start = plan.weights[spec.architecture]
    ensemble = out_of_fold_ensemble(rows)
    together = ensemble_figures(ensemble, len(hashes))
    calibration = calibration_figures(ensemble)
    logistic = LogisticCalibration(calibration.slope, calibration.intercept)
    point = operating_figures(ensemble, logistic, spec.sensitivity)
    where = f"study {plan.study_id}, {spec.architecture}"
    bands = spec.shares and conformal_bands(ensemble, logistic, spec.shares, where)
    versions, commits = versions_of(tables.runs)
    config = canonical_json(plan.config)
    return Card(
        card_version=CARD_VERSION,
        model_id=model_id,
        notice=NOTICE,
        intended_use=INTENDED_USE,
        not_intended=NOT_INTENDED,
        licence=_licence(start.display_origin),
        warnings=(
            *_start_warnings(spec),
            *_view_warnings(plan.config),
            *warnings_of(together, calibration, point, candidates),
            *(band_warnings(bands) if bands else ()),
        ),
        architecture=spec.architecture,
        side=plan.config.side(spec.architecture),
        members=tuple(hashes),
        files=dict(hashes),
        study_id=plan.study_id,
        study_config=plan.config,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        precision=plan.precision,
        recipe=RECIPE,
        data=data_figures(plan.manifest_id, tables.splits),
        starting_weights={"origin": start.display_origin, "sha256": start.sha256},
        metrics=metric_figures(tables.metrics, spec.architecture),
        ensemble=together,
        candidates=candidates,
        calibration=calibration,
        operating_point=point,
        bands=bands,
        embedding=Embedding(layer="", neighbours=NEIGHBOURS, held_out=0, distances={}),
        versions=versions,
        git_commits=commits,
    )


def _licence(origin: str) -> str:
    start = (
        "the members started from random weights"
        if origin == "none"
        else f"the members started from weights with terms of their own ({origin})"
    )
    return (
        "No licence is granted with these weights: they derive from the training images, whose "
        f"owner's terms bind whoever uses or passes them on; {start}. The program is MIT licensed."
    )


def _start_warnings(spec: BundleSpec) -> tuple[str, ...]:
    if spec.plan.weights[spec.architecture].key is not None:
        return ()
    warning = (
        f"{spec.architecture} was trained from RANDOM weights, not from ImageNet's: "
        "expect far worse results than the paper's"
    )
    return (warning,)


def _view_warnings(view: ViewConfig) -> tuple[str, ...]:
    if view.region == "whole":
        return ()
    warning = (
        "it sees crops of nodules that somebody marked: `thyro screen` and `thyro predict` refuse "
        "it, as new files have neither masks nor boxes, and its figures are of nodules that were "
        "found already"
    )
    return (warning,)


def _reference(
    store: Store, card: Card, tables: _Tables, rows: OutOfFoldPredictions, scratch: Path
) -> pa.Table:
    """The training set as the model saw it, schema `REFERENCE`, by image_id."""
    from thyro_core.registry.embeddings import training_embeddings

    index = pack_index(tables.images)
    split_rows = {row["image_id"]: row for row in tables.splits.to_pylist()}
    ids = sorted(split_rows)
    first = Bundle(
        model_id=card.model_id, architecture=card.architecture, side=card.side,
        calibration=LogisticCalibration(1.0, 0.0), threshold=1.0,
        members=(f"{bundle_prefix(card.model_id)}/{card.members[0]}",),
        card=card.model_dump(mode="json"),
    )  # fmt: skip
    places = np.array([index[image_id] for image_id in ids], dtype=np.int64)
    embeddings = training_embeddings(first, store, scratch, places, len(index))
    calibration = LogisticCalibration(card.calibration.slope, card.calibration.intercept)
    ensemble = out_of_fold_ensemble(rows)
    sd = member_sd(rows, calibration.probability(rows.margin))
    # With the spread of scores in use, which the nights' scores are compared with.
    margin = member_variance(ensemble).rescale(ensemble.margin, ensemble.members)
    figures = zip(calibration.probability(margin), sd, strict=True)
    by_image = dict(zip(ensemble.image, figures, strict=True))
    splits = tables.splits
    first_train = pc.and_(pc.equal(splits["split"], 0), pc.equal(splits["role"], "train"))
    train_ids = set(splits.filter(first_train)["image_id"].to_pylist())
    columns = {
        "image_id": ids,
        "group_id": [split_rows[image_id]["group_id"] for image_id in ids],
        "label": [split_rows[image_id]["label"] for image_id in ids],
        "prob_malignant": [by_image.get(image_id, (math.nan,))[0] for image_id in ids],
        "sd": [by_image.get(image_id, (math.nan, math.nan))[1] for image_id in ids],
        **_image_statistics(tables.images, ids),
        "held_out": [image_id not in train_ids for image_id in ids],
        "embedding": list(embeddings),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in REFERENCE]
    return pa.Table.from_arrays(arrays, schema=REFERENCE)


def _fingerprints(
    store: Store, card: Card, images: pa.Table, reference: pa.Table, scratch: Path
) -> pa.Table:
    """What the training set is recognised by, without its pixels."""
    pack = open_pack(store, card.data.manifest_id, card.side, scratch, len(pack_index(images)))
    image_ids = set(reference["image_id"].to_pylist())
    return make_fingerprints(images, pack, image_ids, pad=card.study_config.is_padded)


def _image_statistics(images: pa.Table, ids: list[str]) -> dict[str, list[float]]:
    rows = {row["image_id"]: row for row in images.filter(images["included"]).to_pylist()}
    names = {"mean": "mean", "grey_sd": "sd", "sharpness": "sharpness"}
    names["overlay_share"] = "overlay_share"
    return {new: [rows[image_id][old] for image_id in ids] for new, old in names.items()}


def _embedding_facts(card: Card, reference: pa.Table) -> Embedding:
    from thyro_core.training.models import last_layer

    return Embedding(
        layer=last_layer(card.architecture),
        neighbours=NEIGHBOURS,
        held_out=int(pc.sum(reference["held_out"]).as_py() or 0),
        distances={f"{q:g}": number(distance_bound(reference, q)) for q in QUANTILES},
    )
