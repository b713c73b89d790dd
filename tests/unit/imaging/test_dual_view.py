"""Two windows in one picture are told from one, whatever lies between them."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.support.dicoms import dicom, speckle
from tests.support.places import SHARED
from tests.support.screened import RULES
from thyro_core.imaging.dual_view import are_stacked, split_views
from thyro_core.imaging.orientation import lies_on_side
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.screening.reader import read_screening_images

NOBODY = Pseudonymiser(None)


def window(seed: int, width: int = 200, height: int = 480) -> np.ndarray:
    """Speckle as a scanner's: wider than it is deep."""
    return np.repeat(speckle(height, -(-width // 4), seed), 4, axis=1)[:, :width]


def beside(left: np.ndarray, right: np.ndarray, gutter: int, shade: int = 0) -> np.ndarray:
    between = np.full((left.shape[0], gutter), shade, np.uint8)
    return np.concatenate([left, between, right], axis=1)


@pytest.mark.parametrize("gutter", [0, 1, 3, 10, 30])
@pytest.mark.parametrize("shade", [0, 40])
def test_two_windows_are_two_boxes_at_the_seam(gutter: int, shade: int) -> None:
    one, two = split_views(beside(window(1), window(2, 240), gutter, shade))
    assert (one[:2], one[3]) == ((0, 0), 480)
    assert (two[1], two[2:]) == (0, (200 + gutter + 240, 480))
    assert abs(one[2] - 200) <= 4
    assert abs(two[0] - 200 - gutter) <= 4


@pytest.mark.parametrize("gutter", [12, 60, 150, 300])
def test_a_black_gutter_may_be_of_any_width(gutter: int) -> None:
    pixels = beside(window(1), window(2, 240), gutter)
    noise = np.random.default_rng(0).integers(0, 6, pixels.shape, dtype=np.uint8)
    one, two = split_views(np.maximum(pixels, noise))
    assert (one, two) == ((0, 0, 200, 480), (200 + gutter, 0, 440 + gutter, 480))
    assert not are_stacked([one, two])


@pytest.mark.parametrize("gutter", [8, 40, 200])
def test_windows_above_one_another_are_told_by_their_gutter(gutter: int) -> None:
    between = np.zeros((gutter, 400), np.uint8)
    pixels = np.concatenate([window(1, 400, 300), between, window(2, 400, 280)])
    one, two = split_views(pixels)
    assert (one, two) == ((0, 0, 400, 300), (0, 300 + gutter, 400, 580 + gutter))
    assert are_stacked([one, two])
    images = read_screening_images(dicom(pixels), RULES, NOBODY)
    starts = [(image.detail or "").split(";")[0] for image in images]
    assert starts == [f"view {n} of 2 in this picture, from the top" for n in (1, 2)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("heights", [(300, 300), (340, 260)])
@pytest.mark.parametrize("factor", [1, 0.7, 1.4])
def test_windows_above_one_another_are_told_without_a_gutter(
    seed: int, heights: tuple[int, int], factor: float
) -> None:
    """The depths of the first give little light, and the second begins at its bright skin."""
    first, second = (
        coarse(seed + 100 * place, 400, height, height) for place, height in enumerate(heights)
    )
    fade = np.linspace(1, 0.4, heights[0])[:, None]
    skin = 1 + 1.5 * np.exp(-np.arange(heights[1]) / 25)[:, None]
    windows = [np.clip(levels, 0, 255) for levels in (first * fade, second * skin)]
    pixels = np.concatenate(windows).astype(np.uint8)
    size = round(400 * factor), round(600 * factor)
    picture = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    one, two = split_views(picture)
    assert are_stacked([one, two])
    assert (one[2], two[2:]) == (size[0], size)
    assert abs(one[3] - heights[0] * factor) <= 4
    assert one[3] < two[1] <= one[3] + 4


def test_level_layers_and_lines_of_one_window_are_no_seam() -> None:
    pixels = coarse(3, 500, 600, 600)
    layer = pixels.copy()
    bent = 300 + (6 * np.sin(np.arange(500) / 60)).astype(int)
    layer[np.arange(600)[:, None] > bent] //= 3  # a bright layer over a dark one
    line = pixels.copy()
    line[299:301] = 200  # drawn across the middle
    wall = pixels.copy()
    wall[300:306, 60:380] = 220  # a bright wall over most of the width
    for picture in (layer, line, wall):
        assert split_views(picture) == []


def test_a_cyst_as_wide_as_the_picture_is_no_gutter() -> None:
    """What lies under it begins here and there, and not at once as a window does."""
    pixels = window(1, 400, 600)
    ground = 300 + (30 * np.sin(np.arange(400) / 20)).astype(int)
    rows = np.arange(600)[:, None]
    pixels[(rows > 240) & (rows < ground + 60)] //= 30
    assert split_views(pixels) == []


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_scan_on_its_side_has_no_windows(quarters: int) -> None:
    """Its layers stand upright, as seams do."""
    layers = np.concatenate([window(1, 400, 240), window(2, 400, 240)])
    assert lies_on_side(np.rot90(layers, quarters))
    assert not lies_on_side(layers)
    assert split_views(np.ascontiguousarray(np.rot90(layers, quarters))) == []


@pytest.mark.parametrize("shape", [(4, 300), (300, 8), (40, 40)])
def test_a_flat_or_narrow_picture_lies_on_no_side(shape: tuple[int, int]) -> None:
    assert not lies_on_side(np.full(shape, 90, np.uint8))


@settings(max_examples=25, phases=[Phase.generate])
@given(st.integers(0, 10_000), st.integers(150, 600), st.integers(100, 400))
def test_one_window_is_never_split(seed: int, width: int, height: int) -> None:
    assert split_views(window(seed, width, height)) == []


def test_what_looks_like_a_seam_is_none() -> None:
    pixels = window(3, 400)
    lines = pixels.copy()
    lines[:, 199:202] = 255  # a line that a scanner draws
    cyst = pixels.copy()
    cyst[80:320, 150:260] = 3
    shadow = pixels.copy()
    shadow[120:, 180:230] = 5
    half = beside(pixels[:, :220], np.zeros((480, 180), np.uint8), 0)
    text = pixels.copy()
    text[200:230:3, 150:260] = 255
    for picture in (lines, cyst, shadow, half, text, pixels[:20], pixels[:, :20]):
        assert split_views(picture) == []


def coarse(seed: int, width: int = 250, height: int = 315, dark_below: int = 315) -> np.ndarray:
    """Speckle of a small picture: few grains lie in the depth, and less light comes from below."""
    grain = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), (3, 4))
    light = np.where(np.arange(height) < dark_below, 90, 4)[:, None]
    return np.clip(light * (1 + 0.35 * grain / grain.std()), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("left", "right"), [(250, 250), (285, 215)])
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("dark_below", [315, 150])
def test_coarse_speckle_is_split_where_most_rows_step(
    seed: int, left: int, right: int, factor: int, dark_below: int
) -> None:
    windows = [coarse(seed, left), coarse(100 + seed, right)]
    windows = [np.where(np.arange(315)[:, None] < dark_below, w, w // 20) for w in windows]
    picture = Image.fromarray(np.concatenate(windows, axis=1))
    picture = picture.resize((500 * factor, 315 * factor), Image.Resampling.BICUBIC)
    one, two = split_views(np.asarray(picture))
    assert abs(one[2] - left * factor) <= 4 * factor
    assert abs(two[0] - left * factor) <= 4 * factor
    assert two[0] > one[2]


@settings(max_examples=25, phases=[Phase.generate])
@given(st.integers(0, 10_000), st.integers(300, 700), st.integers(200, 400))
def test_coarse_speckle_of_one_window_is_never_split(seed: int, width: int, height: int) -> None:
    assert split_views(coarse(seed, width, height, height)) == []


def test_what_steps_in_coarse_speckle_without_a_seam_is_not_split() -> None:
    pixels = coarse(3, 500)
    line = pixels.copy()
    line[:, 249:251] = 200  # drawn upright through the middle
    dotted = pixels.copy()
    dotted[np.arange(315) % 4 < 3, 250] = 255
    box = pixels.copy()
    box[60:200, 200:203] = box[60:200, 300:303] = 180
    shadow = pixels.copy()
    shadow[90:, 220:270] //= 6
    cyst = pixels.copy()
    cyst[60:200, 190:300] //= 12
    for picture in (line, dotted, box, shadow, cyst):
        assert split_views(picture) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_dotted_line_between_callipers_is_no_seam(seed: int) -> None:
    """Two pixels wide, over the upper two thirds: most rows with a dot step, on both sides."""
    pixels = coarse(seed, 500)
    rows = np.arange(20, 210)
    pixels[rows[rows % 4 < 2], 249:251] = 230
    assert split_views(pixels) == []


def test_windows_of_very_different_size_stay_together() -> None:
    assert split_views(beside(window(1, 100), window(2, 320), 4)) == []


def test_each_window_is_an_image_with_its_place_unless_it_is_off() -> None:
    pixels = beside(window(1), window(2), 4)
    images = read_screening_images(dicom(pixels), RULES, NOBODY)
    assert len(images) == 2
    assert len({image.image_id for image in images}) == 2
    for number, image in enumerate(images, 1):
        assert image.detail is not None
        assert image.detail.startswith(f"view {number} of 2 in this picture, from the left; split")
        assert image.width is not None
        assert 190 < image.width < 210
    whole = RULES.model_copy(update={"split_views": False})
    (image,) = read_screening_images(dicom(pixels), whole, NOBODY)
    assert (image.width, image.detail) == (404, None)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/busi").is_dir(), reason="real pictures are not here")
def test_no_real_picture_of_one_window_is_split_and_dual_views_are() -> None:
    """Of 450 of one window none is split; of 402 with 178 dual views 167 are."""
    pictures = {
        name: [
            np.array(Image.open(path).convert("L"))
            for path in sorted((SHARED / f"data/{name}/images").iterdir())
        ]
        for name in ("busi", "ddti")
    }
    splits = {name: sum(map(bool, map(split_views, each))) for name, each in pictures.items()}
    assert splits["busi"] == 0
    assert 167 <= splits["ddti"] <= 178
    turned = [np.ascontiguousarray(np.rot90(picture)) for picture in pictures["busi"]]
    assert not any(map(split_views, turned))
