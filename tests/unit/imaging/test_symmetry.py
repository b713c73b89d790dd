"""The eight symmetries of the square: a group, whose places are those of the pixels."""

from itertools import product

import numpy as np
import pytest

from tests.support.symmetries import seen
from thyro_core.imaging.symmetry import SYMMETRIES, between, inverse, move_places

PICTURE = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_all_eight_forms_of_a_picture_differ() -> None:
    assert len({seen(PICTURE, symmetry).tobytes() for symmetry in SYMMETRIES}) == 8


@pytest.mark.parametrize(("first", "second"), list(product(SYMMETRIES, repeat=2)))
def test_what_lies_between_two_brings_one_picture_to_the_other(first: int, second: int) -> None:
    other = seen(seen(PICTURE, first), inverse(second))
    assert np.array_equal(seen(other, second), seen(PICTURE, first))
    assert np.array_equal(seen(PICTURE, int(between()[first, second])), other)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_places_move_with_the_pixels(symmetry: int) -> None:
    y, x = np.mgrid[:3, :4]
    places = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    there = move_places(places, 3.0, 2.0, symmetry).astype(int)
    view = seen(PICTURE, symmetry)
    assert view[there[:, 1], there[:, 0]].tolist() == PICTURE.ravel().tolist()


def test_quarter_turns_are_the_numbers_that_the_module_says() -> None:
    for symmetry, quarters in ((5, -1), (3, 2), (6, 1)):
        assert np.array_equal(seen(PICTURE, symmetry), np.rot90(PICTURE, quarters))
