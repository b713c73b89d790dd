"""The eight forms of a picture: turned by quarters, and mirrored."""

import numpy as np

from thyro_core.types import Grey


def first_form(grey: Grey) -> Grey:
    """Whichever of a picture's eight forms comes first, by its height and then by its pixels.

    Pictures that are one picture turned or mirrored, and no others, have the same.

    Args:
        grey: uint8 (H, W).
    """
    forms = [form for view in (grey, grey.T) for form in _reversals(view)]
    return min(map(np.ascontiguousarray, forms), key=lambda form: (form.shape[0], form.tobytes()))


def _reversals(grey: Grey) -> list[Grey]:
    return [grey, grey[:, ::-1], grey[::-1], grey[::-1, ::-1]]
