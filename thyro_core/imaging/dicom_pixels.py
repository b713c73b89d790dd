"""The pixels of one DICOM frame, as a grey picture of its tissue."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, RLELossless

from thyro_core.imaging.compressed import (
    RefusedError,
    check_compressed,
    compressed_frame,
    decoded_jpeg,
)
from thyro_core.imaging.lookup_tables import grey_table, palette_colours
from thyro_core.imaging.tissue import Box, tissue_overlay
from thyro_core.types import FloatArray, Grey

PHOTOMETRIC = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3,
    "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3, "YBR_PARTIAL_420": 3, "YBR_PARTIAL_422": 3,
}  # fmt: skip
"""Samples per pixel of each photometric interpretation that is read."""

_FULL_SCALE_LEVELS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
# Of C.8.5.5.1.1 and C.8.5.5.1.2 of PS3.3.
_TWO_DIMENSIONAL, _TISSUE = 1, 1
_SPATIAL_FORMATS = {2: "M-mode", 3: "spectral"}
_DATA_TYPES = {
    2: "colour flow", 3: "pulsed-wave Doppler", 4: "continuous-wave Doppler", 5: "Doppler mean",
    6: "Doppler mode", 7: "Doppler maximum",
}  # fmt: skip


@dataclass(frozen=True)
class FrameImage:
    """A picture.

    Attributes:
        grey: uint8 (H, W).
        overlay_share: Share of coloured pixels of the tissue, 0 to 1 (see
            `thyro_core.imaging.tissue`).
    """

    grey: Grey
    overlay_share: float


def frame_samples(dataset: Dataset, syntax: UID, index: int) -> tuple[npt.NDArray[Any], str]:
    """Samples of one frame: (H, W) of stored values, or (H, W, 3) in red, green and blue.

    Args:
        dataset: header and pixel data; its size and kind have been checked.
        syntax: how the pixels are packed.
        index: the frame's position, from 0.

    Returns:
        The samples, aligned to the lowest bit; and what they are: MONOCHROME1, MONOCHROME2,
        PALETTE COLOR or RGB.

    Raises:
        RefusedError: a compressed picture is larger than declared.
        TooLargeError: a JPEG has more scans than any encoder makes.
        Exception: what the libraries raise on damaged data (`decode.DECODER_ERRORS`).
    """
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    header = check_compressed(dataset, syntax, index)
    if header is not None and header.is_pictorial:
        array = decoded_jpeg(compressed_frame(dataset, index), header, photometric)
        return array, "RGB" if array.ndim == 3 else photometric
    if syntax.is_encapsulated and syntax != RLELossless:
        array, facts = get_decoder(syntax).as_array(dataset, index=index)
        return array, str(facts["photometric_interpretation"])
    # The library's own correction takes HighBit for BitsStored - 1.
    options: dict[str, Any] = {"correct_unused_bits": False}
    array, facts = get_decoder(syntax).as_array(dataset, index=index, **options)
    return _align_bits(array, dataset), str(facts["photometric_interpretation"])


def _align_bits(array: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Stored values without the bits above and below them (PS3.5, 8.1.1)."""
    bits_stored, high = int(dataset.BitsStored), dataset.get("HighBit")
    bits_allocated = 8 * array.dtype.itemsize
    high = bits_stored - 1 if high is None else int(high)
    if not bits_stored - 1 <= high < bits_allocated:
        msg = (
            f"HighBit {high} with {bits_stored} bits stored of {bits_allocated}: the file "
            "contradicts itself; export it again"
        )
        raise RefusedError(msg, "undecodable")
    if bits_stored == bits_allocated:
        return array
    # An arithmetic shift to the right repeats the sign.
    return (array << (bits_allocated - 1 - high)) >> (bits_allocated - bits_stored)


def frame_picture(
    array: npt.NDArray[Any], photometric: str, dataset: Dataset, box: Box | None
) -> FrameImage:
    """One frame, or a part of it, as grey levels.

    Grey values run through the modality's table or rescale and through window or VOI table if the
    file has them; else the range that its bits can hold is spread over 0 to 255 (of 16 bits: the
    smallest of 8, 10, 12, 14 and 16 bits that holds the peak, because 16 are often declared and
    seldom used). Colours become grey by ITU-R BT.601.

    Args:
        array: samples, see `frame_samples`.
        photometric: what they are.
        dataset: header; its size and kind have been checked.
        box: what to crop to, see `tissue_boxes`; None: nothing.

    Raises:
        RefusedError: a lookup table is damaged.
    """
    if photometric == "PALETTE COLOR":
        array = palette_colours(array, dataset)
    if box is not None:
        left, top, right, bottom = box
        array = array[top:bottom, left:right]
    if array.ndim == 2:
        return FrameImage(_grey(array, dataset, photometric), 0.0)
    return _colour(array, dataset)


def tissue_boxes(dataset: Dataset) -> tuple[tuple[Box, ...], str | None]:
    """Where a file declares two-dimensional tissue: left, top, right and bottom (exclusive).

    Regions that exceed the picture do not belong to it, as where pixels were downscaled and regions
    were not: then no box is trusted. One pixel is let pass: many name the first one outside.

    Returns:
        The boxes, from left to right, without those that lie in another one; none for the whole
        frame. And why the whole frame is taken though the file declares regions; else None.

    Raises:
        RefusedError: a region is of another mode, or none is of tissue.
    """
    regions = list(dataset.get("SequenceOfUltrasoundRegions") or ())
    if not regions:
        return (), None
    boxes = [box for region in regions if (box := _tissue(region)) is not None]
    if not boxes:
        kinds = "one" if len(regions) == 1 else f"{len(regions)}"
        msg = (
            f"its ultrasound regions ({kinds}) hold no two-dimensional tissue: export the B-mode "
            "image, or the file without its regions"
        )
        raise RefusedError(msg, "not_ultrasound")
    width, height = int(dataset.Columns), int(dataset.Rows)
    inside = [box for box in boxes if box[0] < width and box[1] < height]
    if not inside:
        msg = (
            f"its region of tissue begins at column {boxes[0][0]}, row {boxes[0][1]}, outside the "
            f"picture of {width} x {height} pixels: export it again, or without its regions"
        )
        raise RefusedError(msg, "not_ultrasound")
    if len(inside) < len(boxes) or any(b[2] > width + 1 or b[3] > height + 1 for b in boxes):
        note = (
            f"whole frame used: its ultrasound regions exceed the picture of {width} x {height} "
            "pixels"
        )
        return (), note
    in_picture = {(box[0], box[1], min(box[2], width), min(box[3], height)) for box in boxes}
    return tuple(sorted(box for box in in_picture if not _is_within_another(box, in_picture))), None


def _tissue(region: Dataset) -> Box | None:
    spatial, kind = int(region.RegionSpatialFormat), int(region.RegionDataType)
    mode = _DATA_TYPES.get(kind) or _SPATIAL_FORMATS.get(spatial)
    if mode:
        msg = f"an ultrasound region of {mode}: send the B-mode image of this view"
        raise RefusedError(msg, "doppler_colour")
    if (spatial, kind) != (_TWO_DIMENSIONAL, _TISSUE):
        return None
    left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
    right, bottom = int(region.RegionLocationMaxX1) + 1, int(region.RegionLocationMaxY1) + 1
    if not (0 <= left < right and 0 <= top < bottom):
        msg = (
            f"an ultrasound region from column {left} to {right - 1} and row {top} to "
            f"{bottom - 1}, which is none: export it again, or without its regions"
        )
        raise RefusedError(msg, "not_ultrasound")
    return left, top, right, bottom


def _is_within_another(box: Box, boxes: set[Box]) -> bool:
    return any(
        other != box
        and other[0] <= box[0] and other[1] <= box[1]
        and other[2] >= box[2] and other[3] >= box[3]
        for other in boxes
    )  # fmt: skip


def _grey(array: npt.NDArray[Any], dataset: Dataset, photometric: str) -> Grey:
    low, high = _stored_range(array, dataset)
    values = np.clip(array, low, high).astype(np.float64)
    is_little = bool(dataset.original_encoding[1])
    if dataset.get("ModalityLUTSequence"):
        table = grey_table(dataset.ModalityLUTSequence[0], is_little=is_little, is_signed=low < 0)
        values, ends = table(values), (0.0, float(table.full_scale))
    else:
        slope, intercept = _number(dataset, "RescaleSlope", 1), _number(dataset, "RescaleIntercept")
        values, ends = (
            values * slope + intercept,
            (low * slope + intercept, high * slope + intercept),
        )
    if dataset.get("VOILUTSequence") and "WindowCenter" not in dataset:
        table = grey_table(dataset.VOILUTSequence[0], is_little=is_little, is_signed=min(ends) < 0)
        shares = table(values) / table.full_scale
    else:
        shares = _apply_window(values, dataset, min(ends), max(ends))
    # Of MONOCHROME1 the shape says the same once more (PS3.3, C.7.6.3.1.2 and C.8.11.3.1.2).
    shape = str(dataset.get("PresentationLUTShape", "")).strip().upper()
    if photometric == "MONOCHROME1" or shape == "INVERSE":
        shares = 1 - shares
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _stored_range(array: npt.NDArray[Any], dataset: Dataset) -> tuple[int, int]:
    bits = min(int(dataset.BitsStored), 8 * array.dtype.itemsize)
    if array.dtype.kind == "i":
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if bits < 16:
        return 0, 2**bits - 1
    return 0, next(scale for scale in _FULL_SCALE_LEVELS if int(array.max()) <= scale)


def _apply_window(values: FloatArray, dataset: Dataset, low: float, high: float) -> FloatArray:
    """Shares of the output range (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    center, width = _number(dataset, "WindowCenter", np.nan), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper()
    if not isfinite(center) or width <= 0 or (function == "LINEAR" and width < 1):
        return (values - low) / (high - low)
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(1 / (1 + np.exp(exponent)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _number(dataset: Dataset, name: str, default: float = 0.0) -> float:
    """The first value of an element; the default for one that is missing, empty or no number."""
    value = dataset.get(name)
    if value is None or isinstance(value, str):
        return default
    first = value if not hasattr(value, "__len__") else next(iter(value), default)
    number = float(first)
    return number if isfinite(number) else default


def _colour(array: npt.NDArray[Any], dataset: Dataset) -> FrameImage:
    bits = min(int(dataset.BitsStored), 8 * array.dtype.itemsize)
    rgb = np.clip(array[..., :3] >> max(0, bits - 8), 0, 255).astype(np.uint8)
    grey = np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"), dtype=np.uint8)
    return FrameImage(grey, tissue_overlay(rgb, grey))
