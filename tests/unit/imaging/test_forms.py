"""Pictures that are one picture, turned or mirrored, have the same first form."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.imaging.forms import first_form


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.integers(0, 7))
def test_all_eight_forms_of_a_picture_have_one_first_form(
    seed: int, height: int, width: int, form: int
) -> None:
    grey = np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)
    other = np.rot90(grey[:, ::-1] if form > 3 else grey, form)
    first = first_form(np.ascontiguousarray(other))
    assert np.array_equal(first, first_form(grey))
    assert any(
        np.array_equal(first, np.rot90(turned, quarters))
        for turned in (grey, grey[:, ::-1])
        for quarters in range(4)
    )


def test_another_picture_has_another() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    other = grey.copy()
    other[1, 1] = 0
    assert not np.array_equal(first_form(grey), first_form(other))
    assert not np.array_equal(first_form(grey), first_form(grey.reshape(2, 6)))
