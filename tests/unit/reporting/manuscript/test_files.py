"""Figures and tables as files: their size in print, fonts, colours, and the same words."""

import csv
import io
import re
import string
from itertools import pairwise

import pypdfium2
from docx import Document
from PIL import Image

from thyro_core import NOTICE
from thyro_core.reporting.figures.svg import AltText, inline_svg
from thyro_core.reporting.manuscript.bibliography import bibtex, citation_key
from thyro_core.reporting.manuscript.figure_files import (
    gallery_figure,
    standalone_svg,
    write_figure,
)
from thyro_core.reporting.manuscript.page import PageFigure, PageTable, read_page
from thyro_core.reporting.manuscript.table_files import (
    as_csv,
    as_latex,
    file_names,
    write_document,
)
from thyro_core.reporting.references import references
from thyro_core.store.keys import report_key

SQUARE = inline_svg(
    '<rect x="10" y="20" width="30" height="40" fill="var(--series-1)"/>'
    '<text x="10" y="90" font-size="11" fill="var(--ink)">sensitivity \N{MINUS SIGN}0.5</text>',
    "plot-square",
    AltText("Square", "A square."),
    (100, 100),
)
TABLE = PageTable(
    "cohort",
    "Sizes",
    "Sizes, by part & 50 %.",
    (("Part_a", "Images"),),
    (("A", "\N{MINUS SIGN}1.5"), ("B, C", '"2"')),
    (False, True),
)


def test_a_figure_has_the_size_asked_for_in_each_format(tmp_path) -> None:
    svg, pdf, png = write_figure(PageFigure("square", SQUARE, ""), tmp_path, 85)
    assert 'width="85mm" height="85.00mm"' in svg.read_text()
    document = pypdfium2.PdfDocument(pdf.read_bytes())
    width, height = document[0].get_size()
    text = document[0].get_textpage().get_text_bounded()
    document.close()
    assert abs(width / 72 * 25.4 - 85) < 0.1
    assert abs(height / 72 * 25.4 - 85) < 0.1
    assert "sensitivity" in text
    with Image.open(png) as image:
        assert abs(image.width - 85 / 25.4 * 600) <= 1
        assert round(image.info["dpi"][0]) == 600
        # The middle of the rectangle, and a corner of the page.
        middle = image.getpixel((image.width * 25 // 100, image.height * 40 // 100))
        assert middle == (0x00, 0x72, 0xB2)
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_a_pdf_embeds_every_font_that_it_names(tmp_path) -> None:
    _, pdf, _ = write_figure(PageFigure("square", SQUARE, ""), tmp_path, 85)
    fonts = set(re.findall(rb"/BaseFont /([\w+-]+)", pdf.read_bytes()))
    assert fonts
    assert all(b"DejaVuSans" in font for font in fonts), fonts
    assert b"/FontFile2" in pdf.read_bytes()


def test_no_figure_of_a_report_leans_on_its_page(full) -> None:
    store, plan = full
    for figure in read_page(store.read(report_key(plan.study_id)).decode()).figures:
        svg = standalone_svg(figure.svg, 85)
        assert "var(" not in svg
        assert "mm" in svg.split("viewBox")[0]


def test_the_gallerys_captions_stay_in_their_rows(full) -> None:
    """Of networks with small inputs too: a caption lay over the next row's heading."""
    store, plan = full
    cases = read_page(store.read(report_key(plan.study_id)).decode()).cases
    svg = gallery_figure(cases).svg
    lines = re.findall(r'<text x="[\d.]+" y="([\d.]+)" font-weight="(\w+)">', svg)
    headings = [float(y) for y, weight in lines if weight == "bold"]
    assert len(headings) == len({case.kind for case in cases})
    places = [float(y) for y, _ in lines]
    for above, below in pairwise(headings):
        assert max(y for y in places if y < below) <= below - 11
        assert above < below
    assert max(places) < float(svg.split('viewBox="0 0 ')[1].split('"')[0].split()[1])


def test_a_table_is_the_same_in_csv_latex_and_word(tmp_path) -> None:
    rows = [*TABLE.header, *TABLE.body]
    assert [tuple(row) for row in csv.reader(io.StringIO(as_csv(TABLE)))] == rows
    latex = as_latex(TABLE, "sizes")
    assert r"\begin{tabular}{lr}" in latex
    assert r"Part\_a & Images \\" in latex
    assert r"A & \ensuremath{-}1.5 \\" in latex
    assert r"\caption{Sizes, by part \& 50 \%.}\label{tab:sizes}" in latex
    write_document([TABLE], tmp_path / "tables.docx")
    document = Document(str(tmp_path / "tables.docx"))
    (grid,) = document.tables
    assert [tuple(cell.text for cell in row.cells) for row in grid.rows] == rows
    assert [each.text for each in document.paragraphs[:2]] == [
        NOTICE,
        "Table 1. Sizes, by part & 50 %.",
    ]


def test_a_long_table_goes_on_over_pages() -> None:
    long = PageTable("s", "Long", "Long.", (), (("x", "word " * 20),) * 31, (False, False))
    latex = as_latex(long, "long")
    assert latex.startswith(r"\begin{longtable}{lp{0.3\linewidth}}")
    assert "\\midrule" not in latex


def test_latex_knows_every_letter_of_a_report(full) -> None:
    store, plan = full
    tables = read_page(store.read(report_key(plan.study_id)).decode()).tables
    text = "".join(as_latex(table, "t") for table in tables)
    assert set(text) - set(string.printable) == set()


def test_names_of_tables_tell_them_apart() -> None:
    assert file_names([TABLE, TABLE]) == ["01-cohort-sizes", "02-cohort-sizes"]


def test_the_bibliography_has_every_reference_once() -> None:
    every = references(("resnet18", "alexnet", "vgg16", "inception_v3"))
    text = bibtex(every)
    keys = re.findall(r"@misc\{([a-z0-9]+),", text)
    assert keys == [citation_key(each) for each in every]
    assert len(set(keys)) == len(every)
    for each in every:
        assert each.title.replace("&", r"\&") in text
        number = each.identifier.partition(":")[2]
        assert not number or f"{{{number}}}" in text
    assert "author = {Nadeau and Bengio}" in text
    assert "author = {Peng and others}" in text
    assert text.count("{") == text.count("}")


def test_a_caption_of_the_word_document_is_the_pages(full, tmp_path) -> None:
    store, plan = full
    tables = read_page(store.read(report_key(plan.study_id)).decode()).tables[:3]
    write_document(tables, tmp_path / "some.docx")
    text = [each.text for each in Document(str(tmp_path / "some.docx")).paragraphs]
    for number, table in enumerate(tables, 1):
        assert f"Table {number}. {table.caption}" in text
