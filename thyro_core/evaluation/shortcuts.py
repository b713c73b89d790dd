"""What a model scores that never sees an image: boosted trees on facts of the file alone."""

from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from thyro_core.config import StudyConfig
from thyro_core.evaluation.delong import delong
from thyro_core.evaluation.metrics import metrics
from thyro_core.evaluation.uncertainty import (
    holm,
    mean_interval,
    mean_test_train_ratio,
    nadeau_bengio,
)
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray, IntArray

SHORTCUT_FACTS: tuple[str, ...] = (
    "width", "height", "aspect", "mean", "sd", "sharpness", "overlay_share",
)  # fmt: skip
"""What the trees are given: columns of `images`, and width / height."""

_Row = dict[str, Any]


def shortcut_scores(
    features: FloatArray, label: IntArray, train: IntArray, test: IntArray
) -> FloatArray:
    """Probability of malignant of the test images by gradient boosting fitted on the others.

    scikit-learn's `HistGradientBoostingClassifier`, a hundred trees of depth 3 with at least five
    images a leaf, learning rate 0.1; nothing is tuned and nothing drawn. NaN is a value of its own.

    Args:
        features: (n, f).
        label: (n,), 0 or 1.
        train: places of the training images.
        test: places of the test images.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=100, max_depth=3, min_samples_leaf=5, early_stopping=False, random_state=0
    )
    # Hundreds of images are too few to share out: threads that wait for each other cost more.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(features[train], label[train])
        return np.asarray(model.predict_proba(features[test])[:, 1])


def shortcut_aucs(images: pa.Table, splits: pa.Table) -> dict[int, float]:
    """AUC of the shortcuts on each split's test part, fitted on its training part.

    Args:
        images: table `images` of the study's manifest.
        splits: the study's table `splits`.
    """
    facts = images.to_pandas().drop_duplicates("image_id").set_index("image_id")
    facts["aspect"] = facts["width"] / facts["height"]
    frame = splits.select(["split", "image_id", "label", "role"]).to_pandas()
    aucs = {}
    for split, part in frame.sort_values(["split", "image_id"]).groupby("split"):
        features = facts.loc[part["image_id"], list(SHORTCUT_FACTS)].to_numpy(np.float64)
        label = part["label"].to_numpy(np.int64)
        train, test = (np.flatnonzero(part["role"] == role) for role in ("train", "test"))
        score = shortcut_scores(features, label, train, test)
        aucs[int(split)] = delong(label[test], score, score).auc_a
    return aucs


def shortcuts_table(
    study_id: str,
    predictions: pa.Table,
    splits: pa.Table,
    config: StudyConfig,
    *,
    images: pa.Table,
) -> pa.Table:
    """The study's rows of `shortcuts`: each network against trees that see facts of the file only.

    Same splits, same intervals: means over splits with Nadeau and Bengio's variance.

    Args:
        study_id: goes into every row.
        predictions: table `predictions` of the study.
        splits: its table `splits`.
        config: gives the architectures.
        images: table `images` of its manifest.
    """
    shortcuts = shortcut_aucs(images, splits)
    ratio = mean_test_train_ratio(splits)
    tested = splits.to_pandas()
    tested = tested[tested["role"] == "test"]
    units = tested["patient_id"].where(tested["patient_id"].notna(), tested["group_id"])
    patients = tuple(int(units[tested["label"] == value].nunique()) for value in (1, 0))
    mean = mean_interval(list(shortcuts.values()), ratio, patients=(patients[0], patients[1]))
    frame = predictions.select(["split", "architecture", "label", "prob_malignant"]).to_pandas()
    rows: list[_Row] = []
    for architecture in config.architectures:
        aucs = {
            int(split): metrics(part["label"].to_numpy(), part["prob_malignant"].to_numpy(), 0.5)[
                "auc"
            ]
            for split, part in frame[frame["architecture"] == architecture].groupby("split")
        }
        if not aucs:
            continue
        lead = nadeau_bengio([aucs[split] - shortcuts[split] for split in sorted(aucs)], ratio)
        rows.append(
            {
                "study_id": study_id,
                "architecture": architecture,
                "auc": float(np.mean(list(aucs.values()))),
                "shortcut_auc": mean.mean,
                "ci_low": mean.low,
                "ci_high": mean.high,
                "lead": lead.mean,
                "lead_low": lead.ci_low,
                "lead_high": lead.ci_high,
                "p": lead.p,
                "n": len(aucs),
            }
        )
    adjusted = holm([row["p"] for row in rows])
    return rows_to_table(
        "shortcuts", [row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]
    )
