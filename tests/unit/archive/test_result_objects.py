"""The results as DICOM objects: valid, reproducible, and of the right patient."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.support.dicoms import PERSON, dicom, speckle
from thyro_core import NOTICE
from thyro_core.archive.result_headers import ImageHeader, NoStudyError, read_image_header
from thyro_core.archive.result_objects import (
    SERIES_NAME,
    ImageResult,
    Scoring,
    _caption,
    map_object,
    report_object,
    with_banner,
)
from thyro_core.archive.result_uids import result_series
from thyro_core.screening.config import ScreeningRules

UID = "1.2.840.113619.77"
STUDY = f"{UID}.2.1"
CLIP = "1.2.840.10008.5.1.4.1.1.3.1"
RETIRED = "1.2.840.10008.5.1.4.1.1.6"
SCORING = Scoring("e-0123456789ab", "2026-11-25")


def header(number: int, **elements: object) -> ImageHeader:
    uids = {
        "SOPInstanceUID": f"{UID}.1.{number}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{UID}.3.1",
    }
    data = dicom(speckle(), **(uids | elements))
    found = read_image_header(io.BytesIO(data), ScreeningRules())
    assert found is not None
    return found


def results() -> list[ImageResult]:
    return [
        ImageResult(header(1), 0, None, "refer", None, 0.93125, 0.02),
        ImageResult(header(2, SOPClassUID=RETIRED), 0, 1, "review", "uncertain", 0.4, None),
        ImageResult(
            header(3, SOPClassUID=CLIP, NumberOfFrames=9), 4, None, "not scored", "blurred",
            None, None,
        ),
    ]  # fmt: skip


def file_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def picture() -> np.ndarray:
    return np.repeat(speckle()[:, :, None], 3, axis=2)


def errors_of(data: bytes, path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    path.write_bytes(data)
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any("SR" in line or "SCImage" in line for line in lines), lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="apt-get install dicom3tools")
@pytest.mark.parametrize("elements", [{}, dict.fromkeys(PERSON, ""), {"PatientSex": "X"}])
def test_they_are_valid(tmp_path: Path, elements: dict[str, str]) -> None:
    found = [*results(), ImageResult(header(4, **elements), 0, None, "refer", None, 0.8, None)]
    assert errors_of(file_bytes(report_object(found, SCORING)), tmp_path / "report.dcm") == []
    for result in (found[0], found[-1]):
        assert (
            errors_of(file_bytes(map_object(result, picture(), SCORING)), tmp_path / "m.dcm") == []
        )


def test_the_same_result_is_the_same_object_to_the_byte() -> None:
    one, other = report_object(results(), SCORING), report_object(results()[::-1], SCORING)
    assert file_bytes(one) == file_bytes(other)
    maps = [map_object(results()[0], picture(), SCORING) for _ in range(2)]
    assert file_bytes(maps[0]) == file_bytes(maps[1])
    changed = [*results()[:2], ImageResult(header(3), 4, None, "routine", None, 0.1, None)]
    assert report_object(changed, SCORING).SOPInstanceUID != one.SOPInstanceUID
    another = Scoring("e-ffffffffffff", SCORING.date)
    assert report_object(results(), another).SOPInstanceUID != one.SOPInstanceUID


def test_they_are_of_the_images_patient_and_study_in_series_of_their_own() -> None:
    for dataset in (
        report_object(results(), SCORING),
        map_object(results()[0], picture(), SCORING),
    ):
        assert str(dataset.PatientName) == PERSON["PatientName"]
        assert dataset.PatientID == PERSON["PatientID"]
        assert dataset.IssuerOfPatientID == PERSON["IssuerOfPatientID"]
        assert str(dataset.PatientBirthDate) == PERSON["PatientBirthDate"]
        assert dataset.StudyInstanceUID == STUDY
        assert dataset.AccessionNumber == PERSON["AccessionNumber"]
        assert dataset.SeriesInstanceUID in result_series(STUDY)
        assert dataset.SeriesDescription == SERIES_NAME
        assert "research use only" in SERIES_NAME
        assert PERSON["OperatorsName"] not in str(dataset)


def test_a_report_says_what_scored_which_image_and_how() -> None:
    text = str(report_object(results(), SCORING))
    for word in (SCORING.model_id, "0.93125", "refer", "uncertain", "blurred"):
        assert word in text
    assert NOTICE.encode() in file_bytes(report_object(results(), SCORING))
    evidence = {
        item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID
        for item in report_object(results(), SCORING)
        .CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .ReferencedSOPSequence
    }
    assert evidence[f"{UID}.1.2"] == RETIRED
    assert evidence[f"{UID}.1.3"] == CLIP


def test_a_map_says_above_the_image_what_it_is_not_for() -> None:
    pixels = picture()
    pixels[...] = 7
    dataset = pydicom.dcmread(io.BytesIO(file_bytes(map_object(results()[0], pixels, SCORING))))
    whole = dataset.pixel_array
    assert dataset.Modality == "OT", "as an ultrasound it would be screened"
    banner = whole[: whole.shape[0] - pixels.shape[0]]
    assert (banner == 255).sum() > 300, "letters"
    assert (whole[banner.shape[0] :][:, 150:200] == 7).all(), "the image below is untouched"
    assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == f"{UID}.1.1"


@pytest.mark.parametrize("width", [40, 384, 900])
def test_a_banner_fits(width: int) -> None:
    line = "RESEARCH USE ONLY. NOT A MEDICAL DEVICE."
    banner = with_banner(np.zeros((10, width, 3), np.uint8), (line, line + line))
    assert banner.shape[1] == max(width, 384)
    assert not banner[:, -2:].any(), "no letter is cut off"


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.98449, "0.984"), (0.99999, "> 0.999"), (1.0, "1.000"), (1e-6, "< 0.001"), (0.0, "0.000")],
)
def test_a_map_names_no_false_certainty(probability: float, text: str) -> None:
    result = ImageResult(header(1), 0, None, "refer", None, probability, None)
    assert f"refer, p(malignant) {text}" in _caption(result, SCORING)[1]


def test_a_study_of_a_root_that_nobody_was_given_is_joined() -> None:
    assert header(1, StudyInstanceUID="999.999.2.19941105.112000").study.startswith("999.999")


def test_names_in_pixels_are_denied_only_where_the_file_denies_them() -> None:
    result = ImageResult(header(1, BurnedInAnnotation="NO"), 0, None, "refer", None, 0.9, None)
    assert map_object(result, picture(), SCORING).BurnedInAnnotation == "NO"
    assert map_object(results()[0], picture(), SCORING).BurnedInAnnotation == "YES"


@pytest.mark.parametrize(
    "elements",
    [
        {"StudyInstanceUID": ""}, {"SOPInstanceUID": ""}, {"SeriesInstanceUID": "1." * 40},
        {"Rows": None},
    ],
)  # fmt: skip
def test_what_no_result_can_be_of(elements: dict[str, object]) -> None:
    from tests.support.dicoms import dataset, saved

    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{UID}.3.1"}
    found = dataset(speckle(), **(uids | {k: v for k, v in elements.items() if v is not None}))
    if "Rows" in elements:
        del found.Rows
        assert read_image_header(io.BytesIO(saved(found)), ScreeningRules()) is None
    else:
        with pytest.raises(NoStudyError):
            read_image_header(io.BytesIO(saved(found)), ScreeningRules())
    assert read_image_header(io.BytesIO(b"\x89PNG" + bytes(300)), ScreeningRules()) is None


def test_nothing_of_a_person_is_logged_or_shown(caplog, recwarn) -> None:
    caplog.set_level("DEBUG")
    found = [ImageResult(header(1, PatientName="Wronska Zofia M"), 0, None, "refer", None, 1, None)]
    file_bytes(report_object(found, SCORING))
    file_bytes(map_object(found[0], picture(), SCORING))
    told = caplog.text + str([str(each.message) for each in recwarn]) + repr(found)
    assert "Wronska" not in told
    assert UID not in told
