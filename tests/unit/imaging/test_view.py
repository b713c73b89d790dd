"""What a network sees of a picture, by golden geometry, and the way back to the whole picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.config import ViewConfig
from thyro_core.imaging.burned_text import without_text
from thyro_core.imaging.decode import content_box, resize
from thyro_core.imaging.view import (
    in_proportion,
    map_over_picture,
    picture_view,
    seen_square,
    square_view,
    view_box,
    view_size,
    without_marks,
)

NODULE = ViewConfig(region="nodule", region_margin=0.0)
PADDED = ViewConfig(resize="pad")
LENGTH = st.integers(8, 90)


def blocks() -> np.ndarray:
    """60 x 40 pixels (width x height), each block of 20 with a level of its own."""
    levels = np.array([[10, 60, 110], [160, 210, 250]], np.uint8)
    return np.kron(levels, np.ones((20, 20), np.uint8))


def test_the_default_is_the_squash_of_the_whole_picture() -> None:
    grey = blocks()
    square, box = seen_square(grey, 32, ViewConfig())
    assert box is None
    np.testing.assert_array_equal(square, resize(grey, 32))
    assert picture_view(grey, ViewConfig(), None) is grey


def test_padded_pictures_stand_in_the_middle_of_black_in_their_proportions() -> None:
    square = square_view(blocks(), 60, PADDED, None)
    assert content_box(60, 40, 60) == (0, 10, 60, 50)
    np.testing.assert_array_equal(square[10:50], blocks())
    assert not square[:10].any()
    assert not square[50:].any()
    upright = square_view(np.ascontiguousarray(blocks().T), 60, PADDED, None)
    np.testing.assert_array_equal(upright, square.T)


@pytest.mark.parametrize(
    ("margin", "box"),
    [
        (0.0, (20, 20, 40, 40)),
        (0.25, (15, 15, 45, 40)),  # the picture ends below
        (1.0, (0, 0, 60, 40)),
    ],
)
def test_the_nodule_is_cut_with_its_margin_and_ends_where_the_picture_does(margin, box) -> None:
    view = ViewConfig(region="nodule", region_margin=margin)
    assert view_box(blocks(), view, (20, 20, 40, 40)) == box
    left, top, right, bottom = box
    np.testing.assert_array_equal(
        picture_view(blocks(), view, box), blocks()[top:bottom, left:right]
    )


def test_a_cut_block_fills_the_square() -> None:
    square = square_view(blocks(), 16, NODULE, (20, 20, 40, 40))
    assert (square == 210).all()
    with pytest.raises(ValueError, match="found none"):
        view_box(blocks(), NODULE)


def screen() -> np.ndarray:
    """Speckle in the middle of a black screen, a toolbar above and standing marks on the tissue."""
    rng = np.random.default_rng(0)
    speckle = np.kron(rng.rayleigh(28, (70, 90)), np.ones((4, 4)))
    pixels = np.zeros((420, 560), np.uint8)
    pixels[:28] = 90  # a toolbar
    pixels[100:380, 150:510] = np.clip(speckle, 0, 100).astype(np.uint8)
    pixels[200:230, 300:303] = 255  # a calliper's stroke
    return pixels


def test_clean_cuts_frame_and_toolbar_off_and_paints_marks_over() -> None:
    grey, view = screen(), ViewConfig(clean=True)
    box = view_box(grey, view)
    assert box is not None
    left, top, right, bottom = box
    assert abs(left - 150) <= 20
    assert abs(right - 510) <= 20
    assert 60 <= top <= 120
    assert 360 <= bottom <= 400
    clean = picture_view(grey, view, box)
    stroke = clean[200 - top : 230 - top, 300 - left : 303 - left]
    assert stroke.max() <= 120
    assert grey[200:230, 300:303].min() == 255
    far = np.zeros(grey.shape, bool)
    far[240:, 150:510] = True
    np.testing.assert_array_equal(without_marks(grey)[far], grey[far])


def test_a_picture_without_tissue_or_marks_stays_whole() -> None:
    grey = np.full((80, 90), 7, np.uint8)
    assert view_box(grey, ViewConfig(clean=True)) is None
    assert without_marks(grey) is grey


@given(width=LENGTH, height=LENGTH, side=st.integers(16, 80))
def test_what_is_padded_comes_back_in_its_proportions(width: int, height: int, side: int) -> None:
    grey = np.full((height, width), 200, np.uint8)
    back = in_proportion(resize(grey, side, pad=True), (width, height), pad=True)
    assert (back == 200).all()
    assert max(back.shape) == side
    longer = max(width, height)
    for found, length in zip(back.shape, (height, width), strict=True):
        assert abs(found - side * length / longer) <= 0.5 or found == 1


@given(data=st.data(), width=LENGTH, height=LENGTH, pad=st.booleans())
def test_a_spot_of_the_map_comes_back_to_where_it_was(data, width, height, pad) -> None:
    """A bright cross of the picture, and the map that marks where the square shows it."""
    left = data.draw(st.integers(0, width - 8))
    top = data.draw(st.integers(0, height - 8))
    right = data.draw(st.integers(left + 8, width))
    bottom = data.draw(st.integers(top + 8, height))
    x, y = data.draw(st.integers(left, right - 1)), data.draw(st.integers(top, bottom - 1))
    grey = np.zeros((height, width), np.uint8)
    grey[y, x] = 255
    view = ViewConfig(region="nodule", resize="pad" if pad else "squash")
    row = {"width": width, "height": height, "view_box": [left, top, right, bottom]}
    square = square_view(grey, 180, view, (left, top, right, bottom))
    whole = map_over_picture(square.astype(np.float32), (width, height), row, pad=pad)
    whole = np.broadcast_to(whole, (height, width)) if whole.shape == (height, width) else whole
    assert whole.shape == (height, width)
    peak = np.unravel_index(int(whole.argmax()), whole.shape)
    assert abs(peak[0] - y) <= 1
    assert abs(peak[1] - x) <= 1
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    assert not whole[outside].any()
    assert view_size(row) == (right - left, bottom - top)


def test_a_map_of_the_whole_squashed_picture_is_left_as_it_is() -> None:
    cam = np.random.default_rng(0).random((7, 7), np.float32)
    row = {"width": 60, "height": 40, "view_box": None}
    assert map_over_picture(cam, (60, 40), row, pad=False) is cam
    assert map_over_picture(cam, (60, 40), row, pad=True).shape == (40, 60)


@pytest.mark.parametrize("pad", [False, True])
def test_text_is_painted_over_where_the_square_shows_it(pad: bool) -> None:
    grey = np.full((40, 80), 50, np.uint8)
    grey[4:8, 30:60:2] = 250
    row = {"text_boxes": [28, 3, 62, 9], "width": 80, "height": 40, "view_box": [20, 0, 80, 40]}
    view = ViewConfig(region="nodule", resize="pad" if pad else "squash")
    square = square_view(grey, 60, view, (20, 0, 80, 40))
    painted = without_text(square, row, pad=pad)
    assert square.max() > 120
    assert painted.max() < square.max() - 30
    rest = painted == square
    assert rest.mean() > 0.7
    beside = row | {"view_box": [64, 0, 80, 40]}
    untouched = square_view(grey, 60, view, (64, 0, 80, 40))
    np.testing.assert_array_equal(without_text(untouched, beside, pad=pad), untouched)
