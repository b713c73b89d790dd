"""Does a grey picture look like B-mode ultrasound at all? Declared bounds on its grey levels.

They turn away what plainly is none: blank frames, noise, drawings, pages of text, colour
photographs. A grey photograph with the grey levels of an ultrasound image passes, and so does a
photograph of a monitor. The distance from the training images (`unlike_training`) finds most of
the former and few of the latter; `tests/bench/gate.py` counts them, and a worklist says so.

Each bound leaves room beyond what 852 images of two public sets (breast and thyroid, several
machines) measure, which is given with it.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from thyro_core.errors import beyond
from thyro_core.imaging import grey_sums
from thyro_core.types import Grey

LEAST_SD = 8.0
"""Least standard deviation of the grey level [0 to 255]; below it a frame is blank. Seen: 28.7."""

LEAST_ENTROPY = 3.0
"""Least entropy of the grey levels of what is not black [bit]; below it: drawings, blank screens.
A sector on a large black screen has few pixels of its own. Seen: 5.1; 4.9 on screens with bars."""

MOST_BRIGHT = 0.3
"""Largest share of what is not black that is of grey level 200 and more; above it: pages, and
white text on black. Seen: 0.16."""

LEAST_COHERENCE = 0.6
"""Least correlation of neighbouring pixels, along rows and columns; below it: noise, small print.
A beam is wider than a pixel, so that speckle is smooth. Seen: 0.82."""

MOST_COLOUR = 0.35
"""Largest share of coloured pixels that colour flow has; above it: colour photographs. Seen: 0."""

_BRIGHT_LEVEL = 200
# Screens are black but for a few levels: one, or what JPEG leaves.
_BLACK_LEVELS = 4
_WINDOW = 1024


def ultrasound_fault(grey: Grey, overlay_share: float) -> str | None:
    """What keeps a picture from being B-mode ultrasound, with what was expected; None: nothing.

    Args:
        grey: (H, W).
        overlay_share: share of coloured pixels (see `thyro_core.imaging.quality`).
    """
    counts = np.array(Image.fromarray(grey).histogram())
    lit_counts = counts[_BLACK_LEVELS:]
    n_lit = max(1, int(lit_counts.sum()))
    bright = float(counts[_BRIGHT_LEVEL:].sum() / n_lit)
    sd, bits, smooth = _standard_deviation(counts), _entropy(lit_counts / n_lit), coherence(grey)
    measures = (
        (sd < LEAST_SD, "standard deviation {}, expected at least {:g}", sd, LEAST_SD, 1),
        (bits < LEAST_ENTROPY, "entropy {} bit, expected at least {:g}", bits, LEAST_ENTROPY, 2),
        (
            bright > MOST_BRIGHT,
            "share of bright pixels {} of what is not black, at most {:g}",
            bright,
            MOST_BRIGHT,
            2,
        ),
        (
            smooth < LEAST_COHERENCE,
            "correlation of neighbours {}, expected at least {:g}",
            smooth,
            LEAST_COHERENCE,
            2,
        ),
        (
            overlay_share > MOST_COLOUR,
            "share of coloured pixels {}, at most {:g}",
            overlay_share,
            MOST_COLOUR,
            2,
        ),
    )
    return next(
        (
            text.format(beyond(value, bound, decimals), bound)
            for is_failed, text, value, bound, decimals in measures
            if is_failed
        ),
        None,
    )


def _standard_deviation(counts: npt.NDArray[np.int64]) -> float:
    levels = np.arange(len(counts))
    return grey_sums.mean_and_sd(*(int(counts @ levels**power) for power in range(3)))[1]


def _entropy(histogram: npt.NDArray[np.float64]) -> float:
    shares = histogram[histogram > 0]
    return float(-(shares * np.log2(shares)).sum())


def coherence(grey: Grey) -> float:
    """Correlation of each pixel with the next one: the smaller of along rows and along columns.

    Of a longer side only the middle 1024 pixels count.

    Args:
        grey: (H, W).

    Returns:
        From -1 to 1; 0 where it is undefined (no contrast, or a single row or column).
    """
    top, left = (max(0, (side - _WINDOW) // 2) for side in grey.shape)
    middle = grey[top : top + _WINDOW, left : left + _WINDOW]
    return min(_correlation(middle[:, 1:], middle[:, :-1]), _correlation(middle[1:], middle[:-1]))


def _correlation(one: Grey, other: Grey) -> float:
    if not one.size:
        return 0.0
    n, totals = one.size, [grey_sums.total(pixels) for pixels in (one, other)]
    spreads = (
        n * grey_sums.squares(pixels) - first**2
        for pixels, first in zip((one, other), totals, strict=True)
    )
    scale = math.prod(math.sqrt(spread) for spread in spreads)
    covariance = n * grey_sums.products(one, other) - math.prod(totals)
    return covariance / scale if scale > 0 else 0.0
