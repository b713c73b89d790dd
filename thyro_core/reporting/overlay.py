"""An image beside its overlay, a colour bar and a caption: one picture."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from thyro_core import NOTICE
from thyro_core.config import CLASS_NAMES
from thyro_core.explain.overlay import overlay_map
from thyro_core.reporting.map_lookup import ExplainedImage

_SIDE = 448
_NARROWEST = 32
_SHEET_MARGIN = 16
_LINE_HEIGHT = 22
_TEXT = 15
_BAR_WIDTH = 18
_BAR_LABEL = 90
_MIDDLE_GREY = 128
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


class _Size(NamedTuple):
    width: int
    height: int


def overlay_sheet(image: ExplainedImage) -> npt.NDArray[np.uint8]:
    """What the network saw and its overlay side by side, in the proportions of the image file.

    The bar shows the colours as they lie over middle grey, from 0 to the map's peak.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    size = _picture_size(image)
    line = sheet_text(image)
    font = ImageFont.load_default(_TEXT)
    pictures = 2 * (size.width + _SHEET_MARGIN) + _BAR_WIDTH + _BAR_LABEL
    words = max(int(font.getlength(text)) for text in (line, NOTICE))
    top = _SHEET_MARGIN + _LINE_HEIGHT
    whole = (
        max(pictures, words) + 2 * _SHEET_MARGIN,
        top + size.height + _LINE_HEIGHT + 2 * _SHEET_MARGIN,
    )
    sheet = Image.new("RGB", whole, _WHITE)
    grey = np.asarray(Image.fromarray(image.grey).resize(size, Image.Resampling.BICUBIC))
    sheet.paste(Image.fromarray(grey), (_SHEET_MARGIN, top))
    second = 2 * _SHEET_MARGIN + size.width
    sheet.paste(Image.fromarray(overlay_map(grey, image.cam)), (second, top))
    draw = ImageDraw.Draw(sheet)
    draw.text((_SHEET_MARGIN, _SHEET_MARGIN - 2), line, _BLACK, font)
    draw.text((_SHEET_MARGIN, top + size.height + _SHEET_MARGIN), NOTICE, _BLACK, font)
    peak = float(image.cam.max())
    if peak > 0:
        bar_left = second + size.width + _SHEET_MARGIN
        sheet.paste(Image.fromarray(_bar(size.height)), (bar_left, top))
        for text, middle, anchor in ((f"{peak:.3g}", top, "lt"), ("0", top + size.height, "lb")):
            draw.text((bar_left + _BAR_WIDTH + 6, middle), text, _BLACK, font, anchor=anchor)
    return np.array(sheet)


def sheet_text(image: ExplainedImage) -> str:
    """The caption: image, network, split, class, probability and label, in one line."""
    facts = [
        image.image_id[:12],
        image.architecture,
        f"split {image.split}",
        f"Grad-CAM for {CLASS_NAMES[image.target]}",
        f"P(malignant) {image.prob_malignant:.3f}",
        f"label {'none' if image.label is None else CLASS_NAMES[image.label]}",
    ]
    if not image.cam.any():
        facts.append("empty map: no evidence")
    return "   ".join(facts)


def _picture_size(image: ExplainedImage) -> _Size:
    factor = _SIDE / max(image.width, image.height)
    return _Size(*(max(_NARROWEST, round(n * factor)) for n in (image.width, image.height)))


def _bar(height: int) -> npt.NDArray[np.uint8]:
    ramp: npt.NDArray[np.float32] = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    return overlay_map(np.full((height, _BAR_WIDTH), _MIDDLE_GREY, np.uint8), ramp)
