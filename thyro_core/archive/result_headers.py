"""Whose image a DICOM file is: what its result has in common with it, in clear.

These are identifiers: they go into the result, which goes to the archive, and nowhere else.
"""

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from pydicom.dataset import Dataset

from thyro_core.errors import ThyroError
from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.dicom import READER_ERRORS, element_tags
from thyro_core.imaging.dicom_header import read_elements

_TEXT_NAMES = (
    "PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip
_RESULT_TAGS = element_tags(
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "StudyDate", "StudyTime", "PatientBirthDate", "PatientSex",
    "Rows", "BurnedInAnnotation", *_TEXT_NAMES,
)  # fmt: skip
# Roots that nobody was given are in archives, too: a result joins the study as it is called there.
_VALID_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LONGEST_UID = 64
_DATE_FORM = re.compile(r"[0-9]{8}")
_TIME_FORM = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_CLASSES_WITH_FRAMES = {
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
    *(f"1.2.840.10008.5.1.4.1.1.7.{number}" for number in range(1, 5)),
}
_SEXES = ("M", "F", "O")


class NoStudyError(ThyroError):
    """A DICOM image whose header names no study, series or instance, so that no result joins it."""


@dataclass(frozen=True)
class ImageHeader:
    """What a result takes over of the image that it is of.

    Attributes:
        sop_class: SOPClassUID.
        instance: SOPInstanceUID.
        series: SeriesInstanceUID.
        study: StudyInstanceUID.
        patient: PatientID and its issuer; who it is, to tell two patients in one study.
        has_frames: whether a reference to it names one of several frames.
        attributes: of patient and study, valid values alone.
        may_show_names: whether names may be drawn into the pixels; only a file that denies it is
            free of them.
    """

    sop_class: str = field(repr=False)
    instance: str = field(repr=False)
    series: str = field(repr=False)
    study: str = field(repr=False)
    patient: tuple[str, str] = field(repr=False)
    has_frames: bool
    attributes: Dataset = field(repr=False, compare=False)
    may_show_names: bool = True


def read_image_header(file: BinaryIO, bounds: ClipBounds) -> ImageHeader | None:
    """The header of a DICOM image; None: it is none.

    Args:
        file: at its beginning.
        bounds: of what a deflated file may unpack to.

    Raises:
        NoStudyError: no result could join it.
        OSError: the file cannot be read.
    """
    dataset = read_elements(file, bounds, _RESULT_TAGS)
    if dataset is None:
        return None
    try:
        return _header_of(dataset)
    except READER_ERRORS:
        return None


def _header_of(dataset: Dataset) -> ImageHeader | None:
    names = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    sop_class, instance, series, study = (_uid(dataset, name) for name in names)
    if not sop_class or "Rows" not in dataset:
        return None
    if not (instance and series and study):
        raise NoStudyError
    attributes = Dataset()
    for name in _TEXT_NAMES:
        setattr(attributes, name, _clean_text(dataset, name))
    attributes.StudyInstanceUID = study
    for name, form in (
        ("PatientBirthDate", _DATE_FORM), ("StudyDate", _DATE_FORM), ("StudyTime", _TIME_FORM),
    ):  # fmt: skip
        value = _clean_text(dataset, name)
        setattr(attributes, name, value if form.fullmatch(value) else "")
    sex = _clean_text(dataset, "PatientSex").upper()
    attributes.PatientSex = sex if sex in _SEXES else ""
    if not attributes.IssuerOfPatientID:
        del attributes.IssuerOfPatientID
    return ImageHeader(
        sop_class=sop_class,
        instance=instance,
        series=series,
        study=study,
        patient=(_clean_text(dataset, "PatientID"), _clean_text(dataset, "IssuerOfPatientID")),
        has_frames=sop_class in _CLASSES_WITH_FRAMES,
        attributes=attributes,
        may_show_names=_clean_text(dataset, "BurnedInAnnotation").upper() != "NO",
    )


def _uid(dataset: Dataset, name: str) -> str:
    text = _clean_text(dataset, name)
    return text if len(text) <= _LONGEST_UID and _VALID_UID.fullmatch(text) else ""


def _clean_text(dataset: Dataset, name: str) -> str:
    """A value as text without control characters; empty: there is none, or it is not legible."""
    try:
        value = dataset.get(name)
    except READER_ERRORS:
        return ""
    text = "" if value is None else str(value)
    return "".join(letter for letter in text if letter.isprintable()).strip()
