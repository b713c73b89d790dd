"""Known files and pictures: the same answers as a set, in bounded memory, whatever comes in."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.screening.known_files import (
    KNOWN_SCHEMA,
    KnownFiles,
    KnownPictures,
    Original,
    is_other_patient,
    write_known,
)
from thyro_core.store.store import open_store


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def scored(number: int, **more: Any) -> dict[str, Any]:
    return {
        "date": 20261125,
        "file_id": sha(number),
        "path_id": sha(1000 + number),
        "image_id": sha(number),
        "picture_id": sha(2000 + number),
        "pattern_id": None,
        "patient_id": None,
        "status": "scored",
        "reason": None,
        "band": "routine",
    } | more


def known(
    folder: Path, parts: Sequence[Sequence[dict[str, Any]]]
) -> tuple[KnownFiles, KnownPictures]:
    store = open_store(str(folder))
    files, pictures = io.BytesIO(), io.BytesIO()
    tables = (pa.Table.from_pylist(list(part), schema=KNOWN_SCHEMA) for part in parts)
    write_known(tables, files, pictures)
    store.write("files.bin", files.getvalue())
    store.write("pictures.bin", pictures.getvalue())
    return KnownFiles(store, "files.bin", folder), KnownPictures(store, "pictures.bin", folder)


def has(files: KnownFiles, number: int) -> bool:
    return files.has(sha(1000 + number), sha(number))


def test_it_knows_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    files, pictures = known(tmp_path, [[scored(n) for n in part] for part in ([1, 2, 3], [3, 4])])
    assert (len(files), len(pictures)) == (4, 4)
    assert all(has(files, n) for n in (1, 2, 3, 4))
    assert not any(has(files, n) for n in range(5, 200))
    assert not files.has(sha(1001), sha(2)), "the same bytes at another path are another file"
    assert pictures.original(sha(2002), None) == Original(sha(2), 20261125, None, "routine", None)
    assert pictures.original(sha(2), None) is None


def test_another_form_of_a_picture_has_its_row(tmp_path: Path) -> None:
    """An earlier version's row, which has no pattern, has it for the same form alone."""
    of_before = scored(2)
    turned_copy = scored(5, status="copy", band="copy", pattern_id=sha(77))
    rows = [scored(1, pattern_id=sha(77)), of_before, turned_copy]
    files, pictures = known(tmp_path, [rows])
    same = Original(sha(1), 20261125, None, "routine", None)
    assert pictures.original(sha(2001), sha(77)) == same
    assert pictures.original(sha(2005), sha(77)) == same._replace(is_turned=True)
    assert pictures.original(sha(2001), sha(78)) is None
    assert pictures.original(sha(2002), sha(78)) == same._replace(image_id=sha(2))
    assert has(files, 5)
    assert len(pictures) == 2


def test_nothing_known(tmp_path: Path) -> None:
    files, pictures = known(tmp_path, [])
    assert (len(files), len(pictures)) == (0, 0)
    assert not has(files, 1)
    assert pictures.original(sha(1), None) is None


@settings(max_examples=10)
@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=4))
def test_it_answers_like_a_set(tmp_path_factory, parts: list[list[int]]) -> None:
    files, pictures = known(
        tmp_path_factory.mktemp("known"), [[scored(n) for n in part] for part in parts]
    )
    wanted = {n for part in parts for n in part}
    assert {n for n in range(61) if has(files, n)} == wanted
    assert {n for n in range(61) if pictures.original(sha(2000 + n), None)} == wanted
    assert len(files) == len(pictures) == len(wanted)


def test_a_row_of_before_paths_makes_its_bytes_known_wherever_they_lie(tmp_path: Path) -> None:
    files, pictures = known(tmp_path, [[scored(7, path_id=None, picture_id=None)]])
    assert has(files, 7)
    assert files.has(sha(5), sha(7))
    assert not files.has(sha(5), sha(8))
    assert len(pictures) == 0


def test_half_a_hash_decides_and_the_file_holds_no_more(tmp_path: Path) -> None:
    files, _ = known(tmp_path, [[scored(7, path_id=None)]])
    assert files.has("", sha(7)[:32] + "0" * 32)
    assert (tmp_path / "files.bin").read_bytes() == sha(7)[:32].encode()
    assert (tmp_path / "pictures.bin").stat().st_size == 126


def test_hashes_of_zeros_are_hashes(tmp_path: Path) -> None:
    """A fixed-width text drops what C takes for its end; hexadecimal digits have none of it."""
    ends = [scored(n, file_id=end * 64, path_id=None) for n, end in enumerate("0f")]
    files, _ = known(tmp_path, [ends])
    assert files.has("", "0" * 64)
    assert files.has("", "f" * 64)
    assert not files.has("", "0" * 31 + "1" + "0" * 32)


def test_a_copy_is_known_as_long_as_its_original_is(tmp_path: Path) -> None:
    copy = scored(9, status="copy", band="copy", picture_id=sha(2001))
    orphan = scored(10, status="copy", band="copy", picture_id=sha(2444))
    files, pictures = known(tmp_path, [[scored(1), copy], [orphan]])
    assert [has(files, n) for n in (1, 9, 10)] == [True, True, False]
    assert len(pictures) == 1, "a copy is no original"


def test_a_picture_has_the_scored_row_before_a_refused_and_an_earlier_before_a_later(
    tmp_path: Path,
) -> None:
    refused = {"status": "rejected", "reason": "blurred", "band": "not scored"}
    rows = [
        scored(1, date=20261101, **refused),
        scored(2, date=20261103, picture_id=sha(2001)),
        scored(3, date=20261102, picture_id=sha(2001), band="review", reason="uncertain"),
        scored(4, **refused, patient_id="q0123456789abcdef"),
    ]
    _, pictures = known(tmp_path, [rows])
    one, other = pictures.original(sha(2001), None), pictures.original(sha(2004), None)
    assert one == Original(sha(3), 20261102, None, "review", None), "its reason sends it to review"
    assert one.night == "2026-11-02"
    assert other == Original(sha(4), 20261125, "blurred", "not scored", "q012345678")
    assert not is_other_patient("q0123456789abcdef", other)
    assert is_other_patient("q1123456789abcdef", other)
    assert not is_other_patient(None, other)
    assert not is_other_patient("q1123456789abcdef", one)
