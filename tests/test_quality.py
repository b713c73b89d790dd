"""The quality figures, against images whose focus and colours are known."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from thyro_core.config import IngestConfig
from thyro_core.images import decode, resize
from thyro_core.quality import grey_statistics, overlay_share, sharpness

SHARED = Path(os.environ.get("THYRO_SHARED", Path(__file__).parents[2] / "shared"))
BOUND = 0.05


def speckle(height: int = 256, width: int = 320, seed: int = 0) -> np.ndarray:
    """Multiplicative Rayleigh speckle with a grain of about two pixels, as float 0 to 255."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(2, height, width))
    smooth = ndimage.gaussian_filter(field, (0, 0.8, 0.8))
    envelope = np.hypot(smooth[0], smooth[1])
    return np.clip(90 * envelope / envelope.mean(), 0, 255)


def as_grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


SHARP = as_grey(speckle())


def blurred(grey: np.ndarray, sigma: float) -> np.ndarray:
    return as_grey(ndimage.gaussian_filter(grey.astype(float), sigma))


def test_sharpness_of_a_known_pattern() -> None:
    # Stripes of period 2, +-a: the Laplacian is -4 times the deviation, so the ratio is 16.
    stripes = np.tile(np.array([80, 120], np.uint8), (64, 32))
    assert sharpness(stripes) == pytest.approx(16.0, rel=0.15)
    # Period 8: the squared eigenvalue of the second difference is (2 - 2 cos(pi/4))^2.
    wave = as_grey(128 + 100 * np.sin(np.arange(64) * np.pi / 4 + 0.3))
    expected = (2 - 2 * np.cos(np.pi / 4)) ** 2
    assert sharpness(np.tile(wave, (64, 1))) == pytest.approx(expected, rel=0.1)


def test_blur_lowers_sharpness_below_the_bound() -> None:
    figures = [sharpness(SHARP), *(sharpness(blurred(SHARP, sigma)) for sigma in (1, 2, 3))]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 2 * BOUND
    assert [sharpness(blurred(SHARP, sigma)) < BOUND for sigma in (3, 4, 6)] == [True] * 3


@given(st.floats(0.3, 1.0), st.floats(0.0, 60.0))
def test_gain_and_offset_hardly_matter(gain: float, offset: float) -> None:
    base = speckle(96, 96) * 0.6
    reference = sharpness(as_grey(base))
    assert sharpness(as_grey(base * gain + offset)) == pytest.approx(reference, rel=0.1)


def test_borders_and_burned_in_graphics_hardly_matter() -> None:
    framed = np.zeros((400, 480), np.uint8)
    framed[80:336, 80:400] = SHARP
    assert sharpness(framed) == pytest.approx(sharpness(SHARP), rel=0.1)
    soft = blurred(SHARP, 5)
    written = np.zeros((400, 480), np.uint8)
    written[80:336, 80:400] = soft
    image = Image.fromarray(written)
    glyphs = np.kron(np.random.default_rng(2).integers(0, 2, (20, 60)), np.ones((2, 2)))
    image.paste(Image.fromarray(as_grey(255 * glyphs)), (80, 90))
    assert sharpness(np.asarray(image)) < BOUND


def test_blur_counts_at_the_common_size() -> None:
    """The same blur relative to the image is judged the same at 512 and at 1024 pixels."""
    large = as_grey(np.kron(speckle(512, 512, seed=4), np.ones((2, 2))))
    assert sharpness(large) > 2 * BOUND
    assert sharpness(blurred(large, 2)) > BOUND
    assert sharpness(blurred(large, 8)) < BOUND
    assert sharpness(large) == sharpness(resize(large, 512))


def test_rounding_of_a_smooth_image_is_no_sharpness() -> None:
    """A ramp of 6 grey levels SD per tile: its rounded Laplacian alone would give 0.04."""
    rows, columns = np.mgrid[:256, :256]
    smooth = 128 + 60 * np.sin(rows / 30.3) + 30 * np.sin(columns / 41.7)
    assert sharpness(as_grey(smooth)) < 0.01


@pytest.mark.parametrize(
    "grey",
    [
        np.zeros((64, 64), np.uint8),
        np.full((64, 64), 200, np.uint8),
        np.full((9, 300), 70, np.uint8),
        np.zeros((1, 4000), np.uint8),
        np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8),
    ],
)
def test_no_tissue_is_no_sharpness(grey: np.ndarray) -> None:
    assert sharpness(grey) == 0.0


GREY_RGB = np.dstack([SHARP] * 3)


def with_box(rgb: np.ndarray, share: float, colour: tuple[int, int, int]) -> np.ndarray:
    drawn = rgb.copy()
    drawn[: round(drawn.shape[0] * share)] = colour
    return drawn


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 200), (255, 255, 0), (60, 140, 60)])
@pytest.mark.parametrize("share", [0.0625, 0.25, 0.4375])
def test_the_share_of_a_drawn_area(colour: tuple[int, int, int], share: float) -> None:
    assert overlay_share(GREY_RGB) == 0.0
    assert overlay_share(with_box(GREY_RGB, share, colour)) == pytest.approx(share, abs=1e-6)


def test_a_wholly_coloured_image() -> None:
    assert overlay_share(np.full((50, 50, 3), (250, 20, 20), np.uint8)) == 1.0
    assert overlay_share(np.zeros((50, 50, 3), np.uint8)) == 0.0


@pytest.mark.parametrize("gains", [(1.0, 0.93, 0.72), (0.8, 0.9, 1.0)])
def test_a_tint_is_no_overlay(gains: tuple[float, float, float]) -> None:
    tinted = as_grey(GREY_RGB * np.array(gains))
    assert np.ptp(tinted.astype(int), axis=2).max() > 32
    assert overlay_share(tinted) == 0.0
    assert overlay_share(with_box(tinted, 0.125, (255, 0, 0))) == pytest.approx(0.125, abs=1e-6)


def test_text_on_a_dark_image_is_no_tint() -> None:
    dark = np.full((100, 100, 3), 12, np.uint8)
    dark[:10] = (255, 255, 0)
    assert overlay_share(dark) == pytest.approx(0.1)


def test_jpeg_noise_of_a_grey_image_counts_nothing() -> None:
    tinted = as_grey(GREY_RGB * np.array((1.0, 0.97, 0.92)))
    buffer = io.BytesIO()
    Image.fromarray(tinted).save(buffer, "JPEG", quality=40)
    assert decode(buffer.getvalue(), IngestConfig()).overlay_share < 0.001


def test_large_images_are_sampled() -> None:
    large = np.zeros((4096, 4500, 3), np.uint8)
    large[:, :900] = (255, 0, 0)
    assert overlay_share(large) == pytest.approx(0.2, abs=0.001)


def test_grey_statistics() -> None:
    assert grey_statistics(np.array([[0, 0], [0, 255]], np.uint8)) == pytest.approx(
        (63.75, 110.41823898)
    )


@pytest.mark.parametrize("name", ["ddti", "busi"])
def test_public_images_are_in_focus_until_they_are_blurred(name: str) -> None:
    folder = SHARED / "data" / name / "images"
    if not folder.is_dir():
        pytest.skip(f"the public set {name} is not here: set THYRO_SHARED to its parent folder")
    rules = IngestConfig()
    pictures = [decode(path.read_bytes(), rules) for path in sorted(folder.iterdir())[::25]]
    assert min(sharpness(picture.grey) for picture in pictures) > 2 * BOUND
    assert max(sharpness(blurred(picture.grey, 4)) for picture in pictures) < BOUND
    assert max(picture.overlay_share for picture in pictures) < rules.overlay_bound / 10
