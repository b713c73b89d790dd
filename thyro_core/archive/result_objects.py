"""The results of a study as DICOM objects: a structured report, and maps over their images.

An object's UID is derived from what it says, and two objects with one UID are the same to the byte:
whoever makes it again sends nothing new. Patient and study are those of the image.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UltrasoundImageStorage

from thyro_core import NOTICE, __version__
from thyro_core.archive.result_headers import ImageHeader
from thyro_core.archive.result_uids import derived_uid, series_uid
from thyro_core.imaging.dicom import silence

if TYPE_CHECKING:
    from highdicom.sr import AlgorithmIdentification, MeasurementsAndQualitativeEvaluations

SERIES_NAME = "Thyro: research use only"
"""Description of both series."""

_SCHEME = "99THYRO"
_PROBABILITY = Code("probability", _SCHEME, "Calibrated probability of malignancy")
_SPREAD = Code("spread", _SCHEME, "Standard deviation over the model's members")
_BAND = Code("band", _SCHEME, "Band of the worklist")
_REASON = Code("reason", _SCHEME, "Reason")
_VIEW = Code("view", _SCHEME, "View in the picture, from 0")
_NO_UNIT = Code("1", "UCUM", "no units")
_REPORT_SERIES, _MAP_SERIES = 9801, 9802
_BANNER_LINE, _BANNER_WIDTH = 18, 384
_LETTER_SIZE, _LEAST_SIZE, _BANNER_INK = 14, 7, (255, 255, 255)
# The same result made at another hour is the same object.
_NO_HOUR = "000000"
_SOME_ORIENTATION = ("L", "F")


@dataclass(frozen=True)
class ImageResult:
    """What a model says of a frame or view of an image, or why it says nothing.

    Attributes:
        header: of the image's file.
        frame: position in the file, from 0.
        view: place among several views of the frame, from 0; None: there is one.
        band: refer, review, routine, not scored or copy.
        reason: one of the worklist's words; None: there is none.
        probability: calibrated, of malignant; None: not scored.
        spread: of the members' probabilities; None: there is none.
    """

    header: ImageHeader
    frame: int
    view: int | None
    band: str
    reason: str | None
    probability: float | None
    spread: float | None

    def place(self) -> tuple[str, int, int]:
        """Where it stands in a report."""
        return self.header.instance, self.frame, self.view or 0

    @property
    def _facts(self) -> tuple[object, ...]:
        return (
            self.header.instance, self.frame, self.view, self.band, self.reason, self.probability,
            self.spread,
        )  # fmt: skip


@dataclass(frozen=True)
class Scoring:
    """What scored the images, and when.

    Attributes:
        model_id: of the registry.
        date: of the night, ISO 8601.
    """

    model_id: str
    date: str

    @property
    def day(self) -> str:
        """The date as DICOM has it."""
        return self.date.replace("-", "")


def report_uid(results: Sequence[ImageResult], scoring: Scoring) -> str:
    """The UID of the report of these results."""
    facts = sorted(repr(result._facts) for result in results)  # noqa: SLF001 - this module's own
    return derived_uid("report", __version__, scoring.model_id, scoring.date, *facts)


def map_uid(result: ImageResult, scoring: Scoring) -> str:
    """The UID of the map of a result."""
    return derived_uid("map", __version__, scoring.model_id, scoring.date, *result._facts)  # noqa: SLF001


def report_object(results: Sequence[ImageResult], scoring: Scoring) -> Dataset:
    """A structured report (TID 1500) with a measurement group for each image.

    Args:
        results: of images of one study, at least one.
        scoring: by what.
    """
    _silence_library()
    from highdicom.sr import (
        AlgorithmIdentification,
        ComprehensiveSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    observer = ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", scoring.model_id),
            name="Thyro",
            manufacturer_name="Thyro",
            model_name=scoring.model_id,
        ),
    )
    results = sorted(results, key=ImageResult.place)
    algorithm = AlgorithmIdentification(
        f"Thyro {scoring.model_id}", __version__, parameters=[NOTICE]
    )
    content = MeasurementReport(
        ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.DiagnosticUltrasonography,
        imaging_measurements=[_group(each, algorithm, scoring) for each in results],
    )
    study = results[0].header.study
    dataset = ComprehensiveSR(
        evidence=[_evidence(each.header) for each in results],
        content=content,
        series_instance_uid=series_uid(study, "report"),
        series_number=_REPORT_SERIES,
        sop_instance_uid=report_uid(results, scoring),
        instance_number=1,
        manufacturer="Thyro",
        **_common_elements(scoring),
    )
    classes = {each.header.instance: each.header.sop_class for each in results}
    for series in dataset.CurrentRequestedProcedureEvidenceSequence:
        for item in series.ReferencedSeriesSequence:
            for reference in item.ReferencedSOPSequence:
                reference.ReferencedSOPClassUID = classes[reference.ReferencedSOPInstanceUID]
    return _without_hour(dataset, scoring)


def map_object(result: ImageResult, pixels: npt.NDArray[np.uint8], scoring: Scoring) -> Dataset:
    """A secondary capture of an image with its map, and above it what it is not to be used for.

    Args:
        result: of the image.
        pixels: the image with the map over it, uint8 (H, W, 3).
        scoring: by what.
    """
    header, attributes = result.header, result.header.attributes
    _silence_library()
    from highdicom.sc import SCImage

    dataset = SCImage(
        pixel_array=with_banner(pixels, _caption(result, scoring)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.study,
        series_instance_uid=series_uid(header.study, "maps"),
        series_number=_MAP_SERIES,
        sop_instance_uid=map_uid(result, scoring),
        instance_number=1,
        manufacturer="Thyro",
        patient_id=attributes.PatientID,
        patient_name=attributes.PatientName,
        patient_birth_date=attributes.PatientBirthDate or None,
        patient_sex=attributes.PatientSex or None,
        accession_number=attributes.AccessionNumber,
        study_id=attributes.StudyID,
        study_date=attributes.StudyDate or None,
        study_time=attributes.StudyTime or None,
        referring_physician_name=attributes.ReferringPhysicianName,
        patient_orientation=_SOME_ORIENTATION,
        **_common_elements(scoring),
    )
    if "IssuerOfPatientID" in attributes:
        dataset.IssuerOfPatientID = attributes.IssuerOfPatientID
    # Nobody knows how the probe was held.
    dataset.PatientOrientation, dataset.Laterality = [], ""
    # What a file does not call free of names may show one, in the map's picture too.
    dataset.BurnedInAnnotation = "YES" if header.may_show_names else "NO"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = f"Grad-CAM of {scoring.model_id}, mean over members. {NOTICE}"
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
        header.sop_class,
        header.instance,
    )
    if header.has_frames:
        source.ReferencedFrameNumber = result.frame + 1
    dataset.SourceImageSequence = [source]
    return _without_hour(dataset, scoring)


def with_banner(pixels: npt.NDArray[np.uint8], caption: Sequence[str]) -> npt.NDArray[np.uint8]:
    """An image below lines of text in black, which no viewer's setting can hide.

    Args:
        pixels: uint8 (H, W, 3); a narrow image is set into the middle of a wider one.
        caption: lines of ASCII.
    """
    height, width = pixels.shape[:2]
    full_width = max(width, _BANNER_WIDTH)
    top = _BANNER_LINE * len(caption) + 6
    canvas = np.zeros((top + height, full_width, 3), np.uint8)
    left = (full_width - width) // 2
    canvas[top:, left : left + width] = pixels
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(caption):
        size = _LETTER_SIZE
        while size > _LEAST_SIZE and draw.textlength(line, font=_font(size)) > full_width - 8:
            size -= 1
        draw.text((4, 3 + _BANNER_LINE * number), line, fill=_BANNER_INK, font=_font(size))
    return np.asarray(picture)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _caption(result: ImageResult, scoring: Scoring) -> tuple[str, ...]:
    place = "" if not result.header.has_frames else f", frame {result.frame + 1}"
    place += "" if result.view is None else f", view {result.view + 1}"
    score = "" if result.probability is None else f", p(malignant) {_figure(result.probability)}"
    return (
        "RESEARCH USE ONLY. NOT A MEDICAL DEVICE.",
        f"Thyro {scoring.model_id} {scoring.date}: {result.band}{score}{place}",
        "Grad-CAM: colour from violet to yellow, little to much evidence; no outline.",
    )


def _figure(probability: float) -> str:
    """Three decimals, and never a false 0 or 1."""
    text = f"{probability:.3f}"
    if text == "1.000" and probability < 1:
        return "> 0.999"
    return "< 0.001" if text == "0.000" and probability > 0 else text


def _group(
    result: ImageResult, algorithm: "AlgorithmIdentification", scoring: Scoring
) -> "MeasurementsAndQualitativeEvaluations":
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    measurements = [
        Measurement(name, value, _NO_UNIT)
        for name, value in (
            (_PROBABILITY, result.probability),
            (_SPREAD, result.spread),
            (_VIEW, result.view),
        )
        if value is not None
    ]
    words = [(_BAND, result.band)] + ([(_REASON, result.reason)] if result.reason else [])
    frames = [result.frame + 1] if result.header.has_frames else None
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid("tracking", scoring.model_id, *result._facts),  # noqa: SLF001
            identifier=f"Thyro {result.band}",
        ),
        algorithm_id=algorithm,
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(
                name, Code(word.replace(" ", "_"), _SCHEME, word.replace("_", " "))
            )
            for name, word in words
        ],
        source_images=[
            SourceImageForMeasurementGroup(result.header.sop_class, result.header.instance, frames)
        ],
    )


def _evidence(header: ImageHeader) -> Dataset:
    """The image as the library wants it: of a class that it knows."""
    dataset = Dataset()
    dataset.update(header.attributes)
    dataset.SOPClassUID = UltrasoundImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = header.instance, header.series
    return dataset


def _common_elements(scoring: Scoring) -> dict[str, Any]:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return {
        "coding_schemes": [CodingSchemeIdentificationItem(_SCHEME, name="Thyro's own words")],
        "series_description": SERIES_NAME,
        "manufacturer_model_name": scoring.model_id,
        "software_versions": __version__,
        "content_date": scoring.day,
        "content_time": _NO_HOUR,
        "specific_character_set": "ISO_IR 192",
    }


def _without_hour(dataset: Dataset, scoring: Scoring) -> Dataset:
    """The object without the hour at which it was made."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = scoring.day, _NO_HOUR
    for name in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if name in dataset:
            delattr(dataset, name)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        del item.ContributionDateTime
    return dataset


def _silence_library() -> None:
    """Highdicom's log lines and warnings quote names and identifiers."""
    silence()
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"highdicom(\..*)?$")
