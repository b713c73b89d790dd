"""Compressed frames: what their own headers say, checked before a decoder meets them."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from thyro_core.errors import ThyroError
from thyro_core.imaging.decode import check_scans

_RLE_HEADER = 64
_RLE_LITERALS = 128
_HTJ2K = tuple(UID(f"1.2.840.10008.1.2.4.{number}") for number in (201, 202, 203))
_SCAN, _END_OF_IMAGE, _JFIF, _ADOBE = 0xDA, 0xD9, 0xE0, 0xEE
_NO_LENGTH = (0x01, *range(0xD0, 0xD9))
# Start of frame: DCT, lossless and arithmetic processes (ITU-T T.81, table B.1) and JPEG-LS (T.87).
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), (0xC2,)
_RGB_NAMES = (b"RGB", b"rgb")


class RefusedError(ThyroError, ValueError):
    """A file or a frame that is not to be scored: a reason of a closed list, and particulars."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG or JPEG-LS frame says of itself.

    Attributes:
        process: marker of its start of frame: 0xC0 baseline, 0xC3 lossless, 0xF7 JPEG-LS.
        bits: bits a sample.
        width: [pixels].
        height: [pixels].
        components: identifiers of the components, one byte each.
        is_subsampled: whether a component has fewer samples than pixels.
        has_jfif: whether it is a JFIF file, whose three components are always YCbCr.
        adobe_transform: of Adobe's marker: 0 RGB, 1 YCbCr; None: there is none.
    """

    process: int
    bits: int
    width: int
    height: int
    components: bytes
    is_subsampled: bool
    has_jfif: bool
    adobe_transform: int | None

    @property
    def is_pictorial(self) -> bool:
        """Whether Pillow decodes it: DCT of 8 bits."""
        return self.bits == 8 and self.process in (*_BASELINE, *_PROGRESSIVE)

    def is_rgb(self, photometric: str) -> bool:
        """Whether its three components are red, green and blue; the frame's own word counts.

        Many files are tagged RGB whose JPEG is YCbCr: what is subsampled or has a JFIF marker
        is never RGB. Only of a frame that says nothing does the tag decide.

        Args:
            photometric: the file's photometric interpretation.
        """
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        if self.components in _RGB_NAMES:
            return True
        return photometric == "RGB" and not self.has_jfif and not self.is_subsampled


def jpeg_header(frame: bytes) -> JpegHeader:
    """What stands before the first scan of a JPEG or JPEG-LS frame.

    Raises:
        RefusedError: it is none, or is cut before its first scan.
    """
    position, has_jfif, adobe, start = 2, False, None, None
    while frame[:2] == b"\xff\xd8" and position + 4 <= len(frame):
        marker = frame[position + 1]
        if frame[position] != 0xFF or marker in (_SCAN, _END_OF_IMAGE):
            break
        if marker in _NO_LENGTH or marker == 0xFF:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(frame[position + 2 : position + 4])
        body = frame[position + 4 : position + 2 + length]
        if marker == _JFIF:
            has_jfif |= body.startswith(b"JFIF\0")
        elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) > 11:
            adobe = body[11]
        elif marker in _FRAMES and len(body) >= 6 + 3 * body[5]:
            start = (marker, body)
        position += 2 + length
    if start is None:
        msg = "the compressed picture is no JPEG, or is cut short: copy or export the file again"
        raise RefusedError(msg, "undecodable")
    marker, body = start
    count = body[5]
    samplings = set(body[7 : 6 + 3 * count : 3])
    return JpegHeader(
        process=marker,
        bits=body[0],
        width=int.from_bytes(body[3:5]),
        height=int.from_bytes(body[1:3]),
        components=body[6 : 6 + 3 * count : 3],
        is_subsampled=len(samplings) > 1,
        has_jfif=has_jfif,
        adobe_transform=adobe,
    )


def compressed_frame(dataset: Dataset, index: int) -> bytes:
    """The bytes of one compressed frame.

    Args:
        dataset: header and pixel data.
        index: the frame's position, from 0.
    """
    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return get_frame(
        dataset.PixelData,
        index,
        extended_offsets=offsets,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
    )


def check_compressed(dataset: Dataset, syntax: UID, index: int) -> JpegHeader | None:
    """Refuse, before decoding, a compressed picture that is larger than the file declares.

    Args:
        dataset: header and pixel data; its size has been checked.
        syntax: how the pixels are packed.
        index: the frame's position, from 0.

    Returns:
        What a JPEG or JPEG-LS frame says of itself; None: it is neither.

    Raises:
        RefusedError: size or number of components are not those that the file declares.
        TooLargeError: a JPEG has more scans than any encoder makes.
    """
    is_jpeg = syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes
    if not (is_jpeg or syntax in (*JPEG2000TransferSyntaxes, *_HTJ2K, RLELossless)):
        return None
    rows, columns, samples = (
        int(dataset[name].value) for name in ("Rows", "Columns", "SamplesPerPixel")
    )
    frame = compressed_frame(dataset, index)
    if syntax == RLELossless:
        most = rows * columns * samples * int(dataset.BitsAllocated) // 8
        # Segments may be padded to an even length, by a byte that decodes to at most 128.
        if _rle_length(frame, 2 * most + _RLE_HEADER) > 2 * most:
            msg = f"run lengths of more than twice the {most} bytes of a frame"
            raise RefusedError(msg, "too_large")
        return None
    header = None
    if is_jpeg:
        check_scans(frame)
        header = jpeg_header(frame)
        width, height, n_components = header.width, header.height, len(header.components)
    else:
        with Jpeg2KImageFile(io.BytesIO(frame)) as image:
            (width, height), n_components = image.size, samples
    if (width, height, n_components) != (columns, rows, samples):
        msg = (
            f"a compressed frame of {width} x {height} pixels, {n_components} components in a file "
            f"of {columns} x {rows}, {samples}: the file contradicts itself; export it again"
        )
        raise RefusedError(msg, "undecodable")
    return header


def decoded_jpeg(frame: bytes, header: JpegHeader, photometric: str) -> npt.NDArray[np.uint8]:
    """Samples of an 8-bit DCT picture: (H, W), or (H, W, 3) in red, green and blue.

    Args:
        frame: its bytes.
        header: what it says of itself.
        photometric: the file's photometric interpretation.
    """
    with JpegImageFile(io.BytesIO(frame)) as image:
        if len(header.components) == 3 and header.is_rgb(photometric):
            if header.adobe_transform is None and header.components not in _RGB_NAMES:
                # The library takes what says nothing for YCbCr: it is not to convert it.
                image.draft("YCbCr", image.size)
            return np.asarray(image)
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


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
