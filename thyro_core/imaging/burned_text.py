"""Text that is drawn into a picture: found without any model, and painted over where it is shown.

Headers with hospital, date and name are what matters. A line of text is a row of small parts of
one height on one base line, much brighter than what lies behind them and all of one level, as no
speckle is; or, on a flat ground such as a bar or the black of a screen, brighter or darker than
it, with upright strokes. Letters that touch (small print) are found on flat ground alone.

The bounds were chosen on 450 breast images: 117 have lines, text but for one row of a calliper's
dots, 0.24 % of the area in all. On 402 thyroid images of another machine, which chose nothing, 4
have lines, two of them text, 0.01 % of the area. Of text that is drawn into either in five
typefaces of 12 to 48 pixels, all ink is covered on black, light and grey bars, and 0.85 to 1 over
tissue; of 9 pixels, 0.58 to 1 on bars and 0.51 to 0.91 over tissue. What the network is shown does
not change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from thyro_core.imaging.tissue import Box
from thyro_core.types import Grey

_SEARCH_SIDE = 1024  # longer pictures are shrunk: their letters are larger, too [pixels]
_STROKE_KERNEL = 13  # no stroke of a letter is wider [pixels]
_TALLEST_LETTER = 64
_WHITE_LEVEL = 215
_LEAST_CONTRAST, _LEAST_CONTRAST_ON_FLAT = 48, 32
_LEAST_LINE_CONTRAST, _LEAST_LINE_CONTRAST_ON_FLAT = 60, 50
# Flat ground: most of what lies around is within a few levels of it.
_GROUND_WINDOW, _GROUND_SHARE, _GROUND_LEVELS, _GROUND_STEP = 31, 0.55, 8, 12
_LINE_GROUND_SHARE, _LINE_GROUND_LEVELS = 0.5, 14
_LEAST_INK, _MOST_INK_OF_WORDS, _STEM = 0.12, 0.75, 0.35
_LONGEST_WORD = 60
_GLYPH_WIDTH = 0.8
_PEAK_SD = 14.0
_LEAST_STROKES = 0.8
# More parts of a letter's size for a pixel are noise, some of which stand in line by chance.
_MOST_PARTS, _FEW_PARTS = 20e-4, 200
_INK_REACH, _MARGIN_BESIDE, _MARGIN_ABOVE, _LONGEST_GROWTH = 1.5, 0.6, 0.4, 8

_InkParts = npt.NDArray[np.int32]
"""(n, 6): left, top, width, height, area and highest level of each."""


@dataclass(frozen=True)
class _InkLayer:
    """Candidates of ink: in one polarity, on any ground or on flat ground."""

    image: Grey
    ink: npt.NDArray[np.uint8]
    rise: Grey
    """How far each pixel rises above its ground."""
    is_flat: bool

    @property
    def gap(self) -> float:
        """Widest gap between letters, in their heights."""
        return 1.5 if self.is_flat else 1.2

    @property
    def slack(self) -> float:
        """How far base lines may differ, in heights."""
        return 0.35 if self.is_flat else 0.15

    @property
    def ratio(self) -> float:
        """Largest ratio of the heights of neighbours."""
        return 2.2 if self.is_flat else 1.6

    @property
    def levels(self) -> int:
        """How far the highest levels of neighbours may differ."""
        return 60 if self.is_flat else 24


def text_boxes(grey: Grey) -> list[Box]:
    """Boxes around lines of text in a picture, from the top; a long line may have several.

    Args:
        grey: uint8 (H, W).

    Returns:
        Empty: none is found, which is no proof that there is none.
    """
    if not grey.size:
        return []
    scale = min(1.0, _SEARCH_SIDE / max(grey.shape))
    small = grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=3)
    height, width = grey.shape
    boxes: list[Box] = []
    for layer in _ink_layers(np.ascontiguousarray(small, np.uint8)):
        for line in _text_lines(layer):
            left, top, right, bottom = (round(side / scale) for side in line)
            _join_box(boxes, (max(0, left), max(0, top), min(width, right), min(height, bottom)))
    return sorted(boxes, key=lambda box: (box[1], box[0], box))


def paint_over(grey: Grey, boxes: list[Box], size: tuple[int, int] | None = None) -> Grey:
    """A picture for people to look at: what lies in the boxes has its mean grey level.

    Args:
        grey: uint8 (h, w).
        boxes: as `text_boxes` gives them.
        size: width and height of the picture that the boxes are of [pixels]; `grey` is that picture
            at another size. Default: `grey` itself.

    Returns:
        A copy, or `grey` itself where there are no boxes.
    """
    if not boxes:
        return grey
    (height, width), (full_width, full_height) = grey.shape, size or grey.shape[::-1]
    view = np.array(grey)
    for left, top, right, bottom in boxes:
        # Outwards: resampling smears a letter into the next pixel.
        rows = slice(top * height // full_height, -(-bottom * height // full_height))
        columns = slice(left * width // full_width, -(-right * width // full_width))
        part = view[rows, columns]
        if part.size:
            part[:] = round(float(part.mean()))
    return view


def without_text(grey: Grey, row: Mapping[str, Any]) -> Grey:
    """A row of a pack as people may see it.

    Args:
        grey: uint8 (side, side).
        row: the image's `text_boxes`, `width` and `height` in the table `images`. Where an earlier
            version did not look for text, it is sought at the size of the pack.
    """
    if row["text_boxes"] is None:
        return paint_over(np.asarray(grey), text_boxes(np.asarray(grey)))
    return paint_over(grey, boxes_of(row["text_boxes"]), (row["width"], row["height"]))


def boxes_of(sides: Sequence[int]) -> list[Box]:
    """Boxes out of a table's list of their sides, four numbers each."""
    left, top, right, bottom = (sides[place::4] for place in range(4))
    return list(zip(left, top, right, bottom, strict=True))


def _join_box(boxes: list[Box], box: Box) -> None:
    """Add a box; those that it half covers, or is half covered by, are the same line."""
    for other in list(boxes):
        sides = (*map(max, box[:2], other[:2]), *map(min, box[2:], other[2:]))
        if _box_area(sides) >= 0.5 * min(_box_area(box), _box_area(other)):
            boxes.remove(other)
            left, top = map(min, box[:2], other[:2])
            right, bottom = map(max, box[2:], other[2:])
            box = (left, top, right, bottom)
    boxes.append(box)


def _box_area(box: Sequence[int]) -> int:
    left, top, right, bottom = box
    return max(0, right - left) * max(0, bottom - top)


def _ink_layers(grey: Grey) -> list[_InkLayer]:
    layers = []
    kernel = np.ones((_STROKE_KERNEL, _STROKE_KERNEL), np.uint8)
    for image in (grey, 255 - grey):
        ground = cv2.morphologyEx(image, cv2.MORPH_OPEN, kernel)
        rise = np.asarray(cv2.subtract(image, ground), np.uint8)
        steps = cv2.morphologyEx(ground, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
        near = (rise <= _GROUND_LEVELS).astype(np.uint8) * 255
        share = cv2.blur(near, (_GROUND_WINDOW, _GROUND_WINDOW))
        flat = (steps <= _GROUND_STEP) & (share >= _GROUND_SHARE * 255)
        on_flat = ((rise >= _LEAST_CONTRAST_ON_FLAT) & flat).astype(np.uint8)
        layers.append(_InkLayer(image, on_flat, rise, is_flat=True))
        # White letters stand apart from specks that they touch at a level near their own.
        for level in (0, _WHITE_LEVEL) if image is grey else (0,):
            ink = ((rise >= _LEAST_CONTRAST) & (image >= level)).astype(np.uint8)
            layers.append(_InkLayer(image, ink, rise, is_flat=False))
    return layers


def _text_lines(layer: _InkLayer) -> list[Box]:
    parts = _letter_parts(layer)
    if not 0 < len(parts) <= max(_FEW_PARTS, _MOST_PARTS * layer.ink.size):
        return []
    labels = _line_labels(parts, layer)
    order = np.argsort(labels, kind="stable")
    lines = np.split(parts[order], np.flatnonzero(np.diff(labels[order])) + 1)
    return [_line_box(line, layer) for line in lines if _is_text_line(line, layer)]


def _letter_parts(layer: _InkLayer) -> _InkParts:
    """Connected parts of a letter's size and shape; on flat ground of a word's, too."""
    n, labels, statistics, _ = cv2.connectedComponentsWithStats(layer.ink, connectivity=8)
    peaks = np.zeros(n, np.int32)
    at = np.flatnonzero(layer.ink)
    np.maximum.at(peaks, np.asarray(labels, np.intp).ravel()[at], layer.image.ravel()[at])
    parts: _InkParts = np.column_stack([np.asarray(statistics, np.int32), peaks])[1:]
    _, _, width, height, area, _ = parts.T
    is_letter = (width >= 2) & (width <= 2 * height) & (area >= _LEAST_INK * width * height)
    is_shape = is_letter | (width <= _STEM * height)
    if layer.is_flat:
        is_word = (width > 2 * height) & (width < _LONGEST_WORD * height)
        is_shape |= is_word & (area < _MOST_INK_OF_WORDS * width * height)
    is_shape &= (height >= (4 if layer.is_flat else 5)) & (height <= _TALLEST_LETTER)
    return np.asarray(parts[is_shape])


def _line_labels(parts: _InkParts, layer: _InkLayer) -> npt.NDArray[np.int32]:
    """The line of each part: neighbours of one height, on one base line, of one level."""
    left, top, width, height, _, peak = parts.T.astype(np.float32)
    base, right = top + height, left + width
    taller, lower = (f(height[:, None], height[None]) for f in (np.maximum, np.minimum))
    gaps = left[None] - right[:, None]
    linked = (left[None] > left[:, None]) & (gaps <= layer.gap * taller) & (gaps >= -0.3 * lower)
    linked &= np.abs(base[:, None] - base[None]) <= np.maximum(1, layer.slack * taller)
    linked &= (taller <= layer.ratio * lower) & (np.abs(peak[:, None] - peak[None]) <= layer.levels)
    first, second = np.nonzero(linked)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=linked.shape)
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def _is_text_line(line: _InkParts, layer: _InkLayer) -> bool:
    height = float(np.median(line[:, 3]))
    left, top = line[:, :2].min(axis=0)
    right, bottom = (line[:, :2] + line[:, 2:4]).max(axis=0)
    # Where letters touch, a part holds several.
    n_letters = np.maximum(1, np.rint(line[:, 2] / (_GLYPH_WIDTH * height))).sum()
    if n_letters < (4 if layer.is_flat else 3) or right - left < 1.6 * height:
        return False
    if not layer.is_flat and (len(line) < 3 or line[:, 5].std() > _PEAK_SD or height < 6):
        return False
    around = (slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2))
    patch, ink = layer.image[around].astype(np.int16), layer.ink[around] > 0
    if ink.all():
        return False
    ground = np.median(patch[~ink])
    contrast = np.percentile(patch[ink], 75) - ground
    if not layer.is_flat:
        return bool(contrast >= _LEAST_LINE_CONTRAST)
    share = (np.abs(patch[~ink] - ground) <= _LINE_GROUND_LEVELS).mean()
    strokes = np.sort((np.diff(ink.astype(np.int8), axis=1) == 1).sum(axis=1))
    density = strokes[-max(1, len(strokes) // 4)] * height / (right - left)
    return bool(
        share >= _LINE_GROUND_SHARE
        and contrast >= _LEAST_LINE_CONTRAST_ON_FLAT
        and density >= _LEAST_STROKES
    )


def _line_box(line: _InkParts, layer: _InkLayer) -> Box:
    """The box of a line, grown to letters beside it that have melted into what is bright there."""
    height = float(np.median(line[:, 3]))
    left, top = (int(value) for value in line[:, :2].min(axis=0))
    right, bottom = (int(value) for value in (line[:, :2] + line[:, 2:4]).max(axis=0))
    rows = slice(top, bottom)
    is_ink = layer.image[rows] >= int(line[:, 5].min()) - 20
    is_ink &= layer.rise[rows] >= _LEAST_CONTRAST_ON_FLAT
    columns = np.asarray(is_ink.any(axis=0))
    reach, most = int(_INK_REACH * height), max(int(_LONGEST_GROWTH * height), right - left)
    end = _ink_growth(columns[right : right + most], reach)
    start = _ink_growth(columns[max(0, left - most) : left][::-1], reach)
    beside, above = round(_MARGIN_BESIDE * height), round(_MARGIN_ABOVE * height)
    return left - start - beside, top - above, right + end + beside, bottom + above


def _ink_growth(columns: npt.NDArray[np.bool_], reach: int) -> int:
    """How far ink goes on without a gap wider than `reach` [pixels]."""
    at = np.flatnonzero(columns)
    gaps = np.diff(at, prepend=-1) > reach
    whole = at[: int(gaps.argmax())] if gaps.any() else at
    return int(whole[-1]) + 1 if len(whole) else 0
