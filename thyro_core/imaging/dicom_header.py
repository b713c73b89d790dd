"""What a DICOM file calls itself, its exam and its patient: for grouping and for finding labels.

These are identifiers in clear. They stay in memory, in no log, table or message.
"""

from dataclasses import dataclass, field
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.dicom import READER_ERRORS, element_tags, silence
from thyro_core.imaging.dicom_deflated import header_stream
from thyro_core.pseudonyms import normal_id

_HEADER_TAGS = element_tags(
    "SpecificCharacterSet", "SOPInstanceUID", "AccessionNumber", "PatientID", "IssuerOfPatientID",
    "StudyInstanceUID",
)  # fmt: skip


@dataclass(frozen=True)
class DicomHeader:
    """Identifiers of a file; None: it names none, or not legibly."""

    instance: str | None = field(default=None, repr=False)
    """SOPInstanceUID."""
    study: str | None = field(default=None, repr=False)
    """StudyInstanceUID."""
    accession: str | None = field(default=None, repr=False)
    """AccessionNumber."""
    patient: str | None = field(default=None, repr=False)
    """PatientID in normal form: ids that mean one patient are the same text."""
    issuer: str | None = field(default=None, repr=False)
    """IssuerOfPatientID, likewise."""


def read_header(file: BinaryIO, bounds: ClipBounds) -> DicomHeader:
    """The identifiers of a DICOM file, of which no more is read than they take.

    Args:
        file: at its beginning.
        bounds: of what a deflated file may unpack to.

    Returns:
        As much as can be read; nothing of a damaged header, whose file says why when it is decoded.

    Raises:
        OSError: the file cannot be read.
    """
    dataset = read_elements(file, bounds, _HEADER_TAGS)
    if dataset is None:
        return DicomHeader()
    patient, issuer = (_header_text(dataset, name) for name in ("PatientID", "IssuerOfPatientID"))
    return DicomHeader(
        _header_text(dataset, "SOPInstanceUID"),
        _header_text(dataset, "StudyInstanceUID"),
        _header_text(dataset, "AccessionNumber"),
        normal_id(patient) or None,
        normal_id(issuer) or None,
    )


def read_elements(file: BinaryIO, bounds: ClipBounds, tags: list[BaseTag | int]) -> Dataset | None:
    """Some elements of a DICOM file, which is read to the last of them.

    Args:
        file: at its beginning.
        bounds: of what a deflated file may unpack to.
        tags: of the elements.

    Returns:
        None: the file is damaged, or of another kind.

    Raises:
        OSError: the file cannot be read.
    """
    last_tag = max(tags)

    def is_beyond(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return bool(tag > last_tag)

    silence()
    try:
        return read_partial(
            header_stream(file, bounds), stop_when=is_beyond, force=True, specific_tags=tags
        )
    except OSError as error:
        if error.errno is not None:
            raise
        return None
    except READER_ERRORS:
        return None


def _header_text(dataset: Dataset, name: str) -> str | None:
    try:
        value = dataset.get(name)
    except READER_ERRORS:
        return None
    return None if value is None else str(value).replace("\0", " ").strip() or None
