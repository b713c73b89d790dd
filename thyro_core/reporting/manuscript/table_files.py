"""Tables as files for a journal: CSV, LaTeX and a Word document."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from docx import Document
from docx.enum.section import WD_ORIENT
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.shared import Pt

from thyro_core import NOTICE
from thyro_core.reporting.manuscript.page import PageTable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": r"\ensuremath{-}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{MULTIPLICATION SIGN}": r"\ensuremath{\times}",
    "\N{GREATER-THAN OR EQUAL TO}": r"\ensuremath{\geq}",
    "\N{LESS-THAN OR EQUAL TO}": r"\ensuremath{\leq}",
    "\N{PLUS-MINUS SIGN}": r"\ensuremath{\pm}",
    "\N{MIDDLE DOT}": r"\ensuremath{\cdot}",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{PER MILLE SIGN}": r"\textperthousand{}",
    "\N{DEGREE SIGN}": r"\textdegree{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}
_PAGE_ROWS = 30
"""A table with more rows goes on over several pages."""
_LONG_TEXT = 40
"""Letters from which on a column is set as paragraphs."""


def file_names(tables: Sequence[PageTable]) -> list[str]:
    """A name for each table, without suffix, numbered in the page's order."""
    return [f"{number:02d}-{_slug(table)}" for number, table in enumerate(tables, 1)]


def _slug(table: PageTable) -> str:
    words = re.findall(r"[a-z0-9]+", f"{table.section} {table.title}".lower())
    return "-".join(words[:8])


def as_csv(table: PageTable) -> str:
    """The table's rows, below its headings, as the page shows them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((*table.header, *table.body))
    return text.getvalue()


def as_latex(table: PageTable, label: str) -> str:
    """The table with its caption and label, with `booktabs`; over pages, `longtable`.

    Args:
        table: of the page.
        label: by which the paper's text refers to it.
    """
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in table.body]
    head = [" & ".join(map(_escape, row)) + r" \\" for row in table.header]
    caption = rf"\caption{{{_escape(table.caption)}}}\label{{tab:{label}}}"
    lines = [r"\toprule", *head, *([r"\midrule"] if head else []), *rows, r"\bottomrule"]
    columns = "".join(_column_type(table, place) for place in range(len(table.numeric)))
    if len(rows) > _PAGE_ROWS:
        body = [rf"\begin{{longtable}}{{{columns}}}", caption + r" \\", *lines, r"\end{longtable}"]
    else:
        body = [
            r"\begin{table}",
            r"\centering",
            caption,
            rf"\begin{{tabular}}{{{columns}}}",
            *lines,
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(body) + "\n"


def _column_type(table: PageTable, place: int) -> str:
    if max(len(row[place]) for row in (*table.header, *table.body)) > _LONG_TEXT:
        return r"p{0.3\linewidth}"
    return "r" if table.numeric[place] else "l"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def write_document(tables: Sequence[PageTable], path: Path) -> None:
    """All tables in one Word document, each below its caption."""
    document = Document()
    section = document.sections[0]
    section.orientation = WD_ORIENT.LANDSCAPE
    section.page_width, section.page_height = section.page_height, section.page_width
    document.styles["Normal"].font.size = Pt(9)
    document.add_paragraph(NOTICE)
    for number, table in enumerate(tables, 1):
        document.add_paragraph(f"Table {number}. {table.caption}", style="Caption")
        rows = (*table.header, *table.body)
        grid = document.add_table(rows=len(rows), cols=len(table.numeric), style="Table Grid")
        for place, row in enumerate(rows):
            cells = grid.rows[place].cells
            for column, text in enumerate(row):
                paragraph = cells[column].paragraphs[0]
                paragraph.add_run(text).bold = place < len(table.header)
                if table.numeric[column]:
                    paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT
        document.add_paragraph()
    document.save(str(path))


def write_tables(tables: Sequence[PageTable], folder: Path) -> list[Path]:
    """Every table as CSV and LaTeX, and all of them as `tables.docx`."""
    paths = []
    for name, table in zip(file_names(tables), tables, strict=True):
        for suffix, text in ((".csv", as_csv(table)), (".tex", as_latex(table, name))):
            paths.append(folder / f"{name}{suffix}")
            paths[-1].write_text(text, encoding="utf-8")
    paths.append(folder / "tables.docx")
    write_document(tables, paths[-1])
    return paths
