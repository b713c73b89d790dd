"""DICOM ultrasound: what may be read of it, who it shows (as a pseudonym only), and its frames.

Only the elements named here are kept in memory, and only numbers, pseudonyms and words of closed
lists leave this module: no free text of a file is returned, logged, warned of or raised.
"""

import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.decode import DECODER_ERRORS, TooLargeError
from thyro_core.imaging.dicom_pixels import (
    PHOTOMETRIC,
    Box,
    FrameImage,
    RefusedError,
    decoded_frame,
    tissue_box,
)

Pseudonymise = Callable[[str | None, str | None], str | None]

_MAGIC_AT, _MAGIC = 128, b"DICM"
_META_GROUP = 0x0002
# How a file without the magic begins: an element of group 2 or 8, little or big endian.
_BARE = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_READER_ERRORS: tuple[type[Exception], ...] = (
    *DECODER_ERRORS,
    BytesLengthException,
    InvalidDicomError,
)

_ULTRASOUND = {
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image",
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image (retired)",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS = [
    "SOPClassUID", "Modality", "PatientID", "IssuerOfPatientID", "SpecificCharacterSet",
    "BurnedInAnnotation", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "SequenceOfUltrasoundRegions", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
]  # fmt: skip


@dataclass(frozen=True)
class DicomFrame:
    """One frame: decoded, or refused with a reason and its particulars."""

    index: int
    """Position in the clip, from 0."""
    image: FrameImage | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class DicomImages:
    """What a DICOM file gives.

    Attributes:
        patient_id: The patient's pseudonym; None: no id, no key, or the header was not readable.
        reason: Why the whole file is refused; None: it is not.
        detail: The reason's particulars.
        burned_in: Whether the file says that names or dates may be drawn into its pixels.
        frames: The frames read, or refused one by one; empty for a file that is refused whole.
        is_clip: Whether the file holds several frames (of which only one may have been read).
    """

    patient_id: str | None
    reason: str | None
    detail: str | None
    burned_in: bool = False
    frames: tuple[DicomFrame, ...] = ()
    is_clip: bool = False


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file, with or without its preamble."""
    return data[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC or data[:2] in _BARE


def read_dicom(data: bytes, bounds: ClipBounds, pseudonymise: Pseudonymise) -> DicomImages:
    """The frames of a DICOM ultrasound file that are to be scored; never raises for its contents.

    Of a clip, `frames_per_clip` evenly spaced frames are read. A file that declares its ultrasound
    regions is cropped to the largest one of two-dimensional tissue; one with Doppler, M-mode or
    colour flow is refused.

    Args:
        data: all bytes of the file.
        bounds: they are checked before a pixel is decoded.
        pseudonymise: makes a pseudonym of PatientID and IssuerOfPatientID.
    """
    _silence()
    try:
        dataset = _dataset(data)
    except _READER_ERRORS as error:
        return DicomImages(None, *_why(error))
    patient_id, burned_in = _patient(dataset, pseudonymise), _is_burned_in(dataset)
    try:
        _check_kind(dataset)
        n = _check_dicom_bounds(dataset, bounds)
        _check_syntax(dataset)
        box = tissue_box(dataset)
    except _READER_ERRORS as error:
        return DicomImages(patient_id, *_why(error), burned_in)
    frames = tuple(
        _frame(dataset, index, box) for index in evenly_spaced(n, bounds.frames_per_clip)
    )
    return DicomImages(patient_id, None, None, burned_in, frames, is_clip=n > 1)


def _silence() -> None:
    """Pydicom's warnings and log lines quote values: nobody may see them, in any thread."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")


def _why(error: Exception) -> tuple[str, str]:
    """Reason and particulars; never a library's own words, which quote what was found."""
    if isinstance(error, RefusedError):
        return error.reason, error.detail
    if isinstance(error, TooLargeError):
        return "too_large", error.detail
    return "undecodable", f"damaged or not supported: {type(error).__name__}"


def _dataset(data: bytes) -> Dataset:
    """The elements in `_TAGS`; nothing compressed as a whole is unpacked."""
    has_magic = data[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC
    meta_file = io.BytesIO(data)
    meta_file.seek(_MAGIC_AT + 4 if has_magic else 0)
    meta = read_dataset(
        meta_file, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP
    )
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        msg = "transfer syntax Deflated Explicit VR Little Endian: not read, it has no bound"
        raise RefusedError(msg, "undecodable")
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=_TAGS)
    if "SOPClassUID" not in dataset:
        msg = "not a DICOM image: no SOP class"
        raise RefusedError(msg, "undecodable")
    return dataset


def _patient(dataset: Dataset, pseudonymise: Pseudonymise) -> str | None:
    try:
        values = [dataset.get(name) for name in ("PatientID", "IssuerOfPatientID")]
    except _READER_ERRORS:
        return None
    patient, issuer = (None if value is None else str(value) for value in values)
    return pseudonymise(patient, issuer)


def _is_burned_in(dataset: Dataset) -> bool:
    try:
        return str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES"
    except _READER_ERRORS:
        return True  # what cannot be read cannot be trusted


def _check_kind(dataset: Dataset) -> None:
    sop_class = str(dataset.SOPClassUID)
    is_capture = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")
    is_ultrasound = str(dataset.get("Modality", "")).strip().upper() == "US"
    if sop_class in _ULTRASOUND or (is_capture and is_ultrasound):
        return
    of = " of another modality" if is_capture else ""
    msg = f"SOP class {_uid_name(sop_class)}{of}, expected an ultrasound image or clip"
    raise RefusedError(msg, "not_ultrasound")


def _uid_name(uid: str) -> str:
    """A UID's name in the standard; another one may be anything and is not repeated."""
    name = UID(uid).name
    return "unknown" if name == uid else name


def _check_dicom_bounds(dataset: Dataset, bounds: ClipBounds) -> int:
    """The number of frames, of a size that may be decoded."""
    rows, columns, n = int(dataset.Rows), int(dataset.Columns), _frame_count(dataset)
    if rows * columns > bounds.max_pixels:
        msg = f"{columns} x {rows} pixels, more than max_pixels = {bounds.max_pixels}"
        raise RefusedError(msg, "too_large")
    if n > bounds.max_clip_frames:
        msg = f"{min(n, 10**12)} frames, more than max_clip_frames = {bounds.max_clip_frames}"
        raise RefusedError(msg, "too_large")
    bits, samples = int(dataset.BitsAllocated), int(dataset.SamplesPerPixel)
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    if bits not in (8, 16) or PHOTOMETRIC.get(photometric) != samples:
        name = photometric if photometric in PHOTOMETRIC else "unknown"
        msg = f"{samples} samples of {bits} bits, photometric interpretation {name}: not supported"
        raise RefusedError(msg, "undecodable")
    if min(rows, columns, n) < 1 or "PixelData" not in dataset:
        msg = f"no pixels: {columns} x {rows}, {n} frames"
        raise RefusedError(msg, "undecodable")
    return n


def _frame_count(dataset: Dataset) -> int:
    value = dataset.get("NumberOfFrames")
    return 1 if value is None else int(value)


def _check_syntax(dataset: Dataset) -> None:
    uid = transfer_syntax(dataset)
    try:
        is_available = get_decoder(uid).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        msg = f"transfer syntax {_uid_name(uid)}: no decoder for it is installed"
        raise RefusedError(msg, "undecodable")


def transfer_syntax(dataset: Dataset) -> UID:
    """How a file's pixels are packed; of a file that does not say so, how it was read."""
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return UID(str(named))
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _frame(dataset: Dataset, index: int, box: Box | None) -> DicomFrame:
    try:
        return DicomFrame(index, decoded_frame(dataset, transfer_syntax(dataset), index, box))
    except _READER_ERRORS as error:
        return DicomFrame(index, None, *_why(error))


def evenly_spaced(n: int, most: int) -> list[int]:
    """At most `most` of n frames, evenly spaced: the middles of as many equal parts of the clip."""
    count = min(n, most)
    return [(2 * i + 1) * n // (2 * count) for i in range(count)]
