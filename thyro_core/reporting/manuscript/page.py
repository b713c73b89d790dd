"""The report's figures, tables and gallery, read from its page: what is exported is what it shows.

The page is the one source, so that a figure of a paper cannot differ from the report's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import lxml.html
from lxml.html import HtmlElement

_SVG = re.compile(r'<svg [^>]*aria-labelledby="([\w-]+)-title .*?</svg>', re.DOTALL)


@dataclass(frozen=True)
class PageFigure:
    """A plot or diagram of the page."""

    name: str
    svg: str
    """As it stands in the page: its colours are the page's CSS variables."""
    caption: str


@dataclass(frozen=True)
class PageTable:
    """A table of the page, as text; every row has as many cells as the table has columns."""

    section: str
    """Anchor of the section that it stands in."""
    title: str
    caption: str
    """The whole caption, which begins with the title; empty: it has none."""
    header: tuple[tuple[str, ...], ...]
    body: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    """Whether a column holds numbers, which stand at the right."""


@dataclass(frozen=True)
class PageCase:
    """An image of the gallery, beside its map."""

    kind: str
    """What it is and what it was called."""
    caption: str
    image: str
    overlay: str
    """Both as data URLs."""


@dataclass(frozen=True)
class Page:
    """What a report shows beside its text."""

    figures: tuple[PageFigure, ...]
    tables: tuple[PageTable, ...]
    cases: tuple[PageCase, ...]


def read_page(html: str) -> Page:
    """The parts of a report's page, in its order.

    Args:
        html: the page, as `thyro_core.reporting.report` renders it.
    """
    root = lxml.html.document_fromstring(html)
    for line_break in root.iter("br"):
        part = ", " if line_break.getparent().tag == "figcaption" else " "
        line_break.tail = part + (line_break.tail or "")
    svgs = {match[1]: match[0] for match in _SVG.finditer(html)}
    captions = {_figure_name(figure): _figure_caption(figure) for figure in root.iter("figure")}
    return Page(
        figures=tuple(
            PageFigure(name.removeprefix("plot-"), svg, captions.get(name, ""))
            for name, svg in svgs.items()
        ),
        tables=tuple(_read_table(table) for table in root.iter("table")),
        cases=tuple(_gallery_cases(root)),
    )


def _plain_text(element: HtmlElement) -> str:
    return " ".join(element.text_content().replace("\N{NO-BREAK SPACE}", " ").split())


def _figure_name(figure: HtmlElement) -> str:
    svg = figure.find("svg")
    return "" if svg is None else svg.get("aria-labelledby", "").split("-title ")[0]


def _figure_caption(figure: HtmlElement) -> str:
    caption = figure.find("figcaption")
    return "" if caption is None else _plain_text(caption)


def _read_table(table: HtmlElement) -> PageTable:
    caption = table.find("caption")
    bold = None if caption is None else caption.find("b")
    whole = "" if caption is None else _plain_text(caption)
    title = whole if bold is None else _plain_text(bold)
    sections = [each.get("id", "") for each in table.iterancestors("section", "div")]
    rows = table.findall(".//tr")
    head = [_cell_texts(row) for row in rows if row.getparent().tag == "thead"]
    body = [_cell_texts(row) for row in rows if row.getparent().tag != "thead"]
    width = max(len(row) for row in (*head, *body))
    return PageTable(
        section=next((name for name in sections if name), ""),
        title=title.rstrip(".,: "),
        caption=whole,
        header=tuple(_fill(row, width) for row in head),
        body=tuple(_fill(row, width) for row in body),
        numeric=tuple(_is_numeric(rows, column) for column in range(width)),
    )


def _cell_texts(row: HtmlElement) -> tuple[str, ...]:
    """The texts of a row; a cell over several columns is followed by empty ones."""
    cells: list[str] = []
    for cell in row.iter("th", "td"):
        cells += [_plain_text(cell), *[""] * (int(cell.get("colspan", "1")) - 1)]
    return tuple(cells)


def _fill(row: tuple[str, ...], width: int) -> tuple[str, ...]:
    return row + ("",) * (width - len(row))


def _is_numeric(rows: list[HtmlElement], column: int) -> bool:
    cells = [list(row.iter("th", "td")) for row in rows]
    return any("num" in of[column].get("class", "") for of in cells if len(of) > column)


def _gallery_cases(root: HtmlElement) -> Iterator[PageCase]:
    for group in root.iter("div"):
        if group.get("class") != "gallery":
            continue
        heading = group.xpath("preceding-sibling::h3[1]")
        for case in group.iter("figure"):
            image, overlay = case.iter("img")
            yield PageCase(
                kind=_plain_text(heading[0]),
                caption=_figure_caption(case),
                image=image.get("src"),
                overlay=overlay.get("src"),
            )
