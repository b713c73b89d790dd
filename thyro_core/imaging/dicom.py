"""DICOM ultrasound: what may be read of it, who it shows (as a pseudonym only), and its frames.

Only the elements named here are kept in memory, and only numbers, pseudonyms and words of closed
lists leave this module: no free text of a file is returned, logged, warned of or raised.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from thyro_core.errors import amount
from thyro_core.imaging.bounds import ClipBounds, evenly_spaced
from thyro_core.imaging.compressed import RefusedError
from thyro_core.imaging.decode import DECODER_ERRORS, TooLargeError, fault_sentence
from thyro_core.imaging.devices import device_category
from thyro_core.imaging.dicom_deflated import MAGIC, MAGIC_AT, unpack
from thyro_core.imaging.dicom_pixels import (
    PHOTOMETRIC,
    FrameImage,
    frame_picture,
    frame_samples,
    tissue_boxes,
)
from thyro_core.imaging.tissue import Box
from thyro_core.imaging.video import VIDEO_SYNTAXES, Clip, has_video, read_clip

Pseudonymise = Callable[[str | None, str | None], str | None]

# How a file without the magic begins: an element of group 2 or 8, little or big endian.
_BARE = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
READER_ERRORS: tuple[type[Exception], ...] = (
    *DECODER_ERRORS,
    BytesLengthException,
    InvalidDicomError,
)
"""What the reader of DICOM raises on hostile bytes."""

_ULTRASOUND = {
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image",
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image (retired)",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS = [
    "SOPClassUID", "Modality", "StudyInstanceUID", "PatientID", "IssuerOfPatientID",
    "Manufacturer", "ManufacturerModelName",
    "SpecificCharacterSet", "BurnedInAnnotation", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ModalityLUTSequence", "PresentationLUTShape",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "SequenceOfUltrasoundRegions", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
]  # fmt: skip
_UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)+")
_IDENTITY_NAMES = (
    "SOPClassUID", "AccessionNumber", "PatientID", "IssuerOfPatientID", "SpecificCharacterSet",
)  # fmt: skip
_ISSUER = 0x0010_0021
# They stand where the issuer of a patient's id stands: an exam's id is no patient's.
_STUDY_UID, _ACCESSION = "StudyInstanceUID", "AccessionNumber"
_TRUNCATED_FILE = "truncated: the file ends before {what} does; copy it again from where it came"


@dataclass(frozen=True)
class DicomFrame:
    """One frame, or one tissue region of it: decoded, or refused with a reason."""

    index: int
    """Position in the clip, from 0."""
    image: FrameImage | None
    reason: str | None = None
    detail: str | None = None
    """The reason's particulars."""
    view: tuple[int, int] | None = None
    """Position among the frame's tissue regions, from 0, and their number; None: there is one."""


@dataclass(frozen=True)
class DicomImages:
    """What a DICOM file gives.

    Attributes:
        patient_id: The patient's pseudonym; None: no id, no key, or the header was not readable.
        reason: Why the whole file is refused; None: it is not.
        detail: The reason's particulars.
        burned_in: Whether the file says that names or dates may be drawn into its pixels; None: it
            does not say.
        frames: The frames read, or refused one by one; empty for a file that is refused whole.
        is_clip: Whether the file holds several frames (of which only one may have been read).
        note: What a reader of the results must know of how the file was read; None: nothing.
        has_regions: Whether frames are cropped to regions that the file declares.
        exam_id: The pseudonym of the exam, by its study or else its accession number; None: the
            file names none, no key, or the header was not readable.
    """

    patient_id: str | None
    reason: str | None
    detail: str | None
    burned_in: bool | None = None
    frames: tuple[DicomFrame, ...] = ()
    is_clip: bool = False
    note: str | None = None
    has_regions: bool = False
    exam_id: str | None = None
    device: str | None = None
    """What made it, in words of a closed list; None: not named, or the header was not readable."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file, with or without its preamble."""
    return data[MAGIC_AT : MAGIC_AT + 4] == MAGIC or data[:2] in _BARE


def read_dicom(data: bytes, bounds: ClipBounds, pseudonymise: Pseudonymise) -> DicomImages:
    """The frames of a DICOM ultrasound file that are to be scored; never raises for its contents.

    Of a clip, `frames_per_clip` evenly spaced frames are read. Of a file that declares its
    ultrasound regions, each of two-dimensional tissue is a picture; a file with one of Doppler,
    M-mode or colour flow is refused.

    Args:
        data: all bytes of the file.
        bounds: they are checked before a pixel is decoded.
        pseudonymise: makes a pseudonym of PatientID and IssuerOfPatientID.
    """
    silence()
    patient_id, burned_in, exam_id, device = None, None, None, None
    try:
        source = unpack(data, bounds)
        identity = _identity(source)
        patient_id = _patient(identity, pseudonymise)
        exam_id = _exam_pseudonym(identity, _ACCESSION, pseudonymise)
        dataset = _dataset(source, identity)
        exam_id = _exam_pseudonym(dataset, _STUDY_UID, pseudonymise) or exam_id
        burned_in, device = _is_burned_in(dataset), _device(dataset)
        _check_kind(dataset)
        _check_dicom_bounds(dataset, bounds)
        syntax = transfer_syntax(dataset)
        _check_syntax(syntax, str(identity.get("PatientID", "")))
        if syntax in VIDEO_SYNTAXES:
            boxes, note = tissue_boxes(dataset)
            clip = read_clip(dataset, bounds)
            n, note = clip.n, "; ".join(filter(None, [note, _count_note(dataset, clip.n)])) or None
            frames = tuple(_video_frames(dataset, clip, boxes))
        else:
            n = _checked_frame_count(dataset, bounds)
            _check_length(dataset, syntax, n)
            boxes, note = tissue_boxes(dataset)
            indices = evenly_spaced(n, bounds.frames_per_clip)
            frames = tuple(_frames(dataset, syntax, indices, boxes))
    except READER_ERRORS as error:
        return DicomImages(patient_id, *_why(error), burned_in, exam_id=exam_id, device=device)
    return DicomImages(
        patient_id, None, None, burned_in, frames,
        is_clip=n > 1, note=note, has_regions=bool(boxes), exam_id=exam_id, device=device,
    )  # fmt: skip


def element_tags(*names: str) -> list[BaseTag | int]:
    """The tags of elements by their keywords."""
    return [tag_for_keyword(name) or 0 for name in names]


def silence() -> None:
    """Pydicom's warnings and log lines quote values: nobody may see them, in any thread."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")


def _why(error: Exception) -> tuple[str, str]:
    """Reason and particulars; never a library's own words, which quote what was found."""
    if isinstance(error, RefusedError):
        return error.reason, error.detail
    if isinstance(error, TooLargeError):
        return "too_large", error.detail
    return "undecodable", fault_sentence(error)


def _identity(source: bytes) -> Dataset:
    """Kind and patient, read before all else: what comes later may be cut off or damaged."""
    return read_partial(
        io.BytesIO(source),
        stop_when=lambda tag, _vr, _length: tag > _ISSUER,
        force=True,
        specific_tags=element_tags(*_IDENTITY_NAMES),
    )


def _dataset(source: bytes, identity: Dataset) -> Dataset:
    """The elements in `_TAGS`."""
    dataset = pydicom.dcmread(io.BytesIO(source), force=True, specific_tags=_TAGS)
    if "SOPClassUID" in dataset:
        return dataset
    has_magic = source[MAGIC_AT : MAGIC_AT + 4] == MAGIC
    if has_magic or "SOPClassUID" in identity:
        what = "its pixel data" if "SOPClassUID" in identity else "its header"
        raise RefusedError(_TRUNCATED_FILE.format(what=what), "undecodable")
    msg = "not a DICOM image: no SOP class in it; send the file that the device or archive exports"
    raise RefusedError(msg, "undecodable")


def _patient(dataset: Dataset, pseudonymise: Pseudonymise) -> str | None:
    try:
        values = [dataset.get(name) for name in ("PatientID", "IssuerOfPatientID")]
    except READER_ERRORS:
        return None
    patient, issuer = (None if value is None else str(value) for value in values)
    return pseudonymise(patient, issuer)


def _exam_pseudonym(dataset: Dataset, name: str, pseudonymise: Pseudonymise) -> str | None:
    try:
        value = dataset.get(name)
    except READER_ERRORS:
        return None
    return None if value is None else pseudonymise(str(value), name)


def _is_burned_in(dataset: Dataset) -> bool | None:
    try:
        word = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    except READER_ERRORS:
        return True  # what cannot be read cannot be trusted
    return {"YES": True, "NO": False}.get(word)


def _device(dataset: Dataset) -> str | None:
    try:
        maker, model = (dataset.get(name) for name in ("Manufacturer", "ManufacturerModelName"))
    except READER_ERRORS:
        return None
    return device_category(str(maker or ""), str(model or ""))


def _check_kind(dataset: Dataset) -> None:
    sop_class = str(dataset.SOPClassUID)
    is_capture = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")
    is_ultrasound = str(dataset.get("Modality", "")).strip().upper() == "US"
    if sop_class in _ULTRASOUND or (is_capture and is_ultrasound):
        return
    of = " of another modality" if is_capture else ""
    msg = (
        f"SOP class {_uid_name(sop_class)}{of}, expected an ultrasound image or clip: send B-mode "
        "images alone"
    )
    raise RefusedError(msg, "not_ultrasound")


def _uid_name(uid: str) -> str:
    """A UID's name in the standard; another one may be anything and is not repeated."""
    name = UID(uid).name
    return "unknown" if name == uid else name


def _check_dicom_bounds(dataset: Dataset, bounds: ClipBounds) -> None:
    """Refuse pixels of a size or kind that is not decoded."""
    if "PixelData" not in dataset:
        msg = "no pixel data in it: truncated, or a header alone; copy it again from where it came"
        raise RefusedError(msg, "undecodable")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > bounds.max_pixels:
        msg = f"{columns} x {rows} pixels, more than max_pixels = {bounds.max_pixels}"
        raise RefusedError(msg, "too_large")
    bits, samples = int(dataset.BitsAllocated), int(dataset.SamplesPerPixel)
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    if bits not in (8, 16) or PHOTOMETRIC.get(photometric) != samples:
        name = photometric if photometric in PHOTOMETRIC else "unknown"
        msg = (
            f"{samples} samples of {bits} bits, photometric interpretation {name}: not read; "
            "export the file as MONOCHROME2 or RGB of 8 bits"
        )
        raise RefusedError(msg, "undecodable")
    if min(rows, columns) < 1:
        msg = f"no pixels: {columns} x {rows}; export the file again"
        raise RefusedError(msg, "undecodable")


def _checked_frame_count(dataset: Dataset, bounds: ClipBounds) -> int:
    """The number of frames that a file declares."""
    value = dataset.get("NumberOfFrames")
    n = 1 if value is None else int(value)
    if n > bounds.max_clip_frames:
        msg = f"{min(n, 10**12)} frames, more than max_clip_frames = {bounds.max_clip_frames}"
        raise RefusedError(msg, "too_large")
    if n < 1:
        msg = f"no pixels: {n} frames; export the file again"
        raise RefusedError(msg, "undecodable")
    return n


def _count_note(dataset: Dataset, n: int) -> str | None:
    """What a clip's file declares, where its stream holds another number of frames."""
    try:
        value = dataset.get("NumberOfFrames")
        declared_count = None if value is None else max(0, min(int(value), 10**12))
    except READER_ERRORS:
        declared_count = None
    if declared_count == n:
        return None
    number = "no number of frames" if declared_count is None else amount(declared_count, "frame")
    return f"the file declares {number}, its stream holds {n}: these are used"


def _check_syntax(uid: UID, patient: str) -> None:
    if is_decodable(uid):
        return
    name, number = _uid_name(uid), str(uid)
    # A number that may be the patient's is not repeated.
    digits = re.sub(r"\D", "", patient)
    if _UID_FORM.fullmatch(number) and not (digits and digits in number.replace(".", "")):
        name = f"{name} ({number})"
    msg = (
        f"transfer syntax {name}: no decoder for it is installed; export the file as JPEG, "
        "JPEG 2000 or uncompressed (`thyro doctor` lists what is read)"
    )
    raise RefusedError(msg, "undecodable")


def is_decodable(syntax: UID) -> bool:
    """Whether frames of a transfer syntax can be decoded here."""
    if syntax in VIDEO_SYNTAXES:
        return has_video()
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _check_length(dataset: Dataset, syntax: UID, n: int) -> None:
    """Refuse uncompressed pixels that are fewer than the file declares."""
    if syntax.is_encapsulated:
        return
    samples = int(dataset.SamplesPerPixel)
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    length = int(dataset.Rows) * int(dataset.Columns) * n * int(dataset.BitsAllocated) // 8
    length *= 2 if photometric.endswith("_422") else samples
    n_bytes = len(dataset.PixelData)
    if n_bytes < length:
        what = f"its pixel data ({n_bytes} of {length} bytes)"
        raise RefusedError(_TRUNCATED_FILE.format(what=what), "undecodable")


def transfer_syntax(dataset: Dataset) -> UID:
    """How a file's pixels are packed; of a file that does not say so, how it was read."""
    syntax_uid = dataset.file_meta.get("TransferSyntaxUID")
    if syntax_uid:
        return UID(str(syntax_uid))
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _frames(
    dataset: Dataset, syntax: UID, indices: list[int], boxes: tuple[Box, ...]
) -> Iterator[DicomFrame]:
    for index in indices:
        try:
            array, photometric = frame_samples(dataset, syntax, index)
            yield from _views(dataset, index, array, photometric=photometric, boxes=boxes)
        except READER_ERRORS as error:
            yield DicomFrame(index, None, *_why(error))


def _video_frames(dataset: Dataset, clip: Clip, boxes: tuple[Box, ...]) -> Iterator[DicomFrame]:
    for index, frame in clip.frames.items():
        try:
            if frame is None:
                raise RefusedError(_TRUNCATED_FILE.format(what="its clip"), "undecodable")
            yield from _views(dataset, index, frame, photometric="RGB", boxes=boxes)
        except READER_ERRORS as error:
            yield DicomFrame(index, None, *_why(error))


def _views(
    dataset: Dataset,
    index: int,
    array: npt.NDArray[Any],
    *,
    photometric: str,
    boxes: tuple[Box, ...],
) -> Iterator[DicomFrame]:
    """A frame, or each tissue region of it."""
    for place, box in enumerate(boxes or (None,)):
        view = (place, len(boxes)) if len(boxes) > 1 else None
        yield DicomFrame(index, frame_picture(array, photometric, dataset, box), view=view)
