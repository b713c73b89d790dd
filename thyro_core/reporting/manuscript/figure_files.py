"""Figures as files for a journal: SVG, PDF with its fonts, and PNG of 600 dots per inch."""

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

import pypdfium2
from matplotlib import font_manager
from PIL import Image
from reportlab.graphics import renderPDF
from reportlab.graphics.shapes import STATE_DEFAULTS
from svglib.fonts import register_font
from svglib.svglib import svg2rlg

from thyro_core.reporting.figures.svg import LIGHT
from thyro_core.reporting.manuscript.page import PageCase, PageFigure

DOTS_PER_INCH = 600


_FONT = "DejaVu Sans"
_TEXT_SIZE, _PICTURE_SIDE = 11.0, 224.0
"""Size of the gallery's text, and side of its pictures, however many pixels they have."""
_PAGE_SVG = re.compile(r'<svg ([^>]*?)width="100%" style="[^"]*" (viewBox="0 0 ([\d.]+) ([\d.]+)")')


def standalone_svg(svg: str, width: float) -> str:
    """A figure of the page as a file of its own.

    Args:
        svg: as it stands in the page.
        width: of the figure in print [mm].
    """
    root = _PAGE_SVG.search(svg)
    if root is None:
        msg = "expected a figure with a viewBox, as the report has them"
        raise ValueError(msg)
    height = width * float(root[4]) / float(root[3])
    size = f'width="{width:g}mm" height="{height:.2f}mm"'
    svg = svg.replace(root[0], f"<svg {root[1]}{size} {root[2]}", 1)
    svg = svg.replace("system-ui, sans-serif", f"'{_FONT}', sans-serif")
    for name, colour in LIGHT.items():
        svg = svg.replace(f"var(--{name})", colour)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'


def write_figure(figure: PageFigure, folder: Path, width: float) -> list[Path]:
    """A figure as SVG, PDF and PNG.

    Args:
        figure: of the page.
        folder: where its files go.
        width: of the figure in print [mm].
    """
    svg = standalone_svg(figure.svg, width)
    pdf = _as_pdf(svg)
    contents = {".svg": svg.encode(), ".pdf": pdf, ".png": _as_png(pdf)}
    paths = [folder / f"{figure.name}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def _as_pdf(svg: str) -> bytes:
    """One page as large as the figure, with the letters that it uses embedded."""
    _register_fonts()
    drawing = svg2rlg(io.BytesIO(svg.encode()))
    if drawing is None:
        msg = "expected a figure that can be read as SVG"
        raise ValueError(msg)
    # Without a date and an id of its own, so that the same figure gives the same bytes.
    return bytes(renderPDF.drawToString(drawing, invariant=1))


@cache
def _register_fonts() -> None:
    """Make the figures' letters known, and the default too: PDF's own ones are never embedded."""
    for weight in ("normal", "bold"):
        file = font_manager.findfont(font_manager.FontProperties(family=_FONT, weight=weight))
        register_font(_FONT, file, weight)
    STATE_DEFAULTS["fontName"] = _FONT


def _as_png(pdf: bytes) -> bytes:
    document = pypdfium2.PdfDocument(pdf)
    try:
        image = document[0].render(scale=DOTS_PER_INCH / 72).to_pil()
    finally:
        document.close()
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
    return buffer.getvalue()


def gallery_figure(cases: Sequence[PageCase]) -> PageFigure:
    """The gallery as one figure: a row for each kind of call, image beside map, with its caption.

    Args:
        cases: at least one.
    """
    rows = [(kind, list(of)) for kind, of in groupby(cases, key=lambda case: case.kind)]
    pair, gap = 2 * _PICTURE_SIDE, _TEXT_SIZE
    row_height = _PICTURE_SIDE + 5.5 * _TEXT_SIZE
    width = max(len(of) for _, of in rows) * (pair + gap) - gap
    parts = []
    for row, (kind, of) in enumerate(rows):
        top = row * row_height
        parts.append(_line(0, top + 1.1 * _TEXT_SIZE, kind, "bold"))
        for column, case in enumerate(of):
            left = column * (pair + gap)
            parts += _case_parts(case, left, top + 1.6 * _TEXT_SIZE)
    height = len(rows) * row_height
    body = f'<g fill="var(--ink)" font-size="{_TEXT_SIZE:g}">{"".join(parts)}</g>'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="100%" style="" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="system-ui, sans-serif">{body}</svg>'
    )
    caption = (
        "Images and their Grad-CAM maps, chosen by rule: of each kind of call the most and the "
        "least certain ones. Left the image as the network sees it, right its map."
    )
    return PageFigure("gallery", svg, caption)


def _case_parts(case: PageCase, left: float, top: float) -> list[str]:
    pictures = [
        f'<image x="{left + place * _PICTURE_SIDE:g}" y="{top:g}" '
        f'width="{_PICTURE_SIDE:g}" height="{_PICTURE_SIDE:g}" '
        f'xlink:href="{_as_png_url(url)}"/>'
        for place, url in enumerate((case.image, case.overlay))
    ]
    letters = int(2 * _PICTURE_SIDE / (0.56 * _TEXT_SIZE))
    below = top + _PICTURE_SIDE + 1.2 * _TEXT_SIZE
    lines = [
        _line(left, below + row * 1.2 * _TEXT_SIZE, text)
        for row, text in enumerate(wrap(case.caption, letters, break_on_hyphens=False))
    ]
    return pictures + lines


def _line(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-weight="{weight}">{escape(text)}</text>'


def _as_png_url(url: str) -> str:
    """The page's pictures are WebP, which editors of figures seldom read."""
    content = base64.b64decode(url.split(",", 1)[1])
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
