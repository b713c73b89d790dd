"""Image files: decoded within declared bounds, or refused with a reason."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from thyro_core.errors import ThyroError
from thyro_core.imaging.bounds import ImageBounds
from thyro_core.imaging.tissue import tissue_overlay
from thyro_core.types import Grey

_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    (b"II+\x00", TiffImageFile),
    (b"MM\x00+", TiffImageFile),
    (b"BM", BmpImageFile),
)
_FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
_GREY_MODES = ("1", "L")
_PLANAR, _SEPARATE, _SAMPLES, _BITS_PER_SAMPLE = 284, 2, 277, 258
_TILE_WIDTH, _TILE_LENGTH, _PHOTOMETRIC = 322, 323, 262
_START_OF_SCAN = b"\xff\xda"
_MOST_SCANS = 100

# Pillow has no common base of what it raises on hostile bytes: this is the closed list of what its
# readers and the decoders beneath them can raise. `Warning`: where warnings are made errors.
DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    BufferError,
    StopIteration,
    Image.DecompressionBombError,
    Warning,
)
"""What readers of image files raise on hostile bytes."""


_CUT_SHORT = ("truncat", "unexpected end", "not enough image data", "too short", "buffer is not")


def fault_sentence(error: BaseException) -> str:
    """What is wrong with a file that a reader gave up, and the cure; never the library's words.

    Args:
        error: what the reader raised. It quotes what it found, which may be a person's name.
    """
    if isinstance(error, MemoryError):
        return "it takes more memory than a file may: export it smaller"
    words = str(error).lower()
    if isinstance(error, EOFError) or any(mark in words for mark in _CUT_SHORT):
        return "truncated: the file ends before its picture does; copy it again from where it came"
    return (
        "damaged, or of a kind that is not read: if a viewer opens it, export it again as PNG or "
        "uncompressed DICOM"
    )


class UndecodableError(ThyroError, ValueError):
    """A file that gives no image, or not within the bounds; `detail` says what was found."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TooLargeError(UndecodableError):
    """A file that passes a bound on bytes, pixels, frames or scans; nothing of it was decoded."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        grey: uint8 (height, width), upright.
        overlay_share: Share of coloured pixels of the tissue, 0 to 1 (see
            `thyro_core.imaging.tissue`).
        bits: Bits a sample had as read: 1, 8, 16 or 32.
    """

    grey: Grey
    overlay_share: float
    bits: int


def decode(data: bytes, bounds: ImageBounds) -> DecodedImage:
    """The first frame of a PNG, JPEG, TIFF or BMP file as an upright grey image.

    Colour becomes grey by ITU-R BT.601; what is transparent lies on black. Samples of more than
    8 bits are scaled linearly by the smallest of 2^8-1, 2^10-1, 2^12-1, 2^14-1 and 2^16-1 that
    holds the image's peak (floats up to 1: by 1). Safe to call from several threads.

    Args:
        data: All bytes of the file.
        bounds: What is refused undecoded.

    Raises:
        TooLargeError: the file passes a bound; checked before any pixel is decoded.
        UndecodableError: the file is of no known format, is damaged or is truncated.
    """
    if len(data) > bounds.max_bytes:
        msg = f"{len(data)} bytes, more than max_bytes = {bounds.max_bytes}"
        raise TooLargeError(msg)
    try:
        with _open(data) as image:
            _check_bounds(image, bounds)
            _check_planes(image)
            if isinstance(image, JpegImageFile):
                check_scans(data)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _open_picture(image)
    except UndecodableError:
        raise
    except DECODER_ERRORS as error:
        raise UndecodableError(fault_sentence(error)) from error


def _open(data: bytes) -> ImageFile:
    # Not Image.open: its bomb check is a warning or an error by a global bound of its own, which
    # threads cannot change safely. Ours comes right after the header.
    for signature, reader in _READERS:
        if data.startswith(signature):
            return reader(io.BytesIO(data))
    if data[128:132] == b"DICM":
        msg = "a DICOM file, where a picture is read: export it as PNG"
        raise UndecodableError(msg)
    msg = (
        "not a PNG, JPEG, TIFF, BMP or DICOM file: export the image as one of these"
        if data
        else "the file is empty: copy it again from where it came"
    )
    raise UndecodableError(msg)


def _check_bounds(image: ImageFile, bounds: ImageBounds) -> None:
    width, height = _declared_size(image)
    if width * height > bounds.max_pixels:
        msg = f"{width} x {height} pixels, more than max_pixels = {bounds.max_pixels}"
        raise TooLargeError(msg)
    if _has_frame(image, bounds.max_frames):
        msg = f"more frames than max_frames = {bounds.max_frames}"
        raise TooLargeError(msg)


def _check_planes(image: ImageFile) -> None:
    """Refuse a TIFF whose colours of 16 bits lie in planes of their own: it would be noise."""
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(_PLANAR) != _SEPARATE:
        return
    samples, bits = image.tag_v2.get(_SAMPLES, 1), image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
    if samples > 1 and max(bits) > 8:
        msg = (
            f"a TIFF of {samples} separate planes of {max(bits)} bits: not read; save it with "
            "interleaved colours (PlanarConfiguration 1) or as PNG"
        )
        raise UndecodableError(msg)


def check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG with more scans than any encoder makes, before it is decoded.

    A progressive picture is refined scan by scan, and each costs time in proportion to the whole
    picture however few bytes it takes: a file of 100 kB can take an hour. Encoders make about ten.

    Args:
        jpeg: all bytes of the picture.

    Raises:
        TooLargeError: there are more than 100.
    """
    # Within a scan's data the first of these bytes is never followed by the second. NumPy looks
    # through a file in a third of the time that bytes.count takes.
    values = np.frombuffer(jpeg, np.uint8)
    marks = np.flatnonzero(values[:-1] == _START_OF_SCAN[0])
    scans = np.count_nonzero(values[marks + 1] == _START_OF_SCAN[1])
    if scans > _MOST_SCANS:
        msg = f"{scans} progressive scans, expected at most {_MOST_SCANS}"
        raise TooLargeError(msg)


def _declared_size(image: ImageFile) -> tuple[int, int]:
    """Width and height; of a tiled TIFF at least one tile's, for which memory is set aside too."""
    width, height = image.size
    if isinstance(image, TiffImageFile):
        width = max(width, int(image.tag_v2.get(_TILE_WIDTH, 0)))
        height = max(height, int(image.tag_v2.get(_TILE_LENGTH, 0)))
    return width, height


def _has_frame(image: ImageFile, index: int) -> bool:
    if not isinstance(image, TiffImageFile):
        return int(getattr(image, "n_frames", 1)) > index
    # Not n_frames: a hostile TIFF may declare millions, and counting visits each.
    try:
        image.seek(index)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _open_picture(image: ImageFile) -> DecodedImage:
    bits = _BITS.get(image.mode, 8)
    if bits > 8:
        return DecodedImage(_scale(image), 0.0, bits)
    flat = _on_black(image) if image.has_transparency_data else image
    if flat.mode in _GREY_MODES:
        return DecodedImage(_array(flat if flat.mode == "L" else flat.convert("L")), 0.0, bits)
    colour = flat.convert("RGB")
    grey = _array(colour.convert("L"))
    return DecodedImage(grey, tissue_overlay(_array(colour), grey), bits)


def _on_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _array(image: Image.Image) -> Grey:
    """(height, width), or (height, width, bands) in colour; not to be written to."""
    shape = (image.height, image.width, len(image.getbands()))
    # A view of the bytes; np.array would copy them.
    return np.frombuffer(image.tobytes(), np.uint8).reshape(shape[: 3 if shape[2] > 1 else 2])


def _scale(image: ImageFile) -> Grey:
    values = np.asarray(image)
    low, peak = float(values.min()), float(values.max())
    if not (low >= 0 and peak <= _FULL_SCALES[-1]):
        msg = f"samples from {low:g} to {peak:g}, expected 0 to {_FULL_SCALES[-1]}"
        raise UndecodableError(msg)
    grey = np.rint(values * np.float64(255 / _full_scale(values.dtype, peak))).astype(np.uint8)
    return 255 - grey if _white_is_zero(image) else grey


def _full_scale(dtype: np.dtype[Any], peak: float) -> int:
    if dtype.kind == "f" and peak <= 1:
        return 1
    return next(scale for scale in _FULL_SCALES if peak <= scale)


def _white_is_zero(image: ImageFile) -> bool:
    """Pillow turns such TIFFs round only up to 8 bits."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def resize(grey: Grey, side: int, *, pad: bool = False) -> Grey:
    """An image as a square, bilinear with antialiasing.

    Args:
        grey: uint8 (height, width).
        side: Side of the square [pixels].
        pad: Whether it keeps its proportions, in the middle of black, which is what surrounds the
            picture on a screen and what turned training images are filled with; otherwise it is
            squashed, as the paper does.

    Returns:
        uint8 (side, side).
    """
    height, width = grey.shape
    left, top, right, bottom = content_box(width, height, side) if pad else (0, 0, side, side)
    image = Image.fromarray(grey).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    if not pad:
        # A copy may be written to, as torch wants of what it takes; the view may not.
        return _array(image).copy()
    square = np.zeros((side, side), np.uint8)
    square[top:bottom, left:right] = _array(image)
    return square


def content_box(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Where an image that keeps its proportions lies in a square: left, top, right, bottom.

    Args:
        width: of the image [pixels].
        height: of the image [pixels].
        side: of the square [pixels].
    """
    columns, rows = (
        max(1, round(side * length / max(width, height))) for length in (width, height)
    )
    left, top = (side - columns) // 2, (side - rows) // 2
    return left, top, left + columns, top + rows
