"""Specificity at a declared sensitivity, and predictive values at other prevalences."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import StudyConfig, job_seed
from thyro_core.evaluation.bounded import (
    Interval,
    cluster_numbers,
    clusters_of,
    logit_interval,
    proportion_interval,
    t_quantile,
)
from thyro_core.evaluation.calibration import FOLDS, group_folds
from thyro_core.evaluation.curves import ppv_npv
from thyro_core.evaluation.out_of_fold import (
    Ensembles,
    OutOfFoldEnsemble,
    sigmoid,
)
from thyro_core.evaluation.tables import image_level
from thyro_core.evaluation.uncertainty import cluster_counts
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray, IntArray

SENSITIVITIES: tuple[float, ...] = (0.9, 0.95)
"""Sensitivities that thresholds are chosen for."""

PREVALENCES: tuple[float, ...] = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of malignant images at which predictive values are given."""

_HIGH_PREVALENCES = (0.6, 0.8)  # given as well where more of a set's images are malignant

_Row = dict[str, Any]


class DeclaredPoint(NamedTuple):
    """What a threshold chosen for a sensitivity does on other groups' images."""

    threshold: float
    """Chosen on all images' out-of-fold scores; a model in use has its own on its card."""
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    specificity_low: float
    specificity_high: float
    apparent_specificity: float
    """On the very images that the threshold was chosen on, a point of their ROC curve."""
    apparent_low: float
    """Of the specificity at exactly the declared sensitivity: the threshold is chosen anew."""
    apparent_high: float


def sensitivity_threshold(label: IntArray, score: FloatArray, sensitivity: float) -> float:
    """The largest threshold that calls at least a share of the malignant images malignant.

    Args:
        label: (n,), 0 or 1.
        score: (n,), an image is called malignant from the threshold on.
        sensitivity: the share, above 0 and at most 1.

    Returns:
        The score of a malignant image; NaN without one.
    """
    malignant = np.sort(score[label == 1])[::-1]
    if not malignant.size:
        return float("nan")
    # 0.9 x 10 is 9 and a rounding error: without the nudge one image more would be required.
    n_needed = int(np.ceil(malignant.size * sensitivity - 1e-9))
    return float(malignant[max(n_needed, 1) - 1])


def specificity_at(
    label: IntArray, score: FloatArray, sensitivity: float, weight: FloatArray
) -> FloatArray:
    """Specificity at the threshold that `sensitivity_threshold` chooses, in weighted samples.

    Args:
        label: (n,), 0 or 1.
        score: (n,).
        sensitivity: above 0 and at most 1.
        weight: (k, n), how often each of k samples has each image.

    Returns:
        (k,); NaN for a sample without one of the classes.
    """
    order = np.argsort(-score, kind="stable")
    ill, score, weight = label[order] == 1, score[order], weight[:, order]
    hits = np.cumsum(weight * ill, axis=1)
    is_reached = hits >= hits[:, -1:] * sensitivity - 1e-9
    threshold = score[np.argmax(is_reached, axis=1)]
    benign = weight * ~ill
    below = (benign * (score < threshold[:, None])).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(hits[:, -1] > 0, below / benign.sum(axis=1), np.nan)


def specificity_interval(
    ensemble: OutOfFoldEnsemble, score: FloatArray, sensitivity: float, *, resamples: int, seed: int
) -> Interval:
    """95 % interval of the specificity at exactly a declared sensitivity.

    Symmetric on the logit scale, with the SD of a bootstrap of patients in which each resample
    chooses its own threshold, so that the malignant images behind the threshold count as well as
    the benign ones (Davison and Hinkley 1997, section 3.8). Where no resample differs, or the
    specificity is 0 or 1, the benign patients alone give the interval (`proportion_interval`).

    Args:
        ensemble: m images of both classes.
        score: (m,), its probabilities.
        sensitivity: above 0 and at most 1.
        resamples: number of resamples.
        seed: seed of the resampling.
    """
    units = ensemble.unit.astype(str)
    order = np.lexsort((ensemble.label, score, units))
    label, score = ensemble.label[order], score[order]
    ill, number = label == 1, cluster_numbers(units[order], label.size)
    draws = [
        specificity_at(label, score, sensitivity, counts[:, number].astype(np.float64))
        for counts in cluster_counts(int(number[-1]) + 1, label.size, resamples, seed)
    ]
    value = float(specificity_at(label, score, sensitivity, np.ones((1, label.size)))[0])
    degrees = min(clusters_of(ill, number), clusters_of(~ill, number)) - 1
    error = float(np.nanstd(np.concatenate(draws), ddof=1)) if degrees else float("nan")
    ends = logit_interval(value, error, t_quantile(degrees))
    if np.isnan(ends.low) and degrees:
        threshold = sensitivity_threshold(label, score, sensitivity)
        return proportion_interval(score[~ill] < threshold, number[~ill])
    return ends


def operating_point(
    ensemble: OutOfFoldEnsemble, sensitivity: float, *, resamples: int, seed: int
) -> DeclaredPoint | None:
    """A threshold chosen for a sensitivity on some groups, judged on the others.

    Each part of `group_folds` is called by the threshold chosen on the other parts' out-of-fold
    scores. Intervals of what was reached are Wilson's with patients as the independent units
    (`proportion_interval`); they hold for these networks and these thresholds. That of the
    specificity at the declared sensitivity itself is `specificity_interval`'s.

    Args:
        ensemble: m images.
        sensitivity: above 0 and at most 1.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        None where some part finds no malignant image among the others, or a class is missing.
    """
    score, fold = sigmoid(ensemble.margin), group_folds(ensemble)
    calls = np.zeros(score.size, dtype=np.bool_)
    for part in range(FOLDS):
        inside = fold == part
        threshold = sensitivity_threshold(ensemble.label[~inside], score[~inside], sensitivity)
        if inside.any() and np.isnan(threshold):
            return None
        calls[inside] = score[inside] >= threshold
    ill = ensemble.label == 1
    if ill.all() or not ill.any():
        return None
    units = ensemble.unit.astype(str)
    own_threshold = sensitivity_threshold(ensemble.label, score, sensitivity)
    apparent = specificity_interval(ensemble, score, sensitivity, resamples=resamples, seed=seed)
    return DeclaredPoint(
        own_threshold,
        float(calls[ill].mean()),
        *proportion_interval(calls[ill], units[ill]),
        float((~calls[~ill]).mean()),
        *proportion_interval(~calls[~ill], units[~ill]),
        float((score[~ill] < own_threshold).mean()),
        *apparent,
    )


def operating_points_table(study_id: str, ensembles: Ensembles, config: StudyConfig) -> pa.Table:
    """The study's rows of `operating_points`: each architecture at each of `SENSITIVITIES`.

    Args:
        study_id: goes into every row.
        ensembles: the study's.
        config: gives resamples and seed.
    """
    rows: list[_Row] = []
    for architecture, ensemble in ensembles.items():
        seed = job_seed(config.seed, 0, architecture)
        sizes = {
            "n": ensemble.label.size,
            "n_positive": int(ensemble.label.sum()),
            "n_units": len(set(ensemble.unit)),
        }
        for sensitivity in SENSITIVITIES:
            point = operating_point(ensemble, sensitivity, resamples=config.resamples, seed=seed)
            if point is not None:
                keys = {"study_id": study_id, "architecture": architecture, "declared": sensitivity}
                rows.append(keys | point._asdict() | sizes)
    return rows_to_table("operating_points", rows)


def ratio_interval(value: float, ends: Interval, by: float, by_ends: Interval) -> Interval:
    """Interval of the ratio of two independent figures from their own intervals.

    Donner and Zou, "Closed-form confidence intervals for functions of the normal mean and standard
    deviation", Statistical Methods in Medical Research 21 (2012), equation for ratios (the method
    MOVER), for figures of 0 and above; the lower end is in the form that does not cancel.

    Args:
        value: numerator, 0 and above.
        ends: its interval.
        by: denominator, above 0.
        by_ends: its interval.

    Returns:
        Ends from 0 to infinity; NaN where one given is.
    """
    low, high = ends
    by_low, by_high = by_ends
    product = value * by
    root = np.sqrt(max(product**2 - low * by_high * (2 * value - low) * (2 * by - by_high), 0.0))
    lower = low * (2 * value - low) / (product + root) if product > 0 else low
    root = np.sqrt(max(product**2 - high * by_low * (2 * value - high) * (2 * by - by_low), 0.0))
    divisor = by_low * (2 * by - by_low)
    upper = (product + root) / divisor if divisor > 0 else float("inf")
    if np.isnan([*ends, *by_ends, value, by]).any():
        return Interval(float("nan"), float("nan"))
    return Interval(float(lower), float(upper))


def predictive_intervals(
    sensitivity: tuple[float, Interval],
    specificity: tuple[float, Interval],
    prevalences: Sequence[float],
) -> tuple[list[Interval], list[Interval]]:
    """Intervals of PPV and NPV at given prevalences, those of the two rates carried over.

    PPV = 1 / (1 + r (1 - pi) / pi) with r = (1 - specificity) / sensitivity, and NPV alike with
    (1 - sensitivity) / specificity: each falls with one ratio, whose interval is
    `ratio_interval`'s. The two rates come from different patients and are taken as independent;
    where the networks of a study differ by a shift of their scores both errors move against each
    other, and the interval is wider than it need be. The prevalence is given, not estimated.

    Args:
        sensitivity: figure and interval.
        specificity: figure and interval.
        prevalences: k shares, between 0 and 1.

    Returns:
        Of PPV and of NPV, k each.
    """
    (sens, (sens_low, sens_high)), (spec, (spec_low, spec_high)) = sensitivity, specificity
    odds = [share / (1 - share) for share in prevalences]
    false = ratio_interval(
        1 - spec, Interval(1 - spec_high, 1 - spec_low), sens, Interval(sens_low, sens_high)
    )
    missed_odds = ratio_interval(
        1 - sens, Interval(1 - sens_high, 1 - sens_low), spec, Interval(spec_low, spec_high)
    )
    ppv = [Interval(*(1 / (1 + end / each) for end in reversed(false))) for each in odds]
    npv = [Interval(*(1 / (1 + end * each) for end in reversed(missed_odds))) for each in odds]
    return ppv, npv


def predictive_values_table(study_id: str, metrics: pa.Table, config: StudyConfig) -> pa.Table:
    """The study's rows of `predictive_values`: PPV and NPV at each of `PREVALENCES`.

    At the config's threshold, from the mean sensitivity and specificity over splits and their
    intervals, by image. At the share of malignant test images itself, which is among the
    prevalences whatever it is, stand the PPV and NPV of the test parts, the means over splits that
    `metrics` has: of one quantity there is one figure and one interval. Where that share lies above
    the declared prevalences others lead up to it.

    Args:
        study_id: goes into every row.
        metrics: table `metrics` of the study.
        config: gives the order of the architectures.
    """
    images = image_level(metrics)
    over = images.filter(pc.is_null(images["split"])).to_pylist()
    by_key = {(row["architecture"], row["metric"]): row for row in over}
    rows: list[_Row] = []
    for architecture in config.architectures:
        if (architecture, "recall") not in by_key:
            continue
        recall, specificity = (
            (row["value"], Interval(row["ci_low"], row["ci_high"]))
            for row in (by_key[architecture, name] for name in ("recall", "specificity"))
        )
        own = _own_prevalence(images, architecture)
        shares = [*PREVALENCES, *(share for share in _HIGH_PREVALENCES if share < own)]
        shares = [share for share in shares if share != own]
        values = ppv_npv(recall[0], specificity[0], shares)
        intervals = predictive_intervals(recall, specificity, shares)
        for measure, points, ends in zip(("ppv", "npv"), values, intervals, strict=True):
            figures = [
                (share, float(value), *end)
                for share, value, end in zip(shares, points, ends, strict=True)
            ]
            row = by_key[architecture, "precision" if measure == "ppv" else "npv"]
            figures.append((own, row["value"], row["ci_low"], row["ci_high"]))
            constant = {"study_id": study_id, "architecture": architecture, "measure": measure}
            names = ("prevalence", "value", "ci_low", "ci_high")
            rows += [constant | dict(zip(names, of, strict=True)) for of in sorted(figures)]
    return rows_to_table("predictive_values", rows)


def _own_prevalence(images: pa.Table, architecture: str) -> float:
    """The share of malignant test images, all splits together."""
    rows = [
        row
        for row in images.to_pylist()
        if row["split"] is not None
        and (row["architecture"], row["metric"]) == (architecture, "accuracy")
    ]
    n = sum(row["n"] for row in rows)
    return float(sum(row["n_positive"] for row in rows) / n) if n else 0.0
