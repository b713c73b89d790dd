"""The report's plots, each with the numbers behind it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from markupsafe import Markup

from thyro_core.config import StudyConfig
from thyro_core.evaluation import curves
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.metrics import ECE_BINS
from thyro_core.evaluation.operating import PREVALENCES
from thyro_core.evaluation.tables import IMAGE_LEVEL
from thyro_core.reporting.cells import ABSENT, Cell, definition
from thyro_core.reporting.figures import curve_sql
from thyro_core.reporting.figures import curves as plots
from thyro_core.reporting.figures.style import Estimate
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.reporting.sections.band_cells import benefit_cell, nearest_index, rate_cell

SheetCell = Cell | Markup | str

RATES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""False positive rates at which the numbers behind the ROC curves are given."""

RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Recalls at which the numbers behind the precision-recall curves are given."""

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Threshold probabilities at which net benefit is given."""

_MEASURES = ("ppv", "npv")


@dataclass(frozen=True)
class Sheet:
    """The numbers behind a figure: its text alternative."""

    title: str
    head: list[str | Markup]
    rows: list[list[SheetCell]]


@dataclass(frozen=True)
class Plot:
    """A figure: inline SVG and its numbers."""

    name: str
    svg: Markup
    table: Sheet | None
    """None: the page has these numbers in a table of their own."""


@dataclass(frozen=True)
class PlotData:
    """The data of all plots."""

    tables: Tables
    config: StudyConfig
    parts: Mapping[str, list[curves.Part]]
    """Architecture -> its splits' labels and probabilities."""
    clusters: Mapping[str, npt.NDArray[np.object_]]
    """Architecture -> the patient, else the group, of each image of `pooled`."""
    ratio: float
    """n_test / n_train, mean over splits."""
    malignant: int
    """Malignant patients that the splits test."""
    benign: int
    """Benign patients that the splits test."""
    epochs: pa.Table

    def source(self, architecture: str) -> str:
        """An architecture's predictions, for SQL."""
        return self.tables.source("predictions", architecture=architecture)

    def pooled_part(self, architecture: str) -> curves.Part:
        """All splits' test images together."""
        labels, probabilities = zip(*self.parts[architecture], strict=True)
        return np.concatenate(labels), np.concatenate(probabilities)

    def estimates(self, metric: str) -> dict[str, Estimate]:
        """An architecture's mean metric with its interval."""
        key = {"level": IMAGE_LEVEL, "metric": metric, "split": None}
        rows = self.tables.rows("metrics", ("architecture",), **key)
        estimates = {
            row["architecture"]: Estimate(row["value"], row["ci_low"], row["ci_high"])
            for row in rows
        }
        return {name: estimates[name] for name in self.parts}

    def prevalence(self) -> float:
        """Share of malignant test images, all splits together."""
        label, _ = self.pooled_part(next(iter(self.parts)))
        return float(label.mean())


def plot_data(
    tables: Tables, config: StudyConfig, predictions: pa.Table, epochs: pa.Table
) -> PlotData:
    """Gather what plots need.

    Args:
        tables: for queries.
        config: the study's.
        predictions: the study's table.
        epochs: the study's table.
    """
    columns = ["architecture", "split", "image_id", "patient_id", "label", "prob_malignant"]
    frame = predictions.select(columns).to_pandas().sort_values(["split", "image_id"])
    frame["cluster"] = _clusters(tables, frame)
    parts: dict[str, list[curves.Part]] = {
        name: [
            (part["label"].to_numpy(), part["prob_malignant"].to_numpy())
            for _, part in frame[frame["architecture"] == name].groupby("split")
        ]
        for name in config.architectures
    }
    sizes = (
        "(SELECT count(*) FILTER (role = 'test') / count(*) FILTER (role = 'train') AS r "
        f"FROM {tables.source('splits')} GROUP BY split)"
    )
    ratio = tables.figure("avg(r)", sizes, "three").value
    clusters = {
        name: frame.loc[frame["architecture"] == name, "cluster"].to_numpy(object) for name in parts
    }
    malignant, benign = (
        int(frame.loc[frame["label"] == value, "cluster"].nunique()) for value in (1, 0)
    )
    return PlotData(tables, config, parts, clusters, float(ratio or 0), malignant, benign, epochs)


def _clusters(tables: Tables, frame: pd.DataFrame) -> pd.Series:
    """The patient of each prediction, else the group of its image."""
    sql = f"SELECT DISTINCT image_id, group_id FROM {tables.source('splits')}"
    groups = {row["image_id"]: row["group_id"] for row in tables.query(sql)}
    patient = frame["patient_id"]
    return patient.where(patient.notna(), frame["image_id"].map(groups)).astype(str)


def roc_figure(data: PlotData) -> Plot:
    """ROC curves over splits."""
    bands = {
        name: curves.roc_band(part, data.ratio, patients=data.malignant)
        for name, part in data.parts.items()
    }
    sheet = _band_sheet(
        bands, RATES, _rate_cells(data, bands, curve_sql.sensitivity_at),
        ("Mean sensitivity", "False positive rate"),
    )  # fmt: skip
    return make_plot("roc", plots.roc_plot("plot-roc", bands, data.estimates("auc")), sheet)


def precision_recall_figure(data: PlotData) -> Plot:
    """Precision-recall curves over splits."""
    bands = {
        name: curves.pr_band(part, data.ratio, patients=data.malignant)
        for name, part in data.parts.items()
    }
    sheet = _band_sheet(
        bands, RECALLS, _rate_cells(data, bands, curve_sql.precision_at, of_called=True),
        ("Mean precision", "Recall"),
    )  # fmt: skip
    svg = plots.pr_plot("plot-pr", bands, data.estimates("average_precision"), data.prevalence())
    return make_plot("pr", svg, sheet)


def first_recall(tables: Tables, architecture: str) -> Cell:
    """The recall from which on the precision has a band, see `curves.pr_band`."""
    predictions = tables.source("predictions", architecture=architecture)
    of_splits = (
        f"(SELECT sum(label) AS m, count(*) AS n FROM {predictions} "
        "GROUP BY split HAVING m > 0 AND m < n)"
    )
    return tables.figure(f"{curves.LEAST_HITS} / avg(m)", of_splits, "two")


def decision_figure(data: PlotData) -> Plot:
    """Net benefit by threshold probability."""
    patients = data.malignant, data.benign
    lines = {
        name: curves.decision_curve(part, data.ratio, patients=patients)
        for name, part in data.parts.items()
    }
    bands = {name: line.model for name, line in lines.items()}
    sheet = _band_sheet(
        bands,
        THRESHOLDS,
        lambda name, x: benefit_cell(
            bands[name],
            x,
            data.source(name),
            ratio=data.ratio,
            patients=patients,
            parts=data.parts[name],
        ),
        ("Mean net benefit per image", "Threshold probability"),
    )
    sheet.head.append("Call all malignant")
    first, line = next(iter(lines.items()))
    for row, x in zip(sheet.rows, THRESHOLDS, strict=True):
        sql = f"SELECT avg(v) FROM {curve_sql.treat_all_at(data.source(first), x)}"
        value = float(line.treat_all[nearest_index(line.model.x, x)])
        row.append(Cell(value, "three", ("sql", sql)))
    return make_plot("decision", plots.decision_plot("plot-decision", lines), sheet)


def _band_sheet(
    bands: Mapping[str, curves.Band],
    places: Sequence[float],
    cell: Callable[[str, float], Markup | Cell],
    titles: tuple[str, str],
) -> Sheet:
    """The bands' numbers at some places, each with the SQL that leads to it another way."""
    rows: list[list[SheetCell]] = [
        [definition(x), *(cell(name, x) for name in bands)] for x in places
    ]
    return Sheet(titles[0], [titles[1], *map(architecture_name, bands)], rows)


def _rate_cells(
    data: PlotData,
    bands: Mapping[str, curves.Band],
    at: Callable[[str, float], str],
    *,
    of_called: bool = False,
) -> Callable[[str, float], Markup | Cell]:
    """What gives the cell of an architecture at a place; `of_called`: of precision at a recall."""

    def cell(name: str, x: float) -> Markup | Cell:
        patients = max(data.malignant * x, 1.0) if of_called else data.malignant
        source_at = partial(at, data.source(name))
        return rate_cell(bands[name], x, source_at, ratio=data.ratio, patients=patients)

    return cell


def calibration_figure(data: PlotData) -> Plot:
    """Share of malignant images by predicted probability."""
    lines = {
        name: curves.calibration_curve(*data.pooled_part(name), data.clusters[name])
        for name in data.parts
    }
    head: list[str | Markup] = ["Probability bin"]
    for name in lines:
        head += [
            Markup("{}: images").format(architecture_name(name)),
            "mean probability",
            "malignant",
        ]
    rows: list[list[SheetCell]] = []
    for place in range(ECE_BINS):
        low, high = place / ECE_BINS, (place + 1) / ECE_BINS
        name_of_bin = Markup("{} to {}").format(definition(low, "one"), definition(high, "one"))
        cells: list[SheetCell] = [name_of_bin]
        for name, line in lines.items():
            cells += bin_cells(line, data.source(name), "prob_malignant", (low, high))
        rows.append(cells)
    svg = plots.calibration_plot("plot-calibration", lines, data.estimates("ece"))
    return make_plot("calibration", svg, Sheet("Calibration by bin of probability", head, rows))


def bin_cells(
    line: curves.Calibration, source: str, column: str, ends: tuple[float, float]
) -> Iterator[SheetCell]:
    """Count, mean probability and share malignant of a bin: those plotted, with their SQL.

    Args:
        line: the values plotted.
        source: what stands behind FROM, with its WHERE.
        column: the probability's.
        ends: of the bin; the upper one belongs to it, and 0 to the first.
    """
    low, high = ends
    above = f"{column} > {low}" if low else f"{column} >= 0"
    inside = np.flatnonzero((line.probability > low) & (line.probability <= high))
    values = (
        [float(part[inside[0]]) for part in (line.n, line.probability, line.share)]
        if inside.size
        else [0.0, None, None]
    )
    expressions = (("count(*)", "count"), (f"avg({column})", "three"), ("avg(label)", "three"))
    for value, (sql, form) in zip(values, expressions, strict=True):
        where = f"{source} AND {above} AND {column} <= {high}"
        yield Cell(value, form, ("sql", f"SELECT {sql} FROM {where}"))


def score_figure(data: PlotData) -> Plot:
    """How the first architecture's probabilities are distributed, by class."""
    first = data.config.architectures[0]
    histogram = curves.score_histogram(*data.pooled_part(first), bins=2 * ECE_BINS)
    svg = plots.score_plot("plot-scores", histogram, data.config.threshold, first)
    rows: list[list[SheetCell]] = []
    for place, (low, high) in enumerate(
        zip(histogram.edges[:-1], histogram.edges[1:], strict=True)
    ):
        test = "<=" if high == 1 else "<"
        inside = f"prob_malignant >= {low} AND prob_malignant {test} {high}"
        cells: list[SheetCell] = [
            Markup("{} to {}").format(definition(low, "two"), definition(high, "two"))
        ]
        for value, shares in enumerate((histogram.benign, histogram.malignant)):
            source = f"{data.source(first)} AND label = {value}"
            sql = f"SELECT avg(({inside})::INT) FROM {source}"
            cells.append(Cell(float(shares[place]), "percent", ("sql", sql)))
        rows.append(cells)
    head: list[str | Markup] = ["Probability", "of benign images", "of malignant images"]
    return make_plot("scores", svg, Sheet("Share of each class by probability", head, rows))


def ppv_figure(data: PlotData) -> Plot:
    """Predictive values where other shares of images are malignant."""
    recall, specificity = data.estimates("recall"), data.estimates("specificity")
    operating = {name: (recall[name], specificity[name]) for name in data.parts}
    svg = plots.ppv_plot("plot-ppv", operating, data.prevalence())
    identity = ("architecture", "measure", "prevalence")
    by_share = {
        tuple(row[name] for name in identity): row
        for row in data.tables.rows("predictive_values", identity)
    }
    cells = {key: _with_interval(row) for key, row in by_share.items()}
    # The study's own share, and others on the way to it, where it lies beyond the declared ones.
    more = {
        key[2]: row.cell("prevalence", "percent")
        for key, row in by_share.items()
        if key[2] not in PREVALENCES
    }
    shares = {share: definition(share, "percent") for share in PREVALENCES} | more
    rows: list[list[SheetCell]] = [
        [
            title,
            # An earlier version of the program left no such table.
            *(
                cells.get((name, measure, share), ABSENT)
                for name in operating
                for measure in _MEASURES
            ),
        ]
        for share, title in sorted(shares.items())
    ]
    head: list[str | Markup] = ["Prevalence"]
    for name in operating:
        head += [Markup("{}: PPV").format(architecture_name(name)), "NPV"]
    return make_plot("ppv", svg, Sheet("Predictive values by prevalence", head, rows))


def _with_interval(row: TableRow) -> Markup | Cell:
    if isnan(row["ci_low"]):
        return row.cell("value", "three")
    ends = (row.cell("ci_low", "three"), row.cell("ci_high", "three"))
    return Markup('{} <span class="ci">({} to {})</span>').format(row.cell("value", "three"), *ends)


def learning_figure(data: PlotData) -> Plot:
    """Loss by epoch."""
    lines = curves.learning_curves(data.epochs)
    lines = {name: lines[name] for name in data.config.architectures if name in lines}
    last = data.config.epochs
    epochs = sorted({1, max(1, last // 4), max(1, last // 2), max(1, 3 * last // 4), last})
    rows: list[list[SheetCell]] = []
    for epoch in epochs:
        cells: list[SheetCell] = [definition(epoch, "count")]
        for name, line in lines.items():
            source = data.tables.source("epochs", architecture=name, epoch=epoch)
            at = np.flatnonzero(line.epoch == epoch)
            value = float(line.loss[at[0]]) if at.size else None
            cells.append(Cell(value, "short", ("sql", f"SELECT avg(loss) FROM {source}")))
        rows.append(cells)
    head: list[str | Markup] = ["Epoch", *map(architecture_name, lines)]
    svg = plots.learning_plot("plot-learning", lines)
    return make_plot("learning", svg, Sheet("Mean training loss over splits", head, rows))


def architecture_name(name: str) -> Markup:
    """A network's name as a page shows it: its digits are no figures."""
    return Markup("<span data-id>{}</span>").format(ARCHITECTURE_NAMES[name])


def make_plot(name: str, svg: str, table: Sheet | None = None) -> Plot:
    """A figure of the page."""
    return Plot(name, Markup(svg), table)  # noqa: S704
