"""A picture in each of its eight forms, by another way than the program's."""

import numpy as np

from thyro_core.types import Grey


def seen(grey: Grey, symmetry: int) -> Grey:
    """The picture transposed (4), then its columns (1) and its rows (2) in reverse."""
    view = grey.T if symmetry & 4 else grey
    view = view[:, ::-1] if symmetry & 1 else view
    view = view[::-1] if symmetry & 2 else view
    return np.ascontiguousarray(view)
