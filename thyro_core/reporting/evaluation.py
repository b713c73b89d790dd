"""The page of an evaluation: a model on its own and on external images, side by side.

The page is a function of the store: no time of writing, no script, nothing from any network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection
from markupsafe import Markup

from thyro_core import NOTICE
from thyro_core.evaluation.curves import calibration_curve
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES, METRIC_NAMES
from thyro_core.evaluation.subgroups import LEAST_UNITS
from thyro_core.registry.bundle import Bundle, load_bundle
from thyro_core.reporting.cells import Cell, definition
from thyro_core.reporting.external_maps import empty_maps, map_answers, map_finding
from thyro_core.reporting.figures.external import (
    INSIDE,
    OUTSIDE,
    Benefit,
    samples_benefit_plot,
    samples_calibration_plot,
    samples_roc_plot,
)
from thyro_core.reporting.figures.style import Estimate
from thyro_core.reporting.figures.svg import CSS_VARIABLES, LIGHT, root_rule
from thyro_core.reporting.html import render_page
from thyro_core.reporting.queries import TableRow, condition, plain
from thyro_core.store.keys import evaluation_page_key
from thyro_core.store.store import Store
from thyro_core.tables.query import connect
from thyro_core.types import FloatArray
from thyro_core.validation.config import EvaluationRecord
from thyro_core.validation.evaluate import evaluation_figures, load_evaluation
from thyro_core.validation.overlap import OVERLAP_REASONS
from thyro_core.validation.promise import CLASS_OF_BAND
from thyro_core.validation.sentences import evaluation_evidence, summary_sentences

_MOST_IMAGES = 50
_FIT_NAMES = {
    "nll": "Log loss",
    "slope": "Calibration slope (1 fits, below 1: too extreme)",
    "intercept": "Calibration intercept (0 fits, below 0: too high)",
    "observed_expected": "Malignant, observed over expected (1 fits)",
}
_INDEX_NAMES = {
    "psi_mean": "Mean grey level",
    "psi_sd": "Standard deviation of the grey level",
    "psi_sharpness": "Sharpness",
    "psi_overlay_share": "Coloured share of the tissue",
    "psi_chance": "What chance stays below (95 of 100)",
}
_LOCAL_NAMES = {
    "fit_slope": "Slope of the log odds, fitted on all images",
    "fit_intercept": "Intercept of the log odds, fitted on all images",
    "fit_threshold": "Threshold (raw probability), chosen on all images",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "precision": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    **_FIT_NAMES,
}


@dataclass(frozen=True)
class _EvaluationTables:
    """An evaluation's rows in a store's tables."""

    connection: DuckDBPyConnection
    evaluation_id: str

    def query(self, sql: str) -> list[dict[str, Any]]:
        relation = self.connection.sql(sql)
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def cell(self, sql: str, form: str) -> Cell:
        """The one value of a query."""
        (row,) = self.query(sql)
        (value,) = row.values()
        return Cell(plain(value), form, ("sql", sql))

    def count(self, **key: object) -> Cell:
        """How many of the evaluation's images have these values."""
        where = condition({"evaluation_id": self.evaluation_id} | key)
        return self.cell(f"SELECT count(*) FROM evaluations WHERE {where}", "count")

    def figures(self) -> list[TableRow]:
        """The evaluation's figures, in the order in which they were made."""
        own = {"evaluation_id": self.evaluation_id}
        rows = self.query(f"SELECT * FROM evaluation_metrics WHERE {condition(own)}")
        names = ("level", "adaptation", "metric", "point")
        return [
            TableRow("evaluation_metrics", own | {name: row[name] for name in names}, row)
            for row in rows
        ]

    def maps(self) -> list[TableRow]:
        """The checks of the maps of the evaluation's images."""
        return self._checks("evaluation_maps", {"evaluation_id": self.evaluation_id})

    def own_maps(self, study_key: dict[str, object]) -> list[TableRow]:
        """The checks of the maps of the model's study."""
        return self._checks("cam_checks", study_key)

    def _checks(self, table: str, own: dict[str, object]) -> list[TableRow]:
        rows = self.query(f"SELECT * FROM {table} WHERE {condition(own)}")
        names = ("measure", "baseline")
        return [TableRow(table, own | {name: row[name] for name in names}, row) for row in rows]


def render_evaluation(store: Store, evaluation_id: str) -> str:
    """The page of an evaluation as HTML; the same store gives the same bytes.

    Raises:
        InputError: there is no such evaluation, or its model is gone.
        StoreError: a store on S3 failed meanwhile.
    """
    record = load_evaluation(store, evaluation_id)
    bundle = load_bundle(store, record.model_id)
    by_name = evaluation_figures(store, evaluation_id)
    results = connect(store)
    try:
        with results.store_errors():
            tables = _EvaluationTables(results.connection, evaluation_id)
            rows, of_maps = tables.figures(), tables.maps()
            return render_page(
                "evaluation.html",
                notice=NOTICE,
                colours=f"{CSS_VARIABLES}@media print{{{root_rule(LIGHT)}}}",
                definition=definition,
                record=record,
                source_name=(record.source or "").rstrip("/").rpartition("/")[2],
                network=ARCHITECTURE_NAMES[bundle.architecture],
                warnings=bundle.card["warnings"],
                sentences=summary_sentences(record, by_name),
                evidence=evaluation_evidence(by_name),
                least_units=LEAST_UNITS,
                samples=_samples(tables, record, bundle),
                figures=_sample_plots(tables, bundle, rows),
                levels=_metrics_by_level(rows),
                metric_labels=METRIC_NAMES,
                fit=_rows_named(rows, _FIT_NAMES, level="image", adaptation="none"),
                predictive=[row for row in rows if row["metric"] in {"ppv_at", "npv_at"}],
                recalibration=_rows_named(
                    rows, _LOCAL_NAMES, level="image", adaptation="recalibration"
                ),
                promises=_promises(rows),
                threshold=_rows_named(rows, _LOCAL_NAMES, level="image", adaptation="threshold"),
                drift=_rows_named(rows, _INDEX_NAMES, level="set", adaptation="none"),
                maps=map_answers(of_maps, tables.own_maps(_study_key(bundle))),
                empty_maps=empty_maps(of_maps),
                map_finding=map_finding(
                    of_maps, bundle.architecture, is_apart=evaluation_evidence(by_name) == "apart"
                ),
                left_out=_left_out_images(tables),
                most_images=_MOST_IMAGES,
                overlap_reasons=OVERLAP_REASONS,
            )
    finally:
        results.connection.close()


def write_evaluation_page(store: Store, evaluation_id: str) -> str:
    """Put the page beside its evaluation; one that is there stays.

    Returns:
        The page's URL.

    Raises:
        InputError: there is no such evaluation.
    """
    key = evaluation_page_key(evaluation_id)
    if not store.exists(key):
        store.write(key, render_evaluation(store, evaluation_id).encode())
    return f"{store.url}/{key}"


def _samples(
    tables: _EvaluationTables, record: EvaluationRecord, bundle: Bundle
) -> list[tuple[str, Cell, Cell]]:
    """What the two samples are of: name, its own images, these images."""
    inside = f"ensemble WHERE {condition(_study_key(bundle))}"
    own = {"evaluation_id": record.evaluation_id, "excluded": None}
    outside = f"evaluations WHERE {condition(own)}"
    unit = "count(DISTINCT coalesce(patient_id, group_id))"
    shares = {
        "Images": ("count(*)", "count"),
        "Patients (groups of near-duplicates where none is known)": (unit, "count"),
        "Images whose patient is known": ("count(patient_id)", "count"),
        "Malignant": ("coalesce(sum(label), 0)", "count"),
        "Share malignant": ("avg(label)", "percent"),
    }
    return [
        (
            name,
            tables.cell(f"SELECT {sql} FROM {inside}", form),
            tables.cell(f"SELECT {sql} FROM {outside}", form),
        )
        for name, (sql, form) in shares.items()
    ]


def _study_key(bundle: Bundle) -> dict[str, object]:
    return {"study_id": bundle.card["study_id"], "architecture": bundle.architecture}


def _sample_plots(
    tables: _EvaluationTables, bundle: Bundle, rows: Sequence[TableRow]
) -> dict[str, Markup]:
    """The plots, by name; one without both classes on a side is left out."""
    columns = "label, prob_raw, prob_calibrated, coalesce(patient_id, group_id) AS unit"
    own = {"evaluation_id": tables.evaluation_id, "excluded": None}
    frames = {
        INSIDE: f"SELECT {columns} FROM ensemble WHERE {condition(_study_key(bundle))}",
        OUTSIDE: f"SELECT {columns} FROM evaluations WHERE {condition(own)}",
    }
    data = {name: tables.connection.sql(sql).df() for name, sql in frames.items()}
    if any(frame["label"].nunique() < 2 for frame in data.values()):
        return {}
    auc = next(row for row in rows if row["metric"] == "auc" and row["level"] == "image")
    aucs = {
        INSIDE: Estimate(auc["internal"], auc["internal_low"], auc["internal_high"]),
        OUTSIDE: Estimate(auc["value"], auc["ci_low"], auc["ci_high"]),
    }
    scores = {
        name: (frame["label"].to_numpy(np.int64), frame["prob_raw"].to_numpy(np.float64))
        for name, frame in data.items()
    }
    fitted_frames = {name: frame.dropna(subset=["prob_calibrated"]) for name, frame in data.items()}
    lines = {
        name: calibration_curve(
            frame["label"].to_numpy(np.int64),
            frame["prob_calibrated"].to_numpy(np.float64),
            frame["unit"].to_numpy(str),
        )
        for name, frame in fitted_frames.items()
        if len(frame)
    }
    benefits = _benefits(
        rows, {name: float(frame["label"].mean()) for name, frame in fitted_frames.items()}
    )
    plots = {
        "roc": samples_roc_plot("plot-roc", scores, aucs),
        "calibration": samples_calibration_plot("plot-calibration", lines),
    }
    if benefits:
        plots["benefit"] = samples_benefit_plot("plot-benefit", benefits)
    # Made by us of numbers and fixed texts.
    return {name: Markup(svg) for name, svg in plots.items()}  # noqa: S704


def _benefits(rows: Sequence[TableRow], prevalence: Mapping[str, float]) -> dict[str, Benefit]:
    own = [row for row in rows if row["metric"] == "net_benefit"]
    if not own:
        return {}

    def column(name: str) -> FloatArray:
        return np.array([row[name] for row in own], dtype=np.float64)

    x = column("point")
    return {
        INSIDE: Benefit(
            x, column("internal"), column("internal_low"), column("internal_high"),
            prevalence[INSIDE],
        ),
        OUTSIDE: Benefit(
            x, column("value"), column("ci_low"), column("ci_high"), prevalence[OUTSIDE]
        ),
    }  # fmt: skip


def _metrics_by_level(rows: Sequence[TableRow]) -> dict[str, dict[str, TableRow]]:
    """The ten metrics of each level."""
    levels: dict[str, dict[str, TableRow]] = {}
    for row in rows:
        if row["metric"] in METRIC_NAMES and row["adaptation"] == "none":
            levels.setdefault(row["level"], {})[row["metric"]] = row
    return levels


def _rows_named(
    rows: Sequence[TableRow], names: Mapping[str, str], *, level: str, adaptation: str
) -> list[tuple[str, TableRow]]:
    own = {
        row["metric"]: row
        for row in rows
        if row["level"] == level and row["adaptation"] == adaptation
    }
    return [(words, own[name]) for name, words in names.items() if name in own]


def _promises(rows: Sequence[TableRow]) -> list[tuple[str, TableRow, TableRow, TableRow]]:
    """Of each band with a promise: in words, rows of patients, of images, and the declared one."""
    own = {row["metric"]: row for row in rows}
    return [
        (
            f"{name.capitalize()} called {band}",
            own[f"{band}_patients"],
            own[f"{band}_of_{name}"],
            own[f"{band}_promised"],
        )
        for band, (_, name) in CLASS_OF_BAND.items()
        if f"{band}_patients" in own
    ]


def _left_out_images(tables: _EvaluationTables) -> list[dict[str, Any]]:
    where = condition({"evaluation_id": tables.evaluation_id})
    return tables.query(
        "SELECT left(image_id, 12) AS image, excluded, left(training_image, 12) AS training_image "
        f"FROM evaluations WHERE {where} AND excluded IS NOT NULL ORDER BY excluded, image_id"
    )
