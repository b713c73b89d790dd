"""Burned-in marks of grey images: callipers, letters, ticks and arrows drawn over the tissue.

They are bright, thin and sharp, but so are fasciae. What tells them apart is the direction: tissue
layers run across the beam, so their lines lie; a mark has strokes that stand. A mark without any
(a dash) is missed, and so is one that touches a bright layer. The bounds were chosen by eye on
thyroid and breast images of two public sets, squashed to 224 pixels.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from thyro_core.types import Grey

STROKE_SHARE = 0.01
"""Half the width that no stroke reaches, a share of the side: 2 pixels of 224, so 5 in all."""

STANDING_CONTRAST = 60
"""How far a standing stroke rises above what lies left and right of it [grey levels]."""

STANDING_LEVEL = 120
"""Lowest grey level of a standing stroke; white text keeps this much when it is shrunk."""

ANY_CONTRAST = 60
"""How far any other part of a mark rises above what lies around it [grey levels]."""

ANY_LEVEL = 110
"""Lowest grey level of any other part of a mark."""

STANDING_PIXELS = 3
"""Fewest pixels of standing strokes in a mark; speckle has fewer."""

STANDING_PART = 0.4
"""Lowest share of standing strokes in a mark's pixels; a fascia with a speckle on it has less."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.bool_)


def annotation_mask(grey: Grey) -> npt.NDArray[np.bool_]:
    """Where an image's burned-in marks lie.

    Standing strokes are found by a white top-hat with a lying line, other parts by one with a
    square. Of the connected parts (eight neighbours) those with enough standing strokes are marks.

    Args:
        grey: uint8 (side, side), a row of a pack.

    Returns:
        bool (side, side); all False where there are none.
    """
    width = 2 * max(1, round(STROKE_SHARE * grey.shape[1])) + 1
    standing = _rises(grey, (1, width), STANDING_CONTRAST, STANDING_LEVEL)
    if not standing.any():
        return standing
    candidates = standing | _rises(grey, (width, width), ANY_CONTRAST, ANY_LEVEL)
    parts, count = ndimage.label(candidates, structure=_EIGHT_NEIGHBOURS)
    pixels = np.bincount(parts.ravel(), minlength=count + 1)
    strokes = np.bincount(parts[standing], minlength=count + 1)
    is_annotation = (strokes >= STANDING_PIXELS) & (strokes >= STANDING_PART * pixels)
    is_annotation[0] = False
    return np.asarray(is_annotation[parts])


def _rises(
    grey: Grey, element: tuple[int, int], contrast: int, level: int
) -> npt.NDArray[np.bool_]:
    bright = grey >= level
    if not bright.any():
        return np.asarray(bright)
    # An opening never exceeds the image: the difference of bytes cannot wrap around.
    return np.asarray((grey - ndimage.grey_opening(grey, size=element) >= contrast) & bright)
