"""Nights take what is new in a DICOMweb archive, however it behaves, and nothing twice."""

import json
import logging
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.dicoms import dicom, speckle
from tests.support.orthanc import PASSWORD, USER, running_orthanc, why_not
from thyro_core.archive.dicomweb import parse_address
from thyro_core.archive.multipart import TruncationError, first_part
from thyro_core.archive.spool import Spool, open_folder, open_spool
from thyro_core.config import IngestConfig
from thyro_core.datasets.layouts import read_image_set
from thyro_core.errors import InputError, StoreError
from thyro_core.settings import Settings
from thyro_core.store.store import Store, open_store

UID = "1.2.840.113619.88"
SALT = b"salt of the tests"
TOKEN = "a-token-of-the-tests"


class FakeArchive(ThreadingHTTPServer):
    """Answers QIDO-RS and WADO-RS of objects in memory; faults on demand."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.objects: dict[str, dict[str, bytes]] = {}
        """study -> instance -> bytes."""
        self.page = 1000
        self.knows_pages = True
        self.says_counts = True
        self.lost: set[str] = set()
        self.lost_status = 404
        self.failures: list[int] = []
        """Statuses that come before any proper answer."""
        self.cut: set[str] = set()
        self.requests: list[str] = []
        self.authorisations: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.server_port}/dicom-web?ModalitiesInStudy=US"

    def put(self, study: int, instance: int, data: bytes | None = None) -> None:
        of_study = self.objects.setdefault(f"{UID}.2.{study}", {})
        of_study[f"{UID}.1.{instance}"] = data or f"object {instance}".encode() * 1000


class Answers(BaseHTTPRequestHandler):
    server: FakeArchive

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, url = self.server, urlsplit(self.path)
        server.requests.append(url.path)
        server.authorisations.add(self.headers["Authorization"])
        if server.failures:
            self.answer(server.failures.pop(0), b"")
            return
        parts = url.path.strip("/").split("/")[1:]
        if len(parts) == 6:
            self.give(parts[1], parts[5])
            return
        if len(parts) == 1:
            rows = [
                {"0020000D": {"vr": "UI", "Value": [study]}}
                | ({"00201208": {"Value": [len(some)]}} if server.says_counts else {})
                for study, some in server.objects.items()
            ]
        else:
            rows = [
                {"00080018": {"Value": [name]}, "0020000E": {"Value": [f"{UID}.3"]}}
                for name in server.objects[parts[1]]
            ]
        query = parse_qs(url.query)
        if server.knows_pages:
            start = int(query["offset"][0])
            rows = rows[start : start + min(server.page, int(query["limit"][0]))]
        self.answer(200, json.dumps(rows).encode(), "application/dicom+json")

    def give(self, study: str, name: str) -> None:
        if name in self.server.lost:
            self.answer(self.server.lost_status, b"")
            return
        data = self.server.objects[study][name]
        body = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--xyz--\r\n"
        if name in self.server.cut:
            self.server.cut.discard(name)
            body = body[: len(body) // 2]
        self.answer(200, body, 'multipart/related; type="application/dicom"; boundary="xyz"')

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def archive() -> Iterator[FakeArchive]:
    with FakeArchive() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def settings(**values: Any) -> Settings:
    return Settings(**({"store_patience": 5.0} | values))


def night(store: Store, address: str, scratch: Path, **values: Any) -> tuple[Spool, set[bytes]]:
    """The spool of a night, and what was in it."""
    spool = open_spool(store, address, SALT, scratch)
    spool.fetch(settings(**values))
    contents = {file.read_bytes() for file in spool.folder.iterdir()}
    spool.conclude()
    return spool, contents


def test_a_night_takes_all_and_the_next_one_what_is_new(archive, store, tmp_path) -> None:
    for number in range(7):
        archive.put(number // 3, number)
    first, contents = night(store, archive.address, tmp_path)
    assert (first.n_fetched, first.n_withheld, len(contents)) == (7, 0, 7)
    assert not first.folder.exists()
    archive.requests.clear()
    second, contents = night(store, archive.address, tmp_path)
    assert (second.n_fetched, contents) == (0, set())
    assert not any("instances" in path for path in archive.requests), "no study is looked into"
    archive.put(0, 90)  # late, in a study that was taken
    archive.put(9, 91)
    third, contents = night(store, archive.address, tmp_path)
    assert third.n_fetched == len(contents) == 2


def test_an_instance_that_is_sent_again_is_not_taken_again(archive, store, tmp_path) -> None:
    archive.says_counts = False
    archive.put(1, 1)
    night(store, archive.address, tmp_path)
    archive.put(1, 1)
    archive.put(1, 2)
    spool, _ = night(store, archive.address, tmp_path)
    assert spool.n_fetched == 1


@pytest.mark.parametrize("page", [1, 3, 1000])
@pytest.mark.parametrize("knows_pages", [True, False])
def test_answers_come_in_pages(archive, store, tmp_path, page: int, knows_pages: bool) -> None:
    archive.page, archive.knows_pages = page, knows_pages
    for number in range(8):
        archive.put(number % 4, number)
    assert night(store, archive.address, tmp_path)[0].n_fetched == 8


def test_a_busy_archive_is_asked_again(archive, store, tmp_path) -> None:
    archive.put(1, 1)
    archive.failures = [503, 429, 500]
    assert night(store, archive.address, tmp_path)[0].n_fetched == 1


def test_an_object_that_is_cut_is_fetched_again_as_a_whole(archive, store, tmp_path) -> None:
    archive.put(1, 1)
    archive.cut = {f"{UID}.1.1"}
    _, contents = night(store, archive.address, tmp_path)
    assert contents == {b"object 1" * 1000}


def test_an_instance_that_is_lost_is_counted_and_tried_again(archive, store, tmp_path) -> None:
    archive.put(1, 1)
    archive.put(1, 2)
    archive.lost = {f"{UID}.1.2"}
    spool, contents = night(store, archive.address, tmp_path)
    assert (spool.n_fetched, spool.n_withheld, len(contents)) == (1, 1, 1)
    archive.lost = set()
    assert night(store, archive.address, tmp_path)[0].n_fetched == 1


def test_what_a_killed_run_fetched_is_not_fetched_again(archive, store, tmp_path) -> None:
    archive.put(1, 1)
    archive.put(1, 2)
    dead = open_spool(store, archive.address, SALT, tmp_path)
    dead.fetch(settings())
    next(dead.folder.iterdir()).unlink()
    (dead.folder / "half.part").write_bytes(b"half")
    spool, contents = night(store, archive.address, tmp_path)
    assert (spool.n_fetched, len(contents)) == (1, 2)
    assert night(store, archive.address, tmp_path)[0].n_fetched == 0


def test_a_folder_is_filled_with_what_it_lacks(archive, tmp_path) -> None:
    archive.put(1, 1)
    archive.put(2, 2)
    for n_fetched, n_present in ((2, 0), (0, 2)):
        folder = open_folder(archive.address, tmp_path / "set")
        folder.fetch(settings())
        assert (folder.n_fetched, folder.n_present) == (n_fetched, n_present)
        folder.conclude()
    assert len(list((tmp_path / "set").glob("*.dcm"))) == 2


def test_an_archive_is_no_source_of_labels() -> None:
    with pytest.raises(InputError, match="`thyro fetch ADDRESS FOLDER`"):
        read_image_set("dicomweb+https://host/dicom-web?ModalitiesInStudy=US", IngestConfig())


def test_an_archive_that_is_away_ends_the_night_with_its_cure(store, tmp_path) -> None:
    with pytest.raises(StoreError, match=r"has not answered .* see that it runs"):
        night(store, "dicomweb+http://127.0.0.1:9/dicom-web", tmp_path, store_patience=0.3)


@pytest.mark.parametrize(("status", "word"), [(401, "DICOMWEB_TOKEN"), (404, "check the address")])
def test_a_refusal_says_what_to_do(archive, store, tmp_path, status: int, word: str) -> None:
    archive.failures = [status]
    with pytest.raises(InputError, match=word):
        night(store, archive.address, tmp_path)


def test_credentials_are_sent_and_never_said(archive, store, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    archive.put(1, 1)
    night(store, archive.address, tmp_path, dicomweb_token=TOKEN)
    assert archive.authorisations == {f"Bearer {TOKEN}"}
    said = caplog.text + json.dumps([record.getMessage() for record in caplog.records])
    assert TOKEN not in said
    assert UID not in said, "addresses hold the identifiers of studies"
    archive.authorisations.clear()
    night(store, archive.address, tmp_path, dicomweb_user=USER, dicomweb_password=PASSWORD)
    (basic,) = archive.authorisations
    assert str(basic).startswith("Basic ")


def test_no_identifier_is_kept(archive, store, tmp_path) -> None:
    archive.put(1, 1)
    spool = open_spool(store, archive.address, SALT, tmp_path)
    spool.fetch(settings())
    assert not any(UID in str(path) for path in tmp_path.rglob("*"))
    spool.conclude()
    assert not any(
        UID.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("dicomweb+https://me:word@host/dicom-web", "without user and password"),
        ("dicomweb+http://pacs.hospital/dicom-web", r"expected dicomweb\+https"),
        ("dicomweb+https:///dicom-web", "no host"),
        ("dicomweb+https://host/dicom-web?PatientID=7", "filters that name nobody"),
        ("dicomweb+https://host/dicom-web?00100020=7", "filters that name nobody"),
        ("dicomweb+https://host/dicom-web?StudyInstanceUID=1.2", "filters that name nobody"),
    ],
)
def test_addresses_that_may_not_be(address: str, word: str) -> None:
    with pytest.raises(InputError, match=word) as refusal:
        parse_address(address)
    assert "word@" not in str(refusal.value)


def test_an_address_is_taken_apart() -> None:
    address = parse_address("dicomweb+https://h:8/dw/?ModalitiesInStudy=US&StudyDescription=*thy*")
    assert address.root == "https://h:8/dw"
    assert address.query == (("ModalitiesInStudy", "US"), ("StudyDescription", "*thy*"))
    assert (
        parse_address("dicomweb+http://[::1]:8042/dicom-web").root == "http://[::1]:8042/dicom-web"
    )


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost with its key, signed by itself."""
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, *subject, "-keyout", str(key), "-out", str(file)], check=True,
                   capture_output=True)  # fmt: skip
    file.write_text(file.read_text() + key.read_text())
    return file


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_certificates_are_checked_on_both_sides(
    archive, store, tmp_path, certificate, monkeypatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    archive.socket = context.wrap_socket(archive.socket, server_side=True)
    archive.put(1, 1)
    address = f"dicomweb+https://localhost:{archive.server_port}/dicom-web"
    with pytest.raises(InputError, match="its certificate is not trusted"):
        night(store, address, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises((InputError, StoreError)):
        night(store, address, tmp_path, store_patience=0.3)
    assert archive.requests == [], "without a certificate of its own it is turned away"
    spool, _ = night(store, address, tmp_path, dicomweb_certificate=certificate)
    assert spool.n_fetched == 1
    with pytest.raises(InputError, match="expected a PEM file"):
        night(store, address, tmp_path, dicomweb_certificate=tmp_path / "none.pem")


def test_an_instance_that_is_refused_alone_is_left_to_the_next_night(
    archive, store, tmp_path
) -> None:
    archive.put(1, 1)
    spool = open_spool(store, archive.address, SALT, tmp_path)
    archive.lost_status, archive.lost = 406, {f"{UID}.1.1"}
    spool.fetch(settings())
    assert (spool.n_fetched, spool.n_withheld) == (0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_part_is_the_same_however_it_is_cut(size: int) -> None:
    data = b"DICM\r\n--xy\r\n-\r\n" * 50
    body = b"--xyz\r\nA: b\r\n\r\n" + data + b"\r\n--xyz--"
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    kind = {"content-type": "multipart/related; boundary=xyz"}
    assert b"".join(first_part(kind, pieces)) == data
    assert b"".join(first_part({}, [data])) == data
    with pytest.raises(TruncationError):
        list(first_part(kind, [body[:-20]]))


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_with_a_real_archive(store, tmp_path) -> None:
    """Two nights, a late instance, a wrong password, and an archive that was started anew."""
    objects = {
        number: dicom(
            speckle(seed=number),
            SOPInstanceUID=f"{UID}.1.{number}",
            StudyInstanceUID=f"{UID}.2.{number // 2}",
            SeriesInstanceUID=f"{UID}.3.{number // 2}",
        )
        for number in range(5)
    }
    credentials = {"dicomweb_user": USER, "dicomweb_password": PASSWORD}
    with running_orthanc(tmp_path) as orthanc:
        for number in range(4):
            orthanc.put(objects[number])
        with pytest.raises(InputError, match="DICOMWEB_USER"):
            night(store, orthanc.address, tmp_path / "scratch")
        spool, contents = night(store, orthanc.address, tmp_path / "scratch", **credentials)
        assert spool.n_fetched == 4
        assert all(data[128:132] == b"DICM" for data in contents)
        orthanc.stop()
        orthanc.start()
        orthanc.put(objects[0])
        orthanc.put(objects[4])
        spool, _ = night(store, orthanc.address, tmp_path / "scratch", **credentials)
        assert spool.n_fetched == 1
        assert night(store, orthanc.address, tmp_path / "scratch", **credentials)[0].n_fetched == 0
