"""Packs: whole or not there, and never taken for another."""

import hashlib
import io
import os
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.builders import images_table
from thyro_core.config import IngestConfig
from thyro_core.datasets import packs
from thyro_core.datasets.packs import ensure_packs, map_threads, open_pack, pack_index, write_pack
from thyro_core.errors import InputError
from thyro_core.imaging import decode as pictures
from thyro_core.store.keys import pack_key
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas

RULES = IngestConfig()
KEY = pack_key("m0", 8)


def rows(n: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side), dtype=np.uint8)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    url = f"memory://packs-{tmp_path.name}"
    return open_store(url)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_what_is_written_is_mapped_again(n, store, tmp_path):
    expected = rows(n)
    assert write_pack(store, "m0", 8, iter(expected), n) == KEY
    pack = open_pack(store, "m0", 8, tmp_path / "scratch", n)
    np.testing.assert_array_equal(pack, expected)
    assert pack.dtype == np.uint8
    assert isinstance(pack, np.memmap)
    assert not pack.flags.writeable


def test_a_pack_is_an_ordinary_numpy_file(store):
    expected = rows(4)
    write_pack(store, "m0", 8, expected, 4)
    file = io.BytesIO()
    np.save(file, expected)
    assert store.read(KEY) == file.getvalue()


@pytest.mark.parametrize(
    ("given_rows", "n", "words"),
    [
        (rows(3), 4, "expected 4 rows, got 3"),
        (rows(3), 2, "expected 2 rows, got 3"),
        (rows(3, side=9), 3, r"row 0 is uint8 \(9, 9\), not uint8 \(8, 8\)"),
        (rows(3).astype(np.float32), 3, "row 0 is float32"),
    ],
)
def test_wrong_rows_publish_nothing(given_rows, n, words, store):
    with pytest.raises(ValueError, match=words):
        write_pack(store, "m0", 8, given_rows, n)
    assert not store.exists(KEY)


def test_a_failure_on_the_way_publishes_nothing(store):
    def failing():
        yield rows(1)[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_pack(store, "m0", 8, failing(), 2)
    assert not store.exists(KEY)


def saved(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    np.savez(file, rows(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved(rows(3))[:-1],
        saved(rows(3))[:60],
        b"",
        b"something else",
        saved(rows(2)),
        saved(rows(3, side=9)),
        saved(rows(3).astype(np.int8)),
        saved(np.array([{}]), allow_pickle=True),
        zipped(),
    ],
    ids=["cut", "header cut", "empty", "foreign", "rows", "side", "dtype", "pickle", "archive"],
)
def test_a_damaged_or_foreign_pack_is_refused(data, store, tmp_path):
    store.write(KEY, data)
    with pytest.raises(
        InputError, match=r"8\.npy: expected a pack of uint8 \(3, 8, 8\), found .*; delete"
    ):
        open_pack(store, "m0", 8, tmp_path / "scratch", 3)


def test_a_pack_that_is_not_there_is_an_input_error(store, tmp_path):
    with pytest.raises(InputError, match=r"expected a pack at packs/m0/8\.npy, found none; ingest"):
        open_pack(store, "m0", 8, tmp_path / "scratch", 3)


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_index_is_the_rank_among_included_images(order, included):
    table = images_table([0] * 6, included=included).take(order)
    kept = [f"{i:064x}" for i in range(6) if included[i]]
    assert list(pack_index(table).items()) == [(name, row) for row, name in enumerate(kept)]


def image_files(folder: str, names: str = "abcd") -> dict[str, np.ndarray]:
    """Files with images; name -> pixels."""
    fs, root = fsspec.core.url_to_fs(folder)
    fs.makedirs(root, exist_ok=True)
    found = {}
    for name in names:
        found[name] = np.random.default_rng(ord(name)).integers(0, 256, (20, 30), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(found[name]).save(file, "PNG")
        fs.pipe(f"{root}/{name}.png", file.getvalue())
    return found


def table_of(folder: str, names: str = "abcd", excluded: str = "d"):
    fs, root = fsspec.core.url_to_fs(folder)
    listed = []
    for name in names:
        row: dict[str, object] = dict.fromkeys(schemas.TABLES["images"].schema.names)
        data = fs.cat_file(f"{root}/{name}.png")
        row |= {"manifest_id": "m0", "image_id": hashlib.sha256(data).hexdigest()}
        row |= {"uri": f"{folder}/{name}.png", "included": name not in excluded}
        listed.append(row)
    return schemas.rows_to_table("images", listed)


@pytest.fixture(params=["folder", "memory"])
def folder(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "set")
    return f"memory://set-{tmp_path.name}"


def test_lacking_packs_are_made_of_the_included_files(folder, store, tmp_path):
    pixels = image_files(folder)
    table = table_of(folder)
    ensure_packs(store, table, RULES, (8, 12))
    index = pack_index(table)
    assert len(index) == 3
    for row in table.to_pylist()[:3]:
        for side in (8, 12):
            pack = open_pack(store, "m0", side, tmp_path / "scratch", 3)
            name = Path(row["uri"]).stem
            expected = pictures.resize(pixels[name], side)
            np.testing.assert_array_equal(pack[index[row["image_id"]]], expected)


def test_packs_that_are_there_are_left_alone(folder, store, monkeypatch):
    image_files(folder)
    table = table_of(folder)
    store.write(KEY, b"kept")
    ensure_packs(store, table, RULES, (8, 12))
    assert store.read(KEY) == b"kept"
    monkeypatch.setattr(pictures, "decode", None)
    ensure_packs(store, table, RULES, (8, 12))


def test_files_are_taken_from_where_they_are_now(folder, store):
    image_files(folder)
    table = table_of(folder)
    fs, root = fsspec.core.url_to_fs(folder)
    fs.mv(f"{root}/a.png", f"{root}/b2.png")
    moved = {table["image_id"][0].as_py(): f"{folder}/b2.png"}
    ensure_packs(store, table, RULES, (8,), moved)
    assert store.exists(KEY)


@pytest.mark.parametrize(
    ("change", "words"), [("rm", "found FileNotFoundError"), ("pipe", "other")]
)
def test_a_changed_or_missing_file_is_named_with_the_cure(
    change, words, folder, store, monkeypatch
):
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.0)
    image_files(folder)
    table = table_of(folder)
    fs, root = fsspec.core.url_to_fs(folder)
    if change == "rm":
        fs.rm(f"{root}/b.png")
    else:
        fs.pipe(f"{root}/b.png", b"changed")
    with pytest.raises(InputError, match=rf"b\.png: expected .*{words}.*; put that file back"):
        ensure_packs(store, table, RULES, (8,))
    assert not store.exists(KEY)


def test_an_excluded_file_may_be_gone(folder, store):
    image_files(folder)
    table = table_of(folder)
    fs, root = fsspec.core.url_to_fs(folder)
    fs.rm(f"{root}/d.png")
    ensure_packs(store, table, RULES, (8,))
    assert store.exists(KEY)


def test_threads_keep_the_order_and_stop_at_an_error():
    assert map_threads(lambda item: item * 2, range(600)) == [2 * item for item in range(600)]
    done: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise InputError("first")
        done.append(item)

    with pytest.raises(InputError, match="first"):
        map_threads(work, range(1000))
    assert max(done, default=0) < packs._AHEAD + 2 * packs._TOGETHER < 1000


def test_files_that_lie_here_take_a_thread_a_core_and_others_more(monkeypatch):
    monkeypatch.setattr(packs, "_CORES", 2)
    assert packs.threads_for(fsspec.filesystem("file")) == 2
    assert packs.threads_for(fsspec.filesystem("memory")) >= 8


def test_no_more_threads_than_asked_for_are_at_work():
    working, most = set(), [0]

    def work(_: int) -> None:
        working.add(threading.get_ident())
        most[0] = max(most[0], len(working))
        time.sleep(0.002)

    map_threads(work, range(200), threads=3)
    assert most[0] == 3


def test_a_passing_failure_is_tried_again(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    answers = iter([OSError(), OSError()])

    def read() -> str:
        error = next(answers, None)
        if error:
            raise error
        return "data"

    assert packs.read_with_retries(read, "a.png") == "data"
    assert len(pauses) == 2
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4
    answers = iter([OSError(1), OSError(2), OSError("last"), OSError(4)])
    with pytest.raises(OSError, match="last"):
        packs.read_with_retries(read, "a.png")


def test_rows_hold_what_was_put_there():
    with packs.resized_rows(3, (4, 5)) as resized:
        assert {side: rows.shape for side, rows in resized.items()} == {4: (3, 4, 4), 5: (3, 5, 5)}
        image = np.arange(25, dtype=np.uint8).reshape(5, 5)
        resized[5][2] = image.T
        resized[5][1] = 7
        found = np.stack(list(resized[5]))
        assert found.dtype == np.uint8
        assert (found == np.stack([np.zeros((5, 5)), np.full((5, 5), 7), image.T])).all()
        for outside in (-1, 3):
            with pytest.raises(IndexError):
                resized[5][outside]
        with pytest.raises(IndexError):
            resized[5][-1] = image
        resized[5][4] = image
        assert (resized[5].shape[0], resized[4].shape[0]) == (5, 3), "what comes beyond joins"
        assert (resized[5][3] == 0).all()
        with pytest.raises(ValueError, match="broadcast"):
            resized[5][0] = np.zeros((4, 4), np.uint8)


def test_rows_are_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with packs.resized_rows(3, (4, 5)) as resized:
        resized[4][1] = 7
        assert os.fstat(resized[4]._file.fileno()).st_size == 3 * 4 * 4
    with pytest.raises(ValueError, match="closed"):
        resized[4][1]
    assert not list(tmp_path.iterdir())
