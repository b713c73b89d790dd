"""An archive that answers DICOMweb: which studies it holds, and their instances as files.

Identifiers of studies and instances are in clear here, in memory: they stand in no message, and the
library's own log, which would write each address, is silenced.
"""

import ipaddress
import logging
import re
import secrets
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx

from thyro_core.archive.multipart import TruncationError, first_part
from thyro_core.archive.stored_status import BusyError, ObjectRefusedError, check_status
from thyro_core.errors import InputError, StoreError
from thyro_core.settings import Settings
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.urls import redact

Reply = TypeVar("Reply")

# Keywords, and the tags of the same elements.
_PERSONAL = re.compile(
    r"patient|birth|accession|uid$|^0010|^00080050|^00080018|^0020000[de]", re.IGNORECASE
)
_UID_DIGITS = re.compile(r"[0-9.]{1,64}")
_STUDY_UID_TAG, _SERIES_UID_TAG, _INSTANCE_UID_TAG, _INSTANCE_COUNT = (
    "0020000D",
    "0020000E",
    "00080018",
    "00201208",
)
_FAILURES, _FAILURE_REASON = "00081198", "00081197"
# Of STOW-RS: of another object the answer may be another one.
_REFUSALS_OF_ONE = {400, 413, 415, 422}
_NO_REASON = 0x0110  # processing failure
_ROWS_A_PAGE = 200
_INSTANCE_ATTEMPTS = 4
_REQUEST_TIMEOUT = httpx.Timeout(30.0, read=300.0)
_JSON_HEADERS = {"Accept": "application/dicom+json, application/json"}
# As it is stored: an archive that packs it anew would change it.
_OBJECT_HEADERS = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


class Instance(NamedTuple):
    """The address of an instance within an archive."""

    study: str
    series: str
    instance: str


class StudyEntry(NamedTuple):
    """A study of the archive."""

    uid: str
    n_instances: int | None
    """None: the archive does not say."""


@dataclass(frozen=True)
class ArchiveAddress:
    """An address such as dicomweb+https://host/dicom-web?ModalitiesInStudy=US, taken apart."""

    text: str
    """As it was given; it stands in tables and logs."""
    root: str
    """URL of the service."""
    query: tuple[tuple[str, str], ...]
    """Which studies are meant."""


def parse_address(address: str) -> ArchiveAddress:
    """An archive's address, if it may be used.

    Raises:
        InputError: it holds a password or somebody's identifier, is no address, or is not encrypted
            and not of this machine.
    """
    parts = urlsplit(address.removeprefix("dicomweb+"))
    if "@" in parts.netloc:
        msg = (
            f"{redact(address)}: expected an address without user and password, found one with "
            "them; addresses stand in tables and logs: set THYRO_DICOMWEB_USER and _PASSWORD"
        )
        raise InputError(msg)
    if not parts.hostname or parts.fragment:
        msg = (
            f"{redact(address)}: expected an archive's address such as "
            "dicomweb+https://host/dicom-web?ModalitiesInStudy=US, found no host, or a #"
        )
        raise InputError(msg)
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        msg = (
            f"{redact(address)}: expected dicomweb+https, found dicomweb+http to another machine, "
            "where patients' images would travel in clear; set up TLS at the archive"
        )
        raise InputError(msg)
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    personal = sorted({name for name, _ in query if _PERSONAL.search(name)})
    if personal:
        msg = (
            f"{redact(address)}: expected filters that name nobody, found {', '.join(personal)}; "
            "addresses stand in tables and logs: filter by ModalitiesInStudy, StudyDescription or "
            "StudyDate"
        )
        raise InputError(msg)
    root = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return ArchiveAddress(address, root, query)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Transient(Exception):  # noqa: N818 - it never leaves this module
    """An answer that may be another one a moment later."""


@dataclass
class Archive:
    """A connection to an archive; close it after use.

    Attributes:
        address: of the archive.
        settings: credentials (THYRO_DICOMWEB_*) and how long it may be away.
    """

    address: ArchiveAddress
    settings: Settings
    _client: httpx.Client = field(init=False, repr=False)
    _outage: RetryPolicy = field(init=False, repr=False)
    _one_instance: RetryPolicy = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the connection; nothing is sent."""
        # Its lines hold whole addresses, with the identifiers of studies.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = _client_of(self.settings)
        self._outage = RetryPolicy(self.settings.store_patience, retry_on=_is_passing)
        self._one_instance = RetryPolicy(attempts=_INSTANCE_ATTEMPTS, retry_on=_is_passing)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def studies(self) -> Iterator[StudyEntry]:
        """The studies that the address means, page by page.

        Raises:
            InputError: the archive refuses.
            StoreError: it does not answer.
        """
        query = (*self.address.query, ("includefield", _INSTANCE_COUNT))
        for row in self._rows("studies", query, _STUDY_UID_TAG):
            count = _first_value(row, _INSTANCE_COUNT)
            n_instances = None if count is None else int(count)
            yield StudyEntry(str(_first_value(row, _STUDY_UID_TAG)), n_instances)

    def instances(self, study: str) -> Iterator[Instance]:
        """The instances of a study, page by page.

        Raises:
            InputError: the archive refuses.
            StoreError: it does not answer.
        """
        query = (("includefield", _SERIES_UID_TAG),)
        for row in self._rows(f"studies/{study}/instances", query, _INSTANCE_UID_TAG):
            series = str(_first_value(row, _SERIES_UID_TAG))
            if _UID_DIGITS.fullmatch(series):
                yield Instance(study, series, str(_first_value(row, _INSTANCE_UID_TAG)))

    def instances_of_series(self, study: str, series: str) -> set[str]:
        """The instances that a series of a study has; none where there is no such series.

        Raises:
            InputError: the archive refuses.
            StoreError: it does not answer.
        """
        query = (("SeriesInstanceUID", series),)
        rows = self._rows(f"studies/{study}/instances", query, _INSTANCE_UID_TAG)
        return {str(_first_value(row, _INSTANCE_UID_TAG)) for row in rows}

    def store(self, study: str, data: bytes) -> None:
        """Store an object in a study (STOW-RS); one that is there already is no fault.

        Args:
            study: StudyInstanceUID.
            data: the object as a file.

        Raises:
            InputError: the archive refuses everything.
            ObjectRefusedError: it refuses this object.
            StoreError: it does not answer.
        """
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + data + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {**_JSON_HEADERS, "Content-Type": kind}

        def attempt() -> None:
            url = f"{self.address.root}/studies/{study}"
            response = self._client.post(url, content=body, headers=headers)
            if response.status_code in {200, 202, 409}:
                for status in _failures(response):
                    check_status(status, self._host)
            elif response.status_code in _REFUSALS_OF_ONE:
                msg = f"{self._host}: the archive does not take an object ({response.status_code})"
                raise ObjectRefusedError(msg)
            else:
                self._check(response)

        self._patiently(attempt)

    def check_storing(self) -> None:
        """See whether objects may be stored, by a request that holds none.

        Raises:
            InputError: the archive refuses.
            StoreError: it does not answer.
        """
        kind = 'multipart/related; type="application/dicom"; boundary=none'
        headers = {**_JSON_HEADERS, "Content-Type": kind}

        def attempt() -> None:
            url = f"{self.address.root}/studies"
            response = self._client.post(url, content=b"--none--\r\n", headers=headers)
            # That it lacks objects is no refusal to take them.
            if response.status_code not in {200, 202, 204, 409, *_REFUSALS_OF_ONE}:
                self._check(response)

        self._patiently(attempt)

    def save(self, instance: Instance, path: Path) -> bool:
        """Write an instance to a file, as the archive sends it.

        Args:
            instance: which.
            path: of a file that may be overwritten.

        Returns:
            Whether it is there; False: the archive listed it and does not give it.

        Raises:
            InputError: the archive refuses everything.
            StoreError: it does not answer.
        """

        def attempt() -> bool:
            return self._save(instance, path)

        try:
            return self._one_instance.call(attempt, self._host)
        except RetriesExhaustedError:
            # Of an archive that was away it is no fault of the instance.
            next(self.studies(), None)
        try:
            return self._one_instance.call(attempt, self._host)
        except RetriesExhaustedError:
            return False

    def _save(self, instance: Instance, path: Path) -> bool:
        url = (
            f"{self.address.root}/studies/{instance.study}/series/{instance.series}/instances/"
            f"{instance.instance}"
        )
        with self._client.stream("GET", url, headers=_OBJECT_HEADERS) as response:
            status = response.status_code
            if 400 <= status < 500 and status not in {401, 403, 429}:
                return False
            self._check(response)
            try:
                with path.open("wb") as file:
                    for data in first_part(response.headers, response.iter_bytes()):
                        file.write(data)
            except TruncationError as error:
                raise _Transient from error
        return True

    def _rows(
        self, path: str, query: tuple[tuple[str, str], ...], key: str
    ) -> Iterator[dict[str, Any]]:
        """The rows of an answer that comes in pages of whatever size, each once."""
        offset, uids = 0, set[str]()
        while True:
            page = self._page(path, (*query, ("limit", str(_ROWS_A_PAGE)), ("offset", str(offset))))
            fresh = [row for row in page if str(_first_value(row, key)) not in uids]
            # An archive that knows no pages gives the same one again.
            if not fresh:
                return
            for row in fresh:
                uid = str(_first_value(row, key))
                uids.add(uid)
                # It becomes part of an address.
                if _UID_DIGITS.fullmatch(uid):
                    yield row
            offset += len(page)

    def _page(self, path: str, query: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
        def attempt() -> list[dict[str, Any]]:
            url = f"{self.address.root}/{path}"
            response = self._client.get(url, params=list(query), headers=_JSON_HEADERS)
            if response.status_code == 204:
                return []
            self._check(response)
            try:
                rows = response.json()
            except ValueError as error:
                raise _Transient from error
            return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

        return self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], Reply]) -> Reply:
        try:
            return self._outage.call(attempt, self._host)
        except RetriesExhaustedError as exhaustion:
            msg = (
                f"{self._host}: the archive has not answered for "
                f"{exhaustion.seconds:.0f} s; see that it runs and that this machine reaches it, "
                "then start the same command again"
            )
            raise StoreError(msg) from None
        except httpx.HTTPError as error:
            cause = "its certificate is not trusted" if _is_tls(error) else "it is not reached"
            msg = (
                f"{self._host}: expected an archive with DICOMweb, found that {cause} "
                f"({type(error).__name__}); correct the address, or set SSL_CERT_FILE to the "
                "certificates of your authority"
            )
            raise InputError(msg) from None

    @property
    def _host(self) -> str:
        return self.address.root

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 429 or (status >= 500 and status != 501):
            raise _Transient
        if status in {401, 403}:
            msg = (
                f"{self._host}: the archive refuses ({status}); set THYRO_DICOMWEB_USER and "
                "THYRO_DICOMWEB_PASSWORD, THYRO_DICOMWEB_TOKEN or THYRO_DICOMWEB_CERTIFICATE"
            )
            raise InputError(msg)
        if status != 200:
            msg = (
                f"{self._host}: expected an answer of DICOMweb (200), found {status}; check the "
                "address and its filters"
            )
            raise InputError(msg)


def _failures(response: httpx.Response) -> list[int]:
    """DICOM's status of each object that STOW-RS did not take."""
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = {}
    row = answer[0] if isinstance(answer, list) and answer else answer
    items = (row.get(_FAILURES) or {}).get("Value") or [] if isinstance(row, dict) else []
    statuses = [int(_first_value(item, _FAILURE_REASON) or _NO_REASON) for item in items]
    return statuses or ([_NO_REASON] if response.status_code == 409 else [])


def _client_of(settings: Settings) -> httpx.Client:
    context = ssl.create_default_context()
    if settings.dicomweb_certificate is not None:
        try:
            context.load_cert_chain(settings.dicomweb_certificate)
        except (OSError, ssl.SSLError) as error:
            msg = (
                "THYRO_DICOMWEB_CERTIFICATE: expected a PEM file with a certificate and its key, "
                f"found {type(error).__name__}; correct the path or the file"
            )
            raise InputError(msg) from error
    headers, auth = {}, None
    if settings.dicomweb_token is not None:
        headers["Authorization"] = f"Bearer {settings.dicomweb_token.get_secret_value()}"
    elif settings.dicomweb_user is not None:
        word = settings.dicomweb_password
        auth = httpx.BasicAuth(settings.dicomweb_user, word.get_secret_value() if word else "")
    return httpx.Client(verify=context, headers=headers, auth=auth, timeout=_REQUEST_TIMEOUT)


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)) or _is_tls(error):
        return False
    return isinstance(error, (_Transient, BusyError, httpx.HTTPError, httpx.StreamError))


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_value(row: dict[str, Any], tag: str) -> Any:  # noqa: ANN401 - JSON of DICOM
    """The first value of an element in DICOM's JSON (PS3.18, F.2); None: there is none."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
