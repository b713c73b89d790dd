"""How one picture lies over another, from the local features that they share.

Every pair of alike features proposes a scale and a shift; the one that most others agree with is
refined to a similarity (shift, scale and a few degrees of rotation), after one of the symmetries of
the square. All proposals are tried: no random choice is made.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thyro_core.imaging.local_features import (
    LEAST_COSINE,
    MOST_OCTAVES,
    PATTERN_NORM,
    PLACE_STEPS,
    LocalFeatures,
)
from thyro_core.imaging.pattern_symmetry import change_patterns
from thyro_core.imaging.symmetry import TRANSPOSE, inverse, move_places
from thyro_core.types import FloatArray

_NEARNESS = 8.0  # how near a proposal must bring a feature: 3 degrees move a corner by 7 [pixels]
_NEAR, _NEAR_SIZES = 1.5, 0.4  # how near the similarity must: [pixels], and [sizes]
_SIZE_OCTAVES = 0.4  # how much the sizes may differ from the similarity's scale
_TURN = 0.12  # largest sine of the rotation
_PROPOSALS = 4
_ROUNDS = 3


@dataclass(frozen=True)
class Alignment:
    """A similarity that brings one image over another.

    Attributes:
        n_shared: features that it brings together, each counted once.
        turn: scale and rotation, as the complex number that a place x + iy is multiplied by.
        shift: added to it afterwards, x + iy [pixels of the scaled image].
        symmetry: what is done to the first image before, see `thyro_core.imaging.symmetry`.
    """

    n_shared: int
    turn: complex
    shift: complex
    symmetry: int


def align(
    one: LocalFeatures, other: LocalFeatures, least: int = 2, *, symmetry: int = 0
) -> Alignment:
    """The similarity that brings most features of `one` to alike ones of `other`.

    Args:
        one: the image that is moved.
        other: the image that stays.
        least: matches that must propose one scale and shift; with fewer nothing is aligned.
        symmetry: what is done to `one` first.
    """
    left = change_patterns(one.patterns, symmetry).astype(np.float32)
    right = other.patterns.astype(np.float32)
    places = [features.places / PLACE_STEPS for features in (one, other)]
    reach = one.width - 1.0, one.height - 1.0
    # Refined to beyond the edge, a place would be brought before the first pixel.
    places[0][:, :2] = np.abs(move_places(places[0][:, :2], *reach, symmetry))
    octaves = np.subtract.outer(-places[0][:, 2], -places[1][:, 2])
    # The sums are of whole numbers below 2^24: float32 holds them exactly.
    alike = (left @ right.T >= LEAST_COSINE * PATTERN_NORM**2) & (np.abs(octaves) <= MOST_OCTAVES)
    i, j = np.nonzero(alike)
    best = Alignment(0, 1 + 0j, 0j, symmetry)
    if len(i) < 2:
        return best
    start = places[0][i, 0] + 1j * places[0][i, 1]
    goal = places[1][j, 0] + 1j * places[1][j, 1]
    scale, size = octaves[i, j], 2 ** places[1][j, 2]
    is_proposed = _supporters(start, goal, scale)
    support = is_proposed.sum(axis=1)
    if support.max() < least:
        return best
    for k in np.argsort(-support, kind="stable")[:_PROPOSALS]:
        near = is_proposed[k]
        for _ in range(_ROUNDS):
            fit = _similarity(start[near], goal[near])
            if fit is None:
                break
            turn, shift = fit
            before = near
            near = np.abs(turn * start + shift - goal) <= _NEAR + _NEAR_SIZES * size
            near &= np.abs(scale - np.log2(np.abs(turn))) <= _SIZE_OCTAVES
            n_shared = min(len(set(i[near].tolist())), len(set(j[near].tolist())))
            if n_shared > best.n_shared:
                best = Alignment(n_shared, turn, shift, symmetry)
            if np.array_equal(near, before):
                break
    return best


def _supporters(
    start: npt.NDArray[np.complex128], goal: npt.NDArray[np.complex128], scale: FloatArray
) -> npt.NDArray[np.bool_]:
    """Which matches (columns) each match's scale and shift (rows) bring about together."""
    factor = 2**scale
    shift = goal - factor * start
    apart = factor[:, None] * start + shift[:, None] - goal
    near = np.maximum(np.abs(apart.real), np.abs(apart.imag)) <= _NEARNESS
    return near & (np.abs(np.subtract.outer(scale, scale)) <= _SIZE_OCTAVES)


def _similarity(
    start: npt.NDArray[np.complex128], goal: npt.NDArray[np.complex128]
) -> tuple[complex, complex] | None:
    """Turn and shift of least squares (Umeyama 1991, in the plane); None: undetermined, or far."""
    if len(start) < 2:
        return None
    middle, target = start.mean(), goal.mean()
    spread = float((np.abs(start - middle) ** 2).sum())
    if spread < 1:
        return None
    turn = complex((np.conj(start - middle) * (goal - target)).sum() / spread)
    scale = abs(turn)
    if not 2**-MOST_OCTAVES <= scale <= 2**MOST_OCTAVES or abs(turn.imag) > _TURN * scale:
        return None
    return turn, complex(target - turn * middle)


def overlaps(
    one: LocalFeatures, other: LocalFeatures, alignment: Alignment, side: int
) -> tuple[FloatArray, FloatArray]:
    """A square grid over what two aligned images both show.

    Args:
        one: the first image's features; only its size is read.
        other: the second one's.
        alignment: of the first over the second.
        side: points along a side of the grid.

    Returns:
        For each image float64 (2, side, side): x and y of the grid's points, in shares of its
        width and height; all zero where they share nothing.
    """
    turn, shift, symmetry = alignment.turn, alignment.shift, alignment.symmetry
    width, height = one.width, one.height
    if symmetry & TRANSPOSE:
        width, height = height, width
    # Corners of the second image, seen in the first one, which the symmetry has changed.
    corners = np.array([0, other.width - 1, (other.height - 1) * 1j])
    corners = (np.append(corners, corners[1:].sum()) - shift) / turn
    x, y = corners.real, corners.imag
    left, right = max(0.0, (x[0] + x[2]) / 2), min(width - 1.0, (x[1] + x[3]) / 2)
    top, bottom = max(0.0, (y[0] + y[1]) / 2), min(height - 1.0, (y[2] + y[3]) / 2)
    nothing = np.zeros((2, side, side))
    if right <= left or bottom <= top:
        return nothing, nothing
    across = (np.arange(side) + 0.5) / side
    grid = np.add.outer(1j * (top + across * (bottom - top)), left + across * (right - left))
    target = turn * grid + shift
    own = np.stack([(grid.real + 0.5) / width, (grid.imag + 0.5) / height])
    flat = own.reshape(2, -1).T
    own = move_places(flat, 1.0, 1.0, inverse(symmetry)).T.reshape(own.shape)
    theirs = np.stack([(target.real + 0.5) / other.width, (target.imag + 0.5) / other.height])
    return own, theirs
