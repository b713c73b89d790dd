"""Burned-in marks: letters, ticks and callipers are found, tissue is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from tests.support.places import SHARED
from thyro_core.config import IngestConfig
from thyro_core.imaging.annotations import annotation_mask
from thyro_core.imaging.decode import decode, resize


def tissue(seed=0, side=224, level=70, sigma=1.0, sd=15):
    grain = np.random.default_rng(seed).normal(size=(side, side))
    smooth = gaussian_filter(grain, sigma)
    return np.clip(level + smooth / smooth.std() * sd, 0, 255).astype(np.uint8)


def drawn(grey, draw):
    image = Image.fromarray(grey)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def cross(at, arm=4):
    def draw(canvas):
        canvas.line([at[0] - arm, at[1], at[0] + arm, at[1]], fill=250)
        canvas.line([at[0], at[1] - arm, at[0], at[1] + arm], fill=250)

    return draw


@pytest.mark.parametrize("side", [64, 224, 299])
def test_a_cross_is_found_whole_and_next_to_nothing_else(side):
    centre = (side // 2, side // 3)
    grey = drawn(tissue(side=side, sigma=side / 200), cross(centre))
    expected = drawn(np.zeros((side, side), np.uint8), cross(centre)) > 0
    found = annotation_mask(grey)
    assert found.dtype == np.bool_
    assert (found & expected).sum() >= 0.9 * expected.sum()
    assert (found & ~expected).sum() <= 3


def test_letters_are_found():
    grey = drawn(tissue(), lambda canvas: canvas.text((150, 190), "RT 3", fill=240))
    letters = drawn(np.zeros((224, 224), np.uint8), lambda c: c.text((150, 190), "RT 3", fill=240))
    found = annotation_mask(grey)
    assert found[letters > 200].mean() > 0.8
    assert not found[:180].any()


def test_text_on_black_is_found_too():
    grey = drawn(np.zeros((224, 224), np.uint8), lambda c: c.text((5, 5), "T", fill=200))
    assert annotation_mask(grey)[grey > 150].mean() > 0.8


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("level", [20, 90, 160])
def test_tissue_has_no_marks(sigma, level):
    assert annotation_mask(tissue(3, level=level, sigma=sigma)).mean() < 1e-4


def test_a_bright_layer_is_tissue():
    """A fascia: as bright and as thin as a mark, but lying."""
    grey = tissue()
    x = np.arange(224)
    for thick in (0, 1):
        grey[(60 + 6 * np.sin(x / 40)).astype(int) + thick, x] = 245
    assert not annotation_mask(grey).any()


def test_a_bright_blob_is_tissue():
    grey = tissue()
    grey[100:112, 90:110] = 240
    assert not annotation_mask(grey).any()


def test_a_single_bright_speckle_is_tissue():
    grey = tissue()
    grey[50, 50] = grey[80, 81] = 255
    assert not annotation_mask(grey).any()


def test_marks_stay_found_beside_a_layer():
    grey = tissue()
    grey[60:62] = 245
    found = annotation_mask(drawn(grey, cross((100, 150))))
    assert found[140:160, 90:110].sum() >= 15
    assert not found[55:66].any()


@given(st.integers(0, 2**32), st.sampled_from([8, 33]))
def test_marks_are_bright_and_the_image_stays(seed, side):
    grey = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    before = grey.copy()
    found = annotation_mask(grey)
    assert found.shape == grey.shape
    assert grey[found].min(initial=255) >= 110
    np.testing.assert_array_equal(grey, before)


@pytest.mark.parametrize("level", [0, 255])
def test_an_even_image_has_none(level):
    assert not annotation_mask(np.full((64, 64), level, np.uint8)).any()


@pytest.mark.parametrize(("name", "low", "high"), [("ddti", 0.0003, 0.004), ("busi", 0, 0.006)])
def test_public_sets(name, low, high):
    """DDTI's images all bear letters and ticks; marks never take a noticeable part of an image."""
    folder = SHARED / "data" / name / "images"
    if not folder.is_dir():
        pytest.skip(f"the public set {name} is not here: set THYRO_SHARED to its parent folder")
    files = sorted(folder.iterdir())[::20]
    greys = [resize(decode(file.read_bytes(), IngestConfig()).grey, 224) for file in files]
    shares = np.array([annotation_mask(grey).mean() for grey in greys])
    assert low <= np.median(shares)
    assert shares.max() < high
