"""Features of highlighted regions: shape, grey levels and texture, each with its definition.

Grey levels and texture live on the network's input: a square of uint8, with black around what is
padded. Shapes have the proportions of the image as it came: a squash is undone, for taller than
wide is a criterion of its own. Lengths are shares of the root of the area of image or square, so
that they mean the same at 224 and 299 pixels. They describe the *map's* region: a low resolution
map, enlarged, is round by construction, and no outline of a nodule.

What is undefined (no region, a single pixel's direction, pairs where there are none) is NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.ndimage import distance_transform_edt, find_objects, label
from skimage.feature import graycomatrix
from skimage.measure import perimeter_crofton
from skimage.morphology import convex_hull_image

from thyro_core.explain.regions import SHARES, hot_spot, upsample
from thyro_core.tables.cam_columns import FEATURES, GLCM_DISTANCES, GREY_BINS, RING
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import BoolArray, Float32Array, Grey

_ROUND_SPREAD = 1e-9
_SPECK = 0.1  # least area of an outline, a share of the largest one's
_HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")


def region_features(
    region: BoolArray, grey: Grey, outline: BoolArray | None = None
) -> dict[str, float]:
    """All features of one region, under the names and in the order of `FEATURES`.

    Args:
        region: bool (H, W), as `regions.hot_spot` gives it.
        grey: uint8 (H, W), the network's input before normalisation.
        outline: bool, the region in the proportions that shapes are measured in; None: as it is.

    Returns:
        A value a feature, NaN where it is undefined; all are NaN for a region without a pixel.

    Raises:
        ValueError: region and grey are not two-dimensional, of one shape, bool and uint8.
    """
    if region.ndim != 2 or region.shape != grey.shape:
        msg = f"region and grey must be (H, W), found shapes {region.shape} and {grey.shape}"
        raise ValueError(msg)
    if region.dtype != np.bool_ or grey.dtype != np.uint8:
        msg = f"region and grey must be bool and uint8, found {region.dtype} and {grey.dtype}"
        raise ValueError(msg)
    if not region.any():
        return dict.fromkeys(FEATURES, math.nan)
    values = (
        _shape(region if outline is None else outline)
        | _intensity(region, grey)
        | _texture(region, grey)
    )
    return {name: float(values[name]) for name in FEATURES}


def feature_rows(
    image_id: str,
    label: int | None,
    cam: Float32Array,
    grey: Grey,
    shares: Sequence[float] = SHARES,
    *,
    height_to_width: float = 1.0,
) -> list[dict[str, Any]]:
    """One image's rows for `features_table`, one a share of the peak.

    Args:
        image_id: Goes into every row.
        label: 0 benign, 1 malignant, None unlabelled.
        cam: float32 (h, w), the raw map of one class; choose the same class for every image, for
            the map of the true class would tell the answer.
        grey: uint8 (H, W), the network's input before normalisation.
        shares: Shares of the peak, each at least 0 and below 1.
        height_to_width: of the image as it came [pixels over pixels], above 0; shapes are
            measured on the map enlarged to these proportions, on as many pixels as `grey` has.

    Raises:
        ValueError: see `regions.upsample`, `regions.hot_spot` and `region_features`.
    """
    large = upsample(cam, *grey.shape)
    stretch = math.sqrt(height_to_width * grey.shape[1] / grey.shape[0])
    size = (max(1, round(grey.shape[0] * stretch)), max(1, round(grey.shape[1] / stretch)))
    true = large if size == grey.shape else upsample(cam, *size)
    return [
        {"image_id": image_id, "label": label, "threshold": float(share)}
        | region_features(hot_spot(large, share), grey, hot_spot(true, share))
        for share in shares
    ]


def outline_aspects(mask: BoolArray, height_to_width: float) -> dict[str, float]:
    """Height over width of outlined nodules in their image's own pixels; above 1: taller than wide.

    Of the upright bounding box of a connected part of the mask: several nodules in one box would
    have the box's proportions, and none of theirs. Parts below a tenth of the largest one's area
    are specks, and no outlines.

    Args:
        mask: bool (H, W), of the image squashed to H x W.
        height_to_width: of the image as it came [pixels over pixels], above 0.

    Returns:
        `nodule_aspect`, of the largest part, and `nodule_tallest`, the largest of any: above 0;
        NaN for a mask without a pixel.
    """
    parts, _ = label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(parts.ravel())[1:]
    if not len(areas):
        return {"nodule_aspect": math.nan, "nodule_tallest": math.nan}
    squares = mask.shape[1] / mask.shape[0] * height_to_width
    aspects = [
        float((rows.stop - rows.start) / (columns.stop - columns.start) * squares)
        for rows, columns in find_objects(parts)
    ]
    outlines = np.flatnonzero(areas >= _SPECK * areas.max()).tolist()
    return {
        "nodule_aspect": aspects[int(areas.argmax())],
        "nodule_tallest": max(aspects[part] for part in outlines),
    }


def features_table(keys: Mapping[str, str | int], rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of one split and architecture as table `cam_features`.

    Args:
        keys: study_id, split and architecture; they go into every row.
        rows: As `feature_rows` gives them.

    Returns:
        The table, sorted by share and image: the order of the images does not matter.

    Raises:
        ValueError: keys and a row together do not name each column of the schema once.
    """
    full = [dict(keys) | dict(row) for row in rows]
    full.sort(key=lambda row: (row["threshold"], row["image_id"]))
    return rows_to_table("cam_features", full)


def _shape(region: BoolArray) -> dict[str, float]:
    window = region[_window(region, 0)]
    height, width = window.shape
    area = int(window.sum())
    perimeter = float(perimeter_crofton(window))  # type: ignore[no-untyped-call]
    values = {
        "area": area / region.size,
        "perimeter": perimeter / math.sqrt(region.size),
        "extent": area / window.size,
        "aspect_ratio": height / width,
    }
    if area == 1:
        undefined_names = ("circularity", "eccentricity", "solidity", "compactness", "orientation")
        return values | dict.fromkeys(undefined_names, math.nan)
    return values | {
        "circularity": 4 * math.pi * area / perimeter**2,
        "solidity": area / int(convex_hull_image(window).sum()),  # type: ignore[no-untyped-call]
        **_ellipse(window, area),
    }


def _ellipse(window: BoolArray, area: int) -> dict[str, float]:
    """What follows from the second central moments of the pixels' centres."""
    down, across = (window.sum(axis=axis) for axis in (1, 0))
    y, x = (np.arange(len(line)) - line @ np.arange(len(line)) / area for line in (down, across))
    vertical, horizontal = float(down @ y**2) / area, float(across @ x**2) / area
    mixed_moment = float(y @ window @ x) / area
    spread = math.hypot((vertical - horizontal) / 2, mixed_moment)
    long, short = (vertical + horizontal) / 2 + spread, (vertical + horizontal) / 2 - spread
    # A pixel is a unit square, not a point: it adds 1/12 to the moment along each axis.
    second = area * (vertical + horizontal + 1 / 6)
    return {
        "eccentricity": math.sqrt(1 - max(0.0, short) / long),
        # Area squared over the second moment that a disc of this area would have (Li et al. 2013,
        # "An efficient measure of compactness for two-dimensional shapes and its application in
        # regionalization problems", International Journal of Geographical Information Science 27).
        "compactness": area**2 / (2 * math.pi * second),
        # Half the angle of (difference, mixed): 0 for a lying region, pi for an upright one.
        "orientation": math.nan
        if 2 * spread <= _ROUND_SPREAD * long
        else math.atan2(abs(mixed_moment), (horizontal - vertical) / 2) / 2,
    }


def _intensity(region: BoolArray, grey: Grey) -> dict[str, float]:
    inside = grey[region]
    ring = _ring(region)
    outside = float(grey[ring].mean()) if ring.any() else math.nan
    counts = np.bincount(_grey_bins(inside), minlength=GREY_BINS)
    shares = counts[counts > 0] / inside.size
    return {
        "grey_mean": float(inside.mean()),
        "grey_sd": float(inside.std()),
        "grey_contrast": float(inside.mean()) - outside,
        "grey_entropy": float(-(shares * np.log2(shares)).sum()) + 0.0,
    }


def _grey_bins(grey: Grey) -> Grey:
    return grey // np.uint8(256 // GREY_BINS)


def _ring(region: BoolArray) -> BoolArray:
    """The pixels outside whose centre is at most `RING` sides from one inside."""
    width = max(1.0, RING * math.sqrt(region.size))
    window = _window(region, math.ceil(width))
    ring = np.zeros_like(region)
    distance = distance_transform_edt(~region[window])
    ring[window] = (distance > 0) & (distance <= width)
    return ring


def _window(region: BoolArray, margin: int) -> tuple[slice, slice]:
    """The region's bounding box with a margin, cut at the image's edge."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


def _texture(region: BoolArray, grey: Grey) -> dict[str, float]:
    """Haralick's features (1973), pairs with both pixels inside the region only."""
    counts = _cooccurrence(region, grey).reshape(GREY_BINS**2, -1).astype(np.float64)
    counts = counts[:, counts.any(axis=0)]
    if not counts.size:
        return {f"glcm_{name}": math.nan for name in _HARALICK}
    pairs = counts / counts.sum(axis=0)
    one, other = np.divmod(np.arange(GREY_BINS**2), GREY_BINS)
    steps = np.abs(one - other)
    contrast = steps**2 @ pairs
    # Symmetric: mean and variance of the one pixel are the other's too.
    mean = one @ pairs
    variance = one**2 @ pairs - mean**2
    # One bin alone has no spread that a correlation could be relative to.
    has_spread = (pairs > 0).sum(axis=0) > 1
    # E(a - b)^2 = 2 variance - 2 covariance.
    correlations = 1 - contrast[has_spread] / (2 * variance[has_spread])
    return {
        "glcm_contrast": float(contrast.mean()),
        "glcm_dissimilarity": float((steps @ pairs).mean()),
        "glcm_homogeneity": float((1 / (1 + steps**2) @ pairs).mean()),
        "glcm_energy": float(np.sqrt((pairs**2).sum(axis=0)).mean()),
        "glcm_correlation": float(correlations.mean()) if correlations.size else math.nan,
    }


def _cooccurrence(region: BoolArray, grey: Grey) -> npt.NDArray[np.uint32]:
    """(bins, bins, distances, 4): how often two bins lie a distance apart in a direction."""
    window = _window(region, 0)
    # Bin 0 stands for pixels outside the region; it is removed with all its pairs.
    bins = np.where(region, _grey_bins(grey) + np.uint8(1), np.uint8(0))[window]
    distances = np.array(GLCM_DISTANCES, dtype=np.float64)
    straight = _pairs(bins, distances, (0, math.pi / 2))
    # scikit-image rounds Euclidean steps: 2 along a diagonal would be one pixel again.
    diagonal = _pairs(bins, distances * math.sqrt(2), (math.pi / 4, 3 * math.pi / 4))
    return np.concatenate([straight, diagonal], axis=3)[1:, 1:]


def _pairs(
    bins: Grey, distances: npt.NDArray[np.float64], angles: Sequence[float]
) -> npt.NDArray[np.uint32]:
    counts: npt.NDArray[np.uint32] = graycomatrix(  # type: ignore[no-untyped-call]
        bins, distances, angles, levels=GREY_BINS + 1, symmetric=True
    )
    return counts
