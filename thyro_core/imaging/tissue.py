"""Where the tissue is in a picture that does not say so: a screen also shows bars, text and scales.

Coarse on purpose: tiles of 16 pixels of the picture shrunk to 512, as the focus measure uses them.
"""

import cv2
import numpy as np
import numpy.typing as npt

from thyro_core.imaging.quality import overlay_share, shrink, tissue_tiles
from thyro_core.types import Grey

Box = tuple[int, int, int, int]
"""Left, top, right and bottom (exclusive) [pixels]."""

_FLAT_LEVELS = 3
_FLAT_SHARE = 0.55
_BAR_LEVEL = 10
# A line of text between two flat rows of a bar, and what shrinking smears beside them [pixels].
_TEXT_ROWS, _SMEAR = 24, 2
_LEAST_PART = 0.25

_Flags = npt.NDArray[np.bool_]


def tissue_regions(grey: Grey) -> list[Box]:
    """Boxes around what is speckled, the largest first.

    Bars of a screen (see `_bars`) are left out. Of the connected groups of tiles with tissue the
    largest one counts, and each with at least a quarter of its tiles: text and scales are smaller.

    Args:
        grey: uint8 (H, W).

    Returns:
        None at all for a picture without tissue.
    """
    tiles, scale = tissue_tiles(grey, _without_bars)
    if not tiles.any():  # OpenCV dies of a picture without pixels
        return []
    _, _, stats, _ = cv2.connectedComponentsWithStats(tiles.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = [i for i in np.argsort(-areas, kind="stable") if areas[i] >= _LEAST_PART * areas.max()]
    boxes = []
    for i in order:
        left, top, columns, rows = (int(value) for value in stats[1 + i, :4])
        right, bottom = (
            # What is left beyond the last whole tile belongs to it.
            side if end == n_tiles else round(end * scale)
            for end, n_tiles, side in zip(
                (left + columns, top + rows), tiles.shape[::-1], grey.shape[::-1], strict=True
            )
        )
        boxes.append((round(left * scale), round(top * scale), right, bottom))
    return boxes


def _without_bars(small: Grey) -> Grey:
    """The picture with its bars in black."""
    rows, columns = _bars(small), _bars(small.T)
    if not (rows.any() or columns.any()):
        return small
    remainder = small.copy()
    remainder[rows] = 0
    remainder[:, columns] = 0
    return remainder


def _bars(small: Grey) -> _Flags:
    """Which rows belong to a flat bar: most of a row (55 %) has one grey level that is not black.

    What is written on a bar belongs to it: the rows between two of its flat ones.
    """
    level = np.median(small, axis=1).astype(np.int16)
    near = np.abs(small - level[:, None]) <= _FLAT_LEVELS
    flat: _Flags = np.asarray((level > _BAR_LEVEL) & (near.mean(axis=1) >= _FLAT_SHARE), np.bool_)
    if not flat.any():
        return flat
    column = flat.astype(np.uint8)[:, None]
    closed_column = cv2.morphologyEx(column, cv2.MORPH_CLOSE, np.ones((_TEXT_ROWS, 1), np.uint8))
    smeared_column = cv2.dilate(closed_column, np.ones((2 * _SMEAR + 1, 1), np.uint8))
    return np.asarray(smeared_column[:, 0] > 0, np.bool_)


def tissue_overlay(rgb: npt.NDArray[np.uint8], grey: Grey) -> float:
    """Share of coloured pixels of the tissue: Doppler and coloured callipers, no title bars.

    Args:
        rgb: uint8 (H, W, 3).
        grey: the same picture, uint8 (H, W).

    Returns:
        The largest share of any region of tissue, of the whole picture where none is found.
    """
    share = overlay_share(rgb)
    # Most pictures have no colour at all, and then need no search for the tissue.
    if share == 0:
        return share
    small = shrink(grey)
    rows, columns = (
        ~flags[np.arange(side) * len(flags) // side]
        for flags, side in zip((_bars(small), _bars(small.T)), grey.shape, strict=True)
    )
    shares = []
    for left, top, right, bottom in tissue_regions(grey):
        part = rgb[top:bottom, left:right][rows[top:bottom]][:, columns[left:right]]
        shares += [overlay_share(part)] if part.size else []
    return max(shares, default=share)
