"""A study's report: one HTML file that a clinician opens in a browser, numbers with their origin.

The page is a function of the store: no time of writing, no script, nothing from any network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from thyro_core import NOTICE
from thyro_core.datasets.eligibility import REASON_MEANINGS
from thyro_core.errors import IncompleteStudyError
from thyro_core.evaluation.centres import LEAST_CENTRES, has_centres
from thyro_core.evaluation.curves import LEAST_HITS
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES, METRIC_NAMES
from thyro_core.evaluation.metrics import PAPER
from thyro_core.evaluation.plausibility import CHECKS
from thyro_core.evaluation.shortcuts import LEARNERS, seen_facts
from thyro_core.evaluation.subgroups import LEAST_UNITS
from thyro_core.evaluation.uncertainty import WITHOUT_INTERVAL
from thyro_core.reporting.cells import Cell, definition, literature, paper, simulation
from thyro_core.reporting.checklist import checklist, checklist_csv
from thyro_core.reporting.figures.curves import colour_bar
from thyro_core.reporting.figures.svg import CSS_VARIABLES, LIGHT, root_rule
from thyro_core.reporting.html import render_page
from thyro_core.reporting.queries import Tables
from thyro_core.reporting.references import references
from thyro_core.reporting.sections.calibration import FIT_TITLES, below_treat_all, fit
from thyro_core.reporting.sections.centres import centres
from thyro_core.reporting.sections.cohort import cohort, leakage
from thyro_core.reporting.sections.curves import first_recall, make_plot, plot_data
from thyro_core.reporting.sections.flow import flow_figure
from thyro_core.reporting.sections.gallery import WORST, gallery
from thyro_core.reporting.sections.maps import (
    empty_maps,
    families,
    feature_tests,
    nodule_proportions,
    trust,
)
from thyro_core.reporting.sections.performance import Performance, comparisons, performance
from thyro_core.reporting.sections.plots import report_plots
from thyro_core.reporting.sections.provenance import config_cell, provenance
from thyro_core.reporting.sections.review import review
from thyro_core.store.keys import checklist_key, report_key, table_key
from thyro_core.store.store import Store
from thyro_core.study.lifecycle import study_notes, unfinished_runs
from thyro_core.study.plan import StudyPlan, load_current_plan
from thyro_core.study.summary import undefined_notes
from thyro_core.tables.io import read_table
from thyro_core.tables.query import connect

CONTENTS: tuple[tuple[str, str], ...] = (
    ("brief", "In brief"),
    ("cohort", "Cohort"),
    ("leakage", "Leakage"),
    ("performance", "Performance"),
    ("curves", "ROC and PR"),
    ("calibration", "Calibration"),
    ("decision", "Decision curve"),
    ("confusion", "Confusion"),
    ("ppv", "PPV"),
    ("operating", "Sensitivities"),
    ("subgroups", "Subgroups"),
    ("readers", "Readers"),
    ("shortcuts", "Shortcuts"),
    ("comparisons", "Comparisons"),
    ("learning", "Learning"),
    ("gallery", "Grad-CAM"),
    ("features", "Regions"),
    ("trust", "Trust"),
    ("provenance", "Provenance"),
    ("limits", "Limits"),
    ("checklist", "Checklists"),
    ("references", "References"),
)
"""Sections in the order of CLAIM 2024: anchor and title."""

_WIDE = 0.2
"""An interval of the AUC that is wider than this tells little."""


@dataclass(frozen=True)
class Brief:
    """Facts of the summary that stand in words."""

    against_paper: str
    """Where the first architecture's AUC interval lies: below, within (around) or above the
    paper's AUC; empty: undefined."""
    wide: bool
    """Whether that interval is so wide that agreement means little."""
    random_start: bool
    missing_splits: bool


def render_report(store: Store, study_id: str, scratch: Path) -> tuple[str, bytes]:
    """The report of a finished study as HTML, and its checklists as CSV.

    The same store gives the same bytes.

    Args:
        store: where the study lies.
        study_id: the study.
        scratch: node-local folder for the pack of a remote store.

    Raises:
        InputError: there is no such study.
        IncompleteStudyError: it is not finished; the message says what is missing.
        StoreError: a store on S3 failed meanwhile.
    """
    plan = load_current_plan(store, study_id)
    _check_finished(store, plan)
    results = connect(store)
    try:
        with results.store_errors():
            tables = Tables(results.connection, study_id, plan.manifest_id)
            values = _text_values(tables, plan)
            values |= _figure_values(tables, store, plan, values, scratch)
            has_patients = values["cohort"].has_patients
            items = checklist(_answering_sections(values), has_patients=has_patients)
            values["checklists"] = {
                standard: list(of) for standard, of in groupby(items, lambda item: item.standard)
            }
            return render_page("report.html", **values), checklist_csv(items)
    finally:
        results.connection.close()


def _answering_sections(values: Mapping[str, Any]) -> set[str]:
    """Anchors of the sections that show what their title says."""
    checks = [answer.row for network in values["trust"].values() for answer in network.answers]
    empty = {
        "calibration": not values["fit"].rows,
        "operating": not values["review"].operating,
        "subgroups": values["review"].forest is None,
        "readers": not values["review"].readers,
        "shortcuts": not values["review"].shortcuts,
        "comparisons": not values["comparisons"].corrected_tests,
        "gallery": not values["gallery"].groups,
        "features": values["features"] is None,
        "trust": not any(checks),
    }
    return {"top", *(anchor for anchor, _ in CONTENTS if not empty.get(anchor))}


def write_report(store: Store, study_id: str, scratch: Path) -> str:
    """Put the report beside its study, with its checklists as a CSV file.

    Returns:
        The report's URL.

    Raises:
        InputError: there is no such study.
        IncompleteStudyError: it is not finished.
    """
    key = report_key(study_id)
    page, items = render_report(store, study_id, scratch)
    store.write(checklist_key(study_id), items)
    store.write(key, page.encode())
    return f"{store.url}/{key}"


def _check_finished(store: Store, plan: StudyPlan) -> None:
    missing = unfinished_runs(store, plan)
    has_metrics = store.exists(table_key("metrics", study_id=plan.study_id))
    if missing or not has_metrics:
        names = ", ".join(f"split {split} {architecture}" for split, architecture in missing[:8])
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        what = f"{len(missing)} runs to go ({names}{more})" if missing else "no metrics yet"
        msg = (
            f"study {plan.study_id}: expected a finished study, found {what}; "
            "start its `thyro study` command again, then ask for the report"
        )
        raise IncompleteStudyError(msg)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.value, float) and math.isfinite(cell.value)


def _text_values(tables: Tables, plan: StudyPlan) -> dict[str, Any]:
    """Variables of the templates: text and tables."""
    metrics = performance(tables, plan.config)
    cohort_values = cohort(tables, is_null=plan.config.permute_labels)
    checks = leakage(tables)
    return {
        "config": lambda name, form="short": config_cell(plan, name, form),
        "definition": definition,
        "literature": literature,
        "paper": paper,
        "simulation": partial(simulation, splits=plan.config.splits),
        "first_recall": first_recall(tables, plan.config.architectures[0]),
        "least_hits": LEAST_HITS,
        "most_wrong": WORST,
        "reason_meanings": REASON_MEANINGS,
        "is_number": _is_number,
        "labels": ARCHITECTURE_NAMES,
        "metric_labels": METRIC_NAMES,
        "level_metrics": tuple(name for name in METRIC_NAMES if name not in WITHOUT_INTERVAL),
        "plan": plan,
        "notice": NOTICE,
        "colours": f"{CSS_VARIABLES}@media print{{{root_rule(LIGHT)}}}",
        "contents": CONTENTS,
        "suspicion_checks": CHECKS,
        "brief": _brief(metrics, plan),
        "cohort": cohort_values,
        "leakage": checks,
        "flow": flow_figure(cohort_values, checks),
        "performance": metrics,
        "comparisons": comparisons(tables, plan.config),
        "fit_titles": FIT_TITLES,
        "fit": fit(tables, plan.config.architectures),
        "below_treat_all": below_treat_all(tables, plan.config.architectures),
        "features": feature_tests(tables, plan.config, metrics.evidence),
        "at_chance": [name for name, kind in metrics.evidence.items() if kind != "apart"],
        "empty_maps": empty_maps(tables, plan.config),
        "proportions": nodule_proportions(tables, plan.config),
        "families": families(tables, plan.config),
        "trust": trust(tables, plan.config, metrics.evidence),
        "review": review(tables, plan.config),
        "centres": centres(tables, plan.config),
        "seen_facts": seen_facts(plan.config),
        "shortcut_learners": LEARNERS,
        "least_units": LEAST_UNITS,
        "least_centres": LEAST_CENTRES,
        "provenance": provenance(tables, plan),
        "references": references(plan.config.architectures, has_centres=has_centres(plan.config)),
    }


def _figure_values(
    tables: Tables, store: Store, plan: StudyPlan, values: dict[str, Any], scratch: Path
) -> dict[str, Any]:
    """Variables of the templates: plots, images and notes."""
    stored_tables = {
        name: read_table(store, name, study_id=plan.study_id)
        for name in ("predictions", "epochs", "metrics")
    }
    data = plot_data(tables, plan.config, stored_tables["predictions"], stored_tables["epochs"])
    return {
        "figures": report_plots(data, values["comparisons"], values["features"]),
        "gallery": gallery(tables, store, plan, scratch),
        "bar": make_plot(
            "bar", colour_bar("plot-bar", "no evidence", "the map's largest value")
        ).svg,
        "notes": (*plan.notes, *undefined_notes(stored_tables["metrics"])),
        "split_notes": study_notes(store, plan)[len(plan.notes) :],
    }


def _brief(metrics: Performance, plan: StudyPlan) -> Brief:
    auc = metrics.means[plan.config.architectures[0]]["auc"]
    where, wide = "", False
    low, high = auc.low.value, auc.high.value
    if isinstance(low, float) and isinstance(high, float) and math.isfinite(low):
        where = "below" if high < PAPER["auc"] else "above" if low > PAPER["auc"] else "within"
        wide = high - low > _WIDE
    cells = [cell for of in metrics.means.values() for cell in of.values()]
    return Brief(
        against_paper=where,
        wide=wide,
        random_start=any(start.origin == "none" for start in plan.weights.values()),
        missing_splits=any(cell.n.value != plan.config.splits for cell in cells),
    )
