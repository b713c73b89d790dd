"""In which features do highlighted regions of malignant and benign images differ, and why?

An image stands in the test parts of several splits, and a patient may have several images; neither
is evidence of its own. For what differs by class features are averaged over splits first (mean of
the defined values), and a test takes one image of a patient; for what differs given the score see
`conditional`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.stats import mannwhitneyu, spearmanr

from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.uncertainty import holm
from thyro_core.explain.conditional import ScoredImages, conditional_test
from thyro_core.explain.regions import DEFAULT_SHARE
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.types import FloatArray

SIGNIFICANT = 0.05
"""The paper's bound on P; here on the adjusted P."""

# Means over splits that differ by rounding alone are ties, not ranks.
_DECIMALS = 12

_P_COLUMNS = ("p", "p_conditional")
_FEWEST_PAIRS = 3


class MannWhitney(NamedTuple):
    """Malignant against benign values of one feature; NaN where a class has none."""

    u: float
    effect_size: float
    p: float


def mann_whitney(malignant: npt.ArrayLike, benign: npt.ArrayLike) -> MannWhitney:
    """Two-sided Mann-Whitney U test with the rank-biserial correlation as effect size.

    U counts the pairs in which the malignant value is larger, ties half; the effect size is
    2 U / (n_malignant n_benign) - 1 (Wendt 1972): the share of pairs with the malignant value
    larger less the share with it smaller. P is exact for 8 or fewer of a class without ties, else
    normal with corrections for ties and continuity (SciPy's `auto`).

    Args:
        malignant: (m,), finite.
        benign: (b,), finite.
    """
    ill, well = np.asarray(malignant, np.float64), np.asarray(benign, np.float64)
    if not ill.size or not well.size:
        return MannWhitney(np.nan, np.nan, np.nan)
    test = mannwhitneyu(ill, well, alternative="two-sided")
    effect = 2 * test.statistic / (ill.size * well.size) - 1
    return MannWhitney(float(test.statistic), float(effect), float(test.pvalue))


def cam_tests(
    features: pa.Table, predictions: pa.Table, patients: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    """Benign against malignant, each feature at each share of the peak: rows of `cam_tests`.

    By class: of a patient's images with a defined value the one with the smallest image_id is
    taken; ids are hashes of the file, so this is as good as a random choice and needs no seed.
    Given the score: all images, see `conditional.conditional_test`. Holm's correction, of either
    P by itself, is over all features of a share; the shares are repeats of one question, not
    further questions, and only `regions.DEFAULT_SHARE` is the one to quote.

    Args:
        features: Table `cam_features` of one study and architecture, all splits and shares.
        predictions: Its table `predictions`, at least of the same images and splits.
        patients: The patient of each image; None: unknown, the image stands for itself. Where
            near-duplicates without patients are grouped, give the group.

    Returns:
        Rows of table `cam_tests`, by share and in the order of `FEATURES`.

    Raises:
        ValueError: several studies or architectures, an image twice in a split, an image without
            a label, with two labels, not among `patients`, or without a prediction.
    """
    scored_rows = _with_scores(features, predictions)
    rows: list[dict[str, Any]] = []
    for share, images in images_by_share(features, patients):
        own = scored_rows[scored_rows["threshold"] == share]
        scored_images = _scored_images(own, patients)
        scores = own.groupby("image_id")["score"].mean()
        tests = [
            _test_feature(images, feature)
            | {"score_correlation": _benign_correlation(images, feature, scores)}
            | _conditional_columns(scored_images, own[feature].to_numpy(np.float64))
            for feature in FEATURES
        ]
        adjusted_p = {
            f"{name}_adjusted": holm([test[name] for test in tests]) for name in _P_COLUMNS
        }
        rows += [
            test | {"threshold": share} | {name: adjusted_p[name][i] for name in adjusted_p}
            for i, test in enumerate(tests)
        ]
    keys = features.select(["study_id", "architecture"]).slice(0, 1).to_pylist()
    return [keys[0] | row for row in rows]


def shape_finding(rows: Sequence[Mapping[str, Any]], share: float = DEFAULT_SHARE) -> str:
    """Which shape features differ by class, and which of them given the score: two sentences.

    Only for a network that tells the classes apart: the caller has that condition. That none
    differs proves no equality.

    Args:
        rows: Rows of `cam_tests`, of one architecture.
        share: The share of the peak to speak of.

    Raises:
        ValueError: no shape features at this share, or those of several architectures.
    """
    shape = [row for row in rows if row["family"] == "shape" and row["threshold"] == share]
    architectures = {str(row["architecture"]) for row in shape}
    if len(architectures) != 1:
        msg = (
            f"expected shape features of one architecture at share {share}, "
            f"found those of {sorted(architectures) or 'none'}"
        )
        raise ValueError(msg)
    name = ARCHITECTURE_NAMES[architectures.pop()]
    counts = [row["n"] for row in shape if row["p"] == row["p"]]
    if not counts:
        return f"{name}: no shape feature is defined in both classes, so that none can be tested."
    how = f"Holm-adjusted P < {SIGNIFICANT}, share {share:g}, n = {max(counts)}"
    by_class = _phrases(shape, "p_adjusted", "effect_size", 0.0)
    given_score = _phrases(shape, "p_conditional_adjusted", "odds_ratio", 1.0)
    testable = [p for row in shape if (p := row["p_conditional_adjusted"]) == p]
    start = f"{name}: no shape feature is shown to differ by class ({how})."
    if by_class:
        start = f"{name}: shape features that differ by class ({how}): {by_class}."
    if not testable:
        return f"{start} Given the score none can be tested."
    if given_score:
        return f"{start} Given the score these still differ: {given_score}."
    nearest = f"smallest adjusted P {_size_of(min(testable))}"
    return f"{start} Given the score none is shown to differ ({nearest})."


def _phrases(rows: Sequence[Mapping[str, Any]], p: str, effect: str, level: float) -> str:
    """The features below the bound on P, the surest first, with their direction."""
    hits = sorted((row for row in rows if row[p] < SIGNIFICANT), key=lambda row: row[p])
    sides = ["larger" if row[effect] > level else "smaller" for row in hits]
    return "; ".join(
        f"{row['feature']} ({side} in malignant, P {_size_of(row[p], '= ')})"
        for row, side in zip(hits, sides, strict=True)
    )


def _size_of(p: float, equals: str = "") -> str:
    return f"{equals}{p:.2g}" if p >= 0.001 else "< 0.001"


def _with_scores(features: pa.Table, predictions: pa.Table) -> pd.DataFrame:
    """`features` sorted, with the network's log odds of malignant of each split and image."""
    keys = ["split", "image_id"]
    logits = predictions.select([*keys, "logit_malignant", "logit_benign"]).to_pandas()
    logits["score"] = logits["logit_malignant"].astype(np.float64) - logits["logit_benign"]
    frame = features.to_pandas().sort_values(["threshold", "image_id", "split"])
    scores: pd.DataFrame = frame.merge(logits[[*keys, "score"]], on=keys, how="left", sort=False)
    if scores["score"].isna().any() or len(scores) != len(frame):
        msg = (
            "predictions: expected one of each image and split in cam_features, found "
            f"{scores['score'].isna().sum()} rows without and {len(scores)} for {len(frame)}"
        )
        raise ValueError(msg)
    return scores


def _scored_images(rows: pd.DataFrame, patients: Mapping[str, str | None]) -> ScoredImages:
    names = [patients.get(image) or f"image {image}" for image in rows["image_id"]]
    return ScoredImages(
        rows["split"].to_numpy(np.int64),
        np.unique(np.array(names, dtype=object), return_inverse=True)[1],
        rows["label"].to_numpy(np.int64),
        rows["score"].to_numpy(np.float64),
    )


def _conditional_columns(images: ScoredImages, values: FloatArray) -> dict[str, float]:
    test = conditional_test(images, values)
    return {"odds_ratio": test.odds_ratio, "p_conditional": test.p}


def _benign_correlation(images: pd.DataFrame, feature: str, scores: pd.Series) -> float:
    """Spearman's correlation of a feature and the score, both means over splits, in the benign."""
    benign = images[(images["label"] == 0) & images[feature].notna()]
    benign = benign.drop_duplicates("patient")
    x, y = benign[feature].to_numpy(), scores.loc[benign.index].to_numpy()
    if len(x) < _FEWEST_PAIRS or not np.ptp(x) or not np.ptp(y):
        return float("nan")
    return float(spearmanr(x, y).statistic)


def images_by_share(
    features: pa.Table, patients: Mapping[str, str | None]
) -> Iterator[tuple[float, pd.DataFrame]]:
    """Each share's images by ascending id: label, patient, and features averaged over splits.

    Args:
        features: see `cam_tests`.
        patients: see `cam_tests`.

    Raises:
        ValueError: see `cam_tests`.
    """
    frame = features.to_pandas().sort_values(["threshold", "image_id", "split"])
    _check_features(frame, patients)
    images = frame.groupby(["threshold", "image_id"])
    means = images[list(FEATURES)].mean().round(_DECIMALS).assign(label=images["label"].first())
    for share in sorted(set(frame["threshold"])):
        part = means.loc[share]
        names = [patients[image] or f"image {image}" for image in part.index]
        yield float(share), part.assign(patient=names)


def _check_features(frame: pd.DataFrame, patients: Mapping[str, str | None]) -> None:
    keys, labels = (frame[["study_id", "architecture"]], frame[["image_id", "label"]])
    faults = {
        "several studies or architectures": len(keys.drop_duplicates()) > 1,
        "an image twice in a split": frame.duplicated(["threshold", "split", "image_id"]).any(),
        "an image without a label": frame["label"].isna().any(),
        "an image with two labels": labels.drop_duplicates()["image_id"].duplicated().any(),
        "an image that is not among the patients": not set(frame["image_id"]) <= patients.keys(),
    }
    messages = [fault for fault, is_present in faults.items() if is_present]
    if messages:
        msg = f"cam_features: {', '.join(messages)}; expected one architecture, labelled images"
        raise ValueError(msg)


def _test_feature(images: pd.DataFrame, feature: str) -> dict[str, Any]:
    patients = images[images[feature].notna()].drop_duplicates("patient")
    benign, malignant = (
        patients.loc[patients["label"] == label, feature].to_numpy() for label in (0, 1)
    )
    test = mann_whitney(malignant, benign)
    return {
        "feature": feature,
        "family": FEATURES[feature],
        "statistic": test.u,
        "effect_size": test.effect_size,
        "p": test.p,
        "n": len(patients),
        "median_benign": float(np.median(benign)) if benign.size else np.nan,
        "median_malignant": float(np.median(malignant)) if malignant.size else np.nan,
    }
