"""Colour is measured where the tissue is: bars, text and scales of a screen are not Doppler."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.support.dicoms import dicom, region, speckle
from thyro_core.config import IngestConfig
from thyro_core.imaging.decode import decode
from thyro_core.imaging.dicom import read_dicom
from thyro_core.imaging.quality import overlay_share
from thyro_core.imaging.tissue import tissue_overlay, tissue_regions
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import read_screening_images

BOUND = ScreeningRules().overlay_bound
BLUE, ORANGE = (58, 90, 140), (200, 120, 30)


def screen(colour: tuple[int, int, int], bar: int, gap: int, flow: float = 0.0) -> np.ndarray:
    """A screen: a bar with text, a gap, and 300 x 400 of speckle with a box of colour flow."""
    image = Image.new("RGB", (400, bar + gap + 300))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 399, bar - 1), fill=colour)
    if bar >= 20:
        text = "HOSPITAL  GENERAL   Small Parts  MI 1.1   25-11-2026"
        draw.text((4, 2), text, "white", ImageFont.load_default(14))
    grey = speckle(300, 400).astype(float)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    side = round(np.sqrt(flow * 300 * 400))
    if side:
        signs = speckle(side, side, seed=3)[:, :, None] > 60
        rgb[100 : 100 + side, 150 : 150 + side] *= 0.3
        rgb[100 : 100 + side, 150 : 150 + side] += np.where(signs, [140, 28, 14], [20, 42, 147])
    image.paste(Image.fromarray(rgb.clip(0, 255).astype(np.uint8)), (0, bar + gap))
    return np.array(image)


def jpeg(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@pytest.mark.parametrize("colour", [BLUE, ORANGE])
@pytest.mark.parametrize(("bar", "gap"), [(8, 0), (8, 6), (24, 0), (24, 6), (60, 0), (60, 10)])
def test_a_title_bar_is_no_doppler_and_flow_beside_it_is(
    colour: tuple[int, int, int], bar: int, gap: int
) -> None:
    rules = IngestConfig()
    plain, flow = screen(colour, bar, gap), screen(colour, bar, gap, flow=0.03)
    for turned in (plain, np.rot90(plain), plain[::-1]):
        assert overlay_share(np.ascontiguousarray(turned)) > 0.015
        assert decode(jpeg(np.ascontiguousarray(turned)), rules).overlay_share < BOUND / 2
    assert decode(jpeg(flow), rules).overlay_share == pytest.approx(0.03, abs=0.012)
    (image,) = read_screening_images(jpeg(plain), ScreeningRules(), lambda *_: None)
    assert image.reason is None, image.detail
    (image,) = read_screening_images(jpeg(flow), ScreeningRules(), lambda *_: None)
    assert image.reason == "doppler_colour"
    assert f"of the tissue, at most overlay_bound = {BOUND:g}" in str(image.detail)


def test_a_screen_in_dicom_is_measured_alike() -> None:
    for flow, reason in ((0.0, None), (0.03, "doppler_colour")):
        data = dicom(screen(BLUE, 60, 10, flow))
        (image,) = read_screening_images(data, ScreeningRules(), lambda *_: None)
        assert image.reason == reason, image.detail


def test_the_boxes_are_around_the_tissue() -> None:
    grey = np.zeros((512, 512), np.uint8)
    grey[96:320, 32:224] = speckle(224, 192)
    grey[128:320, 288:480] = speckle(192, 192, seed=2)
    grey[0:12] = 90
    grey[480:496, 64:160] = speckle(16, 96)
    assert tissue_regions(grey) == [(32, 96, 224, 320), (288, 128, 480, 320)]
    assert tissue_regions(np.zeros((64, 64), np.uint8)) == []
    assert tissue_regions(np.zeros((5, 9), np.uint8)) == []


def test_colour_without_tissue_counts_in_the_whole_picture() -> None:
    flat = np.zeros((100, 100, 3), np.uint8)
    flat[:30] = ORANGE
    assert tissue_overlay(flat, np.array(Image.fromarray(flat).convert("L"))) == 0.3


def test_each_tissue_region_is_a_row_with_an_id_of_its_own() -> None:
    wide = speckle(200, 300)
    boxes = [(0, 0, 149, 199), (150, 0, 299, 199)]
    data = dicom(wide, SequenceOfUltrasoundRegions=[region(1, 1, box) for box in boxes])
    left, right = read_screening_images(data, ScreeningRules(), lambda *_: "q")
    assert (left.detail, right.detail) == (
        "view 1 of 2 in this picture, from the left", "view 2 of 2 in this picture, from the left",
    )  # fmt: skip
    assert left.reason is right.reason is None
    assert left.image_id != right.image_id
    assert left.grey is not None
    np.testing.assert_array_equal(left.grey, wide[:, :150])
    exceeding = [region(1, 1, (0, 0, 599, 399))]
    data = dicom(wide, SequenceOfUltrasoundRegions=exceeding)
    (image,) = read_screening_images(data, ScreeningRules(), lambda *_: "q")
    assert (image.reason, image.width) == (None, 300)
    assert str(image.detail).startswith("whole frame used: its ultrasound regions exceed")
    assert read_dicom(data, ScreeningRules(), lambda *_: None).note == image.detail
