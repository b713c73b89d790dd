"""Text that is drawn into a picture: found without any model, and painted over where it is shown.

Headers with hospital, date and name are what matters. A line of text is a row of small parts of
one height on one base line, much brighter than what lies behind them and all of one level, as no
speckle is; or, on a flat ground such as a bar or the black of a screen, brighter or darker than
it, with upright strokes. Letters that touch (small print) are found on flat ground alone; one or
two letters by themselves are not found. Lines of five letters and more are also sought upright,
turned either way, white or on flat ground; and large letters in the picture at a quarter of its
size.

The bounds were chosen on 450 breast images: 117 have lines, 0.24 % of the area in all, and 4 % of
one at most. On 402 thyroid images of another machine 4 have lines, 0.01 % of the area. Text was
drawn into two to eight pictures of both in six typefaces. Of 12 to 48 pixels, 0.92 to 1 of a face's
ink is covered on black, light and grey bars, and 0.8 to 1 over tissue; of 9 pixels, 0.9 to 1 on
black, and 0.56 to 1 on light and grey bars and over tissue. In one typeface, 0.8 to 1 of upright
text of 12 to 24 pixels on any of these is covered, and 0.9 to 1 of large letters, of 48 to 90
pixels of 315 or more; on flat ground they are sought at a contrast of 100 grey levels and more.
What the network is shown does not change.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from thyro_core.imaging.decode import content_box
from thyro_core.imaging.orientation import lies_on_side
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
_MOST_SHORT_LABELS = 65535
_LEAST_LETTERS, _LEAST_LETTERS_ON_FLAT, _LEAST_LENGTH = 3, 4, 1.6
_LEAST_UPRIGHT = 5  # letters of an upright line: few in a column stand by chance
# Of the search for large letters, how many make a line, and its least height [pixels there].
_LARGE_SCALE, _LEAST_LARGE, _LARGE_HEIGHT = 0.25, 3, 16
# Large letters on flat ground rise by 195 and more; shadows between bright tissue that were taken
# for them, in four pictures of two public sets and of a scanner's clip, by 50 to 65.
_LARGE_CONTRAST_ON_FLAT = 100
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
    is_sure: bool = True
    """Whether it is on flat ground or white."""

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
    boxes = _boxes(grey)
    # Few letters in a row stand by chance in a scan on its side, as few in a column do in others.
    return _boxes(grey, is_turned=True) if boxes and lies_on_side(grey) else boxes


def _boxes(grey: Grey, *, is_turned: bool = False) -> list[Box]:
    scale = min(1.0, _SEARCH_SIDE / max(grey.shape))
    boxes: list[Box] = []
    small = _at_scale(grey, scale)
    for layer in _ink_layers(np.ascontiguousarray(small, np.uint8)):
        # Ink of any level on any ground has most parts, and takes most of the time.
        upright = layer.is_sure or is_turned
        lines = _text_lines(layer, _LEAST_UPRIGHT if is_turned else 0)
        for left, top, right, bottom in (
            _text_lines(_quarter_turn(layer), 0 if is_turned else _LEAST_UPRIGHT) if upright else ()
        ):
            lines.append((top, len(small) - right, bottom, len(small) - left))
        for line in lines:
            _add_box(boxes, line, scale, grey.shape)
    coarse = scale * _LARGE_SCALE
    for layer in _ink_layers(np.ascontiguousarray(_at_scale(grey, coarse), np.uint8)):
        for line in _text_lines(layer, _LEAST_LARGE, _LARGE_CONTRAST_ON_FLAT):
            if line[3] - line[1] >= _LARGE_HEIGHT:
                _add_box(boxes, line, coarse, grey.shape)
    return sorted(boxes, key=lambda box: (box[1], box[0], box))


def _quarter_turn(layer: _InkLayer) -> _InkLayer:
    """By a quarter clockwise: what is written upright lies along the rows, or upside down there."""
    image, ink, rise = (
        np.ascontiguousarray(np.rot90(side, -1)) for side in (layer.image, layer.ink, layer.rise)
    )
    return _InkLayer(image, ink, rise, layer.is_flat)


def _at_scale(grey: Grey, scale: float) -> Grey:
    if scale == 1:
        return grey
    width, height = (max(1, round(side * scale)) for side in grey.shape[::-1])
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _add_box(boxes: list[Box], line: Box, scale: float, shape: tuple[int, int]) -> None:
    """A line of the picture at a scale, inside the picture."""
    left, top, right, bottom = (round(side / scale) for side in line)
    _join_box(boxes, (max(0, left), max(0, top), min(shape[1], right), min(shape[0], bottom)))


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


def without_text(grey: Grey, row: Mapping[str, Any], *, pad: bool = False) -> Grey:
    """A row of a pack as people may see it.

    Args:
        grey: uint8 (side, side).
        row: the image's `text_boxes`, `width`, `height` and `view_box` in the table `images`. Where
            an earlier version did not look for text, it is sought at the size of the pack.
        pad: whether the image stands in the middle of black, in its proportions.
    """
    if row["text_boxes"] is None:
        return paint_over(np.asarray(grey), text_boxes(np.asarray(grey)))
    left, top, right, bottom = row.get("view_box") or (0, 0, row["width"], row["height"])
    size = right - left, bottom - top
    boxes = [
        (max(a, left) - left, max(b, top) - top, min(c, right) - left, min(d, bottom) - top)
        for a, b, c, d in boxes_of(row["text_boxes"])
        if a < right and c > left and b < bottom and d > top
    ]
    if not pad or not boxes:
        return paint_over(grey, boxes, size)
    square = np.array(grey)
    left, top, right, bottom = content_box(*size, len(square))
    square[top:bottom, left:right] = paint_over(square[top:bottom, left:right], boxes, size)
    return square


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


def _ink_layers(grey: Grey) -> Iterator[_InkLayer]:
    """Bright ink, then dark: on flat ground, on any ground, and white ink on any.

    Steps write over what the steps before leave: fresh memory takes longer than the work.
    """
    kernel = np.ones((_STROKE_KERNEL, _STROKE_KERNEL), np.uint8)
    for image in (grey, 255 - grey):
        ground = _as_grey(cv2.morphologyEx(image, cv2.MORPH_OPEN, kernel))
        rise = _as_grey(cv2.subtract(image, ground))
        ink = _as_grey(cv2.morphologyEx(ground, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)))
        cv2.threshold(ink, _GROUND_STEP, 255, cv2.THRESH_BINARY_INV, dst=ink)
        near = ground
        cv2.threshold(rise, _GROUND_LEVELS, 255, cv2.THRESH_BINARY_INV, dst=near)
        share = _as_grey(cv2.blur(near, (_GROUND_WINDOW, _GROUND_WINDOW)))
        _keep_ink(ink, share, math.ceil(_GROUND_SHARE * 255))
        _keep_ink(ink, rise, _LEAST_CONTRAST_ON_FLAT, share)
        yield _InkLayer(image, ink, rise, is_flat=True)
        cv2.threshold(rise, _LEAST_CONTRAST - 1, 255, cv2.THRESH_BINARY, dst=ink)
        yield _InkLayer(image, ink, rise, is_flat=False, is_sure=False)
        if image is grey:
            # White letters stand apart from specks that they touch at a level near their own.
            _keep_ink(ink, image, _WHITE_LEVEL, share)
            yield _InkLayer(image, ink, rise, is_flat=False)


def _keep_ink(ink: Grey, levels: Grey, least: int, spare: Grey | None = None) -> None:
    """Leave the ink where a level is reached; `spare`, or `levels` itself, is written over."""
    mask = levels if spare is None else spare
    cv2.threshold(levels, least - 1, 255, cv2.THRESH_BINARY, dst=mask)
    cv2.bitwise_and(ink, mask, dst=ink)


def _as_grey(image: npt.NDArray[Any]) -> Grey:
    return np.asarray(image, np.uint8)


def _text_lines(
    layer: _InkLayer,
    least: int | None = None,
    contrast_on_flat: int = _LEAST_LINE_CONTRAST_ON_FLAT,
) -> list[Box]:
    parts = _letter_parts(layer)
    labels = _line_labels(parts, layer)
    members = np.bincount(labels)[labels]
    is_long = members >= 3
    if layer.is_flat:
        is_long = (members >= 2) | (parts[:, 2] > 2 * parts[:, 3])
    parts, labels = parts[is_long], labels[is_long]
    lines = [parts[labels == label] for label in np.unique(labels)]
    return [
        _line_box(line, layer)
        for line in lines
        if _is_text_line(line, layer, least, contrast_on_flat)
    ]


def _letter_parts(layer: _InkLayer) -> _InkParts:
    """Connected parts of a letter's size and shape; on flat ground of a word's, too.

    None: there are so many that they are noise.
    """
    parts, labels, rows = _ink_parts(layer.ink)
    _, _, width, height, area = parts.T
    is_letter = (width >= 2) & (width <= 2 * height) & (area >= _LEAST_INK * width * height)
    is_shape = is_letter | (width <= _STEM * height)
    if layer.is_flat:
        is_word = (width > 2 * height) & (width < _LONGEST_WORD * height)
        is_shape |= is_word & (area < _MOST_INK_OF_WORDS * width * height)
    is_shape &= (height >= (4 if layer.is_flat else 5)) & (height <= _TALLEST_LETTER)
    places = np.flatnonzero(is_shape)
    if len(places) > max(_FEW_PARTS, _MOST_PARTS * layer.ink.size):
        places = places[:0]
    parts = parts[places]
    peaks = np.zeros((len(parts), 1), np.int32)
    sides = parts[:, :4].tolist()
    for i, (place, (left, top, width, height)) in enumerate(zip(places, sides, strict=True)):
        columns = slice(left, left + width)
        is_part = labels[top : top + height, columns] == place + 1
        parts[i, 1] = rows[top]
        peaks[i] = layer.image[rows[top] : rows[top] + height, columns][is_part].max()
    return np.concatenate([parts, peaks], axis=1)


def _ink_parts(
    ink: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Connected parts, (n, 5), their labels from 1, and the picture's row of each row of labels.

    Of rows without ink one is left between others, which takes half the time.
    """
    has_ink = ink.max(axis=1) > 0
    has_ink[1:] |= has_ink[:-1].copy()
    rows = np.flatnonzero(has_ink)
    dense = ink[rows]
    # Labels of 16 bits take a third of the time; there are no more parts than pixels of ink.
    kind = cv2.CV_16U if cv2.countNonZero(ink) < _MOST_SHORT_LABELS else cv2.CV_32S
    if not len(rows):
        return np.zeros((0, 5), np.int32), dense, rows
    _, labels, parts, _ = cv2.connectedComponentsWithStats(dense, connectivity=8, ltype=kind)
    return np.asarray(parts, np.int32)[1:], np.asarray(labels), rows


def _line_labels(parts: _InkParts, layer: _InkLayer) -> npt.NDArray[np.int32]:
    """The line of each part: neighbours of one height, on one base line, of one level."""
    left, top, width, height, _, peak = parts.T.astype(np.float32)
    base, right = top + height, left + width
    taller, lower = (f(height[:, None], height[None]) for f in (np.maximum, np.minimum))
    gaps = left[None] - right[:, None]
    is_linked = (left[None] > left[:, None]) & (gaps <= layer.gap * taller) & (gaps >= -0.3 * lower)
    is_linked &= np.abs(base[:, None] - base[None]) <= np.maximum(1, layer.slack * taller)
    is_linked &= (taller <= layer.ratio * lower) & (
        np.abs(peak[:, None] - peak[None]) <= layer.levels
    )
    labels = np.arange(len(parts), dtype=np.int32)
    for first, second in np.argwhere(is_linked).tolist():
        if labels[first] != labels[second]:
            labels[labels == labels[second]] = labels[first]
    return labels


def _is_text_line(
    line: _InkParts, layer: _InkLayer, least: int | None, contrast_on_flat: int
) -> bool:
    height = _level_at(line[:, 3], 0.5)
    left, top = line[:, :2].min(axis=0).tolist()
    right, bottom = (line[:, :2] + line[:, 2:4]).max(axis=0).tolist()
    # Where letters touch, a part holds several.
    n_letters = np.maximum(1, np.rint(line[:, 2] / (_GLYPH_WIDTH * height))).sum()
    least = least or (_LEAST_LETTERS_ON_FLAT if layer.is_flat else _LEAST_LETTERS)
    if n_letters < least or right - left < _LEAST_LENGTH * height:
        return False
    if not layer.is_flat and (height < 6 or line[:, 5].std() > _PEAK_SD):
        return False
    around = (slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2))
    patch, ink = layer.image[around], layer.ink[around] > 0
    if layer.is_flat:
        strokes = np.sort((ink[:, 1:] & ~ink[:, :-1]).sum(axis=1))
        density = strokes[-max(1, len(strokes) // 4)] * height / (right - left)
        if density < _LEAST_STROKES:
            return False
    ground = patch[~ink]
    if not len(ground):
        return False
    level = _level_at(ground, 0.5)
    contrast = _level_at(patch[ink], 0.75) - level
    if not layer.is_flat:
        return contrast >= _LEAST_LINE_CONTRAST
    share = float((np.abs(ground - level) <= _LINE_GROUND_LEVELS).mean())
    return share >= _LINE_GROUND_SHARE and contrast >= contrast_on_flat


def _level_at(values: npt.NDArray[Any], share: float) -> float:
    """A quantile, linear between values: `np.quantile`, which takes ten times as long on a few."""
    sorted_values, place = np.sort(values), share * (len(values) - 1)
    below, above = sorted_values[math.floor(place)], sorted_values[math.ceil(place)]
    return float(below) + (place - math.floor(place)) * (float(above) - float(below))


def _line_box(line: _InkParts, layer: _InkLayer) -> Box:
    """The box of a line, grown to letters beside it that have melted into what is bright there."""
    height = _level_at(line[:, 3], 0.5)
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
