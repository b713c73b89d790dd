"""The studies that exams' pseudonyms stand for, in one encrypted file of the store alone.

It is kept only where THYRO_WORKLIST_LINKS asks for it. The key is derived from the secret that the
pseudonyms are made with, so that whoever has the store alone has no identifier.
"""

import base64
import json
import re
from dataclasses import dataclass
from string import Formatter
from urllib.parse import quote

import pyarrow.parquet as pq
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from thyro_core.errors import InputError, StoreError
from thyro_core.imaging.dicom_header import read_header
from thyro_core.pseudonyms import EXAM_PREFIX, Pseudonymiser, exam_key, path_hash
from thyro_core.screening.files import stream_files
from thyro_core.screening.rules import Night
from thyro_core.settings import Settings
from thyro_core.store.keys import identifiers_key, path_salt_key, table_key
from thyro_core.store.listing import refusal_types
from thyro_core.store.store import Store, filesystem

_PURPOSE = b"thyro: the studies of exams"
_STUDY_UID_NAME = "StudyInstanceUID"
_FIELD = "study"
_ADDRESS_FORM = re.compile(r"https?://[^\s{}@]+[/?=][^\s]*")


def check_study_links(settings: Settings) -> None:
    """Make sure that THYRO_WORKLIST_LINKS can give addresses of studies.

    Raises:
        InputError: it is no web address with {study} in it, or there is no key for pseudonyms.
    """
    pattern = settings.worklist_links
    if pattern is None:
        return
    try:
        parts = [part[1:] for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError:
        parts = []
    has_form = _ADDRESS_FORM.fullmatch(pattern) is not None
    if not has_form or not parts or set(parts) != {(_FIELD, "", None)}:
        msg = (
            "THYRO_WORKLIST_LINKS: expected a web address with {study} in it, such as "
            f"https://viewer/ohif?StudyInstanceUIDs={{study}}, found {pattern}; correct it, or "
            "unset it"
        )
        raise InputError(msg)
    if settings.pseudonym_key is None:
        msg = (
            "THYRO_WORKLIST_LINKS: expected THYRO_PSEUDONYM_KEY beside it, which the studies' "
            "identifiers are encrypted with, found none; `openssl rand -hex 32` makes a key"
        )
        raise InputError(msg)
    Pseudonymiser(settings.pseudonym_key)


@dataclass(frozen=True)
class StudyBook:
    """The encrypted file.

    Attributes:
        store: where it lies.
        key: secret of the pseudonyms.
    """

    store: Store
    key: SecretStr

    def study(self, exam_id: str) -> str | None:
        """The StudyInstanceUID of an exam; None: it is not in the file.

        Raises:
            InputError: the file is encrypted with another key.
        """
        return self._load().get(exam_id)

    def add(self, night: Night, place: str) -> None:
        """Take in the studies of a night's files.

        Args:
            night: concluded.
            place: folder or fsspec URL where its files lie now.

        Raises:
            InputError: the file is encrypted with another key.
        """
        studies = self._load()
        part = table_key("screening", date=night.number, batch_id=night.batch_id)
        with self.store.fs.open(self.store.path(part), "rb") as file:
            rows = pq.ParquetFile(file).read(["path_id", "exam_id"]).to_pylist()
        paths = {
            row["path_id"]
            for row in rows
            if (row["exam_id"] or "").startswith(EXAM_PREFIX) and row["exam_id"] not in studies
        }
        before = len(studies)
        pseudonymise, salt = Pseudonymiser(self.key), self.store.read(path_salt_key())
        fs, root = filesystem(place)
        refusals: tuple[type[Exception], ...] = (*refusal_types(fs), StoreError)
        for entry in stream_files(place) if paths else ():
            if path_hash(salt, f"{night.batch}/{entry.name}") not in paths:
                continue
            try:
                with fs.open(f"{root}/{entry.name}", "rb") as stream:
                    study = read_header(stream, night.rules).study
            except refusals:
                continue  # gone since it was read: its row has no link
            exam = pseudonymise(study, _STUDY_UID_NAME)
            if study is not None and exam is not None:
                studies[exam_key(exam, salt, "")] = study
        if len(studies) > before:
            data = self._cipher.encrypt(json.dumps(studies).encode())
            self.store.write(identifiers_key(), data)

    def _load(self) -> dict[str, str]:
        if not self.store.exists(identifiers_key()):
            return {}
        try:
            data = self._cipher.decrypt(self.store.read(identifiers_key()))
        except InvalidToken:
            msg = (
                f"{self.store.url}/{identifiers_key()}: expected a file encrypted with "
                "THYRO_PSEUDONYM_KEY, found one of another key; set that key again, or delete the "
                "file, and with it the links of the nights until now"
            )
            raise InputError(msg) from None
        studies: dict[str, str] = json.loads(data)
        return studies

    @property
    def _cipher(self) -> Fernet:
        secret = self.key.get_secret_value().strip().encode()
        derivation = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE)
        return Fernet(base64.urlsafe_b64encode(derivation.derive(secret)))


def study_book(store: Store, settings: Settings) -> StudyBook | None:
    """The file, if links to studies are asked for."""
    if settings.worklist_links is None or settings.pseudonym_key is None:
        return None
    return StudyBook(store, settings.pseudonym_key)


def study_address(book: StudyBook, pattern: str, exam_id: str) -> str | None:
    """The address of an exam's study in the viewer; None: it is not in the file.

    Args:
        book: the file.
        pattern: as `check_study_links` takes it.
        exam_id: of a row.

    Raises:
        InputError: the file is encrypted with another key.
    """
    study = book.study(exam_id)
    return None if study is None else pattern.format_map({_FIELD: quote(study, safe="")})
