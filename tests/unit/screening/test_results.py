"""Results in the archive that the images are from: each once, of the right study, and no other."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.support.dicoms import PERSON, US_CLIP, dicom
from tests.support.orthanc import PASSWORD, USER, Orthanc, running_orthanc, why_not
from tests.support.screened import RULES, Ward, tissue
from tests.unit.archive.test_result_objects import errors_of, file_bytes
from thyro_core.archive.results_target import parse_target
from thyro_core.errors import InputError
from thyro_core.screening.night import batch_name, fetch_batch, files_here, plan_night
from thyro_core.screening.outbox import Outbox
from thyro_core.screening.results import Delivery, ResultsSender, begin_delivery, deliver
from thyro_core.settings import Settings
from thyro_core.store.store import Store

UID = "1.2.840.113619.66"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
needs_orthanc = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def instance(number: int, study: int, **elements: object) -> bytes:
    """An image that the tests' model refers, or not, by turns."""
    pixels = elements.pop("pixels", tissue(number, malignant=number % 2 == 0))
    uids = {
        "SOPInstanceUID": f"{UID}.1.{number}",
        "StudyInstanceUID": f"{UID}.2.{study}",
        "SeriesInstanceUID": f"{UID}.3.{study}",
        "PatientID": f"MRN-{study}",
    }
    return dicom(pixels, **(uids | elements))


@pytest.fixture
def orthanc(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("THYRO_DICOMWEB_USER", USER)
    monkeypatch.setenv("THYRO_DICOMWEB_PASSWORD", PASSWORD)
    with running_orthanc(tmp_path) as archive:
        yield archive


def night(
    ward: Ward, batch: str, date: str, results_to: str, *, dies: bool = False
) -> Delivery | None:
    """A night as the flow runs it, with its results."""
    settings = Settings(results_to=results_to, store_patience=0.5)
    plan = plan_night(ward.store, batch, date, None, RULES)
    begin_delivery(ward.store, plan, settings)
    files = fetch_batch(ward.store, batch, settings)
    result = ward.screen(date, batch=batch, place=files.place)
    if dies:
        return None
    delivery = deliver(ward.store, plan, settings, files.place, are_all_here=files.are_all_here)
    files.conclude(result.counts, delivery.unsent)
    return delivery


def thyros(archive: Orthanc) -> list[Dataset]:
    """The objects in an archive that are Thyro's, by kind and study."""
    objects = [pydicom.dcmread(io.BytesIO(data)) for data in archive.files()]
    return sorted(
        (each for each in objects if each.get("Manufacturer") == "Thyro"),
        key=lambda each: (each.Modality, each.StudyInstanceUID, each.SOPInstanceUID),
    )


def outcome(delivery: Delivery) -> tuple[int, int, int, int]:
    return delivery.n_studies, delivery.n_sent, delivery.n_present, len(delivery.unsent)


@needs_orthanc
def test_results_lie_beside_the_images_once(ward: Ward, orthanc: Orthanc, tmp_path: Path) -> None:
    for number in range(4):
        orthanc.put(instance(number, number // 2))
    clip = [tissue(20 + n, malignant=True) for n in range(3)]
    orthanc.put(instance(8, 0, pixels=np.stack(clip), SOPClassUID=US_CLIP))
    orthanc.put(instance(9, 1, SOPClassUID=REPORT))
    first = night(ward, orthanc.address, "2026-11-25", orthanc.results_to)
    found = thyros(orthanc)
    reports = [each for each in found if each.Modality == "SR"]
    maps = [each for each in found if each.Modality == "OT"]
    assert [each.StudyInstanceUID for each in reports] == [f"{UID}.2.0", f"{UID}.2.1"]
    assert [each.PatientID for each in reports] == ["MRN-0", "MRN-1"]
    assert maps
    assert outcome(first) == (2, len(found), 0, 0)
    for number, each in enumerate(found):
        assert str(each.PatientName) == PERSON["PatientName"]
        if shutil.which("dciodvfy"):
            assert errors_of(file_bytes(each), tmp_path / f"{number}.dcm") == []
    text = str(reports[0])
    assert f"{UID}.1.8" in text
    assert "Referenced Frame Number" in text
    # The next nights take none of them for an image, and send nothing again.
    for date in ("2026-11-25", "2026-11-26"):
        again = night(ward, orthanc.address, date, orthanc.results_to)
        assert outcome(again) == (0, 0, 0, 0)
        assert len(thyros(orthanc)) == len(found)
    orthanc.put(instance(30, 1))
    late = night(ward, orthanc.address, "2026-11-27", orthanc.results_to)
    assert late.n_studies == 1
    (report,) = [each for each in thyros(orthanc) if each.Modality == "SR"
                 and each.SOPInstanceUID not in {r.SOPInstanceUID for r in reports}]  # fmt: skip
    assert f"{UID}.1.30" in str(report)
    assert f"{UID}.1.3\n" not in str(report), "an image is reported once"
    told = "".join(kept_texts(ward.store))
    for secret in (UID, "MRN-", *PERSON.values()):
        assert secret not in told


def kept_texts(store: Store) -> list[str]:
    """Everything that a store holds but its models, as text; tables by their values."""
    texts = []
    for key in store.keys(""):
        data = store.read(key)
        if key.endswith(".parquet"):
            texts.append(str(pq.ParquetFile(io.BytesIO(data)).read().to_pylist()))
        if "registry" not in key:
            texts.append(key + data.decode("latin-1"))
    return texts


@needs_orthanc
def test_a_run_that_dies_before_it_sends_leaves_it_to_the_next_one(
    ward: Ward, orthanc: Orthanc
) -> None:
    orthanc.put(instance(0, 0))
    night(ward, orthanc.address, "2026-11-25", orthanc.results_to, dies=True)
    assert thyros(orthanc) == []
    delivery = night(ward, orthanc.address, "2026-11-26", orthanc.results_to)
    assert delivery.n_studies == 1
    (report,) = [each for each in thyros(orthanc) if each.Modality == "SR"]
    assert report.ContentDate == "20261125", "of the night that scored it"


# The library leaves the socket of a connection that is refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_orthanc
def test_an_archive_that_is_away_is_sent_the_results_later(ward: Ward, orthanc: Orthanc) -> None:
    orthanc.put(instance(0, 0))
    orthanc.put(instance(1, 1))
    away = "dicom://NOBODY@127.0.0.1:9"
    delivery = night(ward, orthanc.address, "2026-11-25", away)
    assert outcome(delivery) == (0, 0, 0, 2)
    assert "of 2 files not sent, the next run sends them" in delivery.sentence
    assert "has not answered" in delivery.sentence
    settings = Settings(results_to=away)
    place = files_here(ward.store, orthanc.address, settings)
    assert place is not None
    # Ledger and folder keep what is needed; nothing is scored again.
    outbox = Outbox(ward.store, away)
    (waiting,) = outbox.open_nights(orthanc.address)
    sender = ResultsSender(ward.store, settings, orthanc.address, place)
    shown: list[object] = []
    sender.preview([waiting], shown.append)
    assert [(each.date, each.bands.total()) for each in shown] == [("2026-11-25", 1)] * 2
    assert thyros(orthanc) == []


@needs_orthanc
def test_a_node_gets_them_by_c_store(ward: Ward, orthanc: Orthanc) -> None:
    orthanc.put(instance(0, 0))
    delivery = night(ward, orthanc.address, "2026-11-25", orthanc.node)
    found = thyros(orthanc)
    assert {each.Modality for each in found} >= {"SR"}
    assert outcome(delivery) == (1, len(found), 0, 0)


@needs_orthanc
def test_what_was_sent_and_not_noted_is_not_stored_again(
    ward: Ward, orthanc: Orthanc, monkeypatch
) -> None:
    batch = str(ward.batch)
    for number in range(3):
        (ward.batch / f"{number}.dcm").write_bytes(instance(number, 0))
    (ward.batch / "page.png").write_bytes(b"no image")
    (ward.batch / "nameless.dcm").write_bytes(instance(7, 0, StudyInstanceUID=""))
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "note", lambda *_: None)
        patch.setattr(Outbox, "finish", lambda *_: None)
        first = night(ward, batch, "2026-11-25", orthanc.results_to)
    assert "nothing of 1 image, whose headers name no study" in first.sentence
    second = night(ward, batch, "2026-11-26", orthanc.results_to)
    assert (second.n_sent, second.n_present) == (0, first.n_sent)
    assert len(thyros(orthanc)) == first.n_sent
    assert Outbox(ward.store, orthanc.results_to).open_nights(batch_name(batch)) == []


def test_two_patients_in_one_study_share_no_object(ward: Ward) -> None:
    for number in range(2):
        data = instance(number, 0, PatientID=f"MRN-{number}")
        (ward.batch / f"{number}.dcm").write_bytes(data)
    batch = str(ward.batch)
    ward.screen("2026-11-25")
    settings = Settings(results_to="dicom://A@127.0.0.1:9")
    plan = plan_night(ward.store, batch, "2026-11-25", None, RULES)
    shown: list[object] = []
    sender = ResultsSender(ward.store, settings, plan.batch, batch)
    sender.preview([plan], shown.append)
    assert len(shown) == 2


@pytest.mark.parametrize(
    "text",
    [
        "https://host/dicom-web", "dicomweb+https://host/dw?ModalitiesInStudy=US",
        "dicom://host:104", "dicom://AET@host", "dicom://A:word@host:104",
        "dicom://ATITLETHATISTOOLONG@host:104", "dicom://A@host:99999", "folder",
    ],
)  # fmt: skip
def test_addresses_that_results_cannot_go_to(text: str) -> None:
    with pytest.raises(InputError, match="THYRO_RESULTS_TO") as refusal:
        parse_target(text)
    assert "word" not in str(refusal.value)


def test_addresses_that_they_can_go_to() -> None:
    assert parse_target("dicom://AE-1@pacs.hospital:104").text == "dicom://AE-1@pacs.hospital:104"
    assert parse_target("dicomweb+https://host/dw").root == "https://host/dw"
