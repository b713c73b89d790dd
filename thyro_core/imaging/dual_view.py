"""Two windows side by side in one picture, where the file does not say so.

Speckle goes on from column to column. Where two windows meet, what lies left and right of the seam
has nothing in common over the whole depth, with a gutter between them or without one. The edge of
a cyst or of a shadow, a caliper or a line of text breaks only some depths.
"""

import cv2
import numpy as np
import numpy.typing as npt

from thyro_core.imaging.tissue import Box, tissue_regions
from thyro_core.types import FloatArray, Grey

SEAM_RATIO = 0.3
"""Correlation across a seam, over that of the picture's columns elsewhere, at most: with the other
bounds none of 450 breast images of one window is split."""

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
_LINE_LEVELS, _LINE_SHARE, _DARK = 6, 0.9, 64


def split_views(grey: Grey) -> list[Box]:
    """The two windows of a dual view, from the left.

    Conservative: the seam must be upright, in the middle third or so, and cut all depths with
    speckle but one; a gutter is dark and narrower than a tenth of the picture; both sides must hold
    tissue in at least 40 % of their area. Lines that a scanner draws are cut off at twice the
    median contrast of every fourth column before columns are compared. Of coarse speckle, in small
    pictures, few grains lie in a band of depth, and any two columns may differ by chance: these are
    not split.

    Args:
        grey: uint8 (H, W).

    Returns:
        Two boxes; none for a picture of one window.
    """
    height, width = grey.shape
    if min(height, width) < _SPECKLE_ROWS:
        return []
    ratios = _seam_ratios(grey)
    if ratios is None:
        return []
    first = int(_MIDDLE[0] * width)
    seam = int(ratios.argmin())
    if ratios[seam] > SEAM_RATIO:
        return []
    left = right = seam
    while left > 0 and ratios[left - 1] <= SEAM_RATIO:
        left -= 1
    while right < len(ratios) - 1 and ratios[right + 1] <= SEAM_RATIO:
        right += 1
    if right - left > _WIDEST_GUTTER * width:
        return []
    if _is_bright_line(grey[:, first + left : first + right + 1]):
        return []
    boxes: list[Box] = [(0, 0, first + left, height), (first + right + 1, 0, width, height)]
    return boxes if all(_holds_tissue(grey, box) for box in boxes) else []


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


def _is_bright_line(columns: Grey) -> bool:
    """Whether some columns are of one level that is not dark: a line, and no gutter."""
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
