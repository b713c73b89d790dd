"""Lines of text in a picture are found and painted over, and tissue is not."""

from typing import Literal

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.support.dicoms import speckle
from tests.support.places import SHARED
from thyro_core.imaging.burned_text import boxes_of, paint_over, text_boxes, without_text
from thyro_core.imaging.decode import resize
from thyro_core.types import Grey

LINES = ("St. Mary Hospital 12/03/2021", "DOE, JANE A  1958-04-12", "ID 4711-882 Thyroid LT")
GROUNDS = {"black": (0, 230), "light bar": (190, 15), "grey bar": (70, 255), "tissue": (None, 255)}
Face = Literal["pillow", "stroke"]


def tissue(seed: int = 0, height: int = 360, width: int = 560) -> Grey:
    """Speckle as a scanner's: wider than it is deep, darker with depth."""
    fine = np.repeat(speckle(height, width // 4, seed), 4, axis=1).astype(float)
    return (fine * np.linspace(0.9, 0.4, height)[:, None]).astype(np.uint8)


def screen(size: int, face: Face, ground: str) -> tuple[Grey, np.ndarray]:
    """A screen with a header of three lines, and where its ink is."""
    pixels, (level, ink_level) = tissue(), GROUNDS[ground]
    if level is not None:
        pixels = np.concatenate([np.full((5 * size, pixels.shape[1]), level, np.uint8), pixels])
    picture = Image.fromarray(pixels)
    drawing = ImageDraw.Draw(picture)
    for place, line in enumerate(LINES):
        top = int((0.3 + 1.5 * place) * size)
        if face == "pillow":
            drawing.text((6, top), line, ink_level, ImageFont.load_default(size))
        else:
            canvas = np.array(picture)
            where, scale = (6, top + size), size / 30
            cv2.putText(canvas, line, where, 0, scale, ink_level, max(1, size // 14), cv2.LINE_AA)
            picture = Image.fromarray(canvas)
            drawing = ImageDraw.Draw(picture)
    drawn = np.asarray(picture)
    encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    ink = np.abs(drawn.astype(int) - pixels) > 40
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8), ink


def coverage(grey: Grey, ink: np.ndarray) -> float:
    mask = np.zeros(grey.shape, bool)
    for left, top, right, bottom in text_boxes(grey):
        mask[top:bottom, left:right] = True
    return float((mask & ink).sum() / ink.sum())


def test_each_line_is_one_box_however_it_is_found() -> None:
    assert len(text_boxes(screen(20, "pillow", "black")[0])) == 3


@pytest.mark.parametrize("face", ["pillow", "stroke"])
@pytest.mark.parametrize("size", [12, 20, 40])
@pytest.mark.parametrize("ground", ["black", "light bar", "grey bar"])
def test_a_header_is_found_on_any_ground(size: int, face: Face, ground: str) -> None:
    assert coverage(*screen(size, face, ground)) >= 0.98


@pytest.mark.parametrize("size", [16, 24, 40])
def test_most_of_what_is_written_over_tissue_is_found(size: int) -> None:
    assert coverage(*screen(size, "pillow", "tissue")) >= 0.7


def written(text: str, size: int, quarters: int, level: int | None) -> tuple[Grey, np.ndarray]:
    """Tissue with a label of some level, or none, at its left; and where its ink is."""
    font = ImageFont.load_default(size)
    width, height = (int(side) + 6 for side in font.getbbox(text)[2:])
    label = Image.new("L", (width, height))
    ImageDraw.Draw(label).text((3, 0), text, 255, font)
    share = np.rot90(np.asarray(label), quarters) / 255
    picture = tissue(3).astype(float)
    place = (slice(8, 8 + share.shape[0]), slice(8, 8 + share.shape[1]))
    if level is not None:
        picture[place] = level
    bright = 20 if level is not None and level > 128 else 250
    picture[place] += share * (bright - picture[place])
    ink = np.zeros(picture.shape, bool)
    ink[place] = share > 0.5
    return picture.astype(np.uint8), ink


@pytest.mark.parametrize("text", ["DOE, JANE A 1958-04-12", "Jane Doeringer"])
@pytest.mark.parametrize("quarters", [1, -1])
@pytest.mark.parametrize("level", [0, 190, None])
def test_upright_text_is_found_turned_either_way(
    text: str, quarters: int, level: int | None
) -> None:
    assert coverage(*written(text, 16, quarters, level)) >= (0.9 if level == 0 else 0.75)


@pytest.mark.parametrize("size", [60, 90, 130])
@pytest.mark.parametrize("level", [0, 190, None])
def test_letters_of_a_sixth_and_a_third_of_the_picture_are_found(
    size: int, level: int | None
) -> None:
    assert coverage(*written("DOE JA", size, 0, level)) >= 0.9


def test_three_letters_are_found() -> None:
    assert coverage(*written("DOE", 24, 0, 0)) >= 0.9


@pytest.mark.parametrize("quarters", [1, -1])
@pytest.mark.parametrize("level", [0, 190])
def test_text_of_a_scan_on_its_side_is_found_upright(quarters: int, level: int) -> None:
    picture, ink = written("DOE, JANE A", 24, 0, level)
    turned = np.ascontiguousarray(np.rot90(picture, quarters))
    assert coverage(turned, np.rot90(ink, quarters)) >= 0.85


@pytest.mark.parametrize(("text", "is_found"), [("DOE", False), ("DOE, JANE A", True)])
def test_in_a_scan_on_its_side_few_letters_along_a_row_are_no_line(
    text: str, is_found: bool
) -> None:
    """A row is there what a column is in others: a few bright spots stand in it by chance."""
    picture, ink = written(text, 24, 0, 0)
    side = np.ascontiguousarray(np.rot90(tissue(3, 560, 800)))
    mask = np.zeros(side.shape, bool)
    part = (slice(8, 48), slice(8, 300))
    side[part], mask[part] = picture[part], ink[part]
    assert (coverage(side, mask) >= 0.85) == is_found


@pytest.mark.parametrize(("contrast", "is_text"), [(55, False), (140, True)])
def test_shadows_between_bright_tissue_are_no_large_letters(contrast: int, is_text: bool) -> None:
    """Such shapes of a heart's walls covered a quarter of a picture, and more of its tissue."""
    pixels = np.full((240, 320), 60, np.uint8)
    for left in range(120, 260, 36):
        pixels[80:132, left : left + 12] = 60 + contrast
        pixels[100:112, left : left + 26] = 60 + contrast
    assert bool(text_boxes(pixels)) == is_text


def test_tissue_is_no_text() -> None:
    assert [text_boxes(tissue(seed)) for seed in range(4)] == [[]] * 4
    empty: Grey = np.zeros((0, 7), np.uint8)
    black: Grey = np.zeros((64, 64), np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (400, 400)).astype(np.uint8)
    assert text_boxes(empty) == text_boxes(black) == text_boxes(noise) == []


def test_what_is_painted_over_cannot_be_read_at_any_size() -> None:
    grey, ink = screen(24, "pillow", "black")
    boxes, size = text_boxes(grey), (grey.shape[1], grey.shape[0])
    small = resize(grey, 224)
    for shown in (paint_over(grey, boxes), paint_over(small, boxes, size)):
        rows, columns = (slice(0, round(where)) for where in (0.24 * len(shown), shown.shape[1]))
        header = shown[rows, columns].astype(int)
        # A patch is flat but for its edge: no letter is left in it.
        assert (np.abs(np.diff(header, axis=1)) > 8).mean() < 0.01
    assert np.array_equal(small, resize(grey, 224)), "the network's input is as it was"
    assert paint_over(small, [], size) is small
    assert ink.any()


def test_rows_of_earlier_versions_are_searched_at_the_size_of_the_pack() -> None:
    grey, _ = screen(40, "pillow", "black")
    small = resize(grey, 299)
    row = {"text_boxes": None, "width": grey.shape[1], "height": grey.shape[0]}
    assert not np.array_equal(without_text(small, row), small)
    assert np.array_equal(without_text(small, row | {"text_boxes": []}), small)
    sides = [side for box in text_boxes(grey) for side in box]
    assert boxes_of(sides) == text_boxes(grey)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("busi", 0.003), ("ddti", 0.001)])
def test_hardly_any_tissue_of_real_images_is_taken_for_text(name: str, most: float) -> None:
    """Breast images have letters over the tissue, which count here; of thyroid images few have."""
    paths = sorted((SHARED / "data" / name / "images").glob("*"))
    if not paths:
        pytest.skip(f"no real images at {SHARED}")
    shares = []
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L"))
        mask = np.zeros(grey.shape, bool)
        for left, top, right, bottom in text_boxes(grey):
            mask[top:bottom, left:right] = True
        shares.append(mask.mean())
    if name == "ddti":
        upright = [np.asarray(Image.open(path).convert("L")) for path in paths]
        turned = [np.ascontiguousarray(np.rot90(grey)) for grey in upright]
        assert sum(bool(text_boxes(grey)) for grey in turned) <= 12
    assert np.mean(shares) <= most
    # A mean hides one picture whose half is painted over.
    assert max(shares) <= 0.05
