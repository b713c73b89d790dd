"""Two windows in one picture, side by side or above one another, where the file does not say so.

Between them there may be a black gutter of any width, see `gutters`. They are found without one,
too:

Speckle goes on from column to column. Where two windows meet, what lies left and right of the seam
has nothing in common over the whole depth, with a gutter between them or without one. The edge of
a cyst or of a shadow, a caliper or a line of text breaks only some depths.

A seam is found in one of two ways. The speckle left and right of it has no correlation: that needs
fine speckle, and finds gutters. Or the grey level steps: at a seam more rows of tissue step by more
than 80 % of their other steps do than at any other column near, which holds for coarse speckle too.
The bounds of the second way were chosen on the patients with even numbers of 402 thyroid images,
of which 178 are dual views. There 86 of 90 are split and none of 109 single views; of the other
patients 81 of 88 and none of 115; of 450 breast images, all single, none. A single view that is
split gives two rows of half an image each, with scores of no use; a dual view that is not is one
row, as it always was: the bounds are on that side. In a scan that lies on its side no windows are
sought: its layers of tissue stand upright, as seams do.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from thyro_core.imaging.gutters import level_gutter, upright_gutter
from thyro_core.imaging.orientation import lies_on_side
from thyro_core.imaging.tissue import Box, tissue_regions
from thyro_core.types import BoolArray, FloatArray, Grey, IntArray

SEAM_RATIO = 0.3
"""Correlation across a seam, over that of the picture's columns elsewhere, at most: with the other
bounds none of 450 breast images of one window is split at such a seam."""

_SEAM_REACH = (
    2  # columns compared lie so far left and right of the seam: scaling smears it [pixels]
)
_BANDS = 6
_LEAST_BANDS = 3
_SPECKLE_CORRELATION = 0.35
_SPECKLE_ROWS = 31
_SAMPLE_STEP = 4
_MIDDLE = (0.35, 0.65)
_WIDEST_GUTTER = 0.1
_LEAST_TISSUE = 0.4
_LEAST_GRAINS = 6
_MOST_OF_A_BAND = 0.6
_LINE_LEVELS, _LINE_SHARE, _DARK = 6, 0.7, 64
_LINE_REACH = 3  # a line's edge may look like a seam beside it [pixels]
# Steps, in a picture that is at most _STEP_WIDTH wide: from column to the next but one; tissue is
# lit around a step (mean of the window); a step is high above a share of its row's.
_STEP_WIDTH, _STEP, _LIGHT, _LIT_WINDOW = 640, 2, 30, (21, 5)
_HIGH_STEP, _LEAST_STEP = 0.8, 3
_LEAST_LIT = 0.3  # share of rows lit
_PROMINENCE = 0.15  # by how much the share of high steps exceeds that at any other column near
_LEVEL_SHARE, _LEVEL_PROMINENCE = 0.85, 0.05  # the same of a level seam, and the least share itself
_PEAK_REACH, _NEAR_COLUMNS = 6, 20  # columns of one peak; columns compared beyond the middle
# What a line parts goes on beyond it: over so many columns a seam steps, a line does not.
_FAR_STEP, _LEAST_FAR = 6, 0.22
# A seam's columns are so much brighter than what lies so far on both sides [pixels, grey levels] at
# a small share of the rows of each quarter of the depth: at most 0.14 at 83 seams of thyroid images
# (patients with even numbers), 0.15 at the others' 80. Of dotted lines, which were drawn into
# images of one window and taken for seams, it is 0.47 and more at all 26, in breast images at 10.
_LINE_SIDE, _DOT_LEVELS, _LINE_PARTS, _MOST_DOTS = 5, 40, 4, 0.28
# Into a line, and out of it, nearly all rows step the same way.
_ONE_WAY, _LEAST_FAR_ONE_WAY = 0.85, 0.45


def split_views(grey: Grey) -> list[Box]:
    """The two windows of a dual view, from the left, or from the top.

    Conservative: the seam must be upright, in the middle third or so, and cut all depths with
    speckle but one, or be the one column where most rows step; a gutter that is not black is dark
    and narrower than a tenth of the picture; both sides must hold tissue in at least 40 % of their
    area.

    Args:
        grey: uint8 (H, W).

    Returns:
        Two boxes; none for a picture of one window.
    """
    if min(grey.shape) < _SPECKLE_ROWS:
        return []
    boxes = _windows(grey)
    return [] if boxes and lies_on_side(grey) else boxes


def are_stacked(boxes: Sequence[Box]) -> bool:
    """Whether the windows stand above one another, and not side by side."""
    return len({top for _, top, _, _ in boxes}) > 1


def _windows(grey: Grey) -> list[Box]:
    height, width = grey.shape
    for find in (upright_gutter, _speckle_seam, _step_seam):
        seam = find(grey)
        if seam is None or _is_drawn(grey, seam):
            continue
        boxes: list[Box] = [(0, 0, seam[0], height), (seam[1], 0, width, height)]
        if all(_holds_tissue(grey, box) for box in boxes):
            return boxes
    upright = np.ascontiguousarray(grey.T)
    for seam in (level_gutter(grey), _step_seam(upright, is_level=True)):
        if seam is None or _is_drawn(upright, seam):
            continue
        halves: list[Box] = [(0, 0, width, seam[0]), (0, seam[1], width, height)]
        if all(_holds_tissue(grey, box) for box in halves):
            return halves
    return []


def _speckle_seam(grey: Grey) -> tuple[int, int] | None:
    """First and end column of the seam whose two sides have no speckle in common.

    Lines that a scanner draws are cut off at twice the median contrast of every fourth column
    before columns are compared. Of coarse speckle, in small pictures, few grains lie in a band of
    depth, and any two columns may differ by chance: there is no such seam.
    """
    width = grey.shape[1]
    ratios = _seam_ratios(grey)
    if ratios is None:
        return None
    first = int(_MIDDLE[0] * width)
    seam = int(ratios.argmin())
    if ratios[seam] > SEAM_RATIO:
        return None
    left = right = seam
    while left > 0 and ratios[left - 1] <= SEAM_RATIO:
        left -= 1
    while right < len(ratios) - 1 and ratios[right + 1] <= SEAM_RATIO:
        right += 1
    return None if right - left > _WIDEST_GUTTER * width else (first + left, first + right + 1)


def _step_seam(grey: Grey, *, is_level: bool = False) -> tuple[int, int] | None:
    """First and end column of the seam at which most rows of tissue step.

    Args:
        grey: the picture; on its side, if a level seam is sought.
        is_level: whether it is.
    """
    least_share, least_prominence = 0.0, _PROMINENCE
    if is_level:
        least_share, least_prominence = _LEVEL_SHARE, _LEVEL_PROMINENCE
    scale = min(1.0, _STEP_WIDTH / grey.shape[1])
    small = grey
    if scale < 1:
        size = round(grey.shape[1] * scale), max(1, round(grey.shape[0] * scale))
        small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    height, width = small.shape
    first, end = (int(share * width) for share in _MIDDLE)
    if min(height, first - _NEAR_COLUMNS - _FAR_STEP) < _SPECKLE_ROWS:
        return None
    columns = np.arange(first - _NEAR_COLUMNS, end + _NEAR_COLUMNS)
    is_light = cv2.blur(small, _LIT_WINDOW)[:, columns + _STEP // 2] > _LIGHT
    n_lit = is_light.sum(axis=0)
    shares = (_is_high_step(small, columns, _STEP) & is_light).sum(axis=0) / np.maximum(n_lit, 1)
    shares[n_lit < _LEAST_LIT * height] = 0
    peak = _NEAR_COLUMNS + int(shares[_NEAR_COLUMNS:-_NEAR_COLUMNS].argmax())
    others = np.delete(shares, slice(peak - _PEAK_REACH, peak + _PEAK_REACH + 1))
    if shares[peak] < least_share or shares[peak] - others.max() < least_prominence:
        return None
    middle = int(columns[peak]) + _STEP // 2
    rows = is_light[:, peak]
    far = _is_high_step(small, np.array([middle - _FAR_STEP // 2]), _FAR_STEP)[rows, 0].mean()
    rise = small[rows, middle + 1] > small[rows, middle - 1]
    is_one_way = abs(float(rise.mean()) - 0.5) > _ONE_WAY - 0.5
    if far < (_LEAST_FAR_ONE_WAY if is_one_way else _LEAST_FAR):
        return None
    # The lower of two windows begins at its skin, which is brighter than both its sides.
    if not is_level and _is_dotted(small, middle, np.flatnonzero(rows)):
        return None
    return int(middle / scale), round((middle + 1) / scale)


def _is_dotted(small: Grey, middle: int, rows: IntArray) -> bool:
    """Whether in a quarter of the depths a bright line stands, as between two callipers.

    A seam is brighter than one side; a line, and each dot of a dotted one, than both.
    """
    across = small[rows, middle - _LINE_SIDE : middle + _LINE_SIDE + 1].astype(np.int16)
    line = across[:, _LINE_SIDE - 1 : _LINE_SIDE + 2].max(axis=1)
    beside = np.maximum(across[:, :2].max(axis=1), across[:, -2:].max(axis=1))
    is_brighter = line > beside + _DOT_LEVELS
    parts = np.array_split(is_brighter, _LINE_PARTS)
    return max(float(part.mean()) for part in parts) > _MOST_DOTS


def _is_high_step(small: Grey, columns: IntArray, reach: int) -> BoolArray:
    """(rows, columns): whether what lies `reach` further right differs by more than usual."""
    levels = small.astype(np.int16)
    steps = np.abs(levels[:, reach:] - levels[:, :-reach])
    sample = np.sort(steps[:, ::_SAMPLE_STEP], axis=1)
    usual = sample[:, int(_HIGH_STEP * (sample.shape[1] - 1))]
    return np.asarray(steps[:, columns] > np.maximum(usual, _LEAST_STEP)[:, None])


def _seam_ratios(grey: Grey) -> FloatArray | None:
    """For each column of the middle: how alike what lies beside it is, over the median of columns.

    The second largest of the bands of depth that have speckle; None: too few have.
    """
    height, width = grey.shape
    first, end = (int(share * width) for share in _MIDDLE)
    # What holds of the whole picture is measured in some of its columns: each has its own speckle.
    sample = _speckle(grey[:, ::_SAMPLE_STEP])
    bound = max(4.0, 2 * float(np.median(np.abs(sample))))
    if height / _BANDS < _LEAST_GRAINS * _grain(np.clip(sample, -bound, bound)):
        return None
    middle = _speckle(grey[:, first - _SEAM_REACH : end + _SEAM_REACH])
    np.clip(middle, -bound, bound, out=middle)
    ratios = []
    for rows in np.array_split(np.arange(height), _BANDS):
        likeness = _likeness(middle[rows[0] : rows[-1] + 1])
        usual = float(np.median(likeness))
        if usual > _SPECKLE_CORRELATION:
            ratios.append(likeness / usual)
    if len(ratios) < _LEAST_BANDS:
        return None
    largest_first = np.sort(ratios, axis=0)[::-1]
    # One band may differ by chance, or hold what is written across the seam; but not a whole one.
    is_whole = largest_first[0] > _MOST_OF_A_BAND
    return np.where(is_whole, 1.0, largest_first[1])


def _speckle(columns: Grey) -> npt.NDArray[np.float32]:
    """Grey levels less their mean over the depths around."""
    levels = columns.astype(np.float32)
    levels -= cv2.blur(levels, (1, _SPECKLE_ROWS))
    return levels


def _grain(speckle: npt.NDArray[np.float32]) -> float:
    """Height of a grain [pixels]: twice the lag in depth at which half the likeness is left."""
    energy = float((speckle * speckle).sum()) + 1e-3
    for lag in range(1, _SPECKLE_ROWS):
        if float((speckle[lag:] * speckle[:-lag]).sum()) < energy / 2:
            return 2.0 * lag
    return 2.0 * _SPECKLE_ROWS


def _is_drawn(grey: Grey, seam: tuple[int, int]) -> bool:
    """Whether a column at a seam is of one level that is not dark: a line, and no gutter."""
    columns = grey[:, max(0, seam[0] - _LINE_REACH) : seam[1] + _LINE_REACH]
    levels = np.median(columns, axis=0)
    is_flat = (np.abs(columns - levels) <= _LINE_LEVELS).mean(axis=0) >= _LINE_SHARE
    return bool((is_flat & (levels > _DARK)).any())


def _likeness(band: npt.NDArray[np.float32]) -> FloatArray:
    """Correlation of the columns that lie `_SEAM_REACH` left and right of each; of flat ones 0."""
    left, right = band[:, : -2 * _SEAM_REACH], band[:, 2 * _SEAM_REACH :]
    energy = np.sqrt((left * left).sum(axis=0) * (right * right).sum(axis=0))
    return np.asarray((left * right).sum(axis=0) / (energy + 1e-3), np.float64)


def _holds_tissue(grey: Grey, box: Box) -> bool:
    left, top, right, bottom = box
    regions = tissue_regions(np.ascontiguousarray(grey[top:bottom, left:right]))
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in regions[:1])
    return area >= _LEAST_TISSUE * (right - left) * (bottom - top)
