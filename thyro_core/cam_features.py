"""Features of highlighted regions: shape, grey levels and texture, each with its definition.

All of them live on the network's input: the whole image squashed to a square of uint8 grey levels.
Lengths are shares of the square's side, so that they mean the same at 224 and 299 pixels; shapes
are those seen by the network, not those in the body. They describe the *map's* region: a low
resolution map, enlarged, is round by construction, and no outline of a nodule.

What is undefined (no region, a single pixel's direction, pairs where there are none) is NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.ndimage import distance_transform_edt
from scipy.stats import entropy
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops

from thyro_core.regions import SHARES, Cam, Region, highlighted, upsampled

Grey = npt.NDArray[np.uint8]

RING = 0.05
"""Width of the surroundings, a share of the square's side."""

GREY_BINS = 32
"""Bins of 8 grey levels each, for the entropy and for co-occurrence."""

GLCM_DISTANCES: tuple[int, ...] = (1, 2)
"""Distances of co-occurring pixels [pixels], along rows, columns or both (chessboard)."""

_OVER_GLCMS = f"mean over distances {GLCM_DISTANCES} pixels and 4 directions"
_DOCS: dict[str, dict[str, str]] = {
    "shape": {
        "area": "Area, share of the image; above 0 to 1.",
        "perimeter": "Perimeter (Crofton, 4 directions), sides of the square; image edges count.",
        "circularity": "4 pi area / perimeter^2: 1 for a disc, less for ragged or long outlines; "
        "small regions can exceed 1 by rounding.",
        "eccentricity": "Eccentricity of the ellipse of equal second moments, 0 to 1.",
        "solidity": "Area / area of the convex hull: 1 for convex, less with bays; 0 to 1.",
        "extent": "Area / area of the upright bounding box, 0 to 1.",
        "aspect_ratio": "Height / width of the upright bounding box; above 1: taller than wide.",
        "compactness": "area^2 / (2 pi x second moment about the centroid): 1 for a disc, less the "
        "further area lies from its centre; unlike circularity, blind to a rough outline.",
        "orientation": "Angle of the long axis from the horizontal [rad]: 0 lying, pi/2 upright; "
        "left and right leaning are the same, so nothing wraps around; NaN without a long axis.",
    },
    "intensity": {
        "grey_mean": "Mean grey level inside, 0 to 255.",
        "grey_sd": "Standard deviation (population) of the grey level inside, 0 to 255.",
        "grey_contrast": f"Mean grey level inside - in a ring of {RING} sides around, -255 to 255 "
        "(gain adds to log-compressed ultrasound and cancels); NaN without surroundings.",
        "grey_entropy": f"Shannon entropy of {GREY_BINS} grey bins inside [bit], 0 to "
        f"{math.log2(GREY_BINS):g}.",
    },
    "texture": {
        "glcm_contrast": f"GLCM contrast, squared bins; {_OVER_GLCMS}.",
        "glcm_dissimilarity": f"GLCM dissimilarity, bins; {_OVER_GLCMS}.",
        "glcm_homogeneity": f"GLCM homogeneity (inverse difference), 0 to 1; {_OVER_GLCMS}.",
        "glcm_energy": f"GLCM energy (root of the angular second moment); {_OVER_GLCMS}.",
        "glcm_correlation": f"GLCM correlation, -1 to 1; {_OVER_GLCMS}; NaN: one bin only.",
    },
}

FEATURES: Mapping[str, str] = {name: family for family, docs in _DOCS.items() for name in docs}
"""Every feature's family: shape, intensity or texture; in the order of the columns."""

_COLUMNS = (
    ("study_id", pa.string(), "Study: hash of everything that changes its results."),
    ("split", pa.int32(), "Split number, from 0."),
    ("architecture", pa.string(), "resnet18, alexnet, vgg16 or inception_v3."),
    ("image_id", pa.string(), "SHA-256 of the file's bytes, hexadecimal."),
    ("label", pa.int8(), "0 benign, 1 malignant, null unlabelled."),
    ("threshold", pa.float64(), "Share of the map's peak above which the region lies."),
    *((name, pa.float64(), _DOCS[family][name]) for name, family in FEATURES.items()),
)

CAM_FEATURES_SCHEMA: pa.Schema = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _COLUMNS]
)
"""The table `cam_features`: a row is a test image x share of the peak."""

_ROUND = 1e-9
_HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")


def features(region: Region, grey: Grey) -> dict[str, float]:
    """All features of one region, under the names and in the order of `FEATURES`.

    Args:
        region: bool (H, W), as `regions.highlighted` gives it.
        grey: uint8 (H, W), the network's input before normalisation.

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
    found = _shape(region) | _intensity(region, grey) | _texture(region, grey)
    return {name: float(found[name]) for name in FEATURES}


def feature_rows(
    image_id: str, label: int | None, cam: Cam, grey: Grey, shares: Sequence[float] = SHARES
) -> list[dict[str, Any]]:
    """One image's rows for `features_table`, one a share of the peak.

    Args:
        image_id: Goes into every row.
        label: 0 benign, 1 malignant, None unlabelled.
        cam: float32 (h, w), the raw map of one class; choose the same class for every image, for
            the map of the true class would tell the answer.
        grey: uint8 (H, W), the network's input before normalisation.
        shares: Shares of the peak, each at least 0 and below 1.

    Raises:
        ValueError: see `regions.upsampled`, `regions.highlighted` and `features`.
    """
    large = upsampled(cam, *grey.shape)
    return [
        {"image_id": image_id, "label": label, "threshold": float(share)}
        | features(highlighted(large, share), grey)
        for share in shares
    ]


def features_table(keys: Mapping[str, str | int], rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of one split and architecture as table `cam_features`.

    Args:
        keys: study_id, split and architecture; they go into every row.
        rows: As `feature_rows` gives them.

    Returns:
        The table of `CAM_FEATURES_SCHEMA`, sorted by share and image: the order in which the
        images came leaves no trace.

    Raises:
        ValueError: keys and a row together do not name each column of the schema once.
    """
    full = [dict(keys) | dict(row) for row in rows]
    for row in full:
        odd = sorted(row.keys() ^ set(CAM_FEATURES_SCHEMA.names))
        if odd:
            msg = f"table cam_features: a row's columns differ from the schema's: {odd}"
            raise ValueError(msg)
    full.sort(key=lambda row: (row["threshold"], row["image_id"]))
    return pa.Table.from_pylist(full, schema=CAM_FEATURES_SCHEMA)


def _shape(region: Region) -> dict[str, float]:
    properties = regionprops(region.astype(np.uint8))[0]  # type: ignore[no-untyped-call]
    area, perimeter = float(properties.area), float(properties.perimeter_crofton)
    top, left, bottom, right = properties.bbox
    found = {
        "area": area / region.size,
        "perimeter": perimeter / math.sqrt(region.size),
        "extent": properties.extent,
        "aspect_ratio": (bottom - top) / (right - left),
    }
    if area == 1:
        undefined = ("circularity", "eccentricity", "solidity", "compactness", "orientation")
        return found | dict.fromkeys(undefined, math.nan)
    return found | {
        "circularity": 4 * math.pi * area / perimeter**2,
        "eccentricity": properties.eccentricity,
        "solidity": properties.solidity,
        "compactness": _compactness(area, properties.moments_central),
        "orientation": _orientation(properties.inertia_tensor_eigvals, properties.orientation),
    }


def _compactness(area: float, moments: npt.NDArray[np.float64]) -> float:
    """Area squared over the second moment that a disc of this area would have (Li et al. 2013).

    "An efficient measure of compactness for two-dimensional shapes and its application in
    regionalization problems", International Journal of Geographical Information Science 27.
    """
    # A pixel is a unit square, not a point: it adds 1/12 to the moment along each axis.
    second = moments[2, 0] + moments[0, 2] + area / 6
    return float(area**2 / (2 * math.pi * second))


def _orientation(moments: Sequence[float], from_vertical: float) -> float:
    long, short = moments
    # scikit-image's angle has a sign that says to which side.
    return math.nan if long - short <= _ROUND * long else math.pi / 2 - abs(from_vertical)


def _intensity(region: Region, grey: Grey) -> dict[str, float]:
    inside = grey[region]
    ring = _ring(region)
    outside = float(grey[ring].mean()) if ring.any() else math.nan
    bins = np.bincount(_binned(inside), minlength=GREY_BINS)
    return {
        "grey_mean": float(inside.mean()),
        "grey_sd": float(inside.std()),
        "grey_contrast": float(inside.mean()) - outside,
        "grey_entropy": float(entropy(bins, base=2)),
    }


def _binned(grey: Grey) -> Grey:
    return grey // np.uint8(256 // GREY_BINS)


def _ring(region: Region) -> Region:
    """The pixels outside whose centre is at most `RING` sides from one inside."""
    width = max(1.0, RING * math.sqrt(region.size))
    window = _window(region, math.ceil(width))
    ring = np.zeros_like(region)
    distance = distance_transform_edt(~region[window])
    ring[window] = (distance > 0) & (distance <= width)
    return ring


def _window(region: Region, margin: int) -> tuple[slice, slice]:
    """The region's bounding box with a margin, cut at the image's edge."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


def _texture(region: Region, grey: Grey) -> dict[str, float]:
    """Haralick's features (1973), pairs with both pixels inside the region only."""
    pairs = _cooccurrence(region, grey)
    some = pairs.sum(axis=(0, 1)) > 0
    found = {name: graycoprops(pairs, name) for name in _HARALICK}  # type: ignore[no-untyped-call]
    # One bin alone has the energy 1, and no spread that a correlation could be relative to.
    defined = {"correlation": some & (found["energy"] < 1)}
    return {
        f"glcm_{name}": _mean(values[defined.get(name, some)]) for name, values in found.items()
    }


def _cooccurrence(region: Region, grey: Grey) -> npt.NDArray[np.uint32]:
    """(bins, bins, distances, 4): how often two bins lie a distance apart in a direction."""
    window = _window(region, 0)
    # Bin 0 is set free for what lies outside, and taken off again with all its pairs.
    bins = np.where(region, _binned(grey) + np.uint8(1), np.uint8(0))[window]
    distances = np.array(GLCM_DISTANCES, dtype=np.float64)
    straight = _pairs(bins, distances, (0, math.pi / 2))
    # scikit-image rounds Euclidean steps: 2 along a diagonal would be one pixel again.
    diagonal = _pairs(bins, distances * math.sqrt(2), (math.pi / 4, 3 * math.pi / 4))
    return np.concatenate([straight, diagonal], axis=3)[1:, 1:]


def _pairs(
    bins: Grey, distances: npt.NDArray[np.float64], angles: Sequence[float]
) -> npt.NDArray[np.uint32]:
    found: npt.NDArray[np.uint32] = graycomatrix(  # type: ignore[no-untyped-call]
        bins, distances, angles, levels=GREY_BINS + 1, symmetric=True
    )
    return found


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else math.nan
