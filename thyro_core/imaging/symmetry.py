"""The eight symmetries of the square: how augmented copies of a picture lie.

A symmetry is a number from 0 to 7, the sum of what is done, in this order: `TRANSPOSE`, the first
axis becomes the second; `MIRROR`, columns in reverse; `FLIP`, rows in reverse. A picture
turned clockwise by 90, 180 and 270 degrees is 5, 3 and 6.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from thyro_core.types import FloatArray

MIRROR, FLIP, TRANSPOSE = 1, 2, 4
SYMMETRIES = tuple(range(8))

Symmetries = npt.NDArray[np.uint8]


@cache
def between() -> Symmetries:
    """(8, 8): what brings an image to another, if [first, second] bring both to the same view."""
    table = np.empty((8, 8), np.uint8)
    for first in SYMMETRIES:
        for second in SYMMETRIES:
            turn = (first ^ second) & TRANSPOSE
            mirror_and_flip = (first ^ second) & (MIRROR | FLIP)
            # Undone after a transposition, a mirror is a flip.
            if second & TRANSPOSE:
                mirror_and_flip = (mirror_and_flip >> 1) | (mirror_and_flip & 1) << 1
            table[first, second] = turn | mirror_and_flip
    return table


def move_places(
    places: FloatArray,
    width: FloatArray | float,
    height: FloatArray | float,
    symmetry: Symmetries | int,
) -> FloatArray:
    """Where a symmetry brings places.

    Args:
        places: (n, 2), x and y, the last ones at `width` and `height`.
        width: of the image, before; one for all, or (n,).
        height: likewise.
        symmetry: likewise.
    """
    x, y = places[:, 0], places[:, 1]
    is_transposed, is_mirrored, is_flipped = (
        np.asarray(symmetry) & part > 0 for part in (TRANSPOSE, MIRROR, FLIP)
    )
    x, y = np.where(is_transposed, y, x), np.where(is_transposed, x, y)
    across = np.where(is_transposed, height, width)
    down = np.where(is_transposed, width, height)
    x = np.where(is_mirrored, across - x, x)
    y = np.where(is_flipped, down - y, y)
    return np.stack([x, y], axis=1)


def inverse(symmetry: int) -> int:
    """The symmetry that undoes one."""
    return int(between()[0, symmetry])
