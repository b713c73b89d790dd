"""A figure as one inline `<svg>`: text stays text, colours are the page's, its bytes repeat.

Figures are svg by matplotlib in stand-in colours, which become CSS variables afterwards; so one
figure serves a light and a dark page. Nothing of matplotlib's is left but shapes: no global
styles, no metadata, no reference to anywhere else.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#ffffff",
        "ink": "#1b1f24",
        "grid": "#d5d9de",
        "series-1": "#0072b2",
        "series-2": "#c75000",
        "series-3": "#007f5c",
        "series-4": "#a8508a",
    }
)
"""Colours of figures on a light page: Okabe and Ito's palette, darkened where white asks for it."""

DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#15181c",
        "ink": "#e6e9ec",
        "grid": "#3a4047",
        "series-1": "#56b4e9",
        "series-2": "#f08a3c",
        "series-3": "#2fc08f",
        "series-4": "#d98fbb",
    }
)
"""The same on a dark page."""


def root_rule(colours: Mapping[str, str]) -> str:
    """CSS that declares colours as variables."""
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"


CSS_VARIABLES = f"{root_rule(LIGHT)}@media(prefers-color-scheme:dark){{{root_rule(DARK)}}}"
"""What a page must declare for figures to have colours."""

PAPER, INK, GRID, *SERIES = (f"#0f{place}e1" for place in range(10, 10 + len(LIGHT)))
"""Stand-ins to draw with; each becomes the CSS variable of the same place in `LIGHT`."""

FONT = 11.5
"""Size of text [CSS pixels], for a figure shown 400 of them wide."""

_STYLE: Mapping[str, object] = MappingProxyType(
    {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": FONT,
        "axes.labelsize": FONT,
        "axes.titlesize": FONT,
        "xtick.labelsize": FONT - 1,
        "ytick.labelsize": FONT - 1,
        "legend.fontsize": FONT - 0.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.labelcolor": INK,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "savefig.edgecolor": "none",
        "legend.frameon": False,
        "legend.borderaxespad": 0.0,
        "legend.labelspacing": 0.4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.05,
        "figure.constrained_layout.w_pad": 0.03,
    }
)

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_POINTS_PER_INCH = 72
_GROWTH = 1.5
_ID_PREFIX = "series-"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


class AltText(NamedTuple):
    """The text alternative of a figure."""

    title: str
    """What it shows."""
    text: str
    """Its content in a sentence or two."""


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on; draw and call `as_svg` within.

    Args:
        name: the figure's own on its page.
        width: of the figure, in CSS pixels at its natural size.
        height: likewise.
    """
    style: dict[Any, Any] = {**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": name}
    del style["backend"]
    with mpl.rc_context(style):
        figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        FigureCanvasSVG(figure)
        yield figure


def as_svg(figure: Figure, name: str, alt: AltText) -> str:
    """The figure as an inline `<svg>`, as wide as its container.

    Only ids that something refers to are kept, and those of artists whose `gid` begins with
    "series-"; all of them begin with the figure's name.

    Args:
        figure: the figure that `drawing` yields.
        name: the figure's own on its page: letters, digits and hyphens.
        alt: title and text alternative.

    Raises:
        ValueError: the name is no id.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    width, height = (size * _POINTS_PER_INCH for size in figure.get_size_inches())
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    return inline_svg(_inline(body, name), name, alt, (width, height))


def inline_svg(body: str, name: str, alt: AltText, size: tuple[float, float]) -> str:
    """Elements that use nothing but the page's variables, as an `<svg>` that says what it shows.

    It is as wide as its container, up to half as wide again as its natural size.

    Args:
        body: the elements; their ids begin with the name.
        name: the figure's own on its page: letters, digits and hyphens.
        alt: title and text alternative.
        size: natural width and height [CSS pixels].

    Raises:
        ValueError: the name is no id.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        msg = f"a figure's name must be letters, digits and hyphens, found {name!r}"
        raise ValueError(msg)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" '
        f'aria-labelledby="{name}-title {name}-text" width="100%" '
        f'style="max-width:{_GROWTH * size[0]:.0f}px" '
        f'viewBox="0 0 {size[0]:g} {size[1]:g}" stroke-linejoin="round" '
        f'font-family="system-ui, sans-serif">'
        f'<title id="{name}-title">{escape(alt.title)}</title>'
        f'<desc id="{name}-text">{escape(alt.text)}</desc>'
        f"{body}</svg>"
    )


def _inline(body: str, name: str) -> str:
    """The body without what has no place in a page, and with the page's colours."""
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def attribute(match: re.Match[str]) -> str:
        key, value = match.groups()
        if key == "id":
            is_needed = value in references or value.startswith(_ID_PREFIX)
            return f' id="{name}-{value}"' if is_needed else ""
        if value.startswith("rotate(-0 "):
            return ""
        value = re.sub(r"(^#|url\(#)", rf"\g<1>{name}-", value)
        value = re.sub(r"font-family: [^;]+;? ?", "", value)
        return f' {key}="{" ".join(_NUMBER.sub(_round_number, value).split())}"'

    body = re.sub(r' ([\w-]+)="([^"]*)"', attribute, body)
    for stand_in, variable in zip((PAPER, INK, GRID, *SERIES), LIGHT, strict=True):
        body = body.replace(stand_in, f"var(--{variable})")
    return body.strip()


def _round_number(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
