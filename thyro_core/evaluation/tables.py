"""From predictions to the rows of the tables `metrics` and `comparisons`."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import StudyConfig, job_seed
from thyro_core.evaluation.delong import delong
from thyro_core.evaluation.metrics import METRICS, confusion, metrics
from thyro_core.evaluation.uncertainty import (
    WITHOUT_INTERVAL,
    TTest,
    holm,
    mean_interval,
    mean_test_train_ratio,
    metric_intervals,
    nadeau_bengio,
)
from thyro_core.tables.schemas import rows_to_table

COUNTS: tuple[str, ...] = (
    "true_positives",
    "false_positives",
    "true_negatives",
    "false_negatives",
)
"""The counts that stand beside the metrics, per split and pooled."""

POOLED_PREFIX = "pooled_"
"""Prefix of what is computed from all splits' test images put together."""

TRAIN_AUC, OPTIMISM = "train_auc", "optimism"
"""Metrics by image: AUC on the training part, and by how much it exceeds the test part's."""

PRIMARY_METRIC = "auc"
"""The primary endpoint is this metric of the config's first architecture, its mean over splits;
everything else is secondary."""

WITHIN_SPLITS = "auc_within_splits"
"""The family of DeLong's tests."""

SECONDARY = "other_metrics"
"""The family of the tests of every metric but the primary one."""

IMAGE_LEVEL = "image"
"""Level of `metrics` at which each image counts as one; every statement of a study is about it."""

_Row = dict[str, Any]
_Parts = dict[int, pd.DataFrame]
_NO_INTERVAL = {"sd": None, "ci_low": None, "ci_high": None}


def image_level(metrics: pa.Table) -> pa.Table:
    """The rows of `metrics` in which each image counts as one, those of older versions too.

    Args:
        metrics: a study's table `metrics`; its other levels have the same metrics once more.
    """
    level = pc.fill_null(metrics["level"], IMAGE_LEVEL)
    return metrics.filter(pc.equal(level, IMAGE_LEVEL))


def metrics_table(
    study_id: str,
    predictions: pa.Table,
    splits: pa.Table,
    config: StudyConfig,
    *,
    nodules: Mapping[str, str] = MappingProxyType({}),
    train_aucs: Mapping[tuple[int, str], float] = MappingProxyType({}),
) -> pa.Table:
    """The study's rows of `metrics`, for every architecture with predictions.

    - Each split: the ten metrics with 95 % intervals over patients (an image without a patient
      belongs to its group; see `uncertainty.metric_intervals`), and the four counts without one.
    - Over splits (split null): mean, SD and corrected 95 % interval of each metric on the logit
      scale; `n` is the number of splits that define it. Where all splits agree, the interval
      follows from the number of patients that the splits tested.
    - Pooled (`pooled_*`, split null): metrics and counts of all splits' test images together,
      without an interval, because hold-outs repeat images. A ratio of pooled counts is not the
      mean of the splits' ratios; the two are never mixed.
    - `train_auc` and `optimism`, where every split has a training AUC: the same AUC on the
      training part, and the difference from the test part's (Efron 1983, "Estimating the error rate
      of a prediction rule", in terms of the AUC). Over splits with SD, optimism with Nadeau and
      Bengio's interval.

    All of it once at level `image`, and again at each other level at which some test part has a
    unit of several images: `patient` (images without a patient count by their group; `group`, where
    no patient is known at all), and `nodule` where nodules are given. A unit's probability is the
    mean over its images in the test part, and it is malignant if one of them is. Intervals take
    patients as independent at every level: a patient may have several nodules.

    A split's intervals depend on the config's seed, its number and its architecture only: neither
    on the order of rows nor on which other splits are there. Rows are sorted by architecture (in
    the config's order), level, metric and split, null last.

    Args:
        study_id: Goes into every row.
        predictions: Table `predictions` of the study; every split that is there must be whole.
        splits: Table `splits` of the study.
        config: Gives architectures, threshold, resamples and seed.
        nodules: Image -> its patient's nodule; images without one are one nodule of their patient.
        train_aucs: Split and architecture -> AUC of the network on its training images.

    Returns:
        Table `metrics`, registered schema. NaN marks an undefined value, null an absent one.

    Raises:
        ValueError: an unlabelled row, an architecture that the config lacks, or a split whose
            predictions are not of exactly its test images.
    """
    rows: list[_Row] = []
    for architecture, image_parts in _by_architecture(predictions, splits, config).items():
        ratio = mean_test_train_ratio(splits, list(image_parts))
        constant = {"study_id": study_id, "architecture": architecture}
        for level, parts in _levels(image_parts, nodules).items():
            values = {split: _values(part, config.threshold) for split, part in parts.items()}
            pool = pd.concat(parts.values())
            new_rows = [
                *_split_rows(architecture, parts, values, config),
                *_mean_rows(values, ratio, _patients(pool, config.threshold)),
                *_pooled_rows(pool, config.threshold),
            ]
            if level == IMAGE_LEVEL:
                own = {split: train_aucs.get((split, architecture)) for split in parts}
                new_rows += _training_rows(own, values, splits, ratio)
            new_rows.sort(key=lambda row: _METRIC_ORDER[row["metric"]])
            rows += [row | constant | {"level": level} for row in new_rows]
    return rows_to_table("metrics", rows)


def _levels(parts: _Parts, nodules: Mapping[str, str]) -> dict[str, _Parts]:
    """The test parts at each level with rows of its own, `image` first."""
    has_patients = any(part["patient_id"].notna().any() for part in parts.values())
    units: dict[str, dict[int, pd.Series]] = {
        "patient" if has_patients else "group": {
            split: part["cluster"] for split, part in parts.items()
        }
    }
    if nodules:
        units["nodule"] = {
            # No pseudonym holds a slash: no two pairs of patient and nodule are one text.
            split: part["cluster"] + "/" + part["image_id"].map(nodules).fillna("")
            for split, part in parts.items()
        }
    levels = {IMAGE_LEVEL: parts}
    for level, keys in units.items():
        if any(key.duplicated().any() for key in keys.values()):
            levels[level] = {split: _by_unit(part, keys[split]) for split, part in parts.items()}
    return levels


def _by_unit(part: pd.DataFrame, unit: pd.Series) -> pd.DataFrame:
    """One row a unit: its mean probability, and malignant if one of its images is."""
    return part.groupby(unit.to_numpy(), sort=True).agg(
        label=("label", "max"),
        prob_malignant=("prob_malignant", "mean"),
        cluster=("cluster", "first"),
    )


def comparisons_table(
    study_id: str, predictions: pa.Table, splits: pa.Table, config: StudyConfig
) -> pa.Table:
    """The study's rows of `comparisons`: the config's first architecture against each other one.

    Over splits (split null): each metric's paired differences under Nadeau and Bengio's test.
    Within each split: DeLong's test of the AUC, with patients as the independent units. Only splits
    that both have count; a baseline that shares none has no rows. Rows are sorted by baseline (in
    the config's order), metric and split, null last.

    Holm's adjustment is over all tests of one question, column `family`: whether the mean AUC
    differs from any baseline's (`auc`), whether any other metric does (`other_metrics`), and
    whether the AUC differs from any baseline's within any split (`auc_within_splits`).

    Args:
        study_id: Goes into every row.
        predictions: Table `predictions` of the study; every split that is there must be whole.
        splits: Table `splits` of the study.
        config: Gives architectures and threshold.

    Returns:
        Table `comparisons`, registered schema; empty where there is nothing to compare.

    Raises:
        ValueError: see `metrics_table`.
    """
    parts = _by_architecture(predictions, splits, config)
    first = config.architectures[0]
    rows: list[_Row] = []
    for baseline in [name for name in parts if name != first]:
        shared_splits = sorted(parts.get(first, {}).keys() & parts[baseline].keys())
        pairs = {split: (parts[first][split], parts[baseline][split]) for split in shared_splits}
        if pairs:
            ratio = mean_test_train_ratio(splits, shared_splits)
            new_rows = [*_delong_rows(pairs), *_corrected_rows(pairs, config.threshold, ratio)]
            new_rows.sort(key=lambda row: _METRIC_ORDER[row["metric"]])
            rows += [row | {"baseline": baseline} for row in new_rows]
    constant = {"study_id": study_id, "architecture": first}
    return rows_to_table("comparisons", [row | constant for row in _adjust_p(rows)])


_METRIC_ORDER = {
    name: place
    for place, name in enumerate(
        (
            *METRICS,
            *COUNTS,
            *(POOLED_PREFIX + name for name in (*METRICS, *COUNTS)),
            TRAIN_AUC,
            OPTIMISM,
        )
    )
}


def _by_architecture(
    predictions: pa.Table, splits: pa.Table, config: StudyConfig
) -> dict[str, _Parts]:
    """Each architecture's test parts by split number, rows sorted by image."""
    frame = predictions.to_pandas()
    if frame["label"].isna().any():
        msg = f"predictions: {frame['label'].isna().sum()} rows have no label; expected 0 or 1"
        raise ValueError(msg)
    strangers = sorted(set(frame["architecture"]) - set(config.architectures))
    if strangers:
        msg = f"predictions: {', '.join(strangers)} not among the config's architectures"
        raise ValueError(msg)
    split_rows = splits.to_pandas()
    tests = dict(iter(split_rows[split_rows["role"] == "test"].groupby("split")))
    parts_by_architecture: dict[str, _Parts] = {}
    for name in config.architectures:
        of_name = frame[frame["architecture"] == name]
        parts = {
            int(split): _test_part(split, name, part, tests.get(split, split_rows.iloc[:0]))
            for split, part in of_name.groupby("split")
        }
        if parts:
            parts_by_architecture[name] = parts
    return parts_by_architecture


def _test_part(
    split: int, architecture: str, part: pd.DataFrame, test_rows: pd.DataFrame
) -> pd.DataFrame:
    """A split's predictions with `cluster`, once they are those of its test images."""
    keys = ["image_id", "label"]
    part, test_rows = part.sort_values(keys), test_rows.sort_values(keys)
    if part[keys].to_numpy().tolist() != test_rows[keys].to_numpy().tolist():
        msg = (
            f"split {split}, {architecture}: {len(part)} predictions are not, one for one, of the "
            f"split's {len(test_rows)} test images and their labels"
        )
        raise ValueError(msg)
    group = test_rows["group_id"].to_numpy()
    cluster = part["patient_id"].where(part["patient_id"].notna(), group)
    return part.assign(cluster=cluster.astype(str))


def _values(part: pd.DataFrame, threshold: float) -> dict[str, float]:
    return metrics(part["label"].to_numpy(), part["prob_malignant"].to_numpy(), threshold)


def _counts(part: pd.DataFrame, threshold: float) -> dict[str, float]:
    cells = confusion(part["label"].to_numpy(), part["prob_malignant"].to_numpy(), threshold)
    return {name: float(cell) for name, cell in zip(COUNTS, cells, strict=True)}


def _size_columns(part: pd.DataFrame) -> _Row:
    return {"n": len(part), "n_positive": int(part["label"].sum())}


def _split_rows(
    architecture: str, parts: _Parts, values: dict[int, dict[str, float]], config: StudyConfig
) -> Iterator[_Row]:
    for split, part in parts.items():
        intervals = metric_intervals(
            part["label"].to_numpy(),
            part["prob_malignant"].to_numpy(),
            part["cluster"].to_numpy(),
            config.threshold,
            resamples=config.resamples,
            seed=job_seed(config.seed, split, architecture),
        )
        cells = _NO_INTERVAL | {"split": split} | _size_columns(part)
        for name, value in values[split].items():
            low, high = intervals[name]
            yield cells | {"metric": name, "value": value, "ci_low": low, "ci_high": high}
        for name, value in _counts(part, config.threshold).items():
            yield cells | {"metric": name, "value": value}


def _patients(pool: pd.DataFrame, threshold: float) -> dict[str, int | tuple[int, int]]:
    """Patients behind each metric's mean over splits, whichever splits test them."""
    every, benign, malignant = (
        int(pool.loc[pool["label"].isin(labels), "cluster"].nunique())
        for labels in ((0, 1), (0,), (1,))
    )
    by_class = dict.fromkeys(("recall", "f1", "average_precision"), malignant)
    is_called = pool["prob_malignant"] >= threshold
    by_class |= {
        "specificity": benign,
        "precision": int(pool.loc[is_called, "cluster"].nunique()),
        "npv": int(pool.loc[~is_called, "cluster"].nunique()),
    }
    patients = {name: max(by_class.get(name, every), 1) for name in METRICS}
    return patients | {"auc": (max(malignant, 1), max(benign, 1))}


def _mean_rows(
    values: dict[int, dict[str, float]],
    ratio: float,
    patients: dict[str, int | tuple[int, int]],
) -> Iterator[_Row]:
    for name in METRICS:
        mean, sd, low, high, n = mean_interval(
            [of[name] for of in values.values()], ratio, patients=patients[name]
        )
        has_interval = name not in WITHOUT_INTERVAL
        yield {
            "split": None,
            "metric": name,
            "value": mean,
            "sd": sd,
            "ci_low": low if has_interval else np.nan,
            "ci_high": high if has_interval else np.nan,
            "n": n,
            "n_positive": None,
        }


def _pooled_rows(pool: pd.DataFrame, threshold: float) -> Iterator[_Row]:
    for name, value in (_values(pool, threshold) | _counts(pool, threshold)).items():
        row = {"split": None, "metric": POOLED_PREFIX + name, "value": value}
        yield row | _NO_INTERVAL | _size_columns(pool)


def _training_rows(
    train_aucs: Mapping[int, float | None],
    values: dict[int, dict[str, float]],
    splits: pa.Table,
    ratio: float,
) -> Iterator[_Row]:
    """Rows of `train_auc` and `optimism`; none unless every split has a training AUC."""
    aucs = {split: auc for split, auc in train_aucs.items() if auc is not None}
    if len(aucs) < len(train_aucs):
        return
    optimism = {split: auc - values[split]["auc"] for split, auc in aucs.items()}
    train = splits.filter(pc.equal(splits["role"], "train")).to_pandas().groupby("split")["label"]
    sizes, malignant = train.size(), train.sum()
    for name, of in ((TRAIN_AUC, aucs), (OPTIMISM, optimism)):
        for split, value in of.items():
            size = {"n": int(sizes[split]), "n_positive": int(malignant[split])}
            yield _NO_INTERVAL | {"split": split, "metric": name, "value": value} | size
        mean = mean_interval(list(of.values()), ratio, is_bounded=False)
        ends = (mean.low, mean.high) if name == OPTIMISM else (np.nan, np.nan)
        yield {
            "split": None,
            "metric": name,
            "value": mean.mean,
            "sd": mean.sd,
            "ci_low": ends[0],
            "ci_high": ends[1],
            "n": mean.n,
            "n_positive": None,
        }


def _delong_rows(pairs: dict[int, tuple[pd.DataFrame, pd.DataFrame]]) -> Iterator[_Row]:
    for split, (part, other) in pairs.items():
        test = delong(
            part["label"].to_numpy(),
            part["prob_malignant"].to_numpy(),
            other["prob_malignant"].to_numpy(),
            part["cluster"].to_numpy(),
        )
        yield {
            "split": split,
            "metric": "auc",
            "family": WITHIN_SPLITS,
            "test": "delong",
            "difference": test.difference,
            "t": test.z,
            "ci_low": test.ci_low,
            "ci_high": test.ci_high,
            "p": test.p,
            "n": len(part),
        }


def _corrected_rows(
    pairs: dict[int, tuple[pd.DataFrame, pd.DataFrame]], threshold: float, ratio: float
) -> Iterator[_Row]:
    values = [
        (_values(part, threshold), _values(other, threshold)) for part, other in pairs.values()
    ]
    for name in METRICS:
        test: TTest = nadeau_bengio(np.array([a[name] - b[name] for a, b in values]), ratio)
        yield {
            "split": None,
            "metric": name,
            "family": name if name == PRIMARY_METRIC else SECONDARY,
            "test": "nadeau_bengio",
            "difference": test.mean,
            "t": test.t,
            "ci_low": test.ci_low,
            "ci_high": test.ci_high,
            "p": test.p,
            "n": len(values),
        }


def _adjust_p(rows: list[_Row]) -> list[_Row]:
    """The rows with Holm's P values over each family."""
    families: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(row["family"], []).append(place)
    adjusted_p = {
        place: p
        for places in families.values()
        for place, p in zip(places, holm([rows[i]["p"] for i in places]), strict=True)
    }
    return [row | {"p_adjusted": adjusted_p[place]} for place, row in enumerate(rows)]
