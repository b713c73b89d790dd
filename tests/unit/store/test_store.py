"""One object at one key, whole or not at all: the same promises on every file system."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.folders import refuse_folder
from tests.support.places import REPOSITORY
from thyro_core.errors import InputError
from thyro_core.screening.files import check_batch, stream_files
from thyro_core.store import scratch_copy
from thyro_core.store.listing import list_files
from thyro_core.store.store import Store, filesystem, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

STUDY = "s0123456789abcdef"


def epochs(split: int, losses: list[float]) -> pa.Table:
    rows: list[dict[str, object]] = [
        dict.fromkeys(schemas.TABLES["epochs"].schema.names)
        | {"study_id": STUDY, "split": split, "architecture": "vgg16", "epoch": i, "loss": loss}
        for i, loss in enumerate(losses)
    ]
    return schemas.rows_to_table("epochs", rows)


def write_half(store: Store, key: str, data: bytes) -> None:
    with store.writing(key) as file:
        file.write(data)
        file.flush()
        raise RuntimeError


# The promises. Each takes an empty store of any kind.


def an_object_is_what_was_put_last(store: Store) -> None:
    store.write("a/b.bin", b"first, and longer")
    store.write("a/b.bin", b"\x00second")
    assert store.read("a/b.bin") == b"\x00second"
    assert store.exists("a/b.bin")
    store.write("empty", b"")
    assert store.read("empty") == b""
    assert store.exists("empty")


def a_large_object_is_whole(store: Store) -> None:
    data = bytes(range(256)) * (12 * 4096)  # 12 MiB: several parts where uploads have parts
    with store.writing("large") as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
    assert store.read("large") == data


def what_is_not_there_is_said(store: Store) -> None:
    assert not store.exists("a/b.bin")
    assert store.keys("") == []
    assert store.keys("a") == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")
    store.delete("a/b.bin")
    store.write("a/b.bin", b"x")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    assert store.keys("") == []


def a_write_that_fails_leaves_nothing(store: Store) -> None:
    store.write("old", b"old")
    for key in ("new", "old"):
        with pytest.raises(RuntimeError):
            write_half(store, key, b"half" * 100_000)
    assert store.keys("") == ["old"]
    assert store.read("old") == b"old"
    store.write("new", b"new")
    assert store.read("new") == b"new"


def an_object_appears_only_when_its_block_ends(store: Store) -> None:
    store.write("key", b"old")
    with store.writing("key") as file:
        file.write(b"new")
        file.flush()
        assert store.read("key") == b"old"
        assert store.keys("") == ["key"]
    assert store.read("key") == b"new"


def keys_are_of_one_folder_and_sorted(store: Store) -> None:
    for key in ("a/split=10/x", "a/split=1/y", "a/split=1/x", "ab/x", "a/split=1/deep/er/x", "z"):
        store.write(key, b"")
    one = ["a/split=1/deep/er/x", "a/split=1/x", "a/split=1/y"]
    assert store.keys("a/split=1") == one
    assert store.keys("a") == [*one, "a/split=10/x"]
    assert store.keys("") == [*one, "a/split=10/x", "ab/x", "z"]


def a_table_comes_back_with_its_schema(store: Store) -> None:
    for split in (1, 10, 2):
        keys: dict[str, Any] = {"study_id": STUDY, "split": split, "architecture": "vgg16"}
        key = write_table(store, "epochs", epochs(split, [0.5, 0.25 * split]), **keys)
        assert key == (
            f"tables/epochs/study_id={STUDY}/split={split}/architecture=vgg16/part-0.parquet"
        )
        assert store.exists(key)
    found = read_table(store, "epochs", study_id=STUDY)
    assert found.schema.equals(schemas.TABLES["epochs"].schema, check_metadata=True)
    assert sorted(zip(*(found[n].to_pylist() for n in ("split", "loss")), strict=True)) == [
        (1, 0.25), (1, 0.5), (2, 0.5), (2, 0.5), (10, 0.5), (10, 2.5),
    ]  # fmt: skip
    assert read_table(store, "epochs", study_id=STUDY, split=1).equals(epochs(1, [0.5, 0.25]))
    assert read_table(store, "epochs").num_rows == 6


def a_table_that_is_not_there_is_empty(store: Store) -> None:
    for found in (read_table(store, "epochs"), read_table(store, "epochs", study_id="s1", split=1)):
        assert found.num_rows == 0
        assert found.schema.equals(schemas.TABLES["epochs"].schema, check_metadata=True)


def a_part_from_another_tool_is_read_as_registered(store: Store) -> None:
    table = epochs(1, [0.5, 0.25])
    other = table.replace_schema_metadata(None).to_pylist()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(other), buffer, store_schema=False)
    store.write(f"tables/epochs/study_id={STUDY}/part-0.parquet", buffer.getvalue())
    found = read_table(store, "epochs")
    assert found.schema.equals(schemas.TABLES["epochs"].schema, check_metadata=True)
    assert found.equals(table)


def writing_a_table_again_changes_no_byte(store: Store) -> None:
    table = epochs(1, [i / 7 for i in range(1000)])
    key = write_table(store, "epochs", table, study_id=STUDY)
    first = store.read(key)
    pieces = pa.concat_tables([table.slice(0, 300), table.slice(300)])
    turned = pieces.select(sorted(table.column_names)).replace_schema_metadata({"by": "hand"})
    assert write_table(store, "epochs", turned, study_id=STUDY) == key
    assert store.read(key) == first
    assert pq.read_metadata(io.BytesIO(first)).row_group(0).column(0).compression == "ZSTD"


def a_wrong_table_is_not_written(store: Store) -> None:
    with pytest.raises(ValueError, match="missing columns"):
        write_table(store, "epochs", epochs(1, [0.5]).drop_columns(["loss"]), study_id=STUDY)
    assert store.keys("") == []


def a_local_copy_has_the_objects_bytes(store: Store) -> None:
    scratch = Path(store.read("scratch").decode())
    data = os.urandom(5 << 20)
    store.write("packs/m1/224.npy", data)
    path = store.local("packs/m1/224.npy", scratch)
    assert path.read_bytes() == data
    assert path.suffix == ".npy"
    assert store.local("packs/m1/224.npy", scratch) == path
    store.write("packs/m2/224.npy", b"other")
    assert store.local("packs/m2/224.npy", scratch).read_bytes() == b"other"
    with pytest.raises(FileNotFoundError):
        store.local("packs/m3/224.npy", scratch).read_bytes()


def objects_are_read_together(store: Store) -> None:
    keys = ["a/[1].bin", "a/1.bin", "a/x*y.bin", "a/xzy.bin", "a/q?.bin"]
    for key in keys:
        store.write(key, key.encode())
    assert store.read_all([*keys, "a/none.bin"]) == {key: key.encode() for key in keys}
    assert store.read_all([]) == {}


CONTRACT: tuple[Callable[[Store], None], ...] = (
    an_object_is_what_was_put_last,
    a_large_object_is_whole,
    what_is_not_there_is_said,
    a_write_that_fails_leaves_nothing,
    an_object_appears_only_when_its_block_ends,
    keys_are_of_one_folder_and_sorted,
    a_table_comes_back_with_its_schema,
    a_table_that_is_not_there_is_empty,
    a_part_from_another_tool_is_read_as_registered,
    writing_a_table_again_changes_no_byte,
    a_wrong_table_is_not_written,
    objects_are_read_together,
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "file":
        # What a shell or `glob` would take for a pattern is a name like any other.
        yield open_store(f"file://{tmp_path}/a [1] {{b}}*?/store")
        return
    opened = open_store(f"memory://{uuid.uuid4().hex}/store")
    yield opened
    if opened.fs.exists(opened.root):
        opened.fs.rm(opened.root, recursive=True)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_promise(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


def test_a_local_copy(store: Store, tmp_path: Path) -> None:
    store.write("scratch", str(tmp_path / "scratch").encode())
    a_local_copy_has_the_objects_bytes(store)


segments = st.from_regex(r"[a-z0-9][a-z0-9=._-]{0,6}", fullmatch=True)
# All keys are three deep and folders are not files: an object cannot be the folder of another.
keys = st.builds("{}/{}/{}.bin".format, st.sampled_from(["a", "b=1", "b=10"]), segments, segments)
operations = st.lists(
    st.tuples(st.sampled_from(["write", "fail", "delete"]), keys, st.binary(max_size=30)),
    max_size=12,
)


def behaves_like_a_dict(store: Store, steps: list[tuple[str, str, bytes]]) -> None:
    """After every step a store holds exactly what a dict would."""
    model: dict[str, bytes] = {}
    for step, key, data in steps:
        if step == "write":
            store.write(key, data)
            model[key] = data
        elif step == "delete":
            store.delete(key)
            model.pop(key, None)
        else:
            with pytest.raises(RuntimeError):
                write_half(store, key, data)
        assert store.exists(key) == (key in model)
    assert store.keys("") == sorted(model)
    for folder in ("a", "b=1", "b=10"):
        assert store.keys(folder) == sorted(k for k in model if k.startswith(f"{folder}/"))
    assert {key: store.read(key) for key in model} == model


@settings(max_examples=40, deadline=None)
@given(steps=operations)
def test_a_store_in_memory_behaves_like_a_dict(steps: list[tuple[str, str, bytes]]) -> None:
    behaves_like_a_dict(open_store(f"memory://{uuid.uuid4().hex}"), steps)


@settings(max_examples=40, deadline=None)
@given(steps=operations)
def test_a_store_of_files_behaves_like_a_dict(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bytes]]
) -> None:
    behaves_like_a_dict(open_store(str(tmp_path_factory.mktemp("store"))), steps)


# Addresses.


def test_opening_a_store_makes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new"))
    assert not store.exists("x")
    assert store.keys("") == []
    assert list(tmp_path.iterdir()) == []


def test_a_relative_store_is_named_so_that_it_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("./here/")
    store.write("key", b"data")
    monkeypatch.chdir("/")
    assert store.url == f"file://{tmp_path}/here"
    assert store.read("key") == b"data"
    assert open_store(store.url).read("key") == b"data"
    assert (tmp_path / "here/key").read_bytes() == b"data"


@pytest.mark.parametrize("url", ["nonsense://bucket/store", "gcs://bucket/store"])
def test_an_unknown_kind_of_store_is_said_in_one_sentence(url: str) -> None:
    with pytest.raises(InputError, match=f"{url}: expected a folder or an fsspec URL"):
        open_store(url)
    with pytest.raises(InputError):
        filesystem(url)


class _ClosedFileSystem(MemoryFileSystem):
    """Lets nobody in."""

    protocol = "closed"

    def exists(self, _path: str, **_options: object) -> bool:
        raise PermissionError("Forbidden")


def test_a_store_that_lets_nobody_in_says_so_when_it_is_opened() -> None:
    fsspec.register_implementation("closed", _ClosedFileSystem, clobber=True)
    with pytest.raises(InputError, match=r"closed://.*found: Forbidden; check the URL"):
        open_store("closed://store")


# Processes that die and processes that race.

WRITER = """
import sys, time
from thyro_core.store.store import open_store
store = open_store(sys.argv[1])
with store.writing(sys.argv[2]) as file:
    file.write(b"half" * 250_000)
    file.flush()
    print("half", flush=True)
    time.sleep(600)
"""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_in_the_middle_of_a_write(url: str, key: str) -> None:
    """Start a process that writes to a store, and kill it half way."""
    with start(WRITER, url, key) as process:
        assert process.stdout
        said = process.stdout.readline()
        process.kill()
    assert said == "half\n"
    assert process.returncode == -9


@pytest.mark.parametrize("before", [None, b"whole"])
def test_a_killed_writer_leaves_the_store_as_it_was(tmp_path: Path, before: bytes | None) -> None:
    store = open_store(str(tmp_path))
    key = "tables/epochs/study_id=s1/part-0.parquet"
    if before:
        store.write(key, before)
    kill_in_the_middle_of_a_write(store.url, key)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == (2 if before else 1), "the killed writer left its temporary file"
    assert store.exists(key) == bool(before)
    assert store.keys("") == store.keys("tables") == ([key] if before else [])
    assert read_table(store, "epochs", study_id="s2").num_rows == 0
    store.write(key, b"new")
    assert store.read(key) == b"new"
    assert store.keys("") == [key]


RACER = """
import sys
from thyro_core.store.store import open_store
store = open_store(sys.argv[1])
letter = sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    store.write("a/key", letter * 300_000)
"""


def race(url: str, writes: int, writers: str = "xyz") -> list[bytes]:
    """All that a reader saw while processes wrote to one key at once, and at the end."""
    store = open_store(url)
    racers = [start(RACER, url, letter, str(writes)) for letter in writers]
    seen = []
    try:
        for racer in racers:
            assert racer.stdout
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        while any(racer.poll() is None for racer in racers):
            if store.exists("a/key"):
                seen.append(store.read("a/key"))
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert [racer.returncode for racer in racers] == [0] * len(writers)
    return [*seen, store.read("a/key")]


def are_whole(seen: list[bytes]) -> bool:
    return all(len(data) == 300_000 and len(set(data)) == 1 for data in set(seen))


def test_racing_writers_leave_one_whole_object(tmp_path: Path) -> None:
    assert are_whole(race(str(tmp_path), writes=40))
    assert open_store(str(tmp_path)).keys("") == ["a/key"]
    assert list((tmp_path / ".tmp").iterdir()) == []


# Copies on the node.


class _CountingFileSystem(MemoryFileSystem):
    """Counts how often a file is opened for reading, and lets that take its time."""

    protocol = "counting"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.fails = 0
        self.pause = threading.Event()

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:  # type: ignore[override]
        if mode == "rb":
            self.opened += 1
            self.pause.wait(0.1)
        file = super().open(path, mode, **kwargs)
        if mode == "rb" and self.fails:
            self.fails -= 1
            return _BreakingFile(file.read())
        return file


class _BreakingFile(io.BytesIO):
    """Gives the first half, then the connection is gone."""

    def read(self, _size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError
        return super().read(len(self.getvalue()) // 2)


@pytest.fixture
def counting() -> Iterator[tuple[Store, _CountingFileSystem]]:
    fs = _CountingFileSystem()
    root = f"/{uuid.uuid4().hex}"
    yield Store(f"counting:/{root}", fs, root), fs
    fs.rm(root, recursive=True)


def test_keys_are_sorted_whatever_the_file_system_does(
    counting: tuple[Store, _CountingFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fs = counting
    for key in ("a/2", "a/1", "a/3"):
        store.write(key, b"")
    find = fs.find
    monkeypatch.setattr(fs, "find", lambda *at, **options: find(*at, **options)[::-1])
    assert store.keys("a") == ["a/1", "a/2", "a/3"]


def test_ten_threads_fetch_once(
    counting: tuple[Store, _CountingFileSystem], tmp_path: Path
) -> None:
    store, fs = counting
    data = os.urandom(1 << 20)
    store.write("packs/224.npy", data)
    together = threading.Barrier(10)

    def fetch(_: int) -> Path:
        together.wait()
        return store.local("packs/224.npy", tmp_path)

    with ThreadPoolExecutor(10) as pool:
        found = set(pool.map(fetch, range(10)))
    assert fs.opened == 1
    assert len(found) == 1
    assert found.pop().read_bytes() == data


def test_a_fetch_that_breaks_off_leaves_no_copy_and_is_made_again(
    counting: tuple[Store, _CountingFileSystem], tmp_path: Path
) -> None:
    store, fs = counting
    store.write("packs/224.npy", b"0123456789")
    fs.fails = 1
    with pytest.raises(ConnectionResetError):
        store.local("packs/224.npy", tmp_path)
    assert list(tmp_path.rglob("*.npy")) == list(tmp_path.rglob("*.tmp")) == []
    assert store.local("packs/224.npy", tmp_path).read_bytes() == b"0123456789"
    assert fs.opened == 2


def _damage(copy: Path, how: str) -> None:
    before = copy.stat()
    if how == "a link":
        copy.rename(copy.with_name("elsewhere"))
        copy.symlink_to("elsewhere")
    elif how == "no record":
        copy.with_name(f"{copy.name}.json").unlink()
    elif how == "a record that is none":
        copy.with_name(f"{copy.name}.json").write_text("[]")
    elif how == "cut short":
        os.truncate(copy, 5)
    else:
        copy.write_bytes(b"otherwise!")
    if how == "other bytes, same time":
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "how",
    ["a link", "no record", "a record that is none", "cut short", "other bytes",
     "other bytes, same time"],
)  # fmt: skip
def test_a_copy_that_is_not_what_was_fetched_is_fetched_again(
    counting: tuple[Store, _CountingFileSystem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    store, fs = counting
    store.write("packs/224.npy", b"0123456789")
    copy = store.local("packs/224.npy", tmp_path)
    _damage(copy, how)
    # As in another process.
    monkeypatch.setattr(scratch_copy, "_intact_copies", {})
    again = store.local("packs/224.npy", tmp_path)
    assert (again, again.read_bytes(), again.is_symlink()) == (copy, b"0123456789", False)
    assert fs.opened == 2
    assert store.local("packs/224.npy", tmp_path).read_bytes() == b"0123456789"
    assert fs.opened == 2


def test_another_users_copy_is_fetched_again(
    counting: tuple[Store, _CountingFileSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fs = counting
    store.write("packs/224.npy", b"0123456789")
    store.local("packs/224.npy", tmp_path)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    store.local("packs/224.npy", tmp_path)
    assert fs.opened == 2


def test_bytes_are_hashed_once_in_a_process_and_large_copies_not_at_all(
    counting: tuple[Store, _CountingFileSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fs = counting
    store.write("packs/224.npy", b"0123456789")
    copy = store.local("packs/224.npy", tmp_path)
    hashes, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: hashes.append(1) or digest(*a))
    for _ in range(3):
        assert store.local("packs/224.npy", tmp_path) == copy
    assert hashes == [1]
    monkeypatch.setattr(scratch_copy, "_intact_copies", {})
    monkeypatch.setattr(scratch_copy, "HASHED_BYTES", 9)
    store.local("packs/224.npy", tmp_path)
    assert (hashes, fs.opened) == ([1], 1)
    os.utime(copy, ns=(0, 0))
    store.local("packs/224.npy", tmp_path)
    assert fs.opened == 2


def test_stores_do_not_share_a_copy(tmp_path: Path) -> None:
    one, two = (open_store(f"memory://{uuid.uuid4().hex}") for _ in range(2))
    one.write("x.npy", b"one")
    two.write("x.npy", b"two")
    assert one.local("x.npy", tmp_path).read_bytes() == b"one"
    assert two.local("x.npy", tmp_path).read_bytes() == b"two"


def test_a_local_store_serves_its_own_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write("x.npy", b"one")
    assert store.local("x.npy", tmp_path / "scratch") == tmp_path / "store/x.npy"
    assert not (tmp_path / "scratch").exists()


FETCHER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fsspec.implementations.dirfs import DirFileSystem
from thyro_core.store.store import Store

class Remote(DirFileSystem):
    def open(self, path, *arguments, **options):
        with open(sys.argv[3], "a") as log:
            log.write("opened\\n")
        return super().open(path, *arguments, **options)

store = Store("remote://x", Remote(sys.argv[1]), "")
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(4) as pool:
    for path in pool.map(lambda _: store.local("pack.npy", Path(sys.argv[2])), range(4)):
        assert path.read_bytes() == b"pixels" * 500_000
"""


def test_processes_of_a_node_fetch_once(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote/pack.npy").write_bytes(b"pixels" * 500_000)
    folders = [str(tmp_path / name) for name in ("remote", "scratch", "log")]
    fetchers = [start(FETCHER, *folders) for _ in range(3)]
    try:
        for fetcher in fetchers:
            assert fetcher.stdout
            assert fetcher.stdout.readline() == "ready\n"
    finally:
        for fetcher in fetchers:
            fetcher.communicate("go\n")
    assert [fetcher.returncode for fetcher in fetchers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "opened\n"


@pytest.mark.parametrize(
    "url", ["s3://key:geheim@bucket/x", "https://geheim@host/x", "nosuch://geheim@h"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    for use in (open_store, list_files, check_batch):
        with pytest.raises(InputError, match="expected an address without user and pass") as caught:
            use(url)
        assert "geheim" not in str(caught.value)


def test_a_file_may_have_an_at_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "ward@night"
    folder.mkdir()
    assert open_store(f"file://{folder}").root == str(folder)
    assert open_store(str(folder)).root == str(folder)


@pytest.mark.parametrize("inner", ["site2", "malignant/site2"])
def test_a_folder_that_cannot_be_listed_does_not_pass_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    (tmp_path / inner).mkdir(parents=True)
    (tmp_path / inner / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    assert list_files(str(tmp_path)).images() == ["b.png", f"{inner}/a.png"]
    refuse_folder(monkeypatch, "site2")
    listing = list_files(str(tmp_path))
    assert (listing.images(), listing.refusals) == (["b.png"], {inner: "permission denied"})


def test_a_source_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_folder(monkeypatch, tmp_path.name)
    refusal = f"folder that can be read, found permission denied at {tmp_path}; grant the right"
    with pytest.raises(InputError, match=refusal) as caught:
        list_files(str(tmp_path))
    assert "Error" not in str(caught.value)


def test_a_system_folder_that_cannot_be_listed_is_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "b.png").write_bytes(b"b")
    refuse_folder(monkeypatch, "lost+found")
    assert list_files(str(tmp_path)).images() == ["b.png"]


@pytest.mark.parametrize(
    "use", [open_store, list_files, check_batch, lambda url: list(stream_files(url))]
)
def test_a_folder_whose_name_is_not_utf_8_is_a_sentence(tmp_path: Path, use) -> None:
    folder = os.fsdecode(bytes(tmp_path) + b"/n_\xe9")
    Path(folder).mkdir()
    with pytest.raises(InputError, match=r"n_\\xe9: expected a path in UTF-8, .*; rename") as found:
        use(folder)
    str(found.value).encode()
