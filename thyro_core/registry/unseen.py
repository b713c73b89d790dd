"""Two models on the images that neither was trained on, where their image sets differ.

An image that took part in both studies is scored by each model's members whose split tested
it. One that is new to the champion is scored by the champion itself, by as many members as
the candidate has for it, so that neither gains by averaging more. An image is new only if no image
of its group took part in the champion's study.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from thyro_core.datasets.packs import pack_index
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import IntervalEstimate
from thyro_core.evaluation.ensemble import paired_auc_difference
from thyro_core.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    out_of_fold_ensemble,
    out_of_fold_predictions,
)
from thyro_core.registry.bundle import Bundle, reference
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table
from thyro_core.types import FloatArray, IntArray

SAME_PICTURE_BITS = 8
"""Perceptual hashes (64 bits) that differ in at most so many are taken for one picture's. On two
public sets 0 and 0.5 % of the images are as near to one of another group."""

LEAST_OF_A_CLASS = 10
"""Fewest images of each class, seen by neither model, that two models are compared on."""


@dataclass(frozen=True)
class UnseenComparison:
    """A candidate against the champion on images that neither was trained on."""

    n_shared: int
    """Images of both studies, scored out of fold by both."""
    new: int
    """Images that the champion never saw."""
    malignant: int
    difference: IntervalEstimate | None
    """AUC of the candidate - AUC of the champion; None: too few images of a class."""
    is_by_picture: bool
    """Whether copies in other files were looked for; the champion's table `images` may be gone."""
    is_same_view: bool = True
    """Whether both see the same of a picture; else the champion scores none that is new to it."""


def compare_on_unseen(
    store: Store, plan: StudyPlan, architecture: str, champion: Bundle, *, scratch: Path
) -> UnseenComparison:
    """Compare a study's network with a champion that was made on another image set.

    Args:
        store: holds the study and the champion.
        plan: the candidate's study.
        architecture: which of its networks.
        champion: the model in use.
        scratch: node-local folder.

    Raises:
        InputError: the champion's files are gone or damaged.
    """
    splits = read_table(store, "splits", study_id=plan.study_id)
    predictions = read_table(store, "predictions", study_id=plan.study_id)
    rows = out_of_fold_predictions(predictions, splits, architecture)
    candidate = out_of_fold_ensemble(rows)
    training = reference(store, champion.model_id)
    scores = dict(
        zip(training["image_id"].to_pylist(), training["prob_malignant"].to_pylist(), strict=True)
    )
    images = image_table(store, plan.manifest_id)
    before = image_table(store, champion.card["data"]["manifest_id"])
    champions_own = set(scores)
    is_by_picture = images is not None and before is not None
    if images is not None and before is not None:
        champions_own |= same_pictures(images, before, set(scores))
    known_groups = {
        row["group_id"] for row in splits.to_pylist() if row["image_id"] in champions_own
    }
    new = [
        image
        for image, group in zip(candidate.image, candidate.group, strict=True)
        if group not in known_groups
    ]
    fresh = _champion_scores(store, plan, champion, scratch=scratch, splits=_splits_of(rows, new))
    champions = np.array([(scores | fresh).get(image, np.nan) for image in candidate.image])
    is_judged = np.isfinite(champions)
    label = candidate.label[is_judged]
    malignant = int(label.sum())
    enough = min(malignant, label.size - malignant) >= LEAST_OF_A_CLASS
    return UnseenComparison(
        n_shared=int(is_judged.sum()) - len(fresh),
        new=len(fresh),
        malignant=malignant,
        difference=paired_auc_difference(
            label, candidate.margin[is_judged], champions[is_judged], candidate.unit[is_judged]
        )
        if enough
        else None,
        is_by_picture=is_by_picture,
        is_same_view=champion.view == plan.config.view,
    )


def same_pictures(images: pa.Table, others: pa.Table, study: Set[str]) -> set[str]:
    """The images that show what an image of a study shows, whatever the bytes of their files.

    By the hash of their grey pixels, or by perceptual hashes that differ in at most
    `SAME_PICTURE_BITS`. Crops, mirrored and rotated copies are not found.

    Args:
        images: table `images` of one image set.
        others: that of another.
        study: image_id of those of `others` that took part in the study.
    """
    columns = ("image_id", "pixel_hash", "phash")
    own, theirs = (
        [row for row in table.select(columns).to_pylist() if row["phash"] and row["image_id"]]
        for table in (images, others)
    )
    theirs = [row for row in theirs if row["image_id"] in study]
    if not own or not theirs:
        return set()
    pixels = {row["pixel_hash"] for row in theirs} - {None}
    hashes = np.array([int(row["phash"], 16) for row in theirs], dtype=np.uint64)
    return {
        row["image_id"]
        for row in own
        if row["pixel_hash"] in pixels
        or np.bitwise_count(hashes ^ np.uint64(int(row["phash"], 16))).min() <= SAME_PICTURE_BITS
    }


def image_table(store: Store, manifest_id: str) -> pa.Table | None:
    """A manifest's table `images`; None: it is gone.

    Args:
        store: holds it.
        manifest_id: the manifest's.
    """
    if not store.exists(table_key("images", manifest_id=manifest_id)):
        return None
    return read_table(store, "images", manifest_id=manifest_id)


def _splits_of(rows: OutOfFoldPredictions, images: list[str]) -> dict[str, list[int]]:
    """The splits that tested each of these images."""
    splits: dict[str, list[int]] = {image: [] for image in images}
    for image, split in zip(rows.image, rows.split, strict=True):
        if image in splits:
            splits[image].append(int(split))
    return splits


def _champion_scores(
    store: Store,
    plan: StudyPlan,
    champion: Bundle,
    *,
    scratch: Path,
    splits: Mapping[str, list[int]],
) -> dict[str, float]:
    """The champion's calibrated probability of images that are new to it.

    None, where the candidate's image set was not packed at the champion's input size, or shows
    its networks another view than the champion learned.
    """
    if not splits or champion.view != plan.config.view:
        return {}
    index = pack_index(read_table(store, "images", manifest_id=plan.manifest_id))
    images = [image for image in splits if image in index]
    places = np.array([index[image] for image in images], dtype=np.int64)
    margins = _margins(
        store, plan.manifest_id, champion, scratch=scratch, rows=(places, len(index))
    )
    if margins is None:
        return {}
    scores = {}
    for image, of_members in zip(images, margins, strict=True):
        members = sorted({split % len(champion.members) for split in splits[image]})
        scores[image] = float(champion.calibration.ensemble_probability(of_members[members]))
    return scores


def _margins(
    store: Store,
    manifest_id: str,
    champion: Bundle,
    *,
    scratch: Path,
    rows: tuple[IntArray, int],
) -> FloatArray | None:
    """(n, members), each member's logit of malignant minus logit of benign; None: no pack."""
    import torch

    from thyro_core.datasets.packs import open_pack
    from thyro_core.registry.ensemble import load_members
    from thyro_core.training.batches import Examples
    from thyro_core.training.inference import predict

    places, size = rows
    try:
        pixels = open_pack(store, manifest_id, champion.side, scratch, size)
    except InputError:
        return None
    examples = Examples(pixels, places, torch.zeros(len(places), dtype=torch.int64))
    logits = [
        predict(member, examples, torch.device("cpu")).double().numpy()
        for member in load_members(champion, store, scratch)
    ]
    return np.stack([values[:, 1] - values[:, 0] for values in logits], axis=1)
