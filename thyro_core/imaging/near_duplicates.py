"""Near-duplicates: the same picture exported twice, or the next frame of the same sweep.

Images that have local features in common (`thyro_core.imaging.candidates`) are laid over each other
(`thyro_core.imaging.alignment`), mirrored and turned by quarters as their features say. What both
show is then compared pixel by pixel: the correlation of local contrast, so that a shared fan shape,
dark borders or a depth gradient do not merge strangers, after a small further shift and stretch.
Crops, zooms, frames of buttons, marks, gain and half of a dual view do not hide a copy. Where the
correlation is high it is the same picture; where it is lower, yet above what strangers reach, a
similar one: tissue that moved between two frames. Both belong on one side of a split.
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
from threadpoolctl import threadpool_limits

from thyro_core.imaging.alignment import align, overlaps
from thyro_core.imaging.candidates import candidates
from thyro_core.imaging.local_features import LocalFeatures, local_features, scale_down
from thyro_core.types import Float32Array, FloatArray, Grey, IntArray

SIDE = 32
"""Side of the square on which what two images share is compared [pixels]."""

THUMBNAIL = 64
"""Side of a fingerprint's thumbnail [pixels]."""

SAME_PICTURE = 0.95
"""Default of the least correlation that makes two images the same picture."""

SIMILAR = 0.75
"""Default of the least correlation that makes two images similar, so that they stay together.
Images of different patients of a public thyroid set (80,000 pairs) reach 0.70."""

_HASH_SIDE = 8
_HASH_BITS = _HASH_SIDE**2
_GAP = 3
_LEAST_SHARED = 5  # features that an alignment must bring together
_LEAST_SHARED_SIMILAR = 8  # and of images that are only similar
_FINE, _COARSE = 0.7, 2.0  # the band of detail compared [pixels of the square]
_FLOOR = 0.5  # contrast that counts as none: rounding and coding in empty borders [grey levels]
_MARGIN = 3 / 32  # border left out, where the two overlap by accident [share of the side]
_ROUNDS = 10  # of registration; the answer sheet's pairs settle within 8
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of an image to find its near-duplicates (about 11 KB).

    Attributes:
        phash: perceptual hash (64 bit DCT) of the whole grey image, 16 hex digits.
        features: its local features; none: a flat image, which has no near-duplicate.
        thumbnail: uint8 (THUMBNAIL, THUMBNAIL), the whole image squashed.
    """

    phash: str
    features: LocalFeatures
    thumbnail: Grey


@dataclass(frozen=True)
class NearDuplicate:
    """Two images of one set that belong together.

    Attributes:
        first: position of the one that comes first.
        second: position of the other.
        same_picture: whether it is the same picture; otherwise the two are only similar.
        correlation: of local contrast, where the two overlap.
        n_shared: local features that lie over each other.
        symmetry: what brings the first one to the second, see `thyro_core.imaging.symmetry`; 0:
            it lies as the other does.
    """

    first: int
    second: int
    same_picture: bool
    correlation: float
    n_shared: int
    symmetry: int


def fingerprint(grey: Grey) -> Fingerprint:
    """The fingerprint of a grey image, see `fingerprints`."""
    return fingerprints([grey])[0]


def fingerprints(greys: Sequence[Grey]) -> list[Fingerprint]:
    """The fingerprints of grey images; one's does not depend on the others.

    Args:
        greys: uint8 (H, W), of any size.

    Raises:
        ValueError: one is not a uint8 image with two axes and at least one pixel.
    """
    lowest = np.empty((len(greys), _HASH_SIDE * 4, _HASH_SIDE * 4), np.uint8)
    features, thumbnails = [], []
    for row, grey in enumerate(greys):
        if grey.dtype != np.uint8 or grey.ndim != 2 or grey.size == 0:
            msg = f"expected a uint8 (H, W) image with pixels, found {grey.dtype} {grey.shape}"
            raise ValueError(msg)
        block_means, box = _block_means(Image.fromarray(grey))
        lowest[row] = np.asarray(
            block_means.resize(lowest.shape[1:], Image.Resampling.LANCZOS, box)
        )
        small = scale_down(grey)
        features.append(local_features(small))
        square = Image.fromarray(small).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        thumbnails.append(np.asarray(square))
    return [Fingerprint(*each) for each in zip(_hashes(lowest), features, thumbnails, strict=True)]


def _hashes(lowest: npt.NDArray[np.uint8]) -> list[str]:
    """Perceptual hashes, as the package imagehash makes them of a single image."""
    waves = dct(dct(lowest, axis=1), axis=2)[:, :_HASH_SIDE, :_HASH_SIDE].reshape(-1, _HASH_BITS)
    bits = waves > np.median(waves, axis=1, keepdims=True)
    return [hash_bytes.tobytes().hex() for hash_bytes in np.packbits(bits, axis=1)]


def _block_means(picture: Image.Image) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Means of whole blocks, at least _GAP times 32 along each side; and where the image ends.

    From all pixels the hash costs as much as decoding a JPEG, from these a tenth of it.
    """
    across, down = (max(1, side // (_HASH_SIDE * 4 * _GAP)) for side in picture.size)
    return picture.reduce((across, down)), (0, 0, picture.width / across, picture.height / down)


def near_duplicates(
    fingerprints: Sequence[Fingerprint],
    same_picture: float = SAME_PICTURE,
    similar: float = SIMILAR,
) -> list[NearDuplicate]:
    """Pairs of images that show the same picture, or similar ones.

    Args:
        fingerprints: one per image, in any order: the order only names the images.
        same_picture: least correlation of local contrast, where two images overlap, of the same
            picture; above 0, up to 1.
        similar: least correlation of images that are only similar.

    Returns:
        Sorted by position. A flat image has no pair: its correlation is undefined.

    Raises:
        ValueError: a bound is outside its range.
    """
    if not (0 < similar <= 1 and 0 < same_picture <= 1):
        msg = f"expected correlations above 0, up to 1, found {same_picture}, {similar}"
        raise ValueError(msg)
    pairs = candidates([one.features for one in fingerprints])
    duplicates: list[NearDuplicate] = []
    with threadpool_limits(1, "blas"):  # products so small take longer on several threads
        for start in range(0, len(pairs), _BATCH):
            some = pairs[start : start + _BATCH]
            duplicates += _confirm(fingerprints, some, same_picture, similar)
    return duplicates


def _confirm(
    fingerprints: Sequence[Fingerprint], pairs: IntArray, same_picture: float, similar: float
) -> list[NearDuplicate]:
    """The pairs whose pictures correlate where they lie over each other."""
    squares = np.zeros((2, len(pairs), SIDE, SIDE), np.float32)
    alignments = []
    for row, (i, j, symmetry) in enumerate(pairs.tolist()):
        one, other = fingerprints[i], fingerprints[j]
        alignment = align(one.features, other.features, _LEAST_SHARED, symmetry=symmetry)
        alignments.append(alignment)
        if alignment.n_shared >= _LEAST_SHARED:
            grids = overlaps(one.features, other.features, alignment, SIDE)
            squares[0, row] = _interpolate(one.thumbnail, grids[0])
            squares[1, row] = _interpolate(other.thumbnail, grids[1])
    left, right = (_local_contrast(square) for square in squares)
    there, back = registered_correlation(left, right), registered_correlation(right, left)
    duplicates = []
    ends = pairs[:, :2].tolist()
    for (i, j), alignment, value in zip(ends, alignments, np.maximum(there, back), strict=True):
        is_similar = value >= similar and alignment.n_shared >= _LEAST_SHARED_SIMILAR
        if value >= same_picture or is_similar:
            facts = float(value), alignment.n_shared, alignment.symmetry
            duplicates.append(NearDuplicate(i, j, bool(value >= same_picture), *facts))
    return duplicates


def _interpolate(thumbnail: Grey, grid: FloatArray) -> Float32Array:
    """Grey levels at a grid (2, n, n) of x, y in shares of width and height, interpolated."""
    x, y = np.clip(grid * THUMBNAIL - 0.5, 0, THUMBNAIL - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, down = x - column, y - row
    upper = thumbnail[row, column] * (1 - right) + thumbnail[row, column + 1] * right
    lower = thumbnail[row + 1, column] * (1 - right) + thumbnail[row + 1, column + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


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


def registered_correlation(reference: Float32Array, moving: Float32Array) -> Float32Array:
    """Pearson correlation of descriptors after the best small shift and stretch along each axis.

    Inverse compositional Gauss-Newton (Baker and Matthews 2004, "Lucas-Kanade 20 years on").

    Args:
        reference: float32 (n, side, side); its middle, without the margin, is sought.
        moving: float32 (n, side, side), where it is sought.

    Returns:
        float32 (n,), -1 to 1: the best correlation met on the way; 0 where there is no contrast.
    """
    side = reference.shape[-1]
    margin = int(side * _MARGIN)
    middle = slice(margin, side - margin)
    target = _standard(reference[:, middle, middle])
    grid = (np.arange(side, dtype=np.float32) - (side - 1) / 2)[middle]
    slopes = _slopes(target, grid)
    normal = slopes @ slopes.swapaxes(1, 2)
    solve = np.linalg.pinv(normal, rcond=1e-4, hermitian=True) @ slopes
    stretch = np.ones((len(reference), 2), np.float32)
    shift = np.zeros((len(reference), 2), np.float32)
    best = np.full(len(reference), -1.0, np.float32)
    for _ in range(_ROUNDS):
        sample = _standard(_resample(moving, grid, stretch, shift))
        best = np.maximum(best, (target * sample).sum(axis=(1, 2)))
        step = (solve @ (sample - target).reshape(len(reference), grid.size**2, 1))[:, :, 0]
        stretch = np.clip(stretch / (1 + np.clip(step[:, :2], -0.2, 0.2)), 0.7, 1.4)
        shift = np.clip(shift - stretch * step[:, 2:], -side / 10, side / 10)
    return best


def _standard(images: Float32Array) -> Float32Array:
    """Images with mean 0 and norm 1; all zero where there is no contrast."""
    deviations = images - images.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((deviations**2).sum(axis=(1, 2), keepdims=True))
    result: Float32Array = deviations / np.where(norm > 1e-6, norm, np.inf)
    return result


def _slopes(target: Float32Array, grid: Float32Array) -> Float32Array:
    """How each pixel answers to stretch (y, x) and shift (y, x): float32 (n, 4, pixels)."""
    along_y, along_x = np.gradient(target, axis=(1, 2))
    slopes = [along_y * grid[:, None], along_x * grid, along_y, along_x]
    return np.stack(slopes, axis=1).reshape(len(target), 4, grid.size**2)


def _resample(
    images: Float32Array, grid: Float32Array, stretch: Float32Array, shift: Float32Array
) -> Float32Array:
    """Images at the shifted and stretched grid, by linear interpolation, 0 outside."""
    side = images.shape[-1]
    pixels = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    where = grid * stretch[:, :, None] + shift[:, :, None]
    weights = np.maximum(1 - np.abs(where[..., None] - pixels), 0).astype(np.float32)
    result: Float32Array = weights[:, 0] @ images @ weights[:, 1].swapaxes(1, 2)
    return result
