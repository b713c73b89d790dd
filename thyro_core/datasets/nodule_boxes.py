"""Where an image's nodule lies: by columns x, y, w and h of its table, or by its masks."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from thyro_core.imaging.tissue import Box
from thyro_core.imaging.view import LEAST_CROP
from thyro_core.types import BoolArray

BoxCells = tuple[str, str, str, str]
"""Cells of a row's columns x, y, w and h, as they stand there; an empty one is ''."""

BOX_COLUMNS = ("x", "y", "w", "h")
"""Left, top, width and height of a nodule's box in its image [pixels]."""

NO_NODULE = (
    "region: nodule takes the box of columns x, y, w and h, else the mask: the image has neither"
)
NO_STILL = (
    "region: nodule takes whole still pictures: this is a frame, a region or a window of its file, "
    "of which the table's box or the mask is not"
)


def box_cells(rows: Iterable[Mapping[str, str]]) -> tuple[BoxCells, ...]:
    """The boxes that the rows of one image give, each once, in order of their text.

    Args:
        rows: filled cells by column, of each row; case and blanks of a name do not count.
    """
    cells = set()
    for row in rows:
        by_name = {name.strip().lower(): text.strip() for name, text in row.items()}
        x, y, w, h = (by_name.get(name, "") for name in BOX_COLUMNS)
        if x or y or w or h:
            cells.add((x, y, w, h))
    return tuple(sorted(cells))


def box_of_cells(cells: Sequence[BoxCells], size: tuple[int, int]) -> Box:
    """The box around all boxes of an image.

    Args:
        cells: at least one.
        size: width and height of the image [pixels].

    Raises:
        ValueError: a box is none, or does not lie in the image; it says what was found.
    """
    return joint_box([_checked_box(each, size) for each in cells])


def _checked_box(cells: BoxCells, size: tuple[int, int]) -> Box:
    try:
        x, y, w, h = (float(text.replace(",", ".")) for text in cells)
    except ValueError:
        x = y = w = h = math.nan
    if not all(map(math.isfinite, (x, y, w, h))):
        msg = "columns x, y, w and h: expected four numbers [pixels], found other text or an "
        raise ValueError(msg + "empty cell; fill them in, or clear all four")
    width, height = size
    # A pixel beyond the edge is a rounding, and no error.
    if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
        msg = (
            f"columns x, y, w and h: expected a box within {width} x {height} pixels, found "
            f"{x:g}, {y:g}, {w:g}, {h:g}; they are left, top, width and height in the image as "
            "its file has it"
        )
        raise ValueError(msg)
    left, top = max(0, math.floor(x)), max(0, math.floor(y))
    right, bottom = min(width, math.ceil(x + w)), min(height, math.ceil(y + h))
    try:
        return _large_enough((left, top, right, bottom))
    except ValueError as error:
        msg = f"columns x, y, w and h {error}"
        raise ValueError(msg) from error


def box_of_mask(inside: BoolArray, size: tuple[int, int]) -> Box:
    """The box around a mask's nodules, in the image's own pixels.

    Args:
        inside: bool (h, w), at any scale in the image's proportions.
        size: width and height of the image [pixels].

    Raises:
        ValueError: the mask shows no nodule, or too small a one.
    """
    if not inside.any():
        msg = "show no nodule"
        raise ValueError(msg)
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    across, down = size[0] / inside.shape[1], size[1] / inside.shape[0]
    return _large_enough(
        (
            math.floor(columns[0] * across), math.floor(rows[0] * down),
            min(size[0], math.ceil((columns[-1] + 1) * across)),
            min(size[1], math.ceil((rows[-1] + 1) * down)),
        )
    )  # fmt: skip


def _large_enough(box: Box) -> Box:
    width, height = box[2] - box[0], box[3] - box[1]
    if min(width, height) < LEAST_CROP:
        msg = f"give a box of {width} x {height} pixels, expected at least {LEAST_CROP} a side"
        raise ValueError(msg)
    return box


def joint_box(boxes: Sequence[Box]) -> Box:
    """The box around several boxes."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
