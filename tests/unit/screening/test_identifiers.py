"""The one file with identifiers: encrypted, of the exams that rows name, and nowhere else."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.screened import RULES, Ward
from tests.unit.screening.test_results import UID, instance, kept_texts
from thyro_core.errors import InputError
from thyro_core.screening.identifiers import (
    StudyBook,
    check_study_links,
    study_address,
)
from thyro_core.screening.night import plan_night
from thyro_core.settings import Settings
from thyro_core.store.keys import identifiers_key, worklist_key
from thyro_core.tables.io import read_table

KEY = "a-secret-of-the-tests"
LINKS = "https://viewer/ohif?StudyInstanceUIDs={study}"


def test_rows_find_their_study_and_nothing_else_holds_it(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", KEY)
    for number in range(4):
        (ward.batch / f"{number}.dcm").write_bytes(instance(number, number // 2))
    (ward.batch / "page.png").write_bytes(b"no image")
    ward.screen("2026-11-25")
    book = StudyBook(ward.store, SecretStr(KEY))
    night = plan_night(ward.store, str(ward.batch), "2026-11-25", None, RULES)
    book.add(night, str(ward.batch))
    rows = read_table(ward.store, "screening").to_pylist()
    exams = {row["exam_id"] for row in rows if row["exam_id"].startswith("e")}
    assert {book.study(exam) for exam in exams} == {f"{UID}.2.0", f"{UID}.2.1"}
    assert {study_address(book, LINKS, exam) for exam in exams} == {
        f"https://viewer/ohif?StudyInstanceUIDs={UID}.2.{n}" for n in range(2)
    }
    assert study_address(book, LINKS, "enobody") is None
    assert UID not in "".join(kept_texts(ward.store)), "it is encrypted"
    before = ward.store.read(identifiers_key())
    book.add(night, str(ward.batch))
    assert ward.store.read(identifiers_key()) == before, "nothing is new"
    with pytest.raises(InputError, match="set that key again"):
        StudyBook(ward.store, SecretStr("another-secret-of-tests")).study("e")
    assert b"viewer/ohif" not in ward.store.read(worklist_key("2026-11-25", "html"))


@pytest.mark.parametrize(
    "pattern",
    [
        "https://viewer/?s={series}", "https://viewer/", "javascript:alert({study})",
        "https://viewer/?s={study", "https://{study}", "https://viewer/?s={study!r}",
        "https://viewer/?s={study:>99}", "https://viewer/?s={study.real}", "ftp://viewer/{study}",
        "https://me:word@viewer/{study}", "https://viewer/{study} {study}",
    ],
)  # fmt: skip
def test_patterns_that_give_no_address(pattern: str) -> None:
    with pytest.raises(InputError, match="THYRO_WORKLIST_LINKS: expected a web address"):
        check_study_links(Settings(worklist_links=pattern, pseudonym_key=SecretStr(KEY)))


def test_links_need_the_key_that_they_are_encrypted_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected THYRO_PSEUDONYM_KEY beside it"):
        check_study_links(Settings(worklist_links=LINKS, pseudonym_key=None))
    check_study_links(Settings(worklist_links=LINKS, pseudonym_key=SecretStr(KEY)))
    check_study_links(Settings(worklist_links="http://viewer:8080/{study}/{study}",
                               pseudonym_key=SecretStr(KEY)))  # fmt: skip
    check_study_links(Settings())
