"""How images flow through a study: a diagram of boxes, each with its count."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from thyro_core.reporting.figures.svg import FONT, AltText, inline_svg

_MAIN_WIDTH, _COLUMN_GAP, _ASIDE_WIDTH = 210.0, 26.0, 214.0
_LINE, _PADDING, _BETWEEN = 16.0, 9.0, 30.0
_CHARACTERS = 33


@dataclass(frozen=True)
class FlowStep:
    """A box of the main line, and what leaves the line behind it."""

    lines: tuple[str, ...]
    aside: tuple[str, ...] = ()
    """Empty: nothing leaves."""


def flow_diagram(name: str, steps: Sequence[FlowStep], parts: Sequence[tuple[str, ...]]) -> str:
    """An inline `<svg>`: steps from the top down, what leaves to the right, parts at the bottom.

    Args:
        name: the figure's own on its page.
        steps: the main line; the first line of a box is bold.
        parts: the boxes that the last step is divided into, side by side.
    """
    y, body = 1.0, []
    for i, step in enumerate(steps):
        lines = _wrap(step.lines)
        height = _box_height(lines)
        body.append(_box(1.0, y, _MAIN_WIDTH, lines))
        bottom = y + height
        if step.aside:
            aside = _wrap(step.aside)
            top = bottom + _BETWEEN / 2
            middle = top + _box_height(aside) / 2
            body += [
                _box(1 + _MAIN_WIDTH + _COLUMN_GAP, top, _ASIDE_WIDTH, aside),
                _elbow(1 + _MAIN_WIDTH / 2, middle, 1 + _MAIN_WIDTH + _COLUMN_GAP, middle),
            ]
            bottom = top + _box_height(aside)
        after = bottom + (_BETWEEN / 2 if step.aside else _BETWEEN)
        if i + 1 < len(steps):
            body.append(_elbow(1 + _MAIN_WIDTH / 2, y + height, 1 + _MAIN_WIDTH / 2, after))
        else:
            after = y + height + _BETWEEN
        y = after
    bottom = y - _BETWEEN
    line_groups = [_wrap(part) for part in parts]
    width = (_MAIN_WIDTH + _COLUMN_GAP + _ASIDE_WIDTH - _COLUMN_GAP * (len(parts) - 1)) / max(
        len(parts), 1
    )
    for i, lines in enumerate(line_groups):
        x = 1 + i * (width + _COLUMN_GAP)
        body.append(_box(x, y, width, lines))
        start = min(max(1 + _MAIN_WIDTH / 2, x + 8), x + width - 8)
        body.append(_elbow(1 + _MAIN_WIDTH / 2, bottom, start if i == 0 else x + width / 2, y))
    y += max(map(_box_height, line_groups), default=-_BETWEEN)
    texts = [". ".join(": ".join(_pair(box)) for box in (s.lines, s.aside) if box) for s in steps]
    texts += [": ".join(_pair(part)) for part in parts]
    alt = AltText("Flow of the images through the study", f"{'. '.join(texts)}.")
    size = (_MAIN_WIDTH + _COLUMN_GAP + _ASIDE_WIDTH + 2, y + 1)
    return inline_svg("".join(body), name, alt, size)


def _pair(box: tuple[str, ...]) -> tuple[str, ...]:
    head, *rest = box
    return (head, "; ".join(rest)) if rest else (head,)


def _wrap(lines: Sequence[str]) -> list[tuple[str, bool]]:
    """Lines that fit a box, and whether each is bold."""
    return [
        (part, place == 0)
        for place, line in enumerate(lines)
        for part in textwrap.wrap(line, _CHARACTERS, subsequent_indent="  ")
    ]


def _box_height(lines: Sequence[object]) -> float:
    return len(lines) * _LINE + 2 * _PADDING - 4


def _box(x: float, y: float, width: float, lines: Sequence[tuple[str, bool]]) -> str:
    text = "".join(
        f'<text x="{x + _PADDING:g}" y="{y + _PADDING + _LINE * (i + 0.7):g}" '
        f'font-size="{FONT:g}" font-weight="{600 if bold else 400}" fill="var(--ink)" '
        f'xml:space="preserve">{escape(line)}</text>'
        for i, (line, bold) in enumerate(lines)
    )
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_box_height(lines):g}" rx="3" '
        f'fill="none" stroke="var(--ink)" stroke-width="0.8"/>{text}'
    )


def _elbow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line of right angles that ends in an arrow's head."""
    if to_y == y:
        head = f"M{to_x - 5:g} {to_y - 3:g}l5 3l-5 3"
        path = f"M{x:g} {y:g}H{to_x:g}"
    else:
        head = f"M{to_x - 3:g} {to_y - 5:g}l3 5l3 -5"
        path = f"M{x:g} {y:g}V{(y + to_y) / 2:g}H{to_x:g}V{to_y:g}"
    return f'<path d="{path}{head}" fill="none" stroke="var(--ink)" stroke-width="0.8"/>'
