"""A study's report as the files that a paper needs, written into a folder."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.evaluation.centres import has_centres
from thyro_core.reporting.html import render_page
from thyro_core.reporting.manuscript.bibliography import bibtex
from thyro_core.reporting.manuscript.characteristics import characteristics
from thyro_core.reporting.manuscript.figure_files import gallery_figure, write_figure
from thyro_core.reporting.manuscript.methods import methods
from thyro_core.reporting.manuscript.page import Page, PageFigure, PageTable, read_page
from thyro_core.reporting.manuscript.table_files import file_names, write_tables
from thyro_core.reporting.queries import Tables
from thyro_core.reporting.references import references
from thyro_core.reporting.report import render_report
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan, load_current_plan
from thyro_core.tables.query import connect

COLUMN_WIDTHS: tuple[float, float] = (85.0, 174.0)
"""A journal's single and double column [mm]."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    folder: Path
    figures: int
    tables: int


def export_study(
    store: Store, study_id: str, folder: Path, *, scratch: Path, width: float
) -> Export:
    """Write figures, tables, methods, references and checklist of a finished study.

    Args:
        store: where the study lies.
        study_id: the study.
        folder: where the files go; new or empty.
        scratch: node-local folder for the pack of a remote store.
        width: of figures in print [mm]; the gallery is as wide as two columns.

    Raises:
        InputError: there is no such study, or the folder holds something already.
        IncompleteStudyError: the study is not finished.
    """
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder}: expected a new or empty folder, found files in it; name another one"
        raise InputError(msg)
    plan = load_current_plan(store, study_id)
    report, checklist = render_report(store, study_id, scratch)
    page = read_page(report)
    results = connect(store)
    try:
        with results.store_errors():
            tables = Tables(results.connection, study_id, plan.manifest_id)
            first, text = characteristics(tables), methods(tables, plan)
    finally:
        results.connection.close()
    # Made whole beside it first: a run that dies leaves no half of an export under its name.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "report.html").write_text(report, encoding="utf-8")
    (partial / "checklist.csv").write_bytes(checklist)
    (partial / "methods.md").write_text(text, encoding="utf-8")
    bibliography = bibtex(
        references(plan.config.architectures, has_centres=has_centres(plan.config))
    )
    (partial / "references.bib").write_text(bibliography, encoding="utf-8")
    figures = _write_figures(page, partial / "figures", width)
    all_tables = (first, *page.tables)
    (partial / "tables").mkdir()
    write_tables(all_tables, partial / "tables")
    readme = _readme(plan, figures, all_tables, width)
    (partial / "README.md").write_text(readme, encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return Export(folder, len(figures), len(all_tables))


def _write_figures(page: Page, folder: Path, width: float) -> list[PageFigure]:
    folder.mkdir()
    figures = list(page.figures)
    for figure in figures:
        write_figure(figure, folder, width)
    if page.cases:
        figures.append(gallery_figure(page.cases))
        write_figure(figures[-1], folder, max(width, COLUMN_WIDTHS[1]))
    return figures


def _readme(
    plan: StudyPlan, figures: Sequence[PageFigure], tables: Sequence[PageTable], width: float
) -> str:
    return render_page(
        "export.md",
        notice=NOTICE,
        plan=plan,
        figures=figures,
        tables=list(zip(file_names(tables), tables, strict=True)),
        width=f"{width:g}",
        gallery_width=f"{max(width, COLUMN_WIDTHS[1]):g}",
    )
