"""The highlighted region of an activation map: its hot spot."""

import numpy as np
from PIL import Image
from scipy.ndimage import label

from thyro_core.config import CAM_SHARES
from thyro_core.types import BoolArray, Float32Array

SHARES = CAM_SHARES
"""Shares of the peak at which regions are cut, to see how far findings depend on the share."""

DEFAULT_SHARE = 0.5
"""The share of the peak that findings are stated for, declared before looking at any."""

_CONNECTIVITY = np.ones((3, 3), dtype=np.bool_)


def upsample(cam: Float32Array, height: int, width: int) -> Float32Array:
    """The map at an image's size: bilinear, pixels are areas, values beyond the edge repeat it.

    The corners of map and image coincide, not the centres of their corner pixels (PyTorch's
    `interpolate` with `align_corners=False`). Made for enlarging; a map that is shrunk is averaged.

    Args:
        cam: (h, w), at least one pixel; any unit, which is kept.
        height: Height of the result [pixels], at least 1.
        width: Width of the result [pixels], at least 1.

    Returns:
        float32 (height, width), within the map's range.

    Raises:
        ValueError: the map is not two-dimensional or is empty, or a size is below 1.
    """
    if cam.ndim != 2 or not cam.size or min(height, width) < 1:
        msg = (
            "expected a map (h, w) with at least one pixel and a size of at least 1 x 1, "
            f"found shape {cam.shape} and {height} x {width}"
        )
        raise ValueError(msg)
    image = Image.fromarray(np.ascontiguousarray(cam, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def hot_spot(cam: Float32Array, share: float) -> BoolArray:
    """The largest connected part of a map that lies strictly above a share of its peak.

    Pixels are connected to their eight neighbours. Of several largest parts the one with the
    first pixel in reading order (row by row from the upper left) is taken. The largest part need
    not hold the peak. The map is cut at its own peak, so its scale does not matter.

    Args:
        cam: (H, W), the map at the image's size, as `upsample` gives it.
        share: Share of the peak, at least 0 and below 1.

    Returns:
        bool (H, W); all False for a map without a value above zero (an empty Grad-CAM).

    Raises:
        ValueError: the map is not two-dimensional, is empty or holds a value that is not finite;
            or the share is not in [0, 1).
    """
    if cam.ndim != 2 or not cam.size or not np.isfinite(cam).all() or not 0 <= share < 1:
        msg = (
            "expected a finite map (H, W) and a share of at least 0 and below 1, "
            f"found shape {cam.shape} and share {share}"
        )
        raise ValueError(msg)
    peak = float(cam.max())
    if peak <= 0:
        return np.zeros(cam.shape, dtype=np.bool_)
    # In float64: a share of a float32 denormal would round to 0 or to the peak itself.
    parts, _ = label(cam.astype(np.float64) > share * peak, structure=_CONNECTIVITY)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())
