"""DICOM ultrasound files for tests: speckle inside, a made-up person in every text element."""

import io
import struct
import warnings
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage

US = "1.2.840.10008.5.1.4.1.1.6.1"
US_CLIP = "1.2.840.10008.5.1.4.1.1.3.1"

PERSON = {
    "PatientName": "Wronska^Zofia", "PatientID": "MRN-774411", "PatientBirthDate": "19530417",
    "IssuerOfPatientID": "Szpital-Wolski", "OtherPatientIDs": "PESEL-530417",
    "PatientAddress": "Kasprzaka 17", "PatientTelephoneNumbers": "555-0199",
    "PatientMotherBirthName": "Kowalczyk", "PatientComments": "niece of Nurse Ewa",
    "ReferringPhysicianName": "Nowak^Adam", "PerformingPhysicianName": "Lis^Ewa",
    "OperatorsName": "Sowa^Jan", "InstitutionName": "Klinika Endo",
    "InstitutionAddress": "Warszawa", "StationName": "US-ROOM-7",
    "StudyDescription": "THYROID of Zofia", "SeriesDescription": "left lobe",
    "AccessionNumber": "ACC-99812", "StudyID": "ST-5521", "Manufacturer": "ACME Sono",
    "ManufacturerModelName": "SonoMax 3000", "DeviceSerialNumber": "SN-31337",
    "ImageComments": "seen by Wronska", "ProtocolName": "Thyroid-Sowa", "StudyDate": "20240229",
}  # fmt: skip
"""Text that must never be seen again."""


def speckle(height: int = 96, width: int = 128, seed: int = 0, sigma: float = 1.2) -> np.ndarray:
    """uint8 (height, width): smooth speckle that passes for an ultrasound image."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, height, width)), (0, sigma, sigma))
    envelope = np.hypot(*field)
    depth = np.linspace(1, 0.4, height)[:, None]
    return np.clip(70 * depth * envelope / envelope.mean(), 0, 255).astype(np.uint8)


def dataset(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A dataset of frames (H, W[, 3]) or (n, H, W[, 3]) with PERSON in it; elements override."""
    is_colour = pixels.shape[-1] == 3
    frames = pixels.ndim - (3 if is_colour else 2)
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = US
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    found.SOPClassUID = US_CLIP if frames else US
    found.SOPInstanceUID = "1.2.3.4"
    found.Modality = "US"
    for name, value in PERSON.items():
        setattr(found, name, value)
    if frames:
        found.NumberOfFrames = len(pixels)
    shape = pixels.shape[1:] if frames else pixels.shape
    found.Rows, found.Columns = shape[:2]
    found.SamplesPerPixel = 3 if is_colour else 1
    found.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        found.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    found.add_new("PixelData", "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard forbids are on purpose
        for name, value in elements.items():
            setattr(found, name, value)
    return found


def saved(found: Dataset, *, preamble: bool = True) -> bytes:
    """The file's bytes; without its preamble and meta header, as very old files are."""
    buffer = io.BytesIO()
    if preamble:
        found.save_as(buffer, enforce_file_format=True)
    else:
        syntax = found.file_meta.TransferSyntaxUID
        del found.file_meta
        found.save_as(
            buffer, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
        )
    return buffer.getvalue()


def dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A whole file of uncompressed pixels."""
    return saved(dataset(pixels, syntax, **elements))


def encapsulated(pixels: np.ndarray, syntax: str, frames: list[bytes], **elements: Any) -> bytes:
    """A whole file of compressed frames; `pixels` only says what is declared of them."""
    found = dataset(pixels, syntax, **elements)
    found.add_new("PixelData", "OB", encapsulate(frames))
    found["PixelData"].is_undefined_length = True
    return saved(found)


def region(spatial: int, kind: int, box: tuple[int, int, int, int]) -> Dataset:
    """An ultrasound region: spatial format, data type, and left, top, right, bottom (inclusive)."""
    found = Dataset()
    found.RegionSpatialFormat, found.RegionDataType, found.RegionFlags = spatial, kind, 0
    found.RegionLocationMinX0, found.RegionLocationMinY0 = box[:2]
    found.RegionLocationMaxX1, found.RegionLocationMaxY1 = box[2:]
    return found


class _Bits:
    """Bits of an entropy-coded segment, with stuffed zeros."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def put(self, value: int, length: int) -> None:
        self._text.append(format(value, f"0{length}b") if length else "")

    def bytes(self) -> bytes:
        text = "".join(self._text)
        text += "1" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\x00")


def _difference(bits: _Bits, difference: int) -> None:
    """Category (a code of five bits, see `_jpeg`) and additional bits (T.81, F.1)."""
    category = abs(difference).bit_length()
    bits.put(category, 5)
    bits.put(difference if difference >= 0 else difference + (1 << category) - 1, category)


def _jpeg(start: int, bits: int, shape: tuple[int, ...], scan: tuple[int, int, int], data: bytes,
          *, table: bool) -> bytes:  # fmt: skip
    """A JPEG of one component; its Huffman codes are the categories 0 to 16 in five bits each."""
    height, width = shape
    huffman = bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    end_of_block = bytes([1, *[0] * 15]) + b"\0"
    segments = [
        (0xDB, b"\0" + b"\1" * 64) if table else None,
        (start, struct.pack(">BHHB", bits, height, width, 1) + b"\1\x11\0"),
        (0xC4, b"\0" + huffman + (b"\x10" + end_of_block if table else b"")),
        (0xDA, b"\1\1\0" + bytes(scan)),
    ]
    body = b"".join(
        bytes([0xFF, segment[0]]) + struct.pack(">H", len(segment[1]) + 2) + segment[1]
        for segment in segments
        if segment is not None
    )
    return b"\xff\xd8" + body + data + b"\xff\xd9"


def jpeg_lossless(pixels: np.ndarray, bits: int) -> bytes:
    """JPEG Lossless (process 14, each sample predicted by its left neighbour) of (H, W)."""
    stream, values = _Bits(), pixels.astype(int)
    for row in range(values.shape[0]):
        first = values[row - 1, 0] if row else 1 << (bits - 1)
        for difference in np.diff(values[row], prepend=first):
            _difference(stream, int(difference))
    return _jpeg(0xC3, bits, values.shape, (1, 0, 0), stream.bytes(), table=False)


def jpeg_of_blocks(blocks: np.ndarray, bits: int) -> bytes:
    """JPEG (DCT, extended) whose blocks of 8 x 8 pixels are of one value each: (rows, columns)."""
    stream, previous = _Bits(), 0
    for value in blocks.ravel().tolist():
        level = 8 * (value - (1 << (bits - 1)))
        _difference(stream, level - previous)
        stream.put(0, 1)
        previous = level
    shape = (8 * blocks.shape[0], 8 * blocks.shape[1])
    return _jpeg(0xC1, bits, shape, (0, 63, 0), stream.bytes(), table=True)
