"""From the archive and back to it, with real parts: Orthanc, DICOM's tools, the served flow.

Two nights, a kill in the middle of the first one, an archive that is started anew: every instance
has its rows and its result once, and whose they are stands in the archive and in one file alone.
"""

import io
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from tests.support.dicoms import (
    PERSON,
    US_CLIP,
    dataset,
    encapsulated,
    jpeg_lossless,
    saved,
)
from tests.support.orthanc import PASSWORD, TITLE, USER, Orthanc, running_orthanc, why_not
from tests.support.prefectserver import Serving, processes_of, serving, wait_until
from tests.support.screened import tissue
from tests.unit.screening.test_results import kept_texts, thyros
from thyro_core.store.keys import identifiers_key, worklist_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables.io import read_table

UID = "1.2.840.113619.44"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
LOSSLESS = "1.2.840.10008.1.2.4.70"
RULES = {"outlier_quantile": 1.0}
LINKS = "https://viewer.example/ohif?StudyInstanceUIDs={study}"
NO_TOOLS = why_not() or (None if shutil.which("dcmsend") else "apt-get install dcmtk")


def elements(number: int, study: int) -> dict[str, str]:
    return {
        "SOPInstanceUID": f"{UID}.1.{number}",
        "StudyInstanceUID": f"{UID}.2.{study}",
        "SeriesInstanceUID": f"{UID}.3.{study}",
        "PatientID": f"MRN-{study}",
        "PatientName": f"Wronska{study}^Zofia",
    }


def whole(found: Dataset) -> bytes:
    """The file's bytes, with a meta header that says the same as the object."""
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    return saved(found)


def still(number: int, study: int) -> bytes:
    return whole(dataset(tissue(number, malignant=number % 2 == 0), **elements(number, study)))


def clip(number: int, study: int) -> bytes:
    frames = np.stack([tissue(number + n, malignant=True) for n in range(3)])
    return whole(dataset(frames, SOPClassUID=US_CLIP, **elements(number, study)))


def run_length(number: int, study: int) -> bytes:
    found = dataset(tissue(number), **elements(number, study))
    found.compress(RLELossless, generate_instance_uid=False)
    return whole(found)


def lossless(number: int, study: int) -> bytes:
    pixels = tissue(number, malignant=True)
    data = encapsulated(pixels, LOSSLESS, [jpeg_lossless(pixels, 8)], **elements(number, study))
    return whole(pydicom.dcmread(io.BytesIO(data)))


def without_pixels(number: int, study: int, sop_class: str) -> bytes:
    found = dataset(tissue(number), **elements(number, study))
    found.SOPClassUID = sop_class
    for name in ("PixelData", "Rows", "Columns"):
        delattr(found, name)
    if sop_class == PDF:
        found.MIMETypeOfEncapsulatedDocument = "application/pdf"
        found.add_new("EncapsulatedDocument", "OB", b"%PDF-1.4 of Wronska^Zofia")
    return whole(found)


def push(orthanc: Orthanc, folder: Path, *objects: bytes) -> None:
    """Send objects as a scanner does."""
    folder.mkdir()
    for number, data in enumerate(objects):
        (folder / f"{number}.dcm").write_bytes(data)
    address = ["127.0.0.1", str(orthanc.dicom_port)]
    command = ["dcmsend", "-aec", TITLE, *address, "--scan-directories", "--recurse", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def environment(orthanc: Orthanc, folder: Path) -> dict[str, str]:
    return {
        "THYRO_DICOMWEB_USER": USER,
        "THYRO_DICOMWEB_PASSWORD": PASSWORD,
        "THYRO_RESULTS_TO": orthanc.results_to,
        "THYRO_WORKLIST_LINKS": LINKS,
        "THYRO_PSEUDONYM_KEY": "a-secret-of-the-tests",
        "THYRO_SCRATCH": str(folder / "scratch"),
    }


def night(server: Serving, orthanc: Orthanc, date: str) -> str:
    run = server.over(server.create("screening", batch=orthanc.address, date=date, rules=RULES))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    return str(run["state"]["message"])


def run_processes(server: Serving) -> list[int]:
    """The processes of runs that a server has started, without those of Ray."""
    lines = processes_of(server.home)
    found = [number for number, line in lines.items() if "engine" in line]
    assert found, lines
    return found


def assert_all_is_accounted_for(store: Store, n_instances: int) -> None:
    rows = read_table(store, "screening").to_pylist()
    assert len({row["path_id"] for row in rows}) == n_instances
    assert len({row["image_id"] for row in rows}) == len(rows)
    pictures = [row["picture_id"] for row in rows if row["status"] == "scored"]
    assert len(set(pictures)) == len(pictures) > 0, "nothing is scored twice"


@pytest.mark.slow
@pytest.mark.skipif(NO_TOOLS is not None, reason=str(NO_TOOLS))
def test_from_the_archive_and_back_to_it(model, tmp_path: Path) -> None:
    shutil.copytree(Path(model[0].root) / "registry", tmp_path / "store" / "registry")
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "archive").mkdir()
    with running_orthanc(tmp_path / "archive") as orthanc:
        push(orthanc, tmp_path / "archive" / "first", still(0, 0), still(1, 0), still(2, 0),
             clip(10, 1), run_length(3, 1), lossless(4, 2),
             without_pixels(5, 2, REPORT), without_pixels(6, 2, PDF))  # fmt: skip
        variables = environment(orthanc, tmp_path)
        with serving(tmp_path, **variables) as server:
            # Killed in the middle of its first night, and the archive started anew.
            run_id = server.create(
                "screening", batch=orthanc.address, date="2026-11-25", rules=RULES
            )
            wait_until(lambda: store.keys("results"), "the night has begun")
            for run in run_processes(server):
                os.kill(run, signal.SIGKILL)
            assert server.over(run_id)["state_type"] == "CRASHED"
            assert thyros(orthanc) == []
            orthanc.stop()
            orthanc.start()
            sentence = night(server, orthanc, "2026-11-25")
            first = [each.SOPInstanceUID for each in thyros(orthanc)]
            assert f"results of 3 studies in the archive: {len(first)} objects sent" in sentence
            assert_all_is_accounted_for(store, 8)
            # Two late studies, and one that is sent again.
            push(orthanc, tmp_path / "archive" / "late", still(20, 7), still(21, 7), still(22, 8),
                 still(0, 0), still(1, 0), still(2, 0))  # fmt: skip
            assert "results of 2 studies" in night(server, orthanc, "2026-11-26")
            assert "results of 0 studies" in night(server, orthanc, "2026-11-27")
            assert_all_is_accounted_for(store, 11)
            found = thyros(orthanc)
            assert {each.SOPInstanceUID for each in found} > set(first)
            reports = [each for each in found if each.Modality == "SR"]
            assert sorted(each.StudyInstanceUID for each in reports) == [
                f"{UID}.2.{study}" for study in (0, 1, 2, 7, 8)
            ]
            assert len([each for each in found if each.Modality == "OT"]) > 0
            for each in found:
                assert each.PatientID == f"MRN-{each.StudyInstanceUID[-1]}"
            assert_pages_lead_to_studies(server, store)
            said = server.said()
    assert_nobody_is_named(store, tmp_path, said)


def assert_pages_lead_to_studies(server: Serving, store: Store) -> None:
    (line,) = [line for line in server.said().splitlines() if "worklists at" in line]
    url = line.split("worklists at ")[1].split(",")[0].split()[0]
    with httpx.Client(base_url=url) as browser:
        page = browser.get("/screening/2026-11-26/").text
        links = {part.split('"')[0] for part in page.split('href="study/')[1:]}
        assert len(links) == 2
        places = {
            browser.get(f"/screening/2026-11-26/study/{exam}").headers["location"] for exam in links
        }
    assert places == {LINKS.format(study=f"{UID}.2.{study}") for study in (7, 8)}
    assert UID not in page


def assert_nobody_is_named(store: Store, folder: Path, said: str) -> None:
    """In tables, logs, pages, Prefect's database: everything but the archive."""
    assert store.exists(identifiers_key())
    assert store.exists(worklist_key("2026-11-26", "html"))
    places = {"store": "".join(kept_texts(store)), "said": said}
    for file in folder.rglob("*"):
        if file.is_file() and "archive" not in file.relative_to(folder).parts:
            places[str(file)] = str(file) + file.read_bytes().decode("latin-1")
    secrets = {UID, "MRN-", "Wronska", *PERSON.values()} - {"ACME Sono", "SonoMax 3000"}
    for place, text in places.items():
        named = [secret for secret in secrets if secret in text]
        assert named == [], place
