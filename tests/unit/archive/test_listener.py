"""The listener: what is pushed becomes files, and what must not come in does not."""

import inspect
import shutil
import socket
import struct
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pynetdicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config
from pynetdicom.transport import ThreadedAssociationServer

from thyro_core.archive.bounded_socket import BoundedSocket, PduTooLongError
from thyro_core.archive.listener import Listener, ListenerRules, listening
from thyro_core.archive.peers import LOOPBACK, Peer, may_connect, parse_peer
from thyro_core.errors import InputError
from thyro_core.store.store import Store, open_store

# The requestor of these tests leaves the socket of a refused association to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
RULES = {"port": 0, "keep_free": 0}


def test_another_version_of_the_library_needs_another_look() -> None:
    """What `listener` uses beside its documented classes and events."""
    assert pynetdicom.__version__.startswith("3.0."), "read thyro_core/archive/listener.py again"
    assert _config.STORE_RECV_CHUNKED_DATASET is False
    assert "_servers.remove" in inspect.getsource(ThreadedAssociationServer.shutdown)


def ultrasound(seed: int = 0, rows: int = 20) -> Dataset:
    """An object of noise."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = ULTRASOUND, generate_uid(entropy_srcs=[f"o{seed}"])
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data.PatientName, data.PatientID, data.Modality = "Roe^Jane", "4711", "US"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = rows, 30
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    pixels = np.random.default_rng(seed).integers(0, 255, (rows, 30), np.uint8)
    data.PixelData = pixels.tobytes()
    return data


@contextmanager
def listener_of(folder: Path, **rules: object) -> Iterator[tuple[Listener, Store]]:
    store = open_store(str(folder / "inbox"))
    options = RULES | rules
    with listening(store, ListenerRules(**options), folder / "scratch") as listener:
        yield listener, store


def send(port: int, *objects: Dataset, title: str = "SCANNER", called: str = "THYRO") -> list[int]:
    """Statuses of the answers; empty: the association was refused; -1: it broke off."""
    entity = AE(ae_title=title)
    entity.add_requested_context(ULTRASOUND, ExplicitVRLittleEndian)
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    statuses = [association.send_c_store(each).get("Status", -1) for each in objects]
    if not objects:
        statuses = [association.send_c_echo().get("Status", -1)]
    association.release()
    return statuses


def files_of(store: Store) -> list[str]:
    return [key for key in store.keys("") if key.endswith(".dcm")]


def test_objects_become_files_of_the_day_that_read_as_they_were_sent(tmp_path) -> None:
    with listener_of(tmp_path) as (listener, store):
        assert send(listener.port) == [0], "an echo is answered"
        assert send(listener.port, ultrasound(1), ultrasound(2)) == [0, 0]
        assert send(listener.port, ultrasound(1)) == [0], "sent again"
        assert listener.counts == {"kept": 2, "again": 1}
    keys = files_of(store)
    assert len(keys) == 2
    for key in keys:
        day, name = key.split("/")
        assert len(day) == 10
        assert "4711" not in name
        data = pydicom.dcmread(Path(store.path(key)))
        assert data.PatientID == "4711"
        assert data.pixel_array.shape == (20, 30)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_retired_class_of_ultrasound_is_taken(tmp_path) -> None:
    data = ultrasound()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6"
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(data.SOPClassUID, ExplicitVRLittleEndian)
    with listener_of(tmp_path) as (listener, store):
        association = entity.associate("127.0.0.1", listener.port, ae_title="THYRO")
        assert association.send_c_store(data).Status == 0
        association.release()
        assert len(files_of(store)) == 1


def test_nobody_else_connects(tmp_path) -> None:
    peers = (parse_peer("SCANNER@127.0.0.1"),)
    with listener_of(tmp_path, peers=peers) as (listener, store):
        assert send(listener.port, ultrasound(), title="STRANGER") == []
        assert send(listener.port, ultrasound(), called="OTHER") == []
        assert send(listener.port, ultrasound()) == [0]
        assert listener.counts == {"turned away": 1, "kept": 1}
    elsewhere = (parse_peer("10.0.0.0/8"),)
    with listener_of(tmp_path / "b", peers=elsewhere) as (listener, store):
        assert send(listener.port, ultrasound()) == []
        assert listener.counts == {"turned away": 1}
        assert files_of(store) == []


def test_an_open_address_needs_peers(tmp_path) -> None:
    with (
        pytest.raises(InputError, match="expected --peer with who may send, such as SCANNER@"),
        listener_of(tmp_path, host="0.0.0.0"),
    ):
        pytest.fail("it listens")


def test_a_port_that_is_taken_is_said(tmp_path) -> None:
    with (
        listener_of(tmp_path) as (listener, _),
        pytest.raises(InputError, match=r"expected an address to listen at, found: Address al"),
        listener_of(tmp_path / "b", port=listener.port),
    ):
        pytest.fail("it listens")


def test_a_full_disk_is_a_refusal_and_nothing_is_kept(tmp_path) -> None:
    with listener_of(tmp_path, keep_free=10**18) as (listener, store):
        assert send(listener.port, ultrasound()) == [0xA700]
        assert listener.counts == {"refused": 1}
        assert files_of(store) == []


def test_the_disk_of_a_folder_that_is_not_there_yet_is_judged(tmp_path, monkeypatch) -> None:
    disk, usage = tmp_path / "disk", shutil.disk_usage
    disk.mkdir()

    def full_disk(folder: Path) -> object:
        total, used, free = usage(folder)
        return SimpleNamespace(
            total=total, used=used, free=0 if Path(folder).is_relative_to(disk) else free
        )

    monkeypatch.setattr(shutil, "disk_usage", full_disk)
    store = open_store(str(disk / "not" / "yet"))
    rules = ListenerRules(port=0, keep_free=1)
    with listening(store, rules, tmp_path / "scratch") as listener:
        assert send(listener.port, ultrasound()) == [0xA700]
        assert listener.counts == {"refused": 1}
    assert list(disk.iterdir()) == []


def test_a_store_that_fails_is_a_refusal_and_the_next_object_is_kept(tmp_path, monkeypatch) -> None:
    with listener_of(tmp_path) as (listener, store):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "writing", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            assert send(listener.port, ultrasound()) == [0xA700]
        assert send(listener.port, ultrasound()) == [0]
        assert len(files_of(store)) == 1


def test_an_object_that_is_too_large_is_broken_off(tmp_path) -> None:
    with listener_of(tmp_path, max_bytes=100_000) as (listener, store):
        assert send(listener.port, ultrasound(rows=10_000)) == [-1]
        assert send(listener.port, ultrasound()) == [0], "others are taken"
        assert listener.counts == {"refused": 1, "kept": 1}
        assert len(files_of(store)) == 1
    assert list((tmp_path / "scratch").iterdir()) == []


HOSTILE = (
    struct.pack(">BBL", 1, 0, 0xFFFFFFF0) + b"x" * 4096,
    struct.pack(">BBL", 4, 0, 2**21),
    struct.pack(">BBL", 99, 0, 4) + b"abcd",
    struct.pack(">BBL", 1, 0, 68) + b"\xff" * 68,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
)


def test_hostile_bytes_end_their_connection_alone(tmp_path) -> None:
    with listener_of(tmp_path) as (listener, _):
        for data in HOSTILE:
            with socket.create_connection(("127.0.0.1", listener.port)) as connection:
                connection.sendall(data)
            assert send(listener.port, ultrasound()) == [0]
        assert listener.counts == {"kept": 1, "again": len(HOSTILE) - 1}


def test_a_flood_of_connections_leaves_no_more_threads_than_it_may(tmp_path) -> None:
    before = threading.active_count()
    with listener_of(tmp_path, max_associations=2) as (listener, _):
        connections = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(60)]
        deadline = time.monotonic() + 60
        while listener.counts["turned away"] < 30 and time.monotonic() < deadline:
            time.sleep(0.05)
        # Ten may wait; a few more slip in while their threads start.
        assert listener.counts["turned away"] >= 30
        assert threading.active_count() - before < 2 * 30
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 60
        while threading.active_count() > before + 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert send(listener.port, ultrasound()) == [0]


def test_a_peer_that_dies_leaves_no_file(tmp_path) -> None:
    """Half of an object arrives, then the connection ends."""
    with listener_of(tmp_path) as (listener, store):
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context(ULTRASOUND, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener.port, ae_title="THYRO")
        assert association.is_established
        # A P-DATA with the first fragment of a command, which is never finished.
        connection = association.dul.socket.socket
        connection.sendall(struct.pack(">BBLLBB", 4, 0, 8, 4, 1, 1) + b"ab")
        connection.close()
        association.kill()
        assert send(listener.port, ultrasound()) == [0]
        assert len(files_of(store)) == 1


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "9" * 64, "1..2", "é"])
def test_a_hostile_uid_names_no_file(tmp_path, uid) -> None:
    data = ultrasound()
    # Both sides warn of it.
    with warnings.catch_warnings(action="ignore"), listener_of(tmp_path) as (listener, store):
        data.SOPInstanceUID = uid
        send(listener.port, data)
        assert send(listener.port, ultrasound(1)) == [0]
        for key in files_of(store):
            assert set(key.split("/")[1].removesuffix(".dcm")) <= set("0123456789abcdef")
    below = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert below <= {"inbox", "scratch"}


@pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
def test_another_maker_s_sender_is_understood(tmp_path) -> None:
    file = tmp_path / "object.dcm"
    ultrasound().save_as(file, enforce_file_format=True)
    with listener_of(tmp_path) as (listener, store):
        where = ["127.0.0.1", str(listener.port)]
        subprocess.run(["echoscu", "-aec", "THYRO", *where], check=True, timeout=60)
        subprocess.run(["storescu", "-aec", "THYRO", *where, str(file)], check=True, timeout=60)
        assert len(files_of(store)) == 1


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("10.0.0.7", Peer(parse_peer("10.0.0.7/32").network)),
        ("US 1@10.0.0.0/24", Peer(parse_peer("10.0.0.0/24").network, "US 1")),
        ("fd00::/8", Peer(parse_peer("fd00::/8").network)),
    ],
)
def test_peers_as_people_write_them(text, peer) -> None:
    assert parse_peer(text) == peer


@pytest.mark.parametrize(
    "text", ["", "host", "A@", "@10.0.0.7", "A" * 17 + "@10.0.0.7", "10.0.0.7/8"]
)
def test_what_is_no_peer_is_refused_with_an_example(text) -> None:
    with pytest.raises(InputError, match="SCANNER@"):
        parse_peer(text)


def test_a_peer_has_its_address_and_its_title() -> None:
    peers = (parse_peer("A@10.0.0.7"), parse_peer("10.1.0.0/16"))
    assert may_connect(peers, "10.0.0.7")
    assert may_connect(peers, "10.0.0.7", "A ")
    assert not may_connect(peers, "10.0.0.7", "B")
    assert may_connect(peers, "10.1.2.3", "B")
    assert not may_connect(peers, "10.2.0.1")
    assert may_connect(LOOPBACK, "::ffff:127.0.0.1")
    assert may_connect(LOOPBACK, "::1%lo")


def test_a_bounded_socket_follows_pdus_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    bounded = BoundedSocket.take_over(ours, 10)
    with bounded, theirs:
        theirs.sendall(struct.pack(">BBL", 4, 0, 10) + b"0123456789" + struct.pack(">BBL", 4, 0, 0))
        received = b"".join(bounded.recv(3) for _ in range(7)) + bounded.recv(1)
        assert len(received) == 22
        theirs.sendall(struct.pack(">BBL", 4, 0, 11))
        assert bounded.recv(5) == b"\x04\0\0\0\0"
        with pytest.raises(PduTooLongError, match="a PDU of 11 bytes; at most 10 are read"):
            bounded.recv(1)
