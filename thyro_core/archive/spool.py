"""What is new in an archive, fetched into a private folder that the next night reads.

Of each study the store knows how many instances it has taken, and which: by keyed hashes alone. A
study is looked into again as long as the archive counts others: so late arrivals are found however
old they are, and an instance that is sent again is not taken twice.
"""

import hashlib
import hmac
import json
import logging
import secrets
import shutil
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from thyro_core.archive.dicomweb import Archive, ArchiveAddress, Instance, StudyEntry, parse_address
from thyro_core.archive.result_uids import result_series
from thyro_core.errors import InputError
from thyro_core.settings import Settings
from thyro_core.store.keys import archive_ledger_key
from thyro_core.store.store import Store

_SPOOL_LOG = logging.getLogger(__name__)

_FETCHES_AT_ONCE = 4
_NAME_DIGITS = 24
_LEAST_FREE_BYTES = 1_000_000_000


@dataclass
class Spool:
    """The instances of an archive that wait to be read.

    Attributes:
        store: knows what nights have taken; None: what lies in the folder has been.
        folder: where they lie.
        n_present: those that an earlier run fetched.
        n_fetched: those that this run fetched.
        n_withheld: those that the archive listed and did not give; the next night tries them again.
    """

    store: Store | None
    address: ArchiveAddress
    salt: bytes
    folder: Path
    n_present: int = 0
    n_fetched: int = 0
    n_withheld: int = 0
    _ledger: dict[str, list[str]] = field(default_factory=dict)
    _waiting: dict[str, str] = field(default_factory=dict)
    """The study of each instance in the folder."""
    _results: dict[str, str] = field(default_factory=dict)
    """The study of each result of Thyro's in the archive: it counts there, and is not fetched."""

    def fetch(self, settings: Settings) -> None:
        """Fetch what is new; what an earlier run fetched and nobody has read stays.

        Raises:
            InputError: the archive refuses, or the disk is full.
            StoreError: it does not answer.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in self.folder.glob("*.part"):
            part.unlink()
        self._ledger = self._load()
        with (
            closing(Archive(self.address, settings)) as archive,
            ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool,
        ):
            pending: deque[Future[bool]] = deque()
            try:
                for instance in self._new_instances(archive):
                    pending.append(pool.submit(self._fetch_one, archive, instance))
                    # Not all at once: an archive may list a million.
                    if len(pending) > 2 * _FETCHES_AT_ONCE:
                        self._count(pending.popleft().result())
                while pending:
                    self._count(pending.popleft().result())
            finally:
                for future in pending:
                    future.cancel()
        if self.n_withheld:
            _SPOOL_LOG.warning(
                "%s: %d instances are listed and not given; the next night tries them again",
                self.address.root, self.n_withheld,
            )  # fmt: skip

    def conclude(self, keep: Collection[str] = ()) -> None:
        """Note that all that waited has been read, and remove it.

        Args:
            keep: names of files that a later run needs; they wait on.
        """
        if self.store is None:
            return
        for instance, study in self._waiting.items():
            file = self.folder / _file_name(instance)
            if file.name not in keep and file.exists():
                self._ledger.setdefault(study, []).append(instance)
        for instance, study in self._results.items():
            self._ledger.setdefault(study, []).append(instance)
        ledger = {study: sorted(set(names)) for study, names in self._ledger.items()}
        self.store.write(self._key, json.dumps({"studies": ledger}).encode())
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for file in self.folder.iterdir():
            if file.name not in keep:
                file.unlink()

    @property
    def _key(self) -> str:
        return archive_ledger_key(self._pseudonym(self.address.text))

    def _load(self) -> dict[str, list[str]]:
        if self.store is None or not self.store.exists(self._key):
            return {}
        studies: dict[str, list[str]] = json.loads(self.store.read(self._key))["studies"]
        return studies

    def _pseudonym(self, identifier: str) -> str:
        digest = hmac.new(self.salt, identifier.encode(), hashlib.sha256)
        return digest.hexdigest()[:_NAME_DIGITS]

    def _new_instances(self, archive: Archive) -> Iterator[Instance]:
        for study in archive.studies():
            own_names = set(self._ledger.get(self._pseudonym(study.uid), ()))
            if _is_complete(study, len(own_names)):
                continue
            results = result_series(study.uid)
            for instance in archive.instances(study.uid):
                name = self._pseudonym(instance.instance)
                if name in own_names:
                    continue
                if instance.series in results:
                    self._results[name] = self._pseudonym(study.uid)
                    continue
                self._waiting[name] = self._pseudonym(study.uid)
                if (self.folder / _file_name(name)).exists():
                    self.n_present += 1
                else:
                    yield instance

    def _count(self, is_there: bool) -> None:
        self.n_fetched += is_there
        self.n_withheld += not is_there

    def _fetch_one(self, archive: Archive, instance: Instance) -> bool:
        if shutil.disk_usage(self.folder).free < _LEAST_FREE_BYTES:
            msg = (
                f"{self.folder}: expected room for the archive's instances, found less than 1 GB "
                "free; set THYRO_SCRATCH to a folder on a larger disk"
            )
            raise InputError(msg)
        name = self._pseudonym(instance.instance)
        part = self.folder / f"{name}.part"
        is_there = archive.save(instance, part)
        if is_there:
            part.rename(self.folder / _file_name(name))
        else:
            part.unlink(missing_ok=True)
        return is_there


def _file_name(instance: str) -> str:
    return f"{instance}.dcm"


def _is_complete(study: StudyEntry, n_taken: int) -> bool:
    return study.n_instances is not None and study.n_instances == n_taken


def open_spool(store: Store, address: str, salt: bytes, scratch: Path) -> Spool:
    """The spool of an archive on this machine.

    Args:
        store: knows what was taken.
        address: of the archive.
        salt: random bytes of the store.
        scratch: node-local folder.

    Raises:
        InputError: the address may not be used.
    """
    archive_address = parse_address(address)
    name = hashlib.sha256(f"{store.url} {address}".encode()).hexdigest()[:_NAME_DIGITS]
    return Spool(store, archive_address, salt, scratch / "archives" / name)


def open_folder(address: str, folder: Path) -> Spool:
    """An archive's instances in a folder of their own, which stay there.

    Their names are keyed hashes; the key lies in the folder, so that another fetch finds them.

    Args:
        address: of the archive.
        folder: made if need be.

    Raises:
        InputError: the address may not be used.
        OSError: the folder cannot be written to.
    """
    archive_address = parse_address(address)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = folder / ".thyro-names"
    if not key.exists():
        key.write_bytes(secrets.token_bytes(32))
    return Spool(None, archive_address, key.read_bytes(), folder)
