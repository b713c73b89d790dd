"""The rows of `evaluation_metrics`: each figure outside, inside, and their difference."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thyro_core.evaluation.bounded import (
    NO_INTERVAL,
    Difference,
    Interval,
    independent_difference,
    proportion_interval,
)
from thyro_core.evaluation.calibration import calibration_quality
from thyro_core.evaluation.curves import DECISION_THRESHOLDS, ppv_npv
from thyro_core.evaluation.delong import RankedImages, independent_delong
from thyro_core.evaluation.ensemble import auc_estimate, net_benefit_band
from thyro_core.evaluation.metrics import METRICS, UndefinedMetricWarning, metrics
from thyro_core.evaluation.operating import PREVALENCES, predictive_intervals
from thyro_core.evaluation.out_of_fold import Ids
from thyro_core.evaluation.subgroups import LEAST_UNITS
from thyro_core.evaluation.uncertainty import WITHOUT_INTERVAL, holm, metric_intervals
from thyro_core.types import BoolArray, FloatArray, IntArray
from thyro_core.validation.adaptation import Adaptation
from thyro_core.validation.config import EvaluationConfig
from thyro_core.validation.sample import Sample, Units, has_groups, levels_of

FIT: tuple[str, ...] = ("nll", "slope", "intercept", "observed_expected")
"""Figures of calibration, by image."""

OF_PROBABILITIES: tuple[str, ...] = ("brier", "ece")
"""Of the ten metrics those of the probabilities themselves: inside, of cross-fitted ones."""

DELONG, HYBRID = "delong_independent", "newcombe_hybrid"
"""How a difference is tested."""

_FigureRow = dict[str, Any]
_Figures = dict[str, tuple[float, Interval]]
_NO_DIFFERENCE = Difference(np.nan, np.nan, np.nan, np.nan)


class SamplePair(NamedTuple):
    """What the rows are made of."""

    external: Sample
    internal: Sample
    adaptation: Adaptation
    threshold: float
    """Calibrated probability from which the model calls an image malignant."""


def metric_rows(samples: SamplePair, config: EvaluationConfig) -> list[_FigureRow]:
    """All rows of an evaluation but those of drift, without its ids."""
    rows = [
        *_level_rows(samples, config),
        *_fit_rows(samples),
        *_predictive_rows(samples),
        *_benefit_rows(samples),
        *_recalibrated_rows(samples),
        *_threshold_rows(samples),
    ]
    return _with_adjusted(rows)


def _level_rows(samples: SamplePair, config: EvaluationConfig) -> Iterator[_FigureRow]:
    external, internal = samples.external, samples.internal
    of_internal = levels_of(internal)
    for level, units in levels_of(external).items():
        if level == "unit" and not (has_groups(external) or has_groups(internal)):
            continue
        name = {"level": external.unit_name if level == "unit" else level}
        own = _metrics(units, samples.threshold, config)
        if level not in of_internal:
            yield from (figure_row(metric, own[metric], units) | name for metric in METRICS)
            continue
        pair = units, of_internal[level]
        others = _metrics(pair[1], samples.threshold, config)
        for metric in METRICS:
            difference, method = _metric_difference(metric, own, others, pair)
            row = figure_row(metric, own[metric], units) | name | _inside(others[metric], pair[1])
            yield row | _gap(difference, method)


def _metrics(units: Units, threshold: float, config: EvaluationConfig) -> _Figures:
    if not units.label.size:
        return dict.fromkeys(METRICS, (np.nan, NO_INTERVAL))
    figures = _ten(units.label, units.probability, units.cluster, threshold, config=config)
    is_judged = np.isfinite(units.unseen_probability)
    if is_judged.any():
        of_unseen = _ten(
            units.label[is_judged],
            units.unseen_probability[is_judged],
            units.cluster[is_judged],
            threshold,
            config=config,
        )
        figures |= {name: of_unseen[name] for name in OF_PROBABILITIES}
    auc = auc_estimate(units.label, units.score, units.cluster)
    return figures | {"auc": (auc.value, Interval(auc.low, auc.high))}


def _ten(
    label: IntArray, probability: FloatArray, cluster: Ids, threshold: float, *,
    config: EvaluationConfig,
) -> _Figures:  # fmt: skip
    with warnings.catch_warnings():
        # What is undefined is NaN in the table, and the page says so.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        values = metrics(label, probability, threshold)
    ends = metric_intervals(
        label, probability, cluster.astype(str), threshold,
        resamples=config.resamples, seed=config.seed,
    )  # fmt: skip
    return {name: (values[name], ends[name]) for name in METRICS}


def _metric_difference(
    metric: str, own: _Figures, others: _Figures, pair: tuple[Units, Units]
) -> tuple[Difference, str | None]:
    if metric in WITHOUT_INTERVAL:
        gap = own[metric][0] - others[metric][0]
        return Difference(gap, np.nan, np.nan, np.nan), None
    if metric == "auc":
        test = independent_delong(*(RankedImages(u.label, u.score, u.cluster) for u in pair))
        if np.isfinite(test.p):
            difference = Difference(test.difference, test.ci_low, test.ci_high, test.p)
            return _if_large(difference, DELONG, pair)
    return _if_large(independent_difference(*own[metric], *others[metric]), HYBRID, pair)


def _if_large(
    difference: Difference, method: str, pair: tuple[Units, Units]
) -> tuple[Difference, str | None]:
    """The difference, tested only if each class has enough patients on both sides."""
    if all(map(_is_large, pair)) and np.isfinite(difference.p):
        return difference, method
    return Difference(difference.value, np.nan, np.nan, np.nan), None


def _is_large(units: Units) -> bool:
    """Whether each class has as many patients as a test takes."""
    return all(len(set(units.cluster[units.label == value])) >= LEAST_UNITS for value in (0, 1))


def figure_row(metric: str, figure: tuple[float, Interval], units: Units) -> _FigureRow:
    """A figure of the whole set by image, not compared; others differ by what is put over it.

    Args:
        metric: its name.
        figure: value and interval.
        units: what it is of.
    """
    value, (low, high) = figure
    row = {
        "level": "image",
        "adaptation": "none",
        "metric": metric,
        "point": None,
        "value": float(value),
        "ci_low": float(low),
        "ci_high": float(high),
        "n": units.label.size,
        "n_positive": int(units.label.sum()),
        "n_units": len(set(units.cluster)),
        "internal": None,
        "internal_low": None,
        "internal_high": None,
        "internal_n": None,
    }
    return row | _gap(_NO_DIFFERENCE, None)


def _inside(figure: tuple[float, Interval], units: Units) -> _FigureRow:
    value, (low, high) = figure
    return {
        "internal": float(value),
        "internal_low": float(low),
        "internal_high": float(high),
        "internal_n": units.label.size,
    }


def _gap(difference: Difference, method: str | None) -> _FigureRow:
    return {
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "method": method,
        "p": difference.p,
    }


def _image_units(sample: Sample, inside: BoolArray, probability: FloatArray) -> Units:
    ensemble = sample.ensemble
    return Units(
        ensemble.label[inside],
        probability[inside],
        probability[inside],
        ensemble.margin[inside],
        ensemble.unit[inside],
    )


def _fit_figures(units: Units) -> _Figures:
    """How well probabilities fit; the prevalence model plays no part in these."""
    reference = np.full(units.label.size, np.clip(units.label.mean(), 1e-6, 1 - 1e-6))
    quality = calibration_quality(units.label, units.probability, reference, units.cluster)
    estimates = {name: getattr(quality, name) for name in (*FIT, "brier")}
    return {name: (each.value, Interval(each.low, each.high)) for name, each in estimates.items()}


def _fitted_units(sample: Sample) -> Units:
    return _image_units(sample, np.isfinite(sample.unseen_probability), sample.unseen_probability)


def _fit_rows(samples: SamplePair) -> Iterator[_FigureRow]:
    pair = _fitted_units(samples.external), _fitted_units(samples.internal)
    if not all(units.label.size for units in pair):
        return
    own, others = _fit_figures(pair[0]), _fit_figures(pair[1])
    for name in FIT:
        difference = independent_difference(*own[name], *others[name])
        row = figure_row(name, own[name], pair[0]) | _inside(others[name], pair[1])
        yield row | _gap(*_if_large(difference, HYBRID, pair))


def _predictive_rows(samples: SamplePair) -> Iterator[_FigureRow]:
    units = [levels_of(each)["image"] for each in (samples.external, samples.internal)]
    figures = [_predictive(each, samples.threshold) for each in units]
    for measure in ("ppv_at", "npv_at"):
        for place, prevalence in enumerate(PREVALENCES):
            own, other = (each[measure][place] for each in figures)
            row = figure_row(measure, own, units[0]) | _inside(other, units[1])
            yield row | {"point": prevalence}


def _predictive(units: Units, threshold: float) -> Mapping[str, list[tuple[float, Interval]]]:
    ill, is_called = units.label == 1, units.probability >= threshold
    if ill.all() or not ill.any():
        nothing = [(float("nan"), NO_INTERVAL)] * len(PREVALENCES)
        return {"ppv_at": nothing, "npv_at": nothing}
    clusters = units.cluster.astype(str)
    recall = float(is_called[ill].mean()), proportion_interval(is_called[ill], clusters[ill])
    specificity = (
        float((~is_called[~ill]).mean()),
        proportion_interval(~is_called[~ill], clusters[~ill]),
    )
    values = ppv_npv(recall[0], specificity[0], PREVALENCES)
    ends = predictive_intervals(recall, specificity, PREVALENCES)
    return {
        # Nothing is called so: no interval says anything then.
        name: [
            (float(value), NO_INTERVAL if np.isnan(value) else end)
            for value, end in zip(points, interval, strict=True)
        ]
        for name, points, interval in zip(("ppv_at", "npv_at"), values, ends, strict=True)
    }


def _benefit_rows(samples: SamplePair) -> Iterator[_FigureRow]:
    pair = _fitted_units(samples.external), _fitted_units(samples.internal)
    if not all(units.label.size for units in pair):
        return
    own, other = (net_benefit_band(u.label, u.probability, u.cluster) for u in pair)
    for place, threshold in enumerate(DECISION_THRESHOLDS):
        figures = [
            (float(band.mean[place]), Interval(float(band.low[place]), float(band.high[place])))
            for band in (own, other)
        ]
        row = figure_row("net_benefit", figures[0], pair[0]) | _inside(figures[1], pair[1])
        yield row | {"point": threshold}


def _recalibrated_rows(samples: SamplePair) -> Iterator[_FigureRow]:
    probability = samples.adaptation.local_probability
    units = _image_units(samples.external, np.isfinite(probability), probability)
    if samples.adaptation.calibration is None or not units.label.size:
        return
    for name in ("slope", "intercept"):
        value = getattr(samples.adaptation.calibration, name)
        figure = float(value), NO_INTERVAL
        yield figure_row(f"fit_{name}", figure, units) | {"adaptation": "recalibration"}
    is_called = units.probability >= samples.threshold
    figures = _fit_figures(units) | _rates(units.label, is_called, units.cluster.astype(str))
    for name, each in figures.items():
        yield figure_row(name, each, units) | {"adaptation": "recalibration"}


def _threshold_rows(samples: SamplePair) -> Iterator[_FigureRow]:
    adaptation, ensemble = samples.adaptation, samples.external.ensemble
    inside = np.isfinite(adaptation.threshold_margin)
    units = _image_units(samples.external, inside, samples.external.probability)
    if not units.label.size:
        return
    figure = adaptation.threshold, NO_INTERVAL
    yield figure_row("fit_threshold", figure, units) | {"adaptation": "threshold"}
    is_called = (ensemble.margin >= adaptation.threshold_margin)[inside]
    for name, each in _rates(units.label, is_called, units.cluster.astype(str)).items():
        yield figure_row(name, each, units) | {"adaptation": "threshold"}


def _rates(label: IntArray, is_called: BoolArray, cluster: npt.NDArray[np.str_]) -> _Figures:
    ill = label == 1
    cases = {
        "recall": (is_called, ill),
        "specificity": (~is_called, ~ill),
        "precision": (ill, is_called),
        "npv": (~ill, ~is_called),
    }
    return {
        name: (float(hit[among].mean()), proportion_interval(hit[among], cluster[among]))
        if among.any()
        else (float("nan"), NO_INTERVAL)
        for name, (hit, among) in cases.items()
    }


def _with_adjusted(rows: Sequence[_FigureRow]) -> list[_FigureRow]:
    """With Holm's P over all tests but the primary one, that of the AUC by image."""
    is_primary = [row["metric"] == "auc" and row["level"] == "image" for row in rows]
    others = [row["p"] for row, primary in zip(rows, is_primary, strict=True) if not primary]
    holm_values = iter(holm(others))
    return [
        row | {"p_adjusted": row["p"] if primary else next(holm_values)}
        for row, primary in zip(rows, is_primary, strict=True)
    ]


def drift_rows(external: pa.Table, reference: pa.Table) -> list[_FigureRow]:
    """How far the images' grey levels, sharpness and colours lie from the training set's.

    Args:
        external: rows of the image set's `images` that were scored.
        reference: the model's reference set.
    """
    from thyro_core.screening.drift_statistics import psi, psi_chance

    columns = {"mean": "mean", "sd": "grey_sd", "sharpness": "sharpness"}
    columns["overlay_share"] = "overlay_share"
    nothing = np.empty(0)
    units = Units(nothing.astype(np.int64), nothing, nothing, nothing, nothing.astype(object))
    sizes: _FigureRow = {"n": external.num_rows, "n_positive": None, "n_units": None}
    sizes["internal_n"] = reference.num_rows
    values = {
        f"psi_{own}": psi(reference[other].to_numpy(), external[own].to_numpy())
        for own, other in columns.items()
    }
    values["psi_chance"] = psi_chance(reference.num_rows, external.num_rows, 0.95)
    return [
        figure_row(name, (value, NO_INTERVAL), units)
        | sizes
        | {"level": "set", "p_adjusted": np.nan}
        for name, value in values.items()
    ]
