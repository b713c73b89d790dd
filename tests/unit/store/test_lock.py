"""A lock in the store: one holder at a time, and none that lasts for ever."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import REPOSITORY
from thyro_core.errors import ThyroError
from thyro_core.store import lock as store_lock
from thyro_core.store import process_identity
from thyro_core.store.lock import Hold, Lock, LockedError, LockLostError
from thyro_core.store.store import Store, open_store

KEY = "locks/night.json"


def hold(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.read(KEY))
    return found


def elsewhere(store: Store, seconds: float) -> None:
    """The holder ran on a machine that nobody can look into, and gives no sign of life."""
    store.write(KEY, json.dumps(hold(store) | {"process": "", "seconds": seconds}).encode())


# The promises. Each takes an empty store of any kind.


def one_holds_and_the_next_is_told_who(store: Store) -> None:
    with Lock(store, KEY, "host-1:42", 60) as held:
        held.check()
        with pytest.raises(LockedError) as caught, Lock(store, KEY, "host-2:7", 60):
            pytest.fail("two held it")
        held.check()
        since = hold(store)["since"]
    assert (caught.value.hold.owner, caught.value.hold.since) == ("host-1:42", since)
    said = str(caught.value)
    assert said.startswith(f"{store.url}/{KEY}: expected the lock to be free, found it held by ")
    assert f"host-1:42 since {since}, which is at work" in said
    assert "\n" not in said
    with Lock(store, KEY, "host-2:7", 60) as held:
        held.check()
        assert hold(store)["owner"] == "host-2:7"


def an_expired_lock_is_taken_over_and_its_holder_knows(store: Store) -> None:
    told: list[Hold] = []
    with Lock(store, KEY, "sleeper", 60) as slept:
        elsewhere(store, 0.3)
        with Lock(store, KEY, "next", 60, on_wait=told.append) as held:
            held.check()
            assert [each.owner for each in told] == ["sleeper"]
            slept._renew()
            with pytest.raises(LockLostError, match=r"the lock of sleeper \(since .*was lost"):
                slept.check()
            held.check()
        assert hold(store)["owner"] == "next"
    assert hold(store)["owner"] == "next", "the one who lost it gave it back all the same"


def a_holder_elsewhere_that_keeps_it_up_keeps_it_whatever_its_clock_says(store: Store) -> None:
    """Its stamps are years behind; it is seen to write, and so it lives."""
    with Lock(store, KEY, "here", 60):
        beats = iter(range(10**6))
        over = threading.Event()

        def keep_up() -> None:
            while not over.wait(0.1):
                kept = {"kept": f"1999-01-01T00:00:00.{next(beats):06}+00:00", "seconds": 2.0}
                store.write(KEY, json.dumps(hold(store) | kept | {"process": ""}).encode())

        elsewhere(store, 2.0)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(keep_up)
            try:
                for _ in range(2):
                    with (
                        pytest.raises(LockedError, match="held by here since"),
                        Lock(store, KEY, "next", 60),
                    ):
                        pytest.fail("taken from one who lives")
            finally:
                over.set()
            future.result()


def only_one_of_many_takes_it(store: Store) -> None:
    with Lock(store, KEY, "dead", 60):
        elsewhere(store, 0.3)
        barrier = threading.Barrier(4)
        refused = threading.Semaphore(0)

        def take(number: int) -> str:
            barrier.wait(30)
            try:
                with Lock(store, KEY, str(number), 60):
                    others = [refused.acquire(timeout=30) for _ in range(3)]
                    return "held" if all(others) else "held beside others"
            except LockedError:
                refused.release()
                return "refused"

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(take, range(4))) == ["held", *["refused"] * 3]


CONTRACT: tuple[Callable[[Store], None], ...] = (
    one_holds_and_the_next_is_told_who,
    an_expired_lock_is_taken_over_and_its_holder_knows,
    a_holder_elsewhere_that_keeps_it_up_keeps_it_whatever_its_clock_says,
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
    with Lock(store, KEY, "long", 0.6) as held:
        first = hold(store)["kept"]
        deadline = threading.Event()
        while hold(store)["kept"] <= first and not deadline.wait(0.01):
            pass
        held.check()
        assert hold(store)["owner"] == "long"
    assert not held._keeper.is_alive()


def test_an_error_in_the_block_gives_it_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), Lock(store, KEY, "one", 60):
        raise ZeroDivisionError
    with Lock(store, KEY, "two", 60) as held:
        held.check()


@pytest.mark.parametrize(
    "data",
    [b"", b"half {", b"[]", b"{}", b"null", b'{"owner":"a","token":"b","since":"c","until":"d"}',
     *(b'{"owner":"a","token":"b","since":"c","kept":"d","process":"","seconds":%b}' % seconds
       for seconds in (b'"60"', b"null", b"-1", b"NaN", b"Infinity")),
     b'{"owner":"a","token":"b","since":1,"kept":"d","process":"","seconds":60}'],
)  # fmt: skip
def test_what_makes_no_sense_is_nobodys(store: Store, data: bytes) -> None:
    store.write(KEY, data)
    with Lock(store, KEY, "one", 60) as held:
        held.check()


def fail(*_: Any) -> None:
    raise OSError("no route")


def test_a_store_that_fails_for_a_moment_does_not_lose_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lock(store, KEY, "one", 60) as held:
        first = hold(store)["kept"]
        with monkeypatch.context() as patch:
            patch.setattr(store_lock, "read_versioned", fail)
            held._renew()
            held.check()
        held.check()
        assert hold(store)["kept"] > first


def test_a_store_that_fails_for_too_long_does_until_it_answers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lock(store, KEY, "one", 60) as held:
        with monkeypatch.context() as patch:
            patch.setattr(store_lock, "read_versioned", fail)
            patch.setattr(store_lock.time, "monotonic", lambda: held._valid_until + 1)
            with pytest.raises(ThyroError, match="was not kept up in time"):
                held.check()
        # Nobody took it meanwhile, as the store says now.
        held.check()


def test_giving_back_never_hides_the_blocks_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        with Lock(store, KEY, "one", 60):
            monkeypatch.setattr(store_lock, "read_versioned", fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    monkeypatch.undo()
    assert hold(store)["owner"] == "one"


HOLDER = """
import sys, time
from thyro_core.store.store import open_store
from thyro_core.store.lock import Lock
with Lock(open_store(sys.argv[1]), sys.argv[2], "victim", float(sys.argv[3])):
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


def a_killed_holders_lock_is_free_at_once_on_its_own_machine(store: Store) -> None:
    kill_a_holder(store.url, 600)
    assert hold(store)["seconds"] == 600
    with Lock(store, KEY, "next", 60, on_wait=lambda _: pytest.fail("it waited")) as held:
        held.check()


def test_a_killed_holders_lock_is_free_at_once_on_its_own_machine(tmp_path: Path) -> None:
    a_killed_holders_lock_is_free_at_once_on_its_own_machine(open_store(str(tmp_path)))


def test_a_killed_holders_lock_expires_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    kill_a_holder(store.url, 1)
    monkeypatch.setattr(process_identity, "_machine_id", lambda: "another")
    told: list[Hold] = []
    with Lock(store, KEY, "next", 60, on_wait=told.append) as held:
        held.check()
    assert [each.owner for each in told] == ["victim"]
