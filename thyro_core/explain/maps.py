"""Grad-CAM maps as a table: checked when they are written, restored when they are read.

Without torch: reports and overlays read maps without a network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thyro_core.config import CLASS_NAMES
from thyro_core.errors import ThyroError
from thyro_core.tables import schemas
from thyro_core.types import Float32Array

_LISTED_POSITIONS = 5


class CamError(ThyroError):
    """A Grad-CAM map is missing or holds a value that no map can hold."""


def check_maps(maps: npt.NDArray[np.floating], n: int) -> None:
    """Refuse maps that are not whole: a missing map is not a map without evidence.

    Args:
        maps: n x 2 x h x w.
        n: images that there must be maps of.

    Raises:
        CamError: a map is missing, has no cell, or holds NaN, infinity or a negative value; the
            message names the positions of the first few images, counted from 0.
    """
    expectation = f"expected {n} x {len(CLASS_NAMES)} Grad-CAM maps"
    cure = "nothing is kept of this job; check the model's weights"
    if maps.ndim != 4 or maps.shape[:2] != (n, len(CLASS_NAMES)) or (n > 0 and maps.size == 0):
        msg = f"{expectation}, found an array of shape {maps.shape}; {cure}"
        raise CamError(msg)
    is_whole = (np.isfinite(maps) & (maps >= 0)).all(axis=(1, 2, 3))
    positions = np.flatnonzero(~is_whole).tolist()
    if positions:
        first = ", ".join(map(str, positions[:_LISTED_POSITIONS]))
        more = ", ..." if len(positions) > _LISTED_POSITIONS else ""
        msg = (
            f"{expectation} of finite values of at least 0, found others in {len(positions)}: "
            f"images at positions {first}{more}; {cure}"
        )
        raise CamError(msg)


def cams_table(
    keys: Mapping[str, str | int], image_ids: Sequence[str], layer: str, maps: Float32Array
) -> pa.Table:
    """The table `cams` of one run: a row an image and class, images in the order given.

    A map is stored as its share of its own peak, in float16, with the peak beside it. Raw values
    in float16 would become infinite above 65504 and lose digits below 6e-5, all of them below
    3e-8; networks at random starts have such maps. Shares are exact to 2^-11 for cells above 6e-5
    of the peak and to 3e-8 of the peak below, whatever the magnitude. Zero stays zero: nothing is
    subtracted.

    Args:
        keys: study_id, split and architecture.
        image_ids: one an image.
        layer: the module's name, `models.last_layer(architecture)`.
        maps: raw maps, float32, n x 2 x h x w.

    Returns:
        2 n rows of the registered table.

    Raises:
        CamError: a map is missing, or holds NaN, infinity or a negative value.
    """
    check_maps(maps, len(image_ids))
    height, width = maps.shape[2:]
    rows = len(image_ids) * len(CLASS_NAMES)
    flat = maps.reshape(rows, height * width).astype(np.float64)
    peaks = flat.max(axis=1, initial=0.0)
    shares = flat / np.where(peaks > 0, peaks, 1.0)[:, None]
    columns = {
        **{name: pa.repeat(pa.scalar(value), rows) for name, value in keys.items()},
        "image_id": np.repeat(np.array(image_ids, dtype=object), len(CLASS_NAMES)),
        "target_class": np.tile(np.arange(len(CLASS_NAMES)), len(image_ids)),
        "layer": pa.repeat(pa.scalar(layer), rows),
        "height": np.full(rows, height),
        "width": np.full(rows, width),
        "map": list(shares.astype(np.float16)),
        "peak": peaks,
        "is_empty": peaks == 0,
    }
    schema = schemas.TABLES["cams"].schema
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def stored_maps(cams: pa.Table) -> Float32Array:
    """Raw maps of some rows of the table `cams`, in their order: float32, rows x h x w.

    Raises:
        ValueError: the rows are of maps of several sizes (architectures), or there are none.
    """
    sizes = set(zip(cams["height"].to_pylist(), cams["width"].to_pylist(), strict=True))
    if len(sizes) != 1:
        msg = f"expected rows of one architecture, found maps of sizes {sorted(sizes)}"
        raise ValueError(msg)
    ((height, width),) = sizes
    flat = cams["map"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    shares = flat.astype(np.float64).reshape(-1, height, width)
    raw: Float32Array = (shares * cams["peak"].to_numpy()[:, None, None]).astype(np.float32)
    return raw
