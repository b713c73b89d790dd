"""Which pairs of images may show the same picture: found without looking at every pair.

Features that are alike (`thyro_core.imaging.alike_features`) propose a shift and a scale; two
images are candidates if their alike features propose the same. Features are brought into one view
first, so that those of mirrored and turned copies are alike too.

A feature that is alike to far more others than most of its image is print, a ruler or the edge of
a scanner's fan. It is left out, or all images of one scanner would be candidates of each other. So
is a small part of an image that more than sixteen others show beside another picture.

`tests/bench/near_duplicates.py` measures what is lost.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from thyro_core.imaging.alike_features import alike_features
from thyro_core.imaging.local_features import PLACE_STEPS, LocalFeatures
from thyro_core.imaging.pattern_symmetry import bring_into_one_view
from thyro_core.imaging.symmetry import SYMMETRIES, Symmetries, between, move_places
from thyro_core.types import BoolArray, IntArray

_CROWD, _CROWD_FACTOR = 16, 4  # alike features of a common one, at least; in medians of its image
_CROWD_BITS = 32
_PROPOSAL_PIXELS, _PROPOSAL_OCTAVES = 10.0, 0.5  # how near two proposals are: [pixels], [octaves]
_PROPOSAL_SHARE = 0.1  # and share of the way between features, as their sizes are no exact scale
_APART = 4.0  # how far two features of one image are, to count as two [pixels]
_VOTES = 4  # pairs of agreeing matches that suffice, however many disagree
_MATCHES = 24  # matches of a pair that are looked at


class _Features(NamedTuple):
    """The features of all images, one after the other."""

    owners: IntArray
    """(n,), the image."""
    places: npt.NDArray[np.int16]
    """(n, 3)."""
    symmetries: Symmetries
    """(n,), what brought the pattern into one view."""
    sizes: IntArray
    """(images, 2), width and height [pixels]."""


def candidates(images: Sequence[LocalFeatures]) -> IntArray:
    """Pairs of images that may show the same picture.

    Args:
        images: their local features.

    Returns:
        int64 (pairs, 3): two images i < j, and the symmetry that most probably brings the first
        one to the second (`thyro_core.imaging.symmetry`); rows sorted, no pair twice.
    """
    counts = [len(image.places) for image in images]
    owners = np.repeat(np.arange(len(images)), counts)
    if len(owners) < 2:
        return np.empty((0, 3), np.int64)
    patterns = np.concatenate([image.patterns for image in images])
    places = np.concatenate([image.places for image in images])
    sizes = np.array([(image.width, image.height) for image in images])
    # Products so small take longer on several threads than on one, and here parts have their own.
    with threadpool_limits(1, "blas"):
        features = _Features(owners, places, bring_into_one_view(patterns), sizes)
        left, right = alike_features(patterns, places, owners)
    common = _common(left, right, owners)
    rare = ~(common[left] | common[right])
    return _agreeing(left[rare], right[rare], features)


def _common(left: IntArray, right: IntArray, owners: IntArray) -> BoolArray:
    """Which features are alike to far more others than most features of their image are."""
    crowd = np.bincount(left, minlength=len(owners)) + np.bincount(right, minlength=len(owners))
    sizes = np.bincount(owners)
    # Image and crowd in one number: sorted, an image's features lie together, least crowd first.
    sorted_keys = np.sort(owners << _CROWD_BITS | crowd)
    middle = np.minimum(np.cumsum(sizes) - sizes + sizes // 2, len(owners) - 1)
    median = sorted_keys[middle] & ((1 << _CROWD_BITS) - 1)
    return np.asarray((crowd > _CROWD) & (crowd > _CROWD_FACTOR * median[owners]))


def _agreeing(left: IntArray, right: IntArray, features: _Features) -> IntArray:
    """Pairs of images whose alike features propose the same shift and scale.

    Print of one scanner agrees by chance now and then: at least half as many pairs of matches must
    agree as there are matches, each feature counted once, or `_VOTES` of them.
    """
    owners, places, symmetries, image_sizes = features
    n_images = len(image_sizes)
    keys = owners[left] * n_images + owners[right]
    order = np.argsort(keys, kind="stable")
    keys, left, right = keys[order], left[order], right[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else keys
    sizes = np.diff(np.append(starts, len(keys)))
    rank = np.arange(len(keys)) - np.repeat(starts, sizes)
    several = (np.repeat(sizes, sizes) > 1) & (rank < _MATCHES)
    keys, left, right = keys[several], left[several], right[several]
    symmetry = between()[symmetries[left], symmetries[right]]
    start, goal = (places[side].astype(np.float64) / PLACE_STEPS for side in (left, right))
    width, height = image_sizes[owners[left]].T - 1
    start[:, :2] = move_places(start[:, :2], width, height, symmetry)
    octaves = goal[:, 2] - start[:, 2]
    agreements = [np.empty(0, np.int64)]
    for step in range(1, _MATCHES):
        one, other = slice(None, -step), slice(step, None)
        together = (keys[one] == keys[other]) & (symmetry[one] == symmetry[other])
        rows = np.flatnonzero(together)
        rows = rows[np.abs(octaves[rows] - octaves[rows + step]) <= _PROPOSAL_OCTAVES]
        ends = [side[rows, :2] - side[rows + step, :2] for side in (start, goal)]
        # Two matches agree if each one's scale takes the way between the first image's features
        # to the way between the second image's.
        middle = 2 ** ((octaves[rows] + octaves[rows + step]) / 2)
        apart = np.abs(ends[0] * middle[:, None] - ends[1]).max(axis=1)
        ways_long = [np.abs(side).max(axis=1) for side in ends]
        room = _PROPOSAL_PIXELS + _PROPOSAL_SHARE * ways_long[1]
        near = rows[(apart <= room) & (np.minimum(*ways_long) >= _APART)]
        agreements.append(keys[near] * len(SYMMETRIES) + symmetry[near])
    ways, votes = np.unique(np.concatenate(agreements), return_counts=True)
    # Of each pair the symmetry with most votes, the first of equal ones.
    order = np.lexsort((ways, -votes, ways // len(SYMMETRIES)))
    ways, votes = ways[order], votes[order]
    pairs, first = np.unique(ways // len(SYMMETRIES), return_index=True)
    ways, votes = ways[first], votes[first]
    matches = np.minimum(_different(keys, left), _different(keys, right))
    likely = (votes >= _VOTES) | (2 * votes >= matches[np.searchsorted(np.unique(keys), pairs)])
    first_image, second_image = np.divmod(pairs[likely], n_images)
    return np.stack([first_image, second_image, ways[likely] % len(SYMMETRIES)], axis=1)


def _different(keys: IntArray, side: IntArray) -> IntArray:
    """(pairs of images,): how many different features of one side each pair's matches have.

    Args:
        keys: (n,), the pair of images of each match, ascending.
        side: (n,), its feature of one of the two.
    """
    by_pair = side[np.lexsort((side, keys))]
    is_new = (np.diff(keys, prepend=-1) != 0) | (np.diff(by_pair, prepend=-1) != 0)
    return np.unique(keys[is_new], return_counts=True)[1]
