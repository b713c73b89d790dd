"""Two samples of images with a model's scores: the external one, and the model's own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from thyro_core.config import Architecture
from thyro_core.datasets.attributes import image_nodules
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import Calibration, cross_fit
from thyro_core.evaluation.out_of_fold import (
    Ids,
    OutOfFoldEnsemble,
    ensemble_margin,
    out_of_fold_ensemble,
    out_of_fold_predictions,
)
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.unseen import image_table
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table
from thyro_core.types import FloatArray, IntArray


@dataclass(frozen=True)
class Sample:
    """Images with an ensemble's scores; n images."""

    ensemble: OutOfFoldEnsemble
    """Ids, labels, units and log odds."""
    probability: FloatArray
    """(n,), by the calibration in use, of which the threshold is a value."""
    unseen_probability: FloatArray
    """(n,), calibrated without the image's own label: of the model's own images cross-fitted, of
    others `probability` itself; NaN: not possible."""
    nodule: Ids | None
    """(n,), the patient's nodule; None: no nodules are given."""
    unit_name: str
    """patient, or group where no patient is known at all."""


@dataclass(frozen=True)
class Units:
    """What counts as one at a level; k units."""

    label: IntArray
    probability: FloatArray
    """(k,), mean over the unit's images."""
    unseen_probability: FloatArray
    """(k,), mean over them of `Sample.unseen_probability`."""
    score: FloatArray
    """(k,), what ranks them: by image the log odds, which no rounding ties."""
    cluster: Ids
    """(k,), the patient: what is independent."""


def external_sample(
    images: pa.Table, image_ids: list[str], margin: FloatArray, bundle: Bundle
) -> Sample:
    """The scored images of a manifest.

    Args:
        images: its table `images`.
        image_ids: image_id of the scored ones, ascending.
        margin: (n, members), their log odds by each member.
        bundle: the model.
    """
    rows = {row["image_id"]: row for row in images.to_pylist() if row["included"]}
    own = [rows[image_id] for image_id in image_ids]
    members = margin.shape[1]
    variance = margin.var(axis=1, ddof=1) if members > 1 else np.full(len(own), np.nan)
    unit = [row["patient_id"] or row["group_id"] for row in own]
    ensemble = OutOfFoldEnsemble(
        image=np.array(image_ids, dtype=object),
        group=np.array([row["group_id"] for row in own], dtype=object),
        unit=np.array(unit, dtype=object),
        label=np.array([row["label"] for row in own], dtype=np.int64),
        margin=ensemble_margin(margin) if own else np.empty(0),
        members=np.full(len(own), members),
        member_variance=variance,
        networks=members,
    )
    probability = bundle.calibration.probability(ensemble.margin)
    has_patients = any(row["patient_id"] for row in own)
    return Sample(
        ensemble, probability, probability, _nodules(images, image_ids), _unit_name(has_patients)
    )


def internal_sample(store: Store, bundle: Bundle) -> Sample:
    """The images of the model's study, each scored by the members whose split tested it.

    Args:
        store: holds the study.
        bundle: the model made of it.

    Raises:
        InputError: the study's tables are gone.
    """
    study_id: str = bundle.card["study_id"]
    predictions, splits = (
        read_table(store, name, study_id=study_id) for name in ("predictions", "splits")
    )
    if not predictions.num_rows or not splits.num_rows:
        msg = (
            f"study {study_id}, of which model {bundle.model_id} is: expected its predictions, "
            "which the figures outside are set against, found none in this store; restore the "
            "study's tables, or run its `thyro study` command again"
        )
        raise InputError(msg)
    return _internal(predictions, splits, bundle, store)


def _internal(predictions: pa.Table, splits: pa.Table, bundle: Bundle, store: Store) -> Sample:
    architecture: Architecture = bundle.architecture
    ensemble = out_of_fold_ensemble(out_of_fold_predictions(predictions, splits, architecture))
    images = image_table(store, bundle.card["data"]["manifest_id"])
    has_patients = any(splits["patient_id"].to_pylist())
    calibration: Calibration = bundle.calibration
    return Sample(
        ensemble,
        calibration.probability(ensemble.margin),
        cross_fit(ensemble).probability,
        None if images is None else _nodules(images, list(ensemble.image)),
        _unit_name(has_patients),
    )


def levels_of(sample: Sample) -> Mapping[str, Units]:
    """The images as what may count as one: `image`, `unit` (patient or group) and `nodule`.

    A unit's probability is the mean over its images, and it is malignant if one of them is.
    """
    ensemble = sample.ensemble
    units = ensemble.unit.astype(str)
    levels = {
        "image": Units(
            ensemble.label,
            sample.probability,
            sample.unseen_probability,
            ensemble.margin,
            ensemble.unit,
        ),
        "unit": _units_by(sample, units),
    }
    if sample.nodule is not None:
        # No pseudonym holds a slash: no two pairs of patient and nodule are one text.
        keys = [f"{unit}/{nodule}" for unit, nodule in zip(units, sample.nodule, strict=True)]
        levels["nodule"] = _units_by(sample, np.array(keys, dtype=str))
    return levels


def has_groups(sample: Sample) -> bool:
    """Whether some patient, or group, has several images."""
    return len(set(sample.ensemble.unit)) < sample.ensemble.label.size


def _units_by(sample: Sample, keys: Ids) -> Units:
    frame = pd.DataFrame(
        {
            "label": sample.ensemble.label,
            "probability": sample.probability,
            "unseen": sample.unseen_probability,
            "cluster": sample.ensemble.unit,
        }
    )
    by_unit = frame.groupby(keys, sort=True).agg(
        label=("label", "max"),
        probability=("probability", "mean"),
        unseen=("unseen", "mean"),
        cluster=("cluster", "first"),
    )
    probability = by_unit["probability"].to_numpy(np.float64)
    return Units(
        by_unit["label"].to_numpy(np.int64),
        probability,
        by_unit["unseen"].to_numpy(np.float64),
        probability,
        by_unit["cluster"].to_numpy(object),
    )


def _nodules(images: pa.Table, image_ids: list[str]) -> Ids | None:
    nodules = image_nodules(images)
    if not nodules:
        return None
    return np.array([nodules.get(image_id, "") for image_id in image_ids], dtype=object)


def _unit_name(has_patients: bool) -> str:
    return "patient" if has_patients else "group"
