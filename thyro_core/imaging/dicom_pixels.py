"""The pixels of one DICOM frame, as a grey picture of its tissue."""

import io
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_voi
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGTransferSyntaxes, RLELossless

from thyro_core.errors import ThyroError
from thyro_core.imaging.decode import check_scans
from thyro_core.imaging.quality import overlay_share
from thyro_core.types import FloatArray, Grey

Box = tuple[int, int, int, int]

PHOTOMETRIC = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3,
    "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
"""Samples per pixel of each photometric interpretation that is read."""

_FULL_SCALE_LEVELS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_RLE_HEADER = 64
_RLE_LITERALS = 128
# Of C.8.5.5.1.1 and C.8.5.5.1.2 of PS3.3.
_TWO_DIMENSIONAL, _TISSUE = 1, 1
_SPATIAL_FORMATS = {2: "M-mode", 3: "spectral"}
_DATA_TYPES = {
    2: "colour flow", 3: "pulsed-wave Doppler", 4: "continuous-wave Doppler", 5: "Doppler mean",
    6: "Doppler mode", 7: "Doppler maximum",
}  # fmt: skip


class RefusedError(ThyroError, ValueError):
    """A file or a frame that is not to be scored: a reason of a closed list, and particulars."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class FrameImage:
    """A picture.

    Attributes:
        grey: uint8 (H, W).
        overlay_share: Share of coloured pixels, 0 to 1 (see `thyro_core.imaging.quality`).
    """

    grey: Grey
    overlay_share: float


def decoded_frame(dataset: Dataset, syntax: UID, index: int, box: Box | None) -> FrameImage:
    """One frame, cropped to its tissue, as grey levels.

    Grey values run through rescale and window (or VOI table) if the file has them; else the range
    that its bits can hold is spread over 0 to 255 (of 16 bits: the smallest of 8, 10, 12, 14 and 16
    bits that holds the peak, because 16 are often declared and seldom used). Colours become grey by
    ITU-R BT.601.

    Args:
        dataset: header and pixel data; its size and kind have been checked.
        syntax: how the pixels are packed.
        index: the frame's position, from 0.
        box: what to crop to, see `tissue_box`.

    Raises:
        RefusedError: a compressed picture is larger than declared.
        TooLargeError: a JPEG has more scans than any encoder makes.
        Exception: what the libraries raise on damaged data (`images.DECODER_ERRORS`).
    """
    _check_compressed(dataset, syntax, index)
    array, facts = get_decoder(syntax).as_array(dataset, index=index)
    photometric = str(facts["photometric_interpretation"])
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
    if box is not None:
        left, top, right, bottom = box
        array = array[top:bottom, left:right]
    if array.ndim == 2:
        return FrameImage(_grey(array, dataset, photometric), 0.0)
    return _colour(array, dataset, photometric)


def tissue_box(dataset: Dataset) -> Box | None:
    """Left, top, right and bottom (exclusive) of the largest region of two-dimensional tissue.

    Returns:
        None for a file that declares no regions.

    Raises:
        RefusedError: a region is of another mode, or none is of tissue.
    """
    regions = list(dataset.get("SequenceOfUltrasoundRegions") or ())
    if not regions:
        return None
    boxes = [box for region in regions if (box := _tissue(region, dataset)) is not None]
    if not boxes:
        msg = f"{len(regions)} ultrasound regions, none of two-dimensional tissue"
        raise RefusedError(msg, "not_ultrasound")
    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))


def _tissue(region: Dataset, dataset: Dataset) -> Box | None:
    spatial, kind = int(region.RegionSpatialFormat), int(region.RegionDataType)
    mode = _DATA_TYPES.get(kind) or _SPATIAL_FORMATS.get(spatial)
    if mode:
        msg = f"an ultrasound region of {mode}"
        raise RefusedError(msg, "doppler_colour")
    if (spatial, kind) != (_TWO_DIMENSIONAL, _TISSUE):
        return None
    left, top = max(0, int(region.RegionLocationMinX0)), max(0, int(region.RegionLocationMinY0))
    right = min(int(dataset.Columns), int(region.RegionLocationMaxX1) + 1)
    bottom = min(int(dataset.Rows), int(region.RegionLocationMaxY1) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _check_compressed(dataset: Dataset, syntax: UID, index: int) -> None:
    """Refuse, before decoding, a compressed picture that is larger than the file declares."""
    is_jpeg, is_jpeg2000 = syntax in JPEGTransferSyntaxes, syntax in JPEG2000TransferSyntaxes
    if not (is_jpeg or is_jpeg2000 or syntax == RLELossless):
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frame = get_frame(
        dataset.PixelData,
        index,
        extended_offsets=offsets,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
    )
    if syntax == RLELossless:
        most = rows * columns * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
        # Segments may be padded to an even length, by a byte that decodes to at most 128.
        if _rle_length(frame, 2 * most + _RLE_HEADER) > 2 * most:
            msg = f"run lengths of more than twice the {most} bytes of a frame"
            raise RefusedError(msg, "too_large")
        return
    if is_jpeg:
        check_scans(frame)
    reader = JpegImageFile if is_jpeg else Jpeg2KImageFile
    with reader(io.BytesIO(frame)) as image:
        if image.size != (columns, rows):
            width, height = image.size
            msg = f"a compressed frame of {width} x {height} pixels in a file of {columns} x {rows}"
            raise RefusedError(msg, "undecodable")


def _rle_length(frame: bytes, enough: int) -> int:
    """Bytes that a frame of run lengths (PS3.5, annex G) unpacks to, counted up to `enough`."""
    position, total, end = _RLE_HEADER, 0, len(frame)
    while position < end and total < enough:
        control = frame[position]
        if control < _RLE_LITERALS:
            total += control + 1
            position += control + 2
        elif control > _RLE_LITERALS:
            total += 257 - control
            position += 2
        else:
            position += 1
    return total


def _grey(array: npt.NDArray[Any], dataset: Dataset, photometric: str) -> Grey:
    low, high = _stored_range(array, dataset)
    # Old files keep overlays in the bits above those of the picture.
    array = array & high if low == 0 else np.clip(array, low, high)
    if "VOILUTSequence" in dataset and "WindowCenter" not in dataset:
        table = dataset.VOILUTSequence[0]
        shares = apply_voi(array, dataset) / np.float64(2 ** int(table.LUTDescriptor[2]) - 1)
    else:
        slope, intercept = _number(dataset, "RescaleSlope", 1), _number(dataset, "RescaleIntercept")
        values = array.astype(np.float64) * slope + intercept
        ends = (low * slope + intercept, high * slope + intercept)
        shares = _windowed(values, dataset, min(ends), max(ends))
    if photometric == "MONOCHROME1":
        shares = 1 - shares
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _stored_range(array: npt.NDArray[Any], dataset: Dataset) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    if array.dtype.kind == "i":
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if bits < 16:
        return 0, 2**bits - 1
    return 0, next(scale for scale in _FULL_SCALE_LEVELS if int(array.max()) <= scale)


def _windowed(values: FloatArray, dataset: Dataset, low: float, high: float) -> FloatArray:
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


def _colour(array: npt.NDArray[Any], dataset: Dataset, photometric: str) -> FrameImage:
    bits = array.dtype.itemsize * 8
    if photometric != "PALETTE COLOR":
        bits = int(dataset.BitsStored)
    rgb = np.clip(array[..., :3] >> max(0, bits - 8), 0, 255).astype(np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(rgb)).convert("L")
    return FrameImage(np.array(grey, dtype=np.uint8), overlay_share(rgb))
