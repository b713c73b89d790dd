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

Array = npt.NDArray[np.float64]

NEIGHBOURS = 5
"""Which nearest training embedding counts."""

QUANTILES: tuple[float, ...] = (0.9, 0.95, 0.99, 0.995, 1.0)
"""Shares of held-out training images that a card states the distance of."""

_BLOCK = 256


def embedding_distance(reference: pa.Table, embeddings: npt.ArrayLike) -> Array:
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
    known = embedding_matrix(reference)
    asked = np.asarray(embeddings, dtype=np.float64)
    if not len(known) or asked.ndim != 2 or asked.shape[1] != known.shape[1]:
        msg = (
            f"expected embeddings of shape (b, {known.shape[1]}), as the {len(known)} of the "
            f"reference set, found {asked.shape}"
        )
        raise ValueError(msg)
    unit = _unit(known)
    place = min(NEIGHBOURS, len(known)) - 1
    blocks = [np.partition(d, place, axis=1)[:, place] for _, d in _distances(asked, known, unit)]
    found = np.concatenate([*blocks, np.empty(0)])
    return np.where(np.isfinite(asked).all(axis=1), found, np.nan)


def training_distances(reference: pa.Table) -> Array:
    """Each training image's own distance to the others: (n,), NaN if it is alone."""
    known = embedding_matrix(reference)
    if len(known) < 2:
        return np.full(len(known), np.nan)
    place = min(NEIGHBOURS, len(known) - 1) - 1
    blocks = []
    for start, distances in _distances(known, known, _unit(known)):
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        blocks.append(np.partition(distances, place, axis=1)[:, place])
    return np.concatenate(blocks)


def distance_bound(reference: pa.Table, quantile: float) -> float:
    """The distance that this share of the training set keeps within, leave-one-out.

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
    chosen = distances[held_out] if held_out.any() else distances
    chosen = chosen[np.isfinite(chosen)]
    return float(np.quantile(chosen, quantile, method="higher")) if chosen.size else float("nan")


def embedding_matrix(reference: pa.Table) -> Array:
    """The column `embedding` as one array: (n, k), float64; (0, 0) for no rows."""
    column = reference["embedding"].combine_chunks()
    if not len(column):
        return np.empty((0, 0))
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: Array = flat.astype(np.float64).reshape(len(column), -1)
    return matrix


def _unit(known: Array) -> Array:
    """(k,): what a dimension is divided by; one that never varies keeps its own unit."""
    sd: Array = known.std(axis=0)
    return np.where(sd > 0, sd, 1.0)


def _distances(asked: Array, known: Array, unit: Array) -> Iterator[tuple[int, Array]]:
    """Start row and (rows, n) distances, block by block: the whole matrix may be large."""
    scaled = known / unit
    for start in range(0, len(asked), _BLOCK):
        yield start, cdist(asked[start : start + _BLOCK] / unit, scaled)
