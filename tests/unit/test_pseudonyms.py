"""Pseudonyms: those of the standard's keyed hash, one for each person, none without a key."""

import hashlib
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from thyro_core.config import StudyConfig, canonical_json, content_id
from thyro_core.errors import InputError
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.settings import Settings

KEY = "correct horse battery staple"
MAKE = Pseudonymiser(SecretStr(KEY))


def hmac_sha256(key: bytes, message: bytes) -> str:
    """RFC 2104 written out."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()


def test_it_is_the_keyed_hash_of_issuer_and_id() -> None:
    expected = "q" + hmac_sha256(KEY.encode(), b'["", "mrn-1"]')[:32]
    assert MAKE("MRN-1") == expected == "q6761f47a697b3fcb913ecab3231fe3ba"
    assert (
        MAKE("MRN-1", "Clinic A")
        == "q" + hmac_sha256(KEY.encode(), json.dumps(["clinic a", "mrn-1"]).encode())[:32]
    )


@pytest.mark.parametrize(
    "same", ["MRN-1", " mrn-1", "mrn-1  ", "Mrn-1\0", "\tmRN-1\n", "\uff2d\uff32\uff2e-1"]
)
def test_spaces_case_and_composition_do_not_matter(same: str) -> None:
    assert MAKE(same) == MAKE("mrn-1")
    assert MAKE("x", same) == MAKE("x", "mrn-1")
    assert MAKE("Stra\u00dfe") == MAKE("STRASSE")
    assert MAKE("e\u0301") == MAKE("\u00e9")


def test_issuers_and_keys_and_ids_keep_people_apart() -> None:
    other = Pseudonymiser(SecretStr(KEY + "!"))
    seen = [
        MAKE("1"), MAKE("2"), MAKE("1", "a"), MAKE("a", "1"), MAKE('a", "1'), MAKE('1"]', "a"),
        MAKE("a1"), other("1"),
    ]  # fmt: skip
    assert len(set(seen)) == len(seen)


@given(st.text(), st.text())
def test_it_is_one_word_that_says_nothing(patient: str, issuer: str) -> None:
    found = MAKE(patient, issuer)
    if found is None:
        assert not patient.replace("\0", " ").strip()
    else:
        assert found[0] == "q"
        assert len(found) == 33
        assert set(found[1:]) <= set("0123456789abcdef")
        assert MAKE(f" {patient} ", issuer) == found


@pytest.mark.parametrize("nobody", [None, "", "  ", "\0"])
def test_no_id_no_pseudonym_and_no_note(nobody: str | None) -> None:
    for make in (Pseudonymiser(SecretStr(KEY)), Pseudonymiser(None)):
        assert make(nobody, "issuer") is None
        assert make.note is None


def test_without_a_key_ids_are_refused_and_a_note_says_so() -> None:
    make = Pseudonymiser(None)
    assert make.note is None
    assert [make("MRN-1"), make("MRN-2", "A")] == [None, None]
    assert make.note is not None
    assert "set THYRO_PSEUDONYM_KEY" in make.note
    assert "MRN" not in make.note
    assert MAKE("MRN-1")
    assert MAKE.note is None


@pytest.mark.parametrize("short", ["", "zq", "fifteen letters", "   fifteen letters   "])
def test_a_short_key_is_refused_without_being_told(short: str) -> None:
    with pytest.raises(InputError, match=r"THYRO_PSEUDONYM_KEY: expected at least 16 bytes") as why:
        Pseudonymiser(SecretStr(short))
    assert not short.strip() or short.strip() not in str(why.value)


def test_bytes_count_not_letters() -> None:
    assert Pseudonymiser(SecretStr("\u0142" * 8))("1")


def test_the_setting_is_read_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().pseudonym_key is None
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", KEY)
    settings = Settings()
    assert settings.pseudonym_key is not None
    make = Pseudonymiser(settings.pseudonym_key)
    assert make("MRN-1") == MAKE("MRN-1")
    for shown in (
        repr(settings), str(settings), repr(settings.pseudonym_key), settings.model_dump_json(),
        repr(settings.model_dump()), repr(make), str(make),
    ):  # fmt: skip
        assert KEY not in shown
        assert "horse" not in shown


def test_the_key_is_part_of_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_id("s", StudyConfig())
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", KEY)
    assert content_id("s", StudyConfig()) == before
    assert "pseudonym" not in canonical_json(StudyConfig())


def test_it_travels_to_other_processes() -> None:
    again = pickle.loads(pickle.dumps(MAKE))
    assert again("MRN-1") == MAKE("MRN-1")
