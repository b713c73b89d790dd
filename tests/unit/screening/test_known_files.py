"""Known files: the same answers as a set, in bounded memory, whatever comes in."""

import hashlib
import io
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.screening.known_files import KnownFiles, write_known
from thyro_core.store.store import open_store


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def known(folder: Path, parts: list[list[int]]) -> KnownFiles:
    store = open_store(str(folder))
    out = io.BytesIO()
    write_known((pa.table({"file_id": [sha(n) for n in part]}) for part in parts if part), out)
    store.write("known.bin", out.getvalue())
    return KnownFiles(store, "known.bin", folder)


def test_it_knows_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    found = known(tmp_path, [[1, 2, 3], [3, 4], []])
    assert len(found) == 4
    assert all(sha(n) in found for n in (1, 2, 3, 4))
    assert not any(sha(n) in found for n in range(5, 500))


def test_nothing_known(tmp_path: Path) -> None:
    found = known(tmp_path, [])
    assert len(found) == 0
    assert sha(1) not in found


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=4))
def test_it_answers_like_a_set(tmp_path_factory, parts: list[list[int]]) -> None:
    found = known(tmp_path_factory.mktemp("known"), parts)
    wanted = {n for part in parts for n in part}
    assert {n for n in range(61) if sha(n) in found} == wanted
    assert len(found) == len(wanted)


def test_half_a_hash_decides_and_the_file_holds_no_more(tmp_path: Path) -> None:
    found = known(tmp_path, [[7]])
    assert sha(7)[:32] + "0" * 32 in found
    assert (tmp_path / "known.bin").read_bytes() == sha(7)[:32].encode()


def test_hashes_of_zeros_are_hashes(tmp_path: Path) -> None:
    """A fixed-width text drops what C takes for its end; hexadecimal digits have none of it."""
    store, out = open_store(str(tmp_path)), io.BytesIO()
    write_known([pa.table({"file_id": ["0" * 64, "f" * 64]})], out)
    store.write("known.bin", out.getvalue())
    found = KnownFiles(store, "known.bin", tmp_path)
    assert "0" * 64 in found
    assert "f" * 64 in found
    assert "0" * 31 + "1" + "0" * 32 not in found
