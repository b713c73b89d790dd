"""Pseudonyms of patients and paths: the same one, the same word, no way back without the key."""

import hashlib
import hmac
import json
import os
import unicodedata
from collections.abc import Callable

from pydantic import SecretStr

from thyro_core.errors import InputError
from thyro_core.settings import Settings

PREFIX = "q"
"""What a pseudonym begins with: neither a hash of an image nor a number."""

WITHOUT_KEY = (
    "THYRO_PSEUDONYM_KEY is not set: patient and exam ids are dropped, so a worklist brings images "
    "together by folder and not by exam, the same picture under another patient's id is not "
    "noticed, and drift takes each file for a patient of its own; `openssl rand -hex 32` makes a "
    "key: keep it secret, and the same for all nights"
)
"""What a screening without a key lacks, and the cure."""

EXAM_PREFIX, FOLDER_PREFIX = "e", "f"
"""What the key of an exam begins with: its pseudonym, or a folder that stands for it."""

_PSEUDONYM_DIGITS = 32
_SHORTEST = 16


class Pseudonymiser:
    """Makes pseudonyms of patient ids by a keyed hash (HMAC-SHA256), or refuses to.

    Without a key an id has no pseudonym at all: a hash without one is undone by trying every
    possible id. The key is never shown, kept or made part of any other hash.

    Args:
        key: `Settings().pseudonym_key` (THYRO_PSEUDONYM_KEY).

    Raises:
        InputError: the key is shorter than 16 bytes.
    """

    def __init__(self, key: SecretStr | None) -> None:
        self._key = key.get_secret_value().strip().encode() if key is not None else None
        self._has_refused = False
        if self._key is not None and len(self._key) < _SHORTEST:
            msg = (
                f"THYRO_PSEUDONYM_KEY: expected at least {_SHORTEST} bytes, found "
                f"{len(self._key)}; `openssl rand -hex 32` makes a key"
            )
            raise InputError(msg)

    def __call__(self, patient_id: str | None, issuer: str | None = None) -> str | None:
        """The pseudonym of a patient id: "q" and 32 hexadecimal digits.

        Spaces around an id, the case of its letters and the way its characters are composed
        (Unicode NFKC) do not matter. Ids of different issuers are different patients.

        Args:
            patient_id: DICOM's PatientID, or the id in a batch's or a labels file.
            issuer: DICOM's IssuerOfPatientID; None or empty: not given.

        Returns:
            None without an id, and without a key.
        """
        same_id, same_issuer = normal_id(patient_id), normal_id(issuer)
        if not same_id:
            return None
        if self._key is None:
            self._has_refused = True
            return None
        # As JSON, so that no two pairs of issuer and id are one text.
        return _keyed_hash(self._key, [same_issuer, same_id])

    def of_path(self, address: str) -> str | None:
        """The pseudonym of a file's address, of the same form; None without a key.

        Every byte of an address counts. It is no patient's pseudonym, whatever the file is called.
        """
        return None if self._key is None else _keyed_hash(self._key, {"path": address})

    @property
    def note(self) -> str | None:
        """What a reader must know, in one sentence; None if no id had to be refused."""
        if not self._has_refused:
            return None
        return (
            "Patient ids were given but no key for pseudonyms, so images of one patient are not "
            "brought together; set THYRO_PSEUDONYM_KEY."
        )


def path_hash(salt: bytes, address: str) -> str:
    """A hash of a file's address, which tells the same file met again from a copy of it.

    Args:
        salt: random bytes of the store: file names tell of people, and a hash without them is
            undone by trying every possible name.
        address: the batch's address, "/" and the path below it.

    Returns:
        64 hexadecimal digits.
    """
    return hmac.new(salt, os.fsencode(address), hashlib.sha256).hexdigest()


def exam_key(exam: str | None, salt: bytes, address: str) -> str:
    """What the images of one exam have in common: its pseudonym, or else a hash of the folder.

    Args:
        exam: pseudonym of the exam; None: it is not known.
        salt: random bytes of the store, as for `path_hash`.
        address: the batch's address, "/" and the path below it.

    Returns:
        `e` and the pseudonym's digits, or `f` and as many digits of the folder's hash.
    """
    if exam is not None:
        return EXAM_PREFIX + exam.removeprefix(PREFIX)
    return FOLDER_PREFIX + path_hash(salt, address.rpartition("/")[0])[:_PSEUDONYM_DIGITS]


def path_hider(settings: Settings) -> Callable[[str], str | None] | None:
    """What hides the paths of files from an ingest's table; None: they are kept.

    Raises:
        InputError: the key is shorter than 16 bytes.
    """
    return (
        None if settings.keep_names is not False else Pseudonymiser(settings.pseudonym_key).of_path
    )


def _keyed_hash(key: bytes, subject: list[str] | dict[str, str]) -> str:
    message = json.dumps(subject).encode()
    return PREFIX + hmac.new(key, message, hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]


def normal_id(text: str | None) -> str:
    """An id without what does not count: spaces around it, case, how characters are composed."""
    whole = (text or "").replace("\0", " ")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", whole).casefold()).strip()
