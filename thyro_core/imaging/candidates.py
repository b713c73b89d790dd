"""Which pairs of images may show the same frame; of many, found without looking at every pair.

Up to `EXACT` images every pair of hashes is looked at: in sets of a study's usual size nothing near
is missed. In larger ones a descriptor is looked at through a window, as the lowest waves of its
cosine transform: borders and what a crop moves count little. Random sums of the waves give bits by
their signs (Charikar 2002, "Similarity estimation techniques from rounding algorithms"), 28 bits a
table. In each table an image stands under its own code and under those that the few bits nearest to
a change of sign could make of it (Lv et al. 2007, "Multi-probe LSH"). Images that meet under a code
in any table, and whose perceptual hashes are near, are candidates.

That search is not exact, at no bound of the hash. What it assumes: a copy moves the waves by less
than strangers differ. Of 2,890 changed copies of real images that hash and correlation accept
(crops of up to 5 % a side, re-encoding, brightness and contrast, burned-in marks, rescaling, and
these together) it lost none; they are of 426 images, and its numbers were chosen on them, so other
sets may fare worse. Two images with the same descriptor always meet.
`tests/bench/near_duplicates.py` measures it anew.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from thyro_core.types import FloatArray, IntArray

Descriptors = npt.NDArray[np.int8]
Hashes = npt.NDArray[np.uint64]

EXACT = 2000
"""Images up to which every pair is looked at."""

_TABLES, _BITS, _UNSURE = 8, 28, 6
_WAVES = 64
_DAMPING = 0.01  # of a wave's weight, per squared frequency [half cycles a side]
_WINDOW = 0.25  # its standard deviation [share of the side]
_SEED = 0
_UNIT = 2.0**16  # Weights are whole numbers: sums are exact, in whatever order they are taken.
_OWNER_BITS = np.uint64(36)
_ROWS_AT_ONCE = 4096
_PAIRS_AT_ONCE = 2_000_000


def candidates(descriptors: Descriptors, hashes: Hashes, distance: int) -> IntArray:
    """Pairs of images that may show the same frame.

    Whether two images are a pair depends on these two, and on whether there are more than `EXACT`
    images; not on the others or their order.

    Args:
        descriptors: int8 (n, side, side).
        hashes: uint64 (n,), their perceptual hashes.
        distance: largest Hamming distance of the hashes [bits].

    Returns:
        int64 (pairs, 2), each row i < j, rows sorted, none twice.
    """
    if len(hashes) <= EXACT:
        return _near(hashes, distance)
    return approximate_candidates(descriptors, hashes, distance)


def approximate_candidates(descriptors: Descriptors, hashes: Hashes, distance: int) -> IntArray:
    """What `candidates` finds in a large set, whatever the number of images: nearly all of them.

    Whether two images are a pair depends on these two only. Arguments as for `candidates`.
    """
    waves = _waves(descriptors)
    pair_codes = [np.empty(0, np.int64)]
    for signs in _signs():
        for left, right in _meetings(_codes(waves @ signs)):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
            low, high = np.minimum(left, right)[near], np.maximum(left, right)[near]
            pair_codes.append(np.unique(low * len(hashes) + high))
    pairs = np.unique(np.concatenate(pair_codes))
    return np.stack(np.divmod(pairs, max(len(hashes), 1)), axis=1)


def _near(hashes: Hashes, distance: int) -> IntArray:
    """All pairs within a distance, one image's row of the upper triangle at a time."""
    rows = [
        np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ own) <= distance) + i + 1
        for i, own in enumerate(hashes)
    ]
    left = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    right = np.concatenate([np.empty(0, np.int64), *rows])
    return np.stack([left, right], axis=1).astype(np.int64)


def _waves(descriptors: Descriptors) -> FloatArray:
    """Whole numbers, (n, _WAVES): the windowed descriptors' lowest waves, the constant left out."""
    n, side = len(descriptors), descriptors.shape[-1]
    across = np.linspace(-0.5, 0.5, side, endpoint=False) + 0.5 / side
    cosines = dct(np.eye(side), axis=0, norm="ortho") * np.exp(-0.5 * (across / _WINDOW) ** 2)
    squared = np.add.outer(np.arange(side) ** 2, np.arange(side) ** 2)
    y, x = np.divmod(np.argsort(squared, axis=None, kind="stable")[1 : 1 + _WAVES], side)
    damping = np.exp(-_DAMPING * squared[y, x])
    weights = np.rint(_UNIT * damping[:, None, None] * cosines[y, :, None] * cosines[x, None, :])
    pixels = descriptors.reshape(n, side * side)
    waves = np.empty((n, _WAVES))
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        waves[rows] = pixels[rows].astype(np.float64) @ weights.reshape(_WAVES, -1).T
    return waves


def _signs() -> FloatArray:
    """1 or -1, (_TABLES, _WAVES, _BITS); drawn from a stream that NumPy promises to keep."""
    raw = np.random.PCG64(_SEED).random_raw(_TABLES * _WAVES * _BITS // 64)
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8))
    signs: FloatArray = bits.reshape(_TABLES, _WAVES, _BITS).astype(np.float64) * 2 - 1
    return signs


def _codes(sums: FloatArray) -> Hashes:
    """An image's code, and what flips of its least sure bits make of it: uint64 (n, 2**_UNSURE)."""
    places = np.uint64(1) << np.arange(_BITS, dtype=np.uint64)
    codes: Hashes = np.where(sums > 0, places, np.uint64(0)).sum(axis=1, dtype=np.uint64)[:, None]
    unsure = np.argsort(np.abs(sums), axis=1, kind="stable")[:, :_UNSURE]
    for flip in places[unsure].T:
        codes = np.concatenate([codes, codes ^ flip[:, None]], axis=1)
    return codes


def _meetings(codes: Hashes) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of rows with a code in common, in portions; a pair may come more than once."""
    owners = np.arange(len(codes), dtype=np.uint64)[:, None]
    # Code and owner in one word: sorting words is ten times faster than sorting positions.
    entries = np.sort((codes << _OWNER_BITS | owners).ravel())
    keys = entries >> _OWNER_BITS
    rows = (entries & ((np.uint64(1) << _OWNER_BITS) - np.uint64(1))).astype(np.int64)
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
    later = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(keys)) - 1
    reach = np.cumsum(later)
    start = 0
    while start < len(keys):
        done = reach[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(reach, done + _PAIRS_AT_ONCE, side="right")))
        counts = later[start:stop]
        left = np.repeat(np.arange(start, stop), counts)
        right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield rows[left], rows[right]
        start = stop
