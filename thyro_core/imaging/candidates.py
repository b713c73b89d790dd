"""Which pairs of images may show the same picture: found without looking at every pair.

Signs of random sums of a feature's description make a code of 64 bits, in which alike features
differ in few (Charikar 2002, "Similarity estimation techniques from rounding algorithms"). Codes
are sorted, and each is compared with the next few; then they are rotated by some bits and sorted
again, so that another part of the code decides (after the same paper, section 5). Mirrored features
are brought into one hand first, so that they have one code. Two images are candidates if their
alike features propose the same shift and scale.

That search is not exact. Work and memory grow with the number of features, not of pairs; in a
larger set a place among the next few is harder to come by, and a pair with few features in common
may be missed. `tests/bench/near_duplicates.py` measures what is lost.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thyro_core.imaging.local_features import (
    LEAST_COSINE,
    MOST_OCTAVES,
    PATTERN,
    PATTERN_NORM,
    PLACE_STEPS,
    LocalFeatures,
    odd_columns,
)
from thyro_core.types import IntArray

Codes = npt.NDArray[np.uint64]

_BITS = 64
_ROTATIONS, _ROTATION = 16, 4  # how often codes are sorted, and bits between
_NEIGHBOURS = 6  # next codes that each is compared with
_DISTANCE = 14  # most bits in which codes of alike features differ
_PROPOSAL_PIXELS, _PROPOSAL_OCTAVES = 10.0, 0.5  # how near two proposals are: [pixels], [octaves]
_APART = 4.0  # how far two features of one image are, to count as two [pixels]
_VOTES = 4  # pairs of agreeing matches that suffice, however many disagree
_MATCHES = 24  # matches of a pair that are looked at
_SEED = 0
_ROWS_AT_ONCE = 1 << 18


class _Features(NamedTuple):
    """The features of all images, one after the other."""

    patterns: npt.NDArray[np.int8]
    """(n, PATTERN), in one hand."""
    owners: IntArray
    """(n,), the image."""
    places: npt.NDArray[np.int16]
    """(n, 3)."""
    mirrored: npt.NDArray[np.bool_]
    """(n,), whether the pattern was mirrored to be in that hand."""
    widths: IntArray
    """(n,), of the image [pixels]."""


def candidates(images: Sequence[LocalFeatures]) -> IntArray:
    """Pairs of images that may show the same picture.

    Args:
        images: their local features.

    Returns:
        int64 (pairs, 2), each row i < j, rows sorted, none twice.
    """
    counts = [len(image.places) for image in images]
    owners = np.repeat(np.arange(len(images)), counts)
    if len(owners) < 2:
        return np.empty((0, 2), np.int64)
    patterns = np.concatenate([image.patterns for image in images])
    places = np.concatenate([image.places for image in images])
    widths = np.repeat([image.width for image in images], counts)
    features = _Features(patterns, owners, places, _brought_into_one_hand(patterns), widths)
    return _agreeing(*_alike_features(features), features)


def _brought_into_one_hand(patterns: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Mirror, in place, patterns whose largest odd columns are negative; and which these are."""
    odd = odd_columns()
    mirrored = np.empty(len(patterns), np.bool_)
    for start in range(0, len(patterns), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        mirrored[rows] = (patterns[rows][:, odd].astype(np.int64) ** 3).sum(axis=1) < 0
        # -128 does not occur: the sign always fits.
        patterns[rows] *= np.where(mirrored[rows, None] & odd, np.int8(-1), np.int8(1))
    return mirrored


def _alike_features(features: _Features) -> tuple[IntArray, IntArray]:
    """Positions of alike features of two different images, the first one's smaller, sorted."""
    patterns, owners, places = features[:3]
    codes = _codes(patterns)
    owner_bits = np.uint64(max(1, int(len(codes) - 1).bit_length()))
    owner_mask = (np.uint64(1) << owner_bits) - np.uint64(1)
    numbers = np.arange(len(codes), dtype=np.uint64)
    pairs = [np.empty(0, np.int64)]
    for _ in range(_ROTATIONS):
        # Code and feature in one word: sorting words is ten times faster than sorting positions.
        order = (np.sort((codes & ~owner_mask) | numbers) & owner_mask).astype(np.int64)
        ordered = codes[order]
        for step in range(1, _NEIGHBOURS + 1):
            distance = np.bitwise_count(ordered[step:] ^ ordered[:-step])
            near = np.flatnonzero(distance <= _DISTANCE)
            first, second = order[near], order[near + step]
            low, high = np.minimum(first, second), np.maximum(first, second)
            pairs.append((low * len(codes) + high)[owners[low] != owners[high]])
        codes = codes << np.uint64(_ROTATION) | codes >> np.uint64(_BITS - _ROTATION)
        pairs = [_distinct(np.concatenate(pairs))]
    left, right = np.divmod(pairs[0], len(codes))
    alike = np.zeros(len(left), np.bool_)
    for start in range(0, len(left), _ROWS_AT_ONCE):
        i, j = (side[start : start + _ROWS_AT_ONCE] for side in (left, right))
        products = np.einsum("ij,ij->i", patterns[i], patterns[j], dtype=np.int32)
        octaves = np.abs(places[i, 2].astype(np.int32) - places[j, 2]) / PLACE_STEPS
        near = (products >= LEAST_COSINE * PATTERN_NORM**2) & (octaves <= MOST_OCTAVES)
        alike[start : start + _ROWS_AT_ONCE] = near
    return left[alike], right[alike]


def _distinct(numbers: IntArray) -> IntArray:
    """The different numbers, ascending; `np.unique` hashes them, which takes 30 times as long."""
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _codes(patterns: npt.NDArray[np.int8]) -> Codes:
    """uint64 (n,): signs of random sums, of whole numbers, so exact in whatever order."""
    signs, codes = _signs(), np.empty(len(patterns), np.uint64)
    for start in range(0, len(patterns), _ROWS_AT_ONCE):
        sums = patterns[start : start + _ROWS_AT_ONCE].astype(np.float32) @ signs
        codes[start : start + _ROWS_AT_ONCE] = np.packbits(sums > 0, axis=1).view(">u8")[:, 0]
    return codes


def _signs() -> npt.NDArray[np.float32]:
    """1 or -1, (PATTERN, _BITS); drawn from a stream that NumPy promises to keep."""
    raw = np.random.PCG64(_SEED).random_raw(PATTERN * _BITS // 64)
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8))
    return bits.reshape(PATTERN, _BITS).astype(np.float32) * 2 - 1


def _agreeing(left: IntArray, right: IntArray, features: _Features) -> IntArray:
    """Pairs of images whose alike features propose the same shift and scale.

    Print of one scanner agrees by chance now and then: at least half as many pairs of matches must
    agree as there are matches, or `_VOTES` of them.
    """
    _, owners, places, mirrored, widths = features
    n_images = int(owners[-1]) + 1
    keys = owners[left] * n_images + owners[right]
    order = np.argsort(keys, kind="stable")
    keys, left, right = keys[order], left[order], right[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else keys
    sizes = np.diff(np.append(starts, len(keys)))
    rank = np.arange(len(keys)) - np.repeat(starts, sizes)
    several = (np.repeat(sizes, sizes) > 1) & (rank < _MATCHES)
    keys, left, right = keys[several], left[several], right[several]
    crossed = mirrored[left] != mirrored[right]
    start, goal = (places[side].astype(np.float64) / PLACE_STEPS for side in (left, right))
    start[:, 0] = np.where(crossed, widths[left] - 1 - start[:, 0], start[:, 0])
    octaves = goal[:, 2] - start[:, 2]
    agreed = [np.empty(0, np.int64)]
    for step in range(1, _MATCHES):
        one, other = slice(None, -step), slice(step, None)
        together = (keys[one] == keys[other]) & (crossed[one] == crossed[other])
        rows = np.flatnonzero(together)
        rows = rows[np.abs(octaves[rows] - octaves[rows + step]) <= _PROPOSAL_OCTAVES]
        ends = [side[rows, :2] - side[rows + step, :2] for side in (start, goal)]
        # Two matches agree if each one's scale takes the way between the first image's features
        # to the way between the second image's.
        middle = 2 ** ((octaves[rows] + octaves[rows + step]) / 2)
        apart = np.abs(ends[0] * middle[:, None] - ends[1]).max(axis=1)
        two = np.minimum(*(np.abs(side).max(axis=1) for side in ends)) >= _APART
        agreed.append(keys[rows[(apart <= _PROPOSAL_PIXELS) & two]])
    pairs, votes = np.unique(np.concatenate(agreed), return_counts=True)
    matched, matches = np.unique(keys, return_counts=True)
    likely = (votes >= _VOTES) | (2 * votes >= matches[np.searchsorted(matched, pairs)])
    return np.stack(np.divmod(pairs[likely], n_images), axis=1)
