"""How many models a store could choose from: the best of many looks better than it is."""

import math
from collections.abc import Set

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from thyro_core.config import Architecture
from thyro_core.errors import ThyroError
from thyro_core.evaluation.tables import image_level
from thyro_core.registry.card import CandidateCount
from thyro_core.registry.unseen import image_table
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan, load_plan, study_ids
from thyro_core.tables.io import read_table

SHARED_PART = 0.5
"""Share of the images of the smaller of two image sets from which on they count as one."""


def count_candidates(store: Store, plan: StudyPlan, architecture: Architecture) -> CandidateCount:
    """The finished studies of a study's image set in a store, it among them, and their networks.

    Another manifest counts if it shares at least `SHARED` of the images of the smaller of the two,
    by the hash of their files: an image added, excluded or labelled anew makes another manifest,
    and does not undo the choices made before. Reruns are of the same manifest.

    Of runs that differ by their seed alone the one with the best AUC is expected to lead their
    true AUC by SD x the expected largest of so many standard normal draws: that is the optimism of
    whoever promotes the best. Studies deleted since cannot be counted.

    Args:
        store: holds the studies.
        plan: the study in question.
        architecture: the network in question.
    """
    plans = _finished_plans(store)
    sets = _same_image_set(store, plan.manifest_id, {other.manifest_id for other in plans})
    studies = [other for other in plans if other.manifest_id in sets]
    config = plan.config.model_copy(update={"seed": 0, "architectures": (architecture,)})
    aucs = [
        _mean_auc(store, other.study_id, architecture)
        for other in studies
        if other.manifest_id == plan.manifest_id
        and architecture in other.config.architectures
        and config == other.config.model_copy(update={"seed": 0, "architectures": (architecture,)})
    ]
    sd = float(np.std(aucs, ddof=1)) if len(aucs) > 1 else math.nan
    return CandidateCount(
        studies=len(studies),
        candidates=sum(len(other.config.architectures) for other in studies),
        reruns=len(aucs),
        auc_sd=None if math.isnan(sd) else sd,
        optimism=None if math.isnan(sd) else sd * expected_largest(len(aucs)),
    )


def _same_image_set(store: Store, manifest_id: str, others: Set[str]) -> set[str]:
    """The manifests that hold the same images for the most part, it among them."""
    own = _image_ids(store, manifest_id)
    sets = {manifest_id}
    for other in others - sets:
        images = _image_ids(store, other)
        if len(own & images) >= SHARED_PART * max(1, min(len(own), len(images))):
            sets.add(other)
    return sets


def _image_ids(store: Store, manifest_id: str) -> set[str]:
    """The images of a manifest; none where its table is gone."""
    images = image_table(store, manifest_id)
    return set() if images is None else set(images["image_id"].drop_null().to_pylist())


def expected_largest(n: int) -> float:
    """Expected largest of n standard normal draws (Blom 1958's approximation).

    Args:
        n: at least 1.
    """
    return float(stats.norm.ppf((n - 0.375) / (n + 0.25)))


def _finished_plans(store: Store) -> list[StudyPlan]:
    """Plans of all studies with metrics; damaged ones and those of permuted labels are left out."""
    plans = []
    for name in study_ids(store):
        if not store.exists(table_key("metrics", study_id=name)):
            continue
        try:
            plans.append(load_plan(store, name))
        except (ThyroError, ValueError, TypeError, LookupError, AttributeError):
            continue
    return [plan for plan in plans if not plan.config.permute_labels]


def _mean_auc(store: Store, study_id: str, architecture: str) -> float:
    rows = image_level(read_table(store, "metrics", study_id=study_id))
    own = pc.and_(pc.equal(rows["metric"], "auc"), pc.equal(rows["architecture"], architecture))
    over = rows.filter(pc.and_(own, pc.is_null(rows["split"])))["value"].to_pylist()
    return float(over[0]) if over else math.nan
