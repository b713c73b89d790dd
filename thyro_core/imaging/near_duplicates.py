"""Near-duplicates: the same frame exported twice, with another crop, size, brightness or marks.

Two measures must agree, on pairs that `thyro_core.imaging.candidates` finds without comparing every
pair: a perceptual hash, and a correlation after registration. The second one is taken of the local
contrast, so that a shared fan shape, dark borders or a depth gradient do not merge strangers, and
after a small shift and stretch, so that a re-export with another crop still fits. The next frame of
the same sweep does not: that is a matter of patients, not of duplicates. Neither are mirror images
near-duplicates here: left and right lobes look alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dct
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from thyro_core.imaging.candidates import candidates
from thyro_core.types import Float32Array, IntArray

SIDE = 32
"""Side of a fingerprint's descriptor [pixels]."""

_HASH_SIDE = 8
_HASH_BITS = _HASH_SIDE**2
_GAP = 3
_FINE, _COARSE = 0.7, 2.0  # the band of detail compared [descriptor pixels]
_FLOOR = 0.5  # contrast that counts as none: rounding and coding in empty borders [grey levels]
_STEPS = 32.0  # steps of the int8 descriptor per unit of local contrast
_MARGIN = 3 / 32  # border left out, where crops, rulers and logos stand [share of the side]
_ROUNDS = 10  # of registration; the answer sheet's pairs settle within 8
_GLANCE_ROUNDS = 3
_GLANCE_SHARE = 0.5  # of the bound: what half the resolution must show to be looked at again
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of an image to find its near-duplicates (about 1 KB).

    Attributes:
        phash: perceptual hash (64 bit DCT) of the whole grey image, 16 hex digits.
        descriptor: int8 (SIDE, SIDE), local contrast in steps of 1/32; all zero: a flat image.
    """

    phash: str
    descriptor: npt.NDArray[np.int8]


def fingerprint(grey: npt.NDArray[np.uint8]) -> Fingerprint:
    """The fingerprint of a grey image, see `fingerprints`."""
    return fingerprints([grey])[0]


def fingerprints(greys: Sequence[npt.NDArray[np.uint8]]) -> list[Fingerprint]:
    """The fingerprints of grey images; one's does not depend on the others.

    Args:
        greys: uint8 (H, W), of any size; stretched to a square.

    Raises:
        ValueError: one is not a uint8 image with two axes and at least one pixel.
    """
    small = np.empty((len(greys), SIDE, SIDE), np.float32)
    lowest = np.empty((len(greys), SIDE, SIDE), np.uint8)
    for row, grey in enumerate(greys):
        if grey.dtype != np.uint8 or grey.ndim != 2 or grey.size == 0:
            msg = f"expected a uint8 (H, W) image with pixels, found {grey.dtype} {grey.shape}"
            raise ValueError(msg)
        reduced, box = _reduced(Image.fromarray(grey))
        small[row] = np.asarray(reduced.resize((SIDE, SIDE), Image.Resampling.BOX, box))
        lowest[row] = np.asarray(reduced.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box))
    steps = np.clip(np.rint(_local_contrast(small) * _STEPS), -127, 127).astype(np.int8)
    return [Fingerprint(*each) for each in zip(_hashes(lowest), steps, strict=True)]


def _hashes(lowest: npt.NDArray[np.uint8]) -> list[str]:
    """Perceptual hashes, as the package imagehash makes them of a single image."""
    waves = dct(dct(lowest, axis=1), axis=2)[:, :_HASH_SIDE, :_HASH_SIDE].reshape(-1, _HASH_BITS)
    bits = waves > np.median(waves, axis=1, keepdims=True)
    return [packed.tobytes().hex() for packed in np.packbits(bits, axis=1)]


def _reduced(picture: Image.Image) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Means of whole blocks, at least _GAP times SIDE along each side; and where the image ends.

    From all pixels the hash costs as much as decoding a JPEG, from these a tenth of it.
    """
    across, down = (max(1, side // (SIDE * _GAP)) for side in picture.size)
    return picture.reduce((across, down)), (0, 0, picture.width / across, picture.height / down)


def near_duplicates(
    fingerprints: Sequence[Fingerprint], hash_distance: int, correlation: float
) -> list[tuple[int, int]]:
    """Pairs of images that show the same frame.

    Args:
        fingerprints: one per image, in any order: the order only names the images.
        hash_distance: largest Hamming distance of the hashes [bits], 0 to 64. No pair is farther
            apart; up to `candidates.EXACT` images every nearer one is looked at, of more nearly
            every one. A crop of 5 % moves a hash by 4 to 16.
        correlation: lowest correlation of local contrast after registration, above 0, up to 1.

    Returns:
        Positions (i, j), i < j, sorted. A flat image has no pair: its correlation is undefined.

    Raises:
        ValueError: a bound is outside its range.
    """
    if not 0 <= hash_distance <= _HASH_BITS or not 0 < correlation <= 1:
        msg = f"expected 0..64 bits and 0 < correlation <= 1, found {hash_distance}, {correlation}"
        raise ValueError(msg)
    textured = np.array([k for k, item in enumerate(fingerprints) if item.descriptor.any()], int)
    hashes = np.array([int(fingerprints[k].phash, 16) for k in textured], np.uint64)
    descriptors = _stacked(fingerprints, textured)
    near = candidates(descriptors, hashes, hash_distance)
    matches = textured[near[_confirmed(descriptors, near, correlation)]]
    return [(int(i), int(j)) for i, j in matches]


def group_labels(pairs: Sequence[tuple[int, int]], n: int) -> IntArray:
    """Groups: images joined by a chain of pairs share a label.

    Args:
        pairs: positions (i, j) in 0..n-1.
        n: number of images.

    Returns:
        int64 (n,): labels 0, 1, ... in the order of each group's first image.

    Raises:
        ValueError: a pair names an image outside 0..n-1.
    """
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    outside = ends[((ends < 0) | (ends >= n)).any(axis=1)]
    if len(outside):
        msg = f"pair {tuple(outside[0].tolist())} names an image outside 0..{n - 1} of {n}"
        raise ValueError(msg)
    if n == 0:
        return np.empty(0, np.int64)
    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    labels = connected_components(links, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank: IntArray = np.argsort(np.argsort(first)).astype(np.int64)
    return rank[inverse]


def _local_contrast(grey: Float32Array) -> Float32Array:
    """Band-passed grey levels in units of their local spread; near 0 where there is only noise.

    Args:
        grey: (n, side, side).
    """
    fine, coarse = _blur(_FINE), _blur(_COARSE)
    detail = fine @ grey @ fine.T - coarse @ grey @ coarse.T
    spread = np.sqrt(coarse @ detail**2 @ coarse.T)
    return (detail / (spread + _FLOOR)).astype(np.float32)


@cache
def _blur(sigma: float) -> Float32Array:
    """A Gaussian filter along one side, as a matrix: several times faster on images so small."""
    matrix: Float32Array = gaussian_filter1d(np.eye(SIDE, dtype=np.float32), sigma, axis=0)
    return matrix


def _confirmed(
    descriptors: npt.NDArray[np.int8], pairs: IntArray, correlation: float
) -> npt.NDArray[np.bool_]:
    """Which pairs correlate enough; a glance at half the resolution spares most strangers."""
    confirmed = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(pairs)))
        left, right = (descriptors[pairs[rows, side]].astype(np.float32) for side in (0, 1))
        glance = _either_way(_halved(left), _halved(right), _GLANCE_ROUNDS)
        near = glance >= _GLANCE_SHARE * correlation
        there = registered_correlation(left[near], right[near]) >= correlation
        confirmed[rows[near][there]] = True
        again = np.flatnonzero(near)[~there]
        back = registered_correlation(right[again], left[again]) >= correlation
        confirmed[rows[again[back]]] = True
    return confirmed


def _stacked(fingerprints: Sequence[Fingerprint], positions: IntArray) -> npt.NDArray[np.int8]:
    size = (len(positions), SIDE, SIDE)
    return np.array([fingerprints[k].descriptor for k in positions], np.int8).reshape(size)


def _halved(images: Float32Array) -> Float32Array:
    rows = images[:, ::2] + images[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2]) / 4).astype(np.float32)


def _either_way(left: Float32Array, right: Float32Array, rounds: int) -> Float32Array:
    there = registered_correlation(left, right, rounds)
    back = registered_correlation(right, left, rounds)
    return np.maximum(there, back)


def registered_correlation(
    fixed: Float32Array, moving: Float32Array, rounds: int = _ROUNDS
) -> Float32Array:
    """Pearson correlation of descriptors after the best small shift and stretch along each axis.

    Inverse compositional Gauss-Newton (Baker and Matthews 2004, "Lucas-Kanade 20 years on").

    Args:
        fixed: float32 (n, side, side); its middle, without the margin, is sought.
        moving: float32 (n, side, side), where it is sought.
        rounds: steps of the search.

    Returns:
        float32 (n,), -1 to 1: the best correlation met on the way; 0 where there is no contrast.
    """
    side = fixed.shape[-1]
    margin = int(side * _MARGIN)
    middle = slice(margin, side - margin)
    target = _standard(fixed[:, middle, middle])
    grid = (np.arange(side, dtype=np.float32) - (side - 1) / 2)[middle]
    slopes = _slopes(target, grid)
    normal = slopes @ slopes.swapaxes(1, 2)
    solve = np.linalg.pinv(normal, rcond=1e-4, hermitian=True) @ slopes
    stretch = np.ones((len(fixed), 2), np.float32)
    shift = np.zeros((len(fixed), 2), np.float32)
    best = np.full(len(fixed), -1.0, np.float32)
    for _ in range(rounds):
        sample = _standard(_sampled(moving, grid, stretch, shift))
        best = np.maximum(best, (target * sample).sum(axis=(1, 2)))
        step = (solve @ (sample - target).reshape(len(fixed), grid.size**2, 1))[:, :, 0]
        stretch = np.clip(stretch / (1 + np.clip(step[:, :2], -0.2, 0.2)), 0.7, 1.4)
        shift = np.clip(shift - stretch * step[:, 2:], -side / 10, side / 10)
    return best


def _standard(images: Float32Array) -> Float32Array:
    """Images with mean 0 and norm 1; all zero where there is no contrast."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    result: Float32Array = centred / np.where(norm > 1e-6, norm, np.inf)
    return result


def _slopes(target: Float32Array, grid: Float32Array) -> Float32Array:
    """How each pixel answers to stretch (y, x) and shift (y, x): float32 (n, 4, pixels)."""
    along_y, along_x = np.gradient(target, axis=(1, 2))
    slopes = [along_y * grid[:, None], along_x * grid, along_y, along_x]
    return np.stack(slopes, axis=1).reshape(len(target), 4, grid.size**2)


def _sampled(
    images: Float32Array, grid: Float32Array, stretch: Float32Array, shift: Float32Array
) -> Float32Array:
    """Images at the shifted and stretched grid, by linear interpolation, 0 outside."""
    side = images.shape[-1]
    pixels = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    where = grid * stretch[:, :, None] + shift[:, :, None]
    weights = np.maximum(1 - np.abs(where[..., None] - pixels), 0).astype(np.float32)
    result: Float32Array = weights[:, 0] @ images @ weights[:, 1].swapaxes(1, 2)
    return result
