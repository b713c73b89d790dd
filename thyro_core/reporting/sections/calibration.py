"""The report on probabilities: how raw and calibrated ones of the ensembles fit, with plots."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from thyro_core.evaluation.curves import Band, calibration_curve
from thyro_core.evaluation.curves import Calibration as Reliability
from thyro_core.evaluation.ensemble import net_benefit_band
from thyro_core.evaluation.metrics import ECE_BINS
from thyro_core.reporting.cells import Cell, definition
from thyro_core.reporting.figures import curve_sql
from thyro_core.reporting.figures import ensemble as plots
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.reporting.sections.curves import (
    THRESHOLDS,
    Plot,
    Sheet,
    SheetCell,
    bin_cells,
    make_plot,
)
from thyro_core.types import FloatArray, IntArray

KINDS: Mapping[str, str] = {"raw": "prob_raw", "calibrated": "prob_calibrated"}
"""Kind of probability -> its column in `ensemble`."""

FIT_TITLES: Mapping[str, str] = {
    "slope": "Slope",
    "intercept": "Intercept",
    "observed_expected": "Observed / expected",
    "brier": "Brier score",
    "skill": "Gain over the prevalence",
    "auc": "AUC",
}
"""Metric -> its title in the table."""

_MODELS = {**KINDS, "prevalence": "prevalence"}


@dataclass(frozen=True)
class Fit:
    """How well the probabilities of each architecture's ensemble fit."""

    rows: Mapping[str, Mapping[str, Mapping[str, TableRow]]]
    """Architecture -> raw, calibrated or prevalence -> metric -> row of `calibration`."""
    members: Mapping[str, Cell]
    """Of the first architecture: tested `images`, those that a `single` network scored, `fewest`,
    `most` and `mean` networks of an image."""


def fit(tables: Tables, architectures: tuple[str, ...]) -> Fit:
    """Everything the table `calibration` says; architectures without a figure are absent."""
    rows: dict[str, dict[str, dict[str, TableRow]]] = {}
    for row in tables.rows("calibration", ("architecture", "probability", "metric")):
        of_architecture = rows.setdefault(row["architecture"], {})
        of_architecture.setdefault(row["probability"], {})[row["metric"]] = row
    members = tables.figures(
        tables.source("ensemble", architecture=architectures[0]),
        {
            "images": ("count(*)", "count"),
            "single": ("count(*) FILTER (members = 1)", "count"),
            "fewest": ("min(members)", "count"),
            "most": ("max(members)", "count"),
            "mean": ("avg(members)", "two"),
        },
    )
    return Fit(
        {
            name: {kind: rows[name][kind] for kind in _MODELS if kind in rows[name]}
            for name in architectures
            if name in rows
        },
        members,
    )


@dataclass(frozen=True)
class EnsembleScores:
    """Images with a raw and a cross-fitted calibrated probability, each once."""

    architecture: str
    source: str
    """These images, for the FROM of a SELECT."""
    label: IntArray
    unit: npt.NDArray[np.object_]
    probability: Mapping[str, FloatArray]
    """Raw, calibrated or prevalence -> (n,)."""


def ensemble_scores(tables: Tables, architecture: str) -> EnsembleScores | None:
    """The scores of an architecture's ensemble; None: there are none."""
    source = f"{tables.source('ensemble', architecture=architecture)} AND NOT isnan(prevalence)"
    columns = "label, coalesce(patient_id, group_id) AS unit, prob_raw, prob_calibrated, prevalence"
    rows = tables.query(f"SELECT {columns} FROM {source} ORDER BY image_id")
    if not rows:
        return None
    return EnsembleScores(
        architecture=architecture,
        source=source,
        label=np.array([row["label"] for row in rows], dtype=np.int64),
        unit=np.array([row["unit"] for row in rows], dtype=object),
        probability={
            kind: np.array([row[column] for row in rows], dtype=np.float64)
            for kind, column in _MODELS.items()
        },
    )


def fit_figure(scores: EnsembleScores) -> Plot:
    """Share of malignant images by raw and by calibrated probability of the ensemble."""
    lines = {
        kind: calibration_curve(scores.label, scores.probability[kind], scores.unit)
        for kind in KINDS
    }
    head: list[str | Markup] = ["Probability bin"]
    for kind in KINDS:
        head += [f"{kind}: images", "mean probability", "malignant"]
    svg = plots.calibration_plot("plot-fit", lines, float(scores.label.mean()))
    return make_plot(
        "fit", svg, Sheet("Calibration of the ensemble by bin", head, [*_bins(scores, lines)])
    )


def _bins(scores: EnsembleScores, lines: Mapping[str, Reliability]) -> Iterator[list[SheetCell]]:
    for place in range(ECE_BINS):
        low, high = place / ECE_BINS, (place + 1) / ECE_BINS
        row: list[SheetCell] = [
            Markup("{} to {}").format(definition(low, "one"), definition(high, "one"))
        ]
        for kind, line in lines.items():
            row += bin_cells(line, scores.source, KINDS[kind], (low, high))
        yield row


def benefit_figure(scores: EnsembleScores) -> Plot:
    """Net benefit of the ensemble by threshold, raw, calibrated, and of the prevalence model."""
    bands = {
        kind: net_benefit_band(scores.label, values, scores.unit)
        for kind, values in scores.probability.items()
    }
    rows: list[list[SheetCell]] = [
        [definition(x), *(_benefit_cell(scores, kind, bands[kind], x) for kind in _MODELS)]
        for x in THRESHOLDS
    ]
    head: list[str | Markup] = ["Threshold probability", "raw", "calibrated", "prevalence model"]
    svg = plots.benefit_plot("plot-benefit", bands)
    return make_plot("benefit", svg, Sheet("Net benefit per image of the ensemble", head, rows))


def _benefit_cell(scores: EnsembleScores, kind: str, band: Band, x: float) -> Cell:
    place = int(np.abs(band.x - x).argmin())
    sql = f"SELECT {curve_sql.net_benefit(x, _MODELS[kind])} FROM {scores.source}"
    return Cell(float(band.mean[place]), "three", ("sql", sql))


def below_treat_all(tables: Tables, architectures: tuple[str, ...]) -> dict[str, dict[str, Cell]]:
    """At which thresholds a network's net benefit lies below that of calling all malignant.

    Architecture -> of the decision curve's thresholds the `last` such one, how `many` there are,
    and how many thresholds there are `up_to` the last; and of those at which it lies below that of
    calling none how many there are (`harm`), the first and the last; of networks with predictions.
    """
    below, harm = "model < everyone - 1e-9", "model < -1e-9"
    figures = {
        "last": (f"max(t) FILTER ({below})", "two"),
        "many": (f"count(*) FILTER ({below})", "count"),
        "up_to": (f"coalesce(round(100 * max(t) FILTER ({below})), 0)", "count"),
        "harm": (f"count(*) FILTER ({harm})", "count"),
        "harm_first": (f"min(t) FILTER ({harm})", "two"),
        "harm_last": (f"max(t) FILTER ({harm})", "two"),
    }
    sources = {name: tables.source("predictions", architecture=name) for name in architectures}
    return {
        name: tables.figures(curve_sql.benefit_by_threshold(source), figures)
        for name, source in sources.items()
    }
