"""A Grad-CAM map laid over its image in colour."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from thyro_core.explain.regions import upsample
from thyro_core.types import Float32Array, Grey

COLOUR_MAP = "viridis"
"""matplotlib's name of the colour map: violet for little evidence, green and yellow for much."""

OPACITY = 0.65
"""Opacity of the colour where the evidence is largest; it grows from 0 with the value."""

_COLOUR_STEPS = 256


def overlay_map(grey: Grey, cam: Float32Array) -> npt.NDArray[np.uint8]:
    """A grey image with a map over it, the more opaque the larger the map's value.

    Where there is no evidence the tissue stays as it is. The paper paints red over blue (the
    rainbow map "jet"); here a perceptually uniform map takes its place. Jet's lightness goes up and
    down, so that it draws edges at yellow and cyan where the values run smoothly, hides others
    within green, reverses in grey print, and its red and green are one colour to the colour-blind
    (Borland and Taylor 2007; Crameri et al. 2020). Viridis's lightness rises evenly with the
    value, for them too.

    Args:
        grey: (H, W).
        cam: (h, w), at least 0, at any resolution; it covers the whole image and is enlarged by
            `regions.upsample`. Its peak gets the full colour.

    Returns:
        uint8 (H, W, 3), RGB; the grey image itself for a map that is empty (zero everywhere).

    Raises:
        ValueError: image or map is not two-dimensional or is empty, or the map holds a value that
            is not finite.
    """
    if grey.ndim != 2 or not grey.size or not np.isfinite(cam).all():
        msg = f"expected an image (H, W) and a finite map (h, w), found {grey.shape}, {cam.shape}"
        raise ValueError(msg)
    full = float(cam.max(initial=0.0))
    enlarged_map = upsample(cam, *grey.shape).astype(np.float64)
    values = np.clip(enlarged_map / full, 0, 1) if full > 0 else np.zeros(grey.shape)
    table = np.array(colours(_COLOUR_STEPS), dtype=np.float64)
    colour = table[np.rint(values * (_COLOUR_STEPS - 1)).astype(np.intp)]
    opacity = OPACITY * values[:, :, None]
    return np.rint(grey[:, :, None] * (1 - opacity) + colour * opacity).astype(np.uint8)


def colours(n: int) -> list[tuple[int, int, int]]:
    """The colour map at n even steps from no evidence to the most: (r, g, b), each 0 to 255.

    Raises:
        ValueError: n is below 2.
    """
    if n < 2:
        msg = f"expected at least 2 colours, found {n}"
        raise ValueError(msg)
    from matplotlib import colormaps

    table = colormaps[COLOUR_MAP](np.linspace(0, 1, n), bytes=True)
    return [(int(r), int(g), int(b)) for r, g, b, _ in table]


def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of an image, as small as it gets; the same pixels give the same bytes.

    Args:
        pixels: uint8, grey (H, W) or RGB (H, W, 3).
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
