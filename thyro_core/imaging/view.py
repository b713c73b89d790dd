"""What a network sees of a picture: which part of it, how clean, as a square; and the way back.

A picture is cut to a box and, where that is declared, cleaned; `square_view` makes the network's
input of it. All that is drawn back over a picture goes through `map_over_picture`.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image

from thyro_core.config import ViewConfig
from thyro_core.imaging.annotations import annotation_mask
from thyro_core.imaging.burned_text import paint_over, text_boxes
from thyro_core.imaging.decode import content_box, resize
from thyro_core.imaging.tissue import Box, tissue_regions
from thyro_core.types import Float32Array, Grey

LEAST_CROP = 8
"""Shortest side of a nodule's box [pixels]."""

_MARK_SIDE = 448
_MARK_RIM = 2
_INPAINT_RADIUS = 3


def view_box(grey: Grey, view: ViewConfig, nodule: Box | None = None) -> Box | None:
    """The part of a picture that a network sees; None: all of it.

    Args:
        grey: uint8 (H, W), the whole picture.
        view: what is declared.
        nodule: the nodule's box, with `region: nodule`.

    Raises:
        ValueError: the nodule alone is seen, and its box is not given.
    """
    height, width = grey.shape
    if view.region == "nodule":
        if nodule is None:
            msg = "expected the nodule's box, as the region is the nodule, found none"
            raise ValueError(msg)
        return _with_margin(nodule, view.region_margin, width, height)
    if not view.clean:
        return None
    regions = tissue_regions(grey)
    if not regions:
        return None
    lefts, tops, rights, bottoms = zip(*regions, strict=True)
    box = min(lefts), min(tops), max(rights), max(bottoms)
    return None if box == (0, 0, width, height) else box


def _with_margin(box: Box, margin: float, width: int, height: int) -> Box:
    left, top, right, bottom = box
    more = round(margin * max(right - left, bottom - top))
    return (
        max(0, left - more), max(0, top - more),
        min(width, right + more), min(height, bottom + more),
    )  # fmt: skip


def picture_view(grey: Grey, view: ViewConfig, box: Box | None) -> Grey:
    """What a network sees of a picture, before it becomes a square.

    Args:
        grey: uint8 (H, W), the whole picture.
        view: what is declared.
        box: as `view_box` gives it.

    Returns:
        uint8 (h, w); the picture itself where all of it is seen as it is.
    """
    clean_picture = without_marks(paint_over(grey, text_boxes(grey))) if view.clean else grey
    if box is None:
        return clean_picture
    left, top, right, bottom = box
    return np.ascontiguousarray(clean_picture[top:bottom, left:right])


def without_marks(grey: Grey) -> Grey:
    """A picture whose burned-in marks are filled from what surrounds them (Telea 2004).

    Marks are sought at the size that their bounds were chosen for, or twice that.

    Args:
        grey: uint8 (H, W).
    """
    height, width = grey.shape
    side = min(_MARK_SIDE, max(height, width))
    marks = annotation_mask(resize(grey, side))
    if not marks.any():
        return grey
    rim = np.ones((2 * _MARK_RIM + 1, 2 * _MARK_RIM + 1), np.uint8)
    wide_marks = cv2.dilate(marks.astype(np.uint8), rim)
    whole = cv2.resize(wide_marks, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.inpaint(np.array(grey), whole, _INPAINT_RADIUS, cv2.INPAINT_TELEA))


def square_view(grey: Grey, side: int, view: ViewConfig, box: Box | None) -> Grey:
    """A picture as a network sees it: the one way from pictures to packs and inputs.

    Args:
        grey: uint8 (H, W), the whole picture.
        side: of the network's input [pixels].
        view: what the network learned to see.
        box: as `view_box` gives it.

    Returns:
        uint8 (side, side).
    """
    return resize(picture_view(grey, view, box), side, pad=view.is_padded)


def seen_square(grey: Grey, side: int, view: ViewConfig) -> tuple[Grey, Box | None]:
    """A new picture as a network sees it, and which part of it that is; None: all of it.

    Args:
        grey: uint8 (H, W), the whole picture.
        side: of the network's input [pixels].
        view: what the network learned to see; not the nodule alone, whose box nobody knows.
    """
    box = view_box(grey, view)
    return square_view(grey, side, view, box), box


def row_box(row: Mapping[str, Any]) -> Box | None:
    """The part of a picture that a network sees, by its row of `images`; None: all of it."""
    sides = row.get("view_box")
    if sides is None:
        return None
    left, top, right, bottom = sides
    return left, top, right, bottom


def view_size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of what a network sees, by the image's row; None: not known [pixels].

    Args:
        row: `width`, `height` and `view_box` of the table `images` or `screening`.
    """
    box = row_box(row)
    if box is not None:
        return box[2] - box[0], box[3] - box[1]
    if row["width"] is None or row["height"] is None:
        return None
    return row["width"], row["height"]


def in_proportion(square: Grey, size: tuple[int, int] | None, *, pad: bool) -> Grey:
    """A row of a pack in the proportions of what it shows, and as large: the way back.

    Args:
        square: uint8 (side, side), from a pack.
        size: width and height of what it shows [pixels]; None: unknown, the square stays.
        pad: whether it stands in the middle of black.
    """
    if size is None:
        return square
    if pad:
        left, top, right, bottom = content_box(*size, len(square))
        return np.ascontiguousarray(square[top:bottom, left:right])
    width, height = size
    factor = len(square) / (width * height) ** 0.5
    new_size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(square).resize(new_size, Image.Resampling.BILINEAR))


def map_over_view(cam: Float32Array, size: tuple[int, int], *, pad: bool) -> Float32Array:
    """A map of the network's square over what the network saw.

    Args:
        cam: (h, w), of the square, at any resolution.
        size: width and height of what the network saw, at any scale [pixels].
        pad: whether that stood in the middle of black.

    Returns:
        The map itself where the square is all of it; else (height, width).
    """
    if not pad:
        return cam
    side = max(size)
    left, top, right, bottom = content_box(*size, side)
    large = Image.fromarray(cam).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(large)[top:bottom, left:right]


def map_over_picture(
    cam: Float32Array, shown_size: tuple[int, int], row: Mapping[str, Any], *, pad: bool
) -> Float32Array:
    """A map of the network's square over the whole picture: 0 where the network saw nothing.

    Args:
        cam: (h, w), of the square, at any resolution.
        shown_size: width and height at which the picture is shown [pixels].
        row: `width`, `height` and `view_box` of the image.
        pad: whether what the network saw stood in the middle of black.

    Returns:
        The map itself where the square is the whole picture; else (height, width) as shown.
    """
    box = row_box(row)
    if box is None:
        return map_over_view(cam, shown_size, pad=pad)
    factors = (shown_size[0] / row["width"], shown_size[1] / row["height"]) * 2
    left, top, right, bottom = (
        round(side * factor) for side, factor in zip(box, factors, strict=True)
    )
    right, bottom = max(left + 1, right), max(top + 1, bottom)
    size = right - left, bottom - top
    part = Image.fromarray(map_over_view(cam, size, pad=pad))
    whole = np.zeros(shown_size[::-1], np.float32)
    whole[top:bottom, left:right] = np.asarray(part.resize(size, Image.Resampling.BILINEAR))
    return whole
