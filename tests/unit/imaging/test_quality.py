"""The quality figures, against images whose focus and colours are known."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.support.places import SHARED
from thyro_core.config import IngestConfig
from thyro_core.imaging.decode import decode, resize
from thyro_core.imaging.quality import grey_statistics, overlay_share, sharpness

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


def plain_sharpness(grey: np.ndarray) -> float:
    """Tile by tile, as the docstring says it; for images of up to 512 pixels a side."""
    edges, figures = ndimage.laplace(grey.astype(float)), []
    for top in range(0, grey.shape[0] - 15, 16):
        for left in range(0, grey.shape[1] - 15, 16):
            tile = np.s_[top : top + 16, left : left + 16]
            if grey[tile].mean() > 10 and grey[tile].std() > 4:
                energy = max(edges[tile].var() - 20 / 12, 0)
                figures.append(energy / grey[tile].var())
    return float(np.median(figures)) if figures else 0.0


@pytest.mark.parametrize("shape", [(256, 320), (77, 100), (17, 512), (16, 16)])
def test_sharpness_is_that_of_a_loop_over_tiles(shape: tuple[int, int]) -> None:
    extreme = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), shape)
    for grey in (as_grey(speckle(*shape)), as_grey(speckle(*shape) * 0.2), extreme):
        assert sharpness(grey) == pytest.approx(plain_sharpness(grey), rel=1e-9)


def test_sharpness_sums_stay_exact_at_the_steepest_edges() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    assert sharpness(board.astype(np.uint8)) == plain_sharpness(board.astype(np.uint8))


def plain_overlay_share(rgb: np.ndarray) -> float:
    """Every pixel with the tint taken off, without the short cuts."""
    pixels = rgb.reshape(-1, 3).astype(np.float32)
    brightness = pixels.mean(axis=1, keepdims=True)
    bright, tint = brightness[:, 0] > 32, np.ones(3, np.float32)
    if bright.any():
        gains = np.median(pixels[bright] / brightness[bright], axis=0)
        tint = tint if np.ptp(gains) > 0.5 else gains
    return float((np.ptp(pixels - tint * brightness, axis=1) > 32).mean())


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    st.sampled_from([(1, 1, 1), (1, 0.9, 0.7), (1, 0.5, 0.2)]),
    st.sampled_from([20, 60, 256]),
)
def test_short_cuts_do_not_change_the_share_of_colour(
    seed: int, coloured: float, tint: tuple[float, float, float], top: int
) -> None:
    rng = np.random.default_rng(seed)
    grey = np.repeat(rng.integers(0, top, (12, 15, 1)), 3, axis=2) * np.array(tint)
    colour = rng.integers(0, top, (12, 15, 3))
    rgb = np.where(rng.random((12, 15, 1)) < coloured, colour, grey).astype(np.uint8)
    assert overlay_share(rgb) == plain_overlay_share(rgb)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_grey_statistics_are_numpys(seed: int, height: int, width: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    assert grey_statistics(grey) == pytest.approx((grey.mean(), grey.std()), rel=1e-12, abs=1e-12)
