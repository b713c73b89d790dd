"""How far an image lies from the training set, in the space of a network's last feature map.

The distance is the Euclidean one to the fifth nearest training embedding, after each dimension was
divided by its standard deviation over the training set ("deep k nearest neighbours" for
out-of-distribution detection: Sun, Ming, Zhu and Li 2022). It says that an image is unlike what
the network was trained on, not that its score is wrong.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial.distance import cdist

from thyro_core.types import FloatArray, IntArray

NEIGHBOURS = 5
"""Which nearest training embedding counts."""

QUANTILES: tuple[float, ...] = (0.9, 0.95, 0.99, 0.995, 1.0)
"""Shares of held-out training images that a card states the distance of."""

_BLOCK_ROWS = 256


def embedding_distance(reference: pa.Table, embeddings: npt.ArrayLike) -> FloatArray:
    """Distance of each image to its fifth nearest training embedding.

    With fewer than five training images the farthest of them counts.

    Args:
        reference: a bundle's reference set, with the column `embedding`.
        embeddings: (b, k), of the same network as the reference's.

    Returns:
        (b,), float64; NaN where an embedding is not finite.

    Raises:
        ValueError: the embeddings are not of the reference's k, or the reference is empty.
    """
    training = embedding_matrix(reference)
    images = np.asarray(embeddings, dtype=np.float64)
    if not len(training) or images.ndim != 2 or images.shape[1] != training.shape[1]:
        msg = (
            f"expected embeddings of shape (b, {training.shape[1]}), as the {len(training)} of the "
            f"reference set, found {images.shape}"
        )
        raise ValueError(msg)
    unit = _unit(training)
    place = min(NEIGHBOURS, len(training)) - 1
    blocks = [
        np.partition(d, place, axis=1)[:, place]
        for _, d in _blocks_of_distances(images, training, unit)
    ]
    distances = np.concatenate([*blocks, np.empty(0)])
    return np.where(np.isfinite(images).all(axis=1), distances, np.nan)


def training_distances(reference: pa.Table) -> FloatArray:
    """Each training image's own distance to the images of other groups: (n,), NaN: there are none.

    Images of one group (a patient, or near-duplicates) are no neighbours of each other: a new
    patient has no images in the training set.

    Args:
        reference: a bundle's reference set; without `group_id` (null) an image is its own group.
    """
    training = embedding_matrix(reference)
    groups = _group_numbers(reference)
    blocks = [np.empty(0)]
    for start, distances in _blocks_of_distances(training, training, _unit(training)):
        own = groups[start : start + len(distances), None] == groups[None, :]
        distances[own] = np.inf
        others = (~own).sum(axis=1)
        places = np.clip(np.minimum(NEIGHBOURS, others) - 1, 0, None)
        nearest = np.sort(
            np.partition(distances, min(NEIGHBOURS, len(training)) - 1, axis=1)[:, :NEIGHBOURS],
            axis=1,
        )
        values = nearest[np.arange(len(distances)), places]
        blocks.append(np.where(others > 0, values, np.nan))
    return np.concatenate(blocks)


def _group_numbers(reference: pa.Table) -> IntArray:
    """(n,): the same number for images of one group."""
    names = reference["group_id"].to_pylist()
    keys = [f"image {i}" if name is None else f"group {name}" for i, name in enumerate(names)]
    numbers: IntArray = np.unique(np.array(keys, dtype=str), return_inverse=True)[1].astype(
        np.int64
    )
    return numbers


def distance_bound(reference: pa.Table, quantile: float) -> float:
    """The distance that this share of the training set keeps within, leave-one-group-out.

    Only images that the embedding network was not itself trained on count (`held_out`), because
    training draws the others together: new images would seem too far. Of the empirical quantiles
    the upper one, so that at least the share lies within.

    Args:
        reference: a bundle's reference set.
        quantile: the share, 0 to 1.

    Returns:
        The distance; NaN where there are too few images to have one.

    Raises:
        ValueError: the quantile is outside 0 to 1.
    """
    if not 0.0 <= quantile <= 1.0:
        msg = f"expected a quantile of 0 to 1, found {quantile}"
        raise ValueError(msg)
    distances = training_distances(reference)
    held_out = np.asarray(reference["held_out"].to_numpy(), dtype=bool)
    if held_out.any():
        distances = distances[held_out]
    distances = distances[np.isfinite(distances)]
    return (
        float(np.quantile(distances, quantile, method="higher")) if distances.size else float("nan")
    )


def embedding_matrix(reference: pa.Table) -> FloatArray:
    """The column `embedding` as one array: (n, k), float64; (0, 0) for no rows."""
    column = reference["embedding"].combine_chunks()
    if not len(column):
        return np.empty((0, 0))
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: FloatArray = flat.astype(np.float64).reshape(len(column), -1)
    return matrix


def _unit(training: FloatArray) -> FloatArray:
    """(k,): what a dimension is divided by; one that never varies keeps its own unit."""
    sd: FloatArray = training.std(axis=0)
    return np.where(sd > 0, sd, 1.0)


def _blocks_of_distances(
    images: FloatArray, training: FloatArray, unit: FloatArray
) -> Iterator[tuple[int, FloatArray]]:
    """Start row and (rows, n) distances, block by block: the whole matrix may be large."""
    scaled_rows = training / unit
    for start in range(0, len(images), _BLOCK_ROWS):
        yield start, cdist(images[start : start + _BLOCK_ROWS] / unit, scaled_rows)
