"""Whether a scan lies on its side: its speckle is longer across the beam than along it.

Of 852 pictures of two public sets the likeness of grey levels four pixels apart is larger across
the beam than along it in each, by 0.10 to 0.6; turned by a quarter it is smaller by as much.
"""

import cv2
import numpy as np

from thyro_core.types import Grey

_LAG = 4  # [pixels]
_GROUND_SD = 10.0  # of what speckle stands on [pixels]
_CLIP = 2  # drawn lines are cut off at so many medians of the contrast
_FAINTEST = 4.0
_BOUND = -0.05


def lies_on_side(grey: Grey) -> bool:
    """Whether a picture shows a scan that was turned by a quarter.

    Args:
        grey: uint8 (H, W).
    """
    if min(grey.shape) <= 2 * _LAG:
        return False
    speckle = grey.astype(np.float32)
    speckle -= cv2.GaussianBlur(speckle, (0, 0), _GROUND_SD)
    bound = max(_FAINTEST, _CLIP * float(np.median(np.abs(speckle))))
    np.clip(speckle, -bound, bound, out=speckle)
    energy = float((speckle * speckle).sum()) + 1e-3
    across = float((speckle[:, _LAG:] * speckle[:, :-_LAG]).sum())
    along = float((speckle[_LAG:] * speckle[:-_LAG]).sum())
    return (across - along) / energy < _BOUND
