"""May this model take the champion's place? Not if it is worse on images that neither saw."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.evaluation.tables import image_level
from thyro_core.evaluation.uncertainty import MIN_SPLITS, TTest, nadeau_bengio
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.unseen import LEAST_OF_A_CLASS, UnseenComparison, compare_on_unseen
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table


@dataclass(frozen=True)
class Verdict:
    """How a candidate compares with the champion."""

    worse: bool
    """Whether its AUC is lower."""
    text: str
    """The comparison in one sentence, or why there is none."""
    is_compared: bool = True
    """Whether there are images to compare the two on."""


@dataclass(frozen=True)
class _StudyAucs:
    auc: dict[int, float]
    """AUC of each split."""
    tests: dict[int, frozenset[str]]
    """Images of each split's test part."""
    ratio: float
    """Mean of n_test / n_train."""


def compare_with_champion(
    store: Store, plan: StudyPlan, architecture: str, champion: Bundle, *, scratch: Path
) -> Verdict:
    """Compare a study's architecture with the champion by AUC.

    On the same manifest: over the splits whose test parts are the same images in both studies, if
    there are at least two, by the mean paired difference with Nadeau and Bengio's interval; else
    by the means over each study's own splits. On another manifest: by the AUC on the images that
    neither was trained on (`compare_on_unseen`), if they are enough. Lower is worse, however
    little: who thinks otherwise can say so, and is then on record. An undefined AUC of the
    candidate is worse.

    Args:
        store: where both studies' tables lie.
        plan: the candidate's study.
        architecture: which of its networks.
        champion: the model in use.
        scratch: node-local folder.

    Raises:
        InputError: the champion's files are needed, and gone or damaged.
    """
    card = champion.card
    if card["data"]["manifest_id"] != plan.manifest_id:
        comparison = compare_on_unseen(store, plan, architecture, champion, scratch=scratch)
        return _compare_unseen(comparison, champion.model_id)
    new = _study(store, plan.study_id, architecture)
    old = _study(store, card["study_id"], champion.architecture)
    splits = sorted(split for split in new.auc if old.tests.get(split) == new.tests[split])
    if len(splits) > 1 and all(split in old.auc for split in splits):
        return _compare_splits(new, old, splits, champion.model_id)
    # The champion's study may be gone; its card stays.
    before = (
        float(np.mean(list(old.auc.values()))) if old.auc else _value_or_nan(card["metrics"]["auc"])
    )
    return _compare_means(float(np.mean(list(new.auc.values()))), before, champion.model_id)


def _compare_unseen(comparison: UnseenComparison, model_id: str) -> Verdict:
    images = comparison.n_shared + comparison.new
    parts = (
        f"{comparison.n_shared} of both studies, out of fold, {comparison.new} new to the champion"
    )
    parts += (
        ", as files and as pictures" if comparison.is_by_picture else ", as files: copies count"
    )
    if not comparison.is_same_view:
        parts += "; the champion sees another view of pictures than this study packed"
    if comparison.difference is None:
        text = (
            f"not compared with {model_id}, which was promoted on other images: {images} images, "
            f"{comparison.malignant} malignant, were seen by neither ({parts}); "
            f"{LEAST_OF_A_CLASS} of each class are needed"
        )
        return Verdict(False, text, is_compared=False)
    value, low, high = comparison.difference
    text = (
        f"AUC {value:+.4f} against {model_id} (95 % interval {low:+.4f} to {high:+.4f}) on "
        f"{images} images that neither was trained on ({parts})"
    )
    return Verdict(not value >= 0, text)


def _compare_splits(new: _StudyAucs, old: _StudyAucs, splits: list[int], model_id: str) -> Verdict:
    test = nadeau_bengio([new.auc[split] - old.auc[split] for split in splits], new.ratio)
    where = f"over {len(splits)} splits of the same images"
    if math.isnan(test.mean):
        text = f"an AUC that is undefined in some split, against {model_id} {where}"
    else:
        text = f"AUC {test.mean:+.4f} against {model_id} ({_certainty(test, len(splits))}) {where}"
    return Verdict(not test.mean >= 0, text)


def _certainty(test: TTest, splits: int) -> str:
    """Interval and P of a difference over splits, or why there is none."""
    if math.isnan(test.ci_low):
        return "no interval and no test: the difference is the same in every split"
    interval = f"95 % interval {test.ci_low:+.4f} to {test.ci_high:+.4f}"
    if splits < MIN_SPLITS:
        return f"{interval}; no test is made below {MIN_SPLITS} splits"
    return f"{interval}, P {test.p:.3f}"


def _compare_means(now: float, before: float, model_id: str) -> Verdict:
    text = f"mean AUC {now:.4f} against {before:.4f} of {model_id}, over other splits"
    return Verdict(not (now >= before or np.isnan(before)), text)


def _study(store: Store, study_id: str, architecture: str) -> _StudyAucs:
    metrics = image_level(read_table(store, "metrics", study_id=study_id))
    rows = metrics.filter(
        pc.and_(
            pc.and_(pc.is_valid(metrics["split"]), pc.equal(metrics["metric"], "auc")),
            pc.equal(metrics["architecture"], architecture),
        )
    )
    auc = dict(zip(rows["split"].to_pylist(), rows["value"].to_pylist(), strict=True))
    return _StudyAucs(auc, *_test_parts(read_table(store, "splits", study_id=study_id)))


def _test_parts(splits: pa.Table) -> tuple[dict[int, frozenset[str]], float]:
    frame = splits.select(["split", "image_id", "role"]).to_pandas()
    tests = frame[frame["role"] == "test"].groupby("split")["image_id"].agg(frozenset)
    sizes = frame.groupby(["split", "role"]).size().unstack()
    ratio = float((sizes["test"] / sizes["train"]).mean()) if len(frame) else float("nan")
    return {int(split): images for split, images in tests.items()}, ratio


def _value_or_nan(figure: dict[str, float | None]) -> float:
    value = figure["value"]
    return float("nan") if value is None else value
