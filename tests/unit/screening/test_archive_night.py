"""Nights whose batch is an archive: every instance has its rows, none is scored twice."""

from pathlib import Path

import pytest

from tests.support.dicoms import dicom
from tests.support.orthanc import PASSWORD, USER, running_orthanc, why_not
from tests.support.screened import Ward, tissue
from thyro_core.screening.night import fetch_batch
from thyro_core.settings import Settings
from thyro_core.tables.io import read_table

UID = "1.2.840.113619.99"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"


def instance(number: int, study: int, **elements: str) -> bytes:
    return dicom(
        tissue(number, malignant=number % 2 == 0),
        SOPInstanceUID=f"{UID}.1.{number}",
        StudyInstanceUID=f"{UID}.2.{study}",
        SeriesInstanceUID=f"{UID}.3.{study}",
        PatientID=f"MRN-{study}",
        **elements,
    )


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_two_nights_of_an_archive(ward: Ward, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("THYRO_DICOMWEB_USER", USER)
    monkeypatch.setenv("THYRO_DICOMWEB_PASSWORD", PASSWORD)
    with running_orthanc(tmp_path) as orthanc:
        for number in range(4):
            orthanc.put(instance(number, number // 2))
        orthanc.put(instance(9, 1, SOPClassUID=REPORT))

        def night(date: str, *, dies: bool = False) -> int:
            files = fetch_batch(ward.store, orthanc.address, Settings())
            result = ward.screen(date, batch=orthanc.address, place=files.place)
            if not dies:
                files.conclude(result.counts)
            return result.totals.received

        # Killed after its rows were written and before they were noted as taken.
        assert night("2026-11-25", dies=True) == 5
        orthanc.stop()
        orthanc.start()
        assert night("2026-11-25") == 5
        orthanc.put(instance(0, 0))
        orthanc.put(instance(5, 0))
        orthanc.put(instance(6, 7))
        assert night("2026-11-26") == 2
        assert night("2026-11-27") == 0
    table = read_table(ward.store, "screening").to_pylist()
    assert len({row["image_id"] for row in table}) == len(table) == 7
    reasons = [row["reason"] for row in table if row["status"] == "rejected"]
    assert "not_ultrasound" in reasons
    told = str(table) + "".join(str(path) for path in tmp_path.rglob("*"))
    assert UID not in told
    assert "MRN-" not in told
    assert not list((tmp_path / "scratch").rglob("*.dcm"))
