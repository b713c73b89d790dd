"""What looks like ultrasound passes; blank, noise, text, drawings and colour photographs do not."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tests.support.dicoms import speckle
from tests.support.places import SHARED
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.imaging.ultrasound import (
    LEAST_COHERENCE,
    LEAST_SD,
    MOST_BRIGHT,
    MOST_COLOUR,
    coherence,
    ultrasound_fault,
)
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import read_screening_images

RNG = np.random.default_rng(0)
SHAPE = (300, 400)


def page(paper: int, ink: int, size: int = 16) -> np.ndarray:
    image = Image.new("L", (600, 500), paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for y in range(10, 480, size + 6):
        draw.text((10, y), "Sphinx of black quartz, judge my vow 0123456789 " * 2, ink, font)
    return np.array(image)


def scanned(paper: int, ink: int) -> np.ndarray:
    soft = Image.fromarray(page(paper, ink)).filter(ImageFilter.GaussianBlur(0.7))
    return np.clip(np.array(soft) + RNG.normal(0, 4, (500, 600)), 0, 255).astype(np.uint8)


def checkerboard() -> np.ndarray:
    rows, columns = np.indices(SHAPE) // 20
    return (255 * ((rows + columns) % 2)).astype(np.uint8)


@pytest.mark.parametrize(
    ("grey", "why"),
    [
        (np.zeros(SHAPE, np.uint8), "standard deviation 0.0, expected at least 8"),
        (np.full(SHAPE, 255, np.uint8), "standard deviation 0.0"),
        (np.clip(RNG.normal(20, 3, SHAPE), 0, 255).astype(np.uint8), "standard deviation 3.0"),
        (RNG.integers(0, 256, SHAPE).astype(np.uint8), "correlation of neighbours -?0.00, exp"),
        (np.clip(RNG.rayleigh(50, SHAPE), 0, 255).astype(np.uint8), "correlation of neighbours"),
        (page(255, 0), "entropy 2.* bit, expected at least 3"),
        (page(0, 255), "share of bright pixels 0.4. of what is not black, at most 0.3"),
        (scanned(230, 30), "share of bright pixels 0.*, at most 0.3"),
        (checkerboard(), "entropy -?0.00 bit"),
    ],
)
def test_what_is_no_ultrasound_is_told_why(grey: np.ndarray, why: str) -> None:
    found = ultrasound_fault(grey, 0.0)
    assert found is not None
    assert re.search(why, found), found


def test_speckle_passes_and_a_colour_photograph_does_not() -> None:
    for seed in range(5):
        assert ultrasound_fault(speckle(seed=seed), 0.0) is None
    assert ultrasound_fault(speckle(), MOST_COLOUR) is None
    found = ultrasound_fault(speckle(), MOST_COLOUR + 0.01)
    assert found == "share of coloured pixels 0.36, at most 0.35"


@pytest.mark.parametrize("level", [0, 1, 3])
def test_an_echo_on_a_large_black_screen_passes(level: int) -> None:
    screen = np.full((700, 900), level, np.uint8)
    screen[200:360, 300:540] = np.maximum(speckle(160, 240), level)
    counts = np.bincount(screen.ravel(), minlength=256) / screen.size
    assert -(counts[counts > 0] * np.log2(counts[counts > 0])).sum() < 1.5
    assert ultrasound_fault(screen, 0.0) is None
    drawn = np.full((700, 900), level, np.uint8)
    drawn[200:360, 300:540] = 90
    assert "entropy" in str(ultrasound_fault(drawn, 0.0))


def test_coherence_is_the_correlation_of_neighbours() -> None:
    grey = speckle(40, 50)
    wide = grey.astype(float)
    along = np.corrcoef(wide[:, 1:].ravel(), wide[:, :-1].ravel())[0, 1]
    down = np.corrcoef(wide[1:].ravel(), wide[:-1].ravel())[0, 1]
    assert coherence(grey) == pytest.approx(min(along, down), abs=1e-12)
    assert coherence(np.tile(np.array([[0, 255]], np.uint8), (4, 4))) == pytest.approx(-1)
    assert coherence(grey[:1]) == coherence(grey[:, :1]) == coherence(grey[:1, :1]) == 0
    assert coherence(np.full((9, 9), 7, np.uint8)) == 0
    big = np.zeros((1100, 1100), np.uint8)
    big[38 : 38 + 1024, 38 : 38 + 1024] = speckle(1024, 1024)
    assert coherence(big) == pytest.approx(coherence(big[38:1062, 38:1062]), abs=1e-12)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.floats(0, 1))
def test_any_picture_gets_a_verdict(grey: np.ndarray, share: float) -> None:
    found = ultrasound_fault(grey, share)
    assert found is None or ("expected" in found or "at most" in found)
    assert -1 - 1e-9 <= coherence(grey) <= 1 + 1e-9


def test_phantoms_pass(tmp_path) -> None:
    write_phantoms(str(tmp_path), images=4, malignant=2, seed=0)
    found = [
        read_screening_images(path.read_bytes(), ScreeningRules(), lambda *_: None)[0].reason
        for path in sorted((tmp_path / "images").glob("*.png"))
    ]
    assert found == [None] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["busi", "ddti"])
def test_real_images_pass_with_room_to_every_bound(name: str) -> None:
    folder = SHARED / "data" / name / "images"
    if not folder.is_dir():
        pytest.skip(f"the image set {name} is not here (THYRO_SHARED)")
    files = sorted(folder.iterdir())
    found = Counter()
    for file in files:
        (image,) = read_screening_images(file.read_bytes(), ScreeningRules(), lambda *_: None)
        found[image.reason] += 1
        if image.grey is None:
            continue
        assert image.sd is not None
        assert image.sd > 2 * LEAST_SD
        shares = np.bincount(image.grey.ravel(), minlength=256) / image.grey.size
        assert shares[200:].sum() < 0.7 * MOST_BRIGHT
        assert coherence(image.grey) > LEAST_COHERENCE + 0.15
    assert found == {None: len(files)}
