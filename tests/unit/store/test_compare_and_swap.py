"""Compare and swap: nobody's change is lost, on every kind of store."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.places import REPOSITORY
from thyro_core.errors import InputError
from thyro_core.store.compare_and_swap import (
    Versioned,
    compare_and_swap,
    conditional_writes_fault,
    read_versioned,
)
from thyro_core.store.lock import Lock, LockedError
from thyro_core.store.store import Store, open_store

KEY = "registry/count"

# The promises. Each takes an empty store of any kind.


def an_object_is_made_once(store: Store) -> None:
    nothing = read_versioned(store, KEY)
    assert nothing == Versioned(None, None)
    assert compare_and_swap(store, KEY, b"first", nothing)
    assert not compare_and_swap(store, KEY, b"second", nothing)
    assert store.read(KEY) == b"first"


def an_object_is_changed_from_what_was_seen_only(store: Store) -> None:
    assert compare_and_swap(store, KEY, b"first", read_versioned(store, KEY))
    first = read_versioned(store, KEY)
    assert first.data == b"first"
    assert compare_and_swap(store, KEY, b"second", first)
    assert not compare_and_swap(store, KEY, b"third", first)
    assert read_versioned(store, KEY).data == b"second"
    assert compare_and_swap(store, KEY, b"third", read_versioned(store, KEY))
    assert store.keys("registry") == [KEY]


def an_object_that_is_gone_is_not_swapped(store: Store) -> None:
    store.write(KEY, b"first")
    seen = read_versioned(store, KEY)
    store.delete(KEY)
    assert not compare_and_swap(store, KEY, b"second", seen)
    assert not store.exists(KEY)


def threads_lose_no_count(store: Store) -> None:
    def add(name: int) -> None:
        for _ in range(5):
            while True:
                seen = read_versioned(store, KEY)
                count = int((seen.data or b"0").split()[0]) + 1
                if compare_and_swap(store, KEY, f"{count} {name}".encode(), seen):
                    break

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert store.read(KEY).split()[0] == b"20"


def conditions_are_honoured(store: Store) -> None:
    assert conditional_writes_fault(store, KEY) is None
    assert not store.exists(KEY)
    store.write(KEY, b"first")
    assert conditional_writes_fault(store, KEY) is None
    assert store.read(KEY) == b"first"


CONTRACT: tuple[Callable[[Store], None], ...] = (
    an_object_is_made_once,
    an_object_is_changed_from_what_was_seen_only,
    an_object_that_is_gone_is_not_swapped,
    threads_lose_no_count,
    conditions_are_honoured,
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "file":
        yield open_store(f"file://{tmp_path}/store")
        return
    opened = open_store(f"memory://{uuid.uuid4().hex}/store")
    yield opened
    if opened.fs.exists(opened.root):
        opened.fs.rm(opened.root, recursive=True)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_promise(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


COUNTER = """
import sys
from thyro_core.store.store import open_store
from thyro_core.store.compare_and_swap import compare_and_swap, read_versioned
store = open_store(sys.argv[1])
for _ in range(int(sys.argv[2])):
    while True:
        seen = read_versioned(store, "registry/count")
        count = int((seen.data or b"0").split()[0]) + 1
        if compare_and_swap(store, "registry/count", f"{count} {sys.argv[3]}".encode(), seen):
            break
"""


def count_in_processes(url: str, processes: int, times: int) -> bytes:
    """What a counter says after several processes have counted at once."""
    command = [sys.executable, "-c", COUNTER, url, str(times)]
    started = [subprocess.Popen([*command, str(name)], cwd=REPOSITORY) for name in range(processes)]
    assert [process.wait(120) for process in started] == [0] * processes
    return open_store(url).read(KEY).split()[0]


def test_processes_lose_no_count(tmp_path: Path) -> None:
    assert count_in_processes(str(tmp_path), 2, 20) == b"40"


def test_a_store_that_cannot_compare_is_refused() -> None:
    from fsspec.implementations.dirfs import DirFileSystem

    fs: Any = DirFileSystem("/x", fs=MemoryFileSystem())
    store = Store("dir://x", fs, "")
    for act in (
        lambda: read_versioned(store, KEY),
        lambda: compare_and_swap(store, KEY, b"", Versioned(None, None)),
    ):
        with pytest.raises(InputError, match=r"dir://x: expected a store that can compare"):
            act()


class _Server:
    """A file system that answers as some S3 servers do; what it holds is `held`."""

    protocol = ("s3", "s3a")

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.held: bytes | None = None

    def info(self, path: str) -> dict[str, str]:
        if self.held is None:
            raise FileNotFoundError(path)
        return {"ETag": repr(self.held)}

    def cat_file(self, _: str) -> bytes:
        assert self.held is not None
        return self.held

    def pipe_file(self, _: str, data: bytes, **__: str) -> None:
        if self.answer == "ignorant":
            self.held = data
            return
        if self.answer == "lost":
            self.held = data
            raise OSError(22, "at least one of the preconditions failed")
        if self.answer == "taken":
            self.held = b"another's"
        raise OSError(5, "we encountered an internal error")


@pytest.mark.parametrize(("answer", "swapped"), [("lost", True), ("taken", False)])
def test_a_conflict_is_what_the_object_says_it_is(answer: str, swapped: bool) -> None:
    fs: Any = _Server(answer)
    store = Store("s3://b", fs, "b")
    assert compare_and_swap(store, KEY, b"mine", read_versioned(store, KEY)) == swapped


def test_a_failure_is_no_conflict() -> None:
    fs: Any = _Server("down")
    store = Store("s3://b", fs, "b")
    with pytest.raises(OSError, match="internal error"):
        compare_and_swap(store, KEY, b"mine", read_versioned(store, KEY))


def test_a_server_that_ignores_conditions_is_named_and_its_lock_weak() -> None:
    fs: Any = _Server("ignorant")
    store = Store("s3://key:secret@b", fs, "b")
    assert compare_and_swap(store, KEY, b"mine", read_versioned(store, KEY))
    fault = conditional_writes_fault(store, KEY)
    assert fault is not None
    assert "found one that ignores them" in fault
    assert "secret" not in fault
    with Lock(store, KEY, "one", 60) as lock:
        assert lock.weakness == fault
        with pytest.raises(LockedError), Lock(store, KEY, "two", 60):
            pytest.fail("held twice")
