"""A lock in the store: one holder at a time, and none that lasts for ever."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from thyro_core import store_lock
from thyro_core.errors import ThyroError
from thyro_core.storage import Store, open_store
from thyro_core.store_lock import LockedError, LockLostError, lock
from thyro_core.swap import read_seen

REPOSITORY = Path(__file__).resolve().parent.parent
KEY = "locks/night.json"


def hold(store: Store) -> dict[str, str]:
    found: dict[str, str] = json.loads(store.read(KEY))
    return found


def expire(store: Store) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    store.write(KEY, json.dumps(hold(store) | {"until": past}).encode())


# The promises. Each takes an empty store of any kind.


def one_holds_and_the_next_is_told_who(store: Store) -> None:
    with lock(store, KEY, "host-1:42", 60) as held:
        held.check()
        with pytest.raises(LockedError) as caught, lock(store, KEY, "host-2:7", 60):
            pytest.fail("two held it")
        held.check()
        since, until = hold(store)["since"], hold(store)["until"]
    said = str(caught.value)
    assert said.startswith(f"{store.url}/{KEY}: expected the lock to be free, found it held by ")
    assert f"host-1:42 since {since}, until {until}" in said
    assert "\n" not in said
    with lock(store, KEY, "host-2:7", 60) as held:
        held.check()
        assert hold(store)["owner"] == "host-2:7"


def an_expired_lock_is_taken_over_and_its_holder_knows(store: Store) -> None:
    with lock(store, KEY, "sleeper", 60) as slept:
        expire(store)
        with lock(store, KEY, "next", 60) as held:
            held.check()
            slept._keep_up_once()
            with pytest.raises(LockLostError, match=r"the lock of sleeper \(since .*was lost"):
                slept.check()
            held.check()
        assert hold(store)["owner"] == "next"
    assert hold(store)["owner"] == "next", "the one who lost it gave it back all the same"


def only_one_of_many_takes_it(store: Store) -> None:
    with lock(store, KEY, "dead", 60):
        expire(store)
        barrier = threading.Barrier(4)
        done = threading.Event()

        def take(number: int) -> bool:
            barrier.wait(30)
            try:
                with lock(store, KEY, str(number), 60):
                    return done.wait(0.5)
            except LockedError:
                return True

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(take, range(4))) == [False, True, True, True]


CONTRACT: tuple[Callable[[Store], None], ...] = (
    one_holds_and_the_next_is_told_who,
    an_expired_lock_is_taken_over_and_its_holder_knows,
    only_one_of_many_takes_it,
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


def test_it_is_kept_up_while_the_block_runs(store: Store) -> None:
    with lock(store, KEY, "long", 0.6) as held:
        first = hold(store)["until"]
        deadline = threading.Event()
        while hold(store)["until"] <= first and not deadline.wait(0.01):
            pass
        held.check()
        assert hold(store)["owner"] == "long"
    assert not held._keeper.is_alive()


def test_an_error_in_the_block_gives_it_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), lock(store, KEY, "one", 60):
        raise ZeroDivisionError
    with lock(store, KEY, "two", 60) as held:
        held.check()


def test_patience_waits_for_the_holder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lock, "_POLL_SECONDS", 0.01)
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with lock(store, KEY, "first", 60):
            inside.set()
            leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(first)
        assert inside.wait(30)
        with pytest.raises(LockedError), lock(store, KEY, "second", 60, patience=0.05):
            pytest.fail("two held it")
        threading.Timer(0.05, leave.set).start()
        with lock(store, KEY, "second", 60, patience=30) as held:
            held.check()
        future.result()


@pytest.mark.parametrize(
    "data",
    [b"", b"half {", b"[]", b"{}", b"null", b'{"owner":"a","token":"b","since":"c","until":"d"}',
     b'{"owner":"a","token":"b","since":"c","until":3}',
     b'{"owner":"a","token":"b","since":"c","until":"2999-01-01T00:00:00"}'],
)  # fmt: skip
def test_what_makes_no_sense_is_nobodys(store: Store, data: bytes) -> None:
    store.write(KEY, data)
    with lock(store, KEY, "one", 60) as held:
        held.check()


def test_a_store_that_fails_for_a_moment_does_not_lose_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock(store, KEY, "one", 60) as held:
        first = hold(store)["until"]
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OSError("no route")

            patch.setattr(store_lock, "read_seen", fail)
            held._keep_up_once()
        held.check()
        held._keep_up_once()
        assert hold(store)["until"] > first


def test_a_store_that_fails_for_too_long_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock(store, KEY, "one", 60) as held:
        monkeypatch.setattr(store_lock.time, "monotonic", lambda: held._good_until + 1)
        with pytest.raises(ThyroError, match="was not kept up in time"):
            held.check()
        monkeypatch.undo()


def test_giving_back_never_hides_the_blocks_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no route")

    def work() -> None:
        with lock(store, KEY, "one", 60):
            monkeypatch.setattr(store_lock, "read_seen", fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    monkeypatch.undo()
    assert hold(store)["owner"] == "one"


HOLDER = """
import sys, time
from thyro_core.storage import open_store
from thyro_core.store_lock import lock
with lock(open_store(sys.argv[1]), sys.argv[2], "victim", float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(600)
"""


def kill_a_holder(url: str, seconds: float) -> None:
    """A process that takes the lock and is killed while it holds it."""
    command = [sys.executable, "-c", HOLDER, url, KEY, str(seconds)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.kill()


def a_killed_holders_lock_expires(store: Store) -> None:
    kill_a_holder(store.url, 600)
    with pytest.raises(LockedError, match="held by victim since"), lock(store, KEY, "next", 60):
        pytest.fail("taken from one who may live")
    expire(store)
    with lock(store, KEY, "next", 60) as held:
        held.check()
    assert read_seen(store, KEY).data is not None


def test_a_killed_holders_lock_expires(tmp_path: Path) -> None:
    a_killed_holders_lock_expires(open_store(str(tmp_path)))
