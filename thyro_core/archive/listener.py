"""A storage SCP: archives and scanners push objects, which become files of the next night's batch.

Whoever may connect is named beforehand. An object is written as a whole or not at all, under a name
made of its contents, so that it is kept once however often it is sent and whatever it calls itself.
"""

import hashlib
import logging
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socketserver import BaseServer
from threading import Lock, Thread
from typing import Any
from weakref import WeakSet

# `_config` is where the library's documentation has its settings.
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, register_uid  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from thyro_core.archive.bounded_socket import BoundedSocket
from thyro_core.archive.peers import LOOPBACK, Peer, may_connect
from thyro_core.errors import InputError, StoreError
from thyro_core.host import existing_folder
from thyro_core.store.store import Store

_LOG = logging.getLogger(__name__)

_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700
# DICOM PS3.8, section 9.3.4: permanently, by the service user, calling AE title not recognised.
_UNKNOWN_CALLER = (0x01, 0x01, 0x03)
# Ultrasound, still and multi-frame, as scanners of the nineties store it.
_RETIRED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.6": "UltrasoundImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.3": "UltrasoundMultiFrameImageStorageRetired",
}
_LONGEST_PDU = 2**20
_OFFERED_PDU = 2**17
_SECONDS = 30.0  # without a byte, after which a connection is closed
_SECONDS_TO_GREET = 10.0  # until it asks for an association
_WAITING = 8  # connections above those at work, which get a proper refusal


@dataclass(frozen=True)
class ListenerRules:
    """Who may send, and how much.

    Attributes:
        ae_title: what the listener is called; a peer that calls another is refused.
        host: address to listen at.
        port: port to listen at; 0: a free one.
        peers: who may connect; empty: this machine.
        max_associations: associations at once.
        max_bytes: largest object that is taken [bytes].
        keep_free: space that is left free on the disks written to [bytes].
    """

    ae_title: str = "THYRO"
    host: str = "127.0.0.1"
    port: int = 11112
    peers: Sequence[Peer] = ()
    max_associations: int = 8
    max_bytes: int = 2_000_000_000
    keep_free: int = 5_000_000_000


@dataclass
class Listener:
    """A listener that runs.

    Attributes:
        port: where it listens.
        counts: objects `kept`, `again` (kept before) and `refused`, and `turned away`, who may not
            connect.
    """

    store: Store
    rules: ListenerRules
    scratch: Path
    port: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _bytes: dict[object, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def count(self, what: str) -> None:
        """Count something that happened; from any thread."""
        with self._lock:
            self.counts[what] += 1

    def on_requested(self, event: evt.Event) -> None:
        """Turn away who calls himself otherwise than his host may."""
        caller = event.assoc.requestor
        title = str(caller.primitive.calling_ae_title) if caller.primitive else ""
        if not may_connect(self.peers, caller.address, title):
            self.count("turned away")
            _LOG.warning("%s: turned away, AE title %r", caller.address, title.strip())
            event.assoc.acse.send_reject(*_UNKNOWN_CALLER)

    def on_pdu(self, event: evt.Event) -> None:
        """Break off an object that is larger than may be."""
        if isinstance(event.pdu, P_DATA_TF):
            before = self._bytes.get(event.assoc, 0)
            self._bytes[event.assoc] = before + event.pdu.pdu_length
            # What is on its way still arrives.
            if before <= self.rules.max_bytes < self._bytes[event.assoc]:
                self._refuse(event, f"larger than {self.rules.max_bytes} bytes: broken off")
                event.assoc.abort()

    def on_store(self, event: evt.Event) -> int:
        """Keep an object; the status of the answer."""
        self._bytes.pop(event.assoc, None)
        try:
            if not self._has_space():
                return self._refuse(event, "no space is left: delete what was screened")
            with event.dataset_path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            key = f"{datetime.now().astimezone():%Y-%m-%d}/{digest[:32]}.dcm"
            if self.store.exists(key):
                self.count("again")
                return _SUCCESS
            with event.dataset_path.open("rb") as file, self.store.writing(key) as target:
                shutil.copyfileobj(file, target)
        except (OSError, StoreError) as error:
            return self._refuse(event, f"cannot be written ({type(error).__name__})")
        self.count("kept")
        return _SUCCESS

    def on_close(self, event: evt.Event) -> None:
        """Forget a connection, and what is left of objects that broke off when it was the last."""
        self._bytes.pop(event.assoc, None)
        others = [each for each in event.assoc.ae.active_associations if each is not event.assoc]
        if not others:
            for path in self.scratch.glob("*.dcm"):
                with suppress(OSError):
                    path.unlink()

    @property
    def peers(self) -> Sequence[Peer]:
        """Who may connect."""
        return self.rules.peers or LOOPBACK

    def _refuse(self, event: evt.Event, reason: str) -> int:
        self.count("refused")
        _LOG.warning("%s: an object is refused: %s", event.assoc.requestor.address, reason)
        return _OUT_OF_RESOURCES

    def _has_space(self) -> bool:
        folders = [self.scratch]
        if self.store.url.startswith("file://"):
            folders.append(Path(self.store.root))
        # The target is made with the first object: until then its disk is that of a folder above.
        return all(
            shutil.disk_usage(existing_folder(folder)).free > self.rules.keep_free
            for folder in folders
        )


class _Server(ThreadedAssociationServer):
    """Takes connections of peers alone, and no PDU that is too long."""

    daemon_threads = True

    def __init__(self, *args: Any, listener: Listener, **options: Any) -> None:  # noqa: ANN401
        self._listener = listener
        self._connections: WeakSet[BoundedSocket] = WeakSet()
        super().__init__(*args, **options)

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        connection = BoundedSocket.take_over(plain, _LONGEST_PDU)
        self._connections.add(connection)
        return connection, address

    def end(self) -> None:
        """End all associations, take no new ones, and wait for the last thread."""
        # The library's own takes the server off a list that only `start_server` puts it on.
        BaseServer.shutdown(self)
        associations = self.ae.active_associations
        for association in associations:
            if association.is_established:
                association.abort()
            else:
                # It waits to be spoken to: there is nobody to tell.
                association.kill()
        for association in associations:
            association.join(_SECONDS)
        for connection in list(self._connections):
            connection.close()
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401, ARG002
        reason = ""
        if not may_connect(self._listener.peers, client_address[0]):
            reason = "no peer has this address"
        # Each connection is two threads, before it has sent a byte.
        elif len(self.ae.active_associations) >= self.ae.maximum_associations + _WAITING:
            reason = "too many connections at once"
        if reason:
            self._listener.count("turned away")
            _LOG.warning("%s: turned away: %s", client_address[0], reason)
        return not reason


@contextmanager
def listening(store: Store, rules: ListenerRules, scratch: Path) -> Iterator[Listener]:
    """Listen until the block is left; objects that are being sent then are broken off.

    Args:
        store: where objects are written, below a folder of the day.
        rules: who may send, and how much.
        scratch: folder of its own for what is being received.

    Raises:
        InputError: it would be open to everybody, or the address cannot be listened at.
    """
    if not rules.peers and not may_connect(LOOPBACK, _address(rules.host)):
        msg = (
            f"{rules.host}: expected --peer with who may send, such as SCANNER@10.0.0.7, for an "
            "address that others reach, found none; name them, or listen at 127.0.0.1"
        )
        raise InputError(msg)
    listener = Listener(store, rules, scratch)
    entity = AE(ae_title=rules.ae_title)
    entity.require_called_aet = True
    entity.maximum_associations = rules.max_associations
    entity.maximum_pdu_size = _OFFERED_PDU
    entity.acse_timeout = _SECONDS_TO_GREET
    entity.dimse_timeout = entity.network_timeout = _SECONDS
    for uid, keyword in _RETIRED_CLASSES.items():
        register_uid(uid, keyword, StorageServiceClass)
    current = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    for sop_class in (*current, *_RETIRED_CLASSES):
        entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(Verification)
    handlers: list[Any] = [
        (evt.EVT_REQUESTED, listener.on_requested),
        (evt.EVT_PDU_RECV, listener.on_pdu),
        (evt.EVT_C_STORE, listener.on_store),
        (evt.EVT_CONN_CLOSE, listener.on_close),
        (evt.EVT_C_ECHO, lambda _: _SUCCESS),
    ]
    scratch.mkdir(parents=True, exist_ok=True)
    with _received_in(scratch):
        try:
            server: Any = entity.make_server(
                (rules.host, rules.port),
                evt_handlers=handlers,
                server_class=_Server,
                listener=listener,
            )
        except OSError as error:
            msg = (
                f"{rules.host}:{rules.port}: expected an address to listen at, found: "
                f"{error.strerror}; choose another --port or --host"
            )
            raise InputError(msg) from error
        listener.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, name="listener", daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.end()
            thread.join()


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host or "0.0.0.0", None)[0][4][0])  # noqa: S104 - to refuse it
    except OSError as error:
        msg = f"{host}: expected the name or address of this machine, found neither; give another"
        raise InputError(msg) from error


@contextmanager
def _received_in(folder: Path) -> Iterator[None]:
    """What is received goes into files of this folder, not into memory."""
    earlier = tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET
    tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET = str(folder), True
    try:
        yield
    finally:
        tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET = earlier
