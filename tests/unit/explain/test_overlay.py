"""Overlays: every pixel as computed by hand, tissue untouched where nothing was found."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.color import rgb2lab

from thyro_core.explain.overlay import OPACITY, colours, overlay_map, png_bytes
from thyro_core.explain.regions import upsample

GREY = np.array([[0, 50, 100], [150, 201, 255]], dtype=np.uint8)
# viridis's first, middle and last colour, as its authors published them.
LOW, MIDDLE, HIGH = (68, 1, 84), (33, 145, 140), (253, 231, 36)


def test_the_colours_are_the_published_ones() -> None:
    assert colours(2) == [LOW, HIGH]
    assert colours(256)[::255] == [LOW, HIGH]
    assert len(colours(256)) == 256
    np.testing.assert_allclose(colours(3)[1], MIDDLE, atol=2)
    assert all(type(part) is int for part in colours(5)[2])
    with pytest.raises(ValueError, match="expected at least 2 colours, found 1"):
        colours(1)


def test_no_caller_can_change_the_colours_of_another() -> None:
    colours(2).clear()
    assert colours(2) == [LOW, HIGH]


def test_lightness_rises_in_even_steps() -> None:
    """What "perceptually uniform" promises, and what the rainbow map that it replaces breaks."""
    from matplotlib import colormaps

    def steps(table: list[tuple[int, ...]]) -> np.ndarray:
        return np.diff(rgb2lab(np.array(table, dtype=np.float64) / 255)[:, 0])

    ours = steps(colours(17))
    assert ours.min() > 0.6 * ours.mean() > 0
    assert ours.max() < 1.4 * ours.mean()
    rainbow = [tuple(c[:3]) for c in colormaps["jet"](np.linspace(0, 1, 17), bytes=True)]
    assert (steps(rainbow) < 0).any()


# Machado et al. 2009, severity 1, linear RGB: what the two common kinds of colour-blindness see.
PROTAN = [
    [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]  # fmt: skip
DEUTAN = [
    [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]  # fmt: skip


@pytest.mark.parametrize("kind", [PROTAN, DEUTAN])
def test_the_colour_blind_see_the_same_order(kind: list[list[float]]) -> None:
    srgb = np.array(colours(17)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(kind).T, 0, 1)
    back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(back)
    assert (np.diff(lab[:, 0]) > 3).all()
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e9 * np.eye(17)
    assert distances.min() > 4, "two of the colours look alike"


def test_golden_pixels() -> None:
    """By hand: half the peak is (32, 144, 140) at 0.325, the peak (253, 231, 36) at 0.65."""
    cam = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.float32)
    found = overlay_map(GREY, cam)
    assert found.dtype == np.uint8
    assert found.tolist() == [
        [[0, 0, 0], [44, 81, 79], [199, 185, 58]],
        [[217, 203, 76], [146, 182, 181], [255, 255, 255]],
    ]


def test_an_empty_map_leaves_the_image_grey() -> None:
    found = overlay_map(GREY, np.zeros((7, 7), np.float32))
    np.testing.assert_array_equal(found, np.repeat(GREY[:, :, None], 3, axis=2))


def test_a_map_is_enlarged_as_regions_are() -> None:
    cam = np.random.default_rng(1).random((7, 5), np.float32)
    grey = np.full((64, 48), 90, np.uint8)
    share = upsample(cam, 64, 48) / cam.max()
    table = np.array(colours(256), dtype=float)[np.rint(share * 255).astype(int)]
    alpha = OPACITY * share[..., None]
    np.testing.assert_allclose(overlay_map(grey, cam), 90 * (1 - alpha) + table * alpha, atol=0.51)


@settings(max_examples=60)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    arrays(np.float32, (2, 3), elements=st.floats(0, 2.0**100, width=32)),
)
def test_tissue_shines_through_everywhere(grey, cam) -> None:
    found = overlay_map(grey, cam).astype(float)
    assert found.shape == (*grey.shape, 3)
    lowest = grey[:, :, None] * (1 - OPACITY)
    assert (found >= lowest - 0.5).all()
    assert (found <= lowest + 255 * OPACITY + 0.5).all()
    nothing = upsample(cam, *grey.shape) == 0
    assert (found[nothing] == grey[nothing][:, None]).all()


@pytest.mark.parametrize(
    ("grey", "cam", "found"),
    [
        (GREY, np.full((2, 2), np.nan, np.float32), "a finite map"),
        (GREY, np.full((2, 2), np.inf, np.float32), "a finite map"),
        (GREY[0], np.ones((2, 2), np.float32), r"found \(3,\)"),
        (GREY[:0], np.ones((2, 2), np.float32), r"found \(0, 3\)"),
        (GREY, np.ones((2, 0), np.float32), "at least one pixel"),
        (GREY, np.ones(4, np.float32), "a map"),
    ],
)
def test_what_is_no_image_or_no_map(grey, cam, found) -> None:
    with pytest.raises(ValueError, match=found):
        overlay_map(grey, cam)


def test_a_png_is_the_pixels_and_always_the_same_bytes() -> None:
    for pixels in (GREY, overlay_map(GREY, np.ones((1, 1), np.float32))):
        data = png_bytes(pixels)
        assert data.startswith(b"\x89PNG")
        assert data == png_bytes(pixels.copy())
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data))), pixels)
    assert b"tEXt" not in data
    assert b"tIME" not in data
