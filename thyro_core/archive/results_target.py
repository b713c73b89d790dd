"""Where results are sent: an archive that takes them by STOW-RS or by C-STORE."""

import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from thyro_core.archive.dicomweb import Archive, ArchiveAddress, parse_address
from thyro_core.archive.stored_status import BusyError, ObjectRefusedError, check_status
from thyro_core.errors import InputError, StoreError
from thyro_core.settings import Settings
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.urls import is_archive, redact

OWN_TITLE = "THYRO"
"""What Thyro calls itself where it sends by C-STORE."""

_TITLE_FORM = re.compile(r"[!-\[\]-~]{1,16}")
_RESULT_CLASSES = {ComprehensiveSRStorage, SecondaryCaptureImageStorage}
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_NODE_SECONDS = 60.0


class DicomNode(NamedTuple):
    """An application entity that takes objects by C-STORE."""

    title: str
    host: str
    port: int

    @property
    def text(self) -> str:
        """As people write it."""
        return f"dicom://{self.title}@{self.host}:{self.port}"


def parse_target(text: str) -> ArchiveAddress | DicomNode:
    """Where results are to go, if it may be used.

    Args:
        text: such as dicomweb+https://host/dicom-web or dicom://TITLE@host:port.

    Raises:
        InputError: it is neither.
    """
    if is_archive(text):
        address = parse_address(text)
        if not address.query:
            return address
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    is_node = parts.scheme == "dicom" and parts.hostname and port and parts.path in {"", "/"}
    if is_node and not parts.password and _TITLE_FORM.fullmatch(parts.username or ""):
        return DicomNode(str(parts.username), str(parts.hostname), int(port or 0))
    msg = (
        "THYRO_RESULTS_TO: expected dicomweb+https://host/dicom-web, without filters, or "
        f"dicom://TITLE@host:port, found {redact(text)}; correct it, or unset it"
    )
    raise InputError(msg)


class ResultsTarget(Protocol):
    """An archive that takes results; to be closed."""

    def present(self, study: str, series: str) -> set[str]:
        """The instances that a series of a study has; empty, too, where that cannot be asked."""

    def send(self, dataset: Dataset) -> None:
        """Send an object; one that is there already is no fault.

        Raises:
            InputError: the archive refuses everything.
            ObjectRefusedError: it refuses this object.
            StoreError: it does not answer.
        """

    def check_permission(self) -> None:
        """See whether results may be sent; nothing is.

        Raises:
            InputError: they may not.
            StoreError: the archive does not answer.
        """

    def close(self) -> None:
        """Close the connections."""


@dataclass
class WebTarget:
    """An archive that takes results by STOW-RS."""

    archive: Archive

    def present(self, study: str, series: str) -> set[str]:
        """As the protocol says."""
        return self.archive.instances_of_series(study, series)

    def send(self, dataset: Dataset) -> None:
        """As the protocol says."""
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        self.archive.store(str(dataset.StudyInstanceUID), buffer.getvalue())

    def check_permission(self) -> None:
        """As the protocol says."""
        self.archive.check_storing()

    def close(self) -> None:
        """As the protocol says."""
        self.archive.close()


@dataclass
class NodeTarget:
    """An archive that takes results by C-STORE; one association serves many objects."""

    node: DicomNode
    settings: Settings
    _association: Any = None
    _outage: RetryPolicy = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the connection; nothing is sent."""
        # Its lines hold the identifiers of objects.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        self._outage = RetryPolicy(
            self.settings.store_patience, retry_on=lambda error: isinstance(error, BusyError)
        )

    def present(self, study: str, series: str) -> set[str]:  # noqa: ARG002 - C-STORE asks nothing
        """As the protocol says."""
        return set()

    def send(self, dataset: Dataset) -> None:
        """As the protocol says."""

        def attempt() -> None:
            association = self._associate()
            try:
                status = association.send_c_store(dataset)
            except ValueError as error:
                # No presentation context for its class.
                msg = f"{self.node.text}: the archive does not take an object of this class"
                raise ObjectRefusedError(msg) from error
            except RuntimeError as error:
                self.close()
                raise BusyError from error
            if "Status" not in status:
                self.close()
                raise BusyError
            check_status(int(status.Status), self.node.text)

        self._patiently(attempt)

    def check_permission(self) -> None:
        """As the protocol says."""

        def attempt() -> None:
            association = self._associate()
            if "Status" not in association.send_c_echo():
                self.close()
                raise BusyError
            taken_classes = {each.abstract_syntax for each in association.accepted_contexts}
            if not taken_classes >= _RESULT_CLASSES:
                msg = (
                    f"{self.node.text}: expected an archive that takes structured reports and "
                    "secondary captures, found that it does not take both; allow them there"
                )
                raise InputError(msg)

        self._patiently(attempt)

    def close(self) -> None:
        """As the protocol says."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _associate(self) -> Any:  # noqa: ANN401 - the library's association is not typed
        from pynetdicom import AE
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        if self._association is not None and self._association.is_established:
            return self._association
        entity = AE(ae_title=OWN_TITLE)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _NODE_SECONDS
        entity.connection_timeout = _NODE_SECONDS
        entity.add_requested_context(Verification)
        for sop_class in sorted(_RESULT_CLASSES):
            entity.add_requested_context(sop_class, _SYNTAXES)
        title, host, port = self.node
        association = entity.associate(host, port, ae_title=title)
        if association.is_rejected:
            msg = (
                f"{self.node.text}: expected an archive that {OWN_TITLE} may send to, found that "
                f"it refuses; register {OWN_TITLE} and this machine there, or correct "
                "THYRO_RESULTS_TO"
            )
            raise InputError(msg)
        if not association.is_established:
            raise BusyError
        self._association = association
        return association

    def _patiently(self, attempt: Callable[[], None]) -> None:
        try:
            self._outage.call(attempt, self.node.text)
        except RetriesExhaustedError as exhaustion:
            msg = (
                f"{self.node.text}: the archive has not answered for {exhaustion.seconds:.0f} s; "
                "see that it runs and that this machine reaches it"
            )
            raise StoreError(msg) from None


def open_target(text: str, settings: Settings) -> ResultsTarget:
    """The archive that results go to; nothing is sent yet.

    Args:
        text: as `parse_target` takes it.
        settings: credentials and patience.

    Raises:
        InputError: it may not be used, or what it takes is not installed.
    """
    target = parse_target(text)
    try:
        import highdicom  # noqa: F401
        import pynetdicom  # noqa: F401
    except ImportError as error:
        msg = (
            "THYRO_RESULTS_TO: expected highdicom and pynetdicom, which results are made and sent "
            'with, found them missing; pip install "thyro[archive]"'
        )
        raise InputError(msg) from error
    if isinstance(target, DicomNode):
        return NodeTarget(target, settings)
    return WebTarget(Archive(target, settings))
