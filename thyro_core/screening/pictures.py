"""The small pictures of a worklist: what a person is shown of an image, and what is kept back."""

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from thyro_core.imaging.burned_text import paint_over
from thyro_core.imaging.tissue import Box
from thyro_core.types import Grey

PICTURE_SIDE = 320
"""Longer side of a picture in the worklist at most [pixels]."""

_JPEG_QUALITY = 80


def picture_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of an image's picture [pixels]; nothing is enlarged."""
    longer = max(width, height, PICTURE_SIDE)
    return (
        max(1, round(PICTURE_SIDE * width / longer)) if longer > PICTURE_SIDE else width,
        max(1, round(PICTURE_SIDE * height / longer)) if longer > PICTURE_SIDE else height,
    )


def is_shown(reason: str | None, *, burned_in: bool | None) -> bool:
    """Whether people may see a picture of an image.

    What the file says has text burned in may show a name, and what is no ultrasound image may be
    the page of a report: text that is found is painted over, but not all is found.
    """
    return not burned_in and reason != "not_ultrasound"


def display_picture(grey: Grey, boxes: list[Box]) -> Grey:
    """An image as people see it: small, and without the text that is found in it.

    Args:
        grey: uint8 (H, W).
        boxes: around the lines of text.
    """
    painted_image = paint_over(grey, boxes)
    height, width = grey.shape
    size = picture_size(width, height)
    if size == (width, height):
        return painted_image
    return np.asarray(cv2.resize(painted_image, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg_bytes(*halves: npt.NDArray[np.uint8]) -> bytes:
    """One JPEG of images of one height, side by side."""
    rgb = [half if half.ndim == 3 else np.repeat(half[:, :, None], 3, axis=2) for half in halves]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rgb, axis=1)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
