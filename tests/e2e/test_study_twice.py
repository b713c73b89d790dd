"""Two starts of one study: one works, the other says so; one that died is in no one's way."""

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flows import study_lock
from flows.observer import Observer, observer
from tests.e2e.test_study_cli import DEADLINE, command, environment, wait_until
from tests.support import leftovers
from tests.support.imagesets import write_image_set
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.study.test_split import contents
from thyro_core.errors import ThyroError
from thyro_core.store.keys import study_lock_key
from thyro_core.store.lock import Lock, LockLostError
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import study_ids

STUDY = "s0123456789abcdef"
KEY = study_lock_key(STUDY)


# The rule, without a study


class Heard(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_delay(self, reason: str) -> None:
        self.said.append(reason)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr(study_lock, "get_run_logger", lambda: logging.getLogger("test"))
    listening = Heard()
    token = observer.set(listening)
    yield listening
    observer.reset(token)


def test_the_second_driver_is_told_who_is_at_work_and_how_to_follow(
    tmp_path: Path, heard: Heard
) -> None:
    store = open_store(str(tmp_path))
    with study_lock.only_driver(store, STUDY) as check:
        since = json.loads(store.read(KEY))["since"]
        with pytest.raises(ThyroError) as caught, study_lock.only_driver(store, STUDY):
            pytest.fail("two drivers")
        check()
    said = str(caught.value)
    assert said.startswith(f"study {STUDY}: expected to be its only start, found another at work")
    assert f"({os.uname().nodename} process {os.getpid()}, since {since})" in said
    assert f"`thyro status {STUDY} --store {store.url}`" in said
    assert caught.value.exit_code == 1
    with study_lock.only_driver(store, STUDY) as check:
        check()
    assert heard.said == []


def test_a_driver_that_may_be_dead_is_waited_for_with_a_notice(
    tmp_path: Path, heard: Heard
) -> None:
    store = open_store(str(tmp_path))
    with Lock(store, KEY, "node-7 process 12", 60):
        hold = json.loads(store.read(KEY)) | {"process": "", "seconds": 0.4}
        store.write(KEY, json.dumps(hold).encode())
        with study_lock.only_driver(store, STUDY) as check:
            check()
    (said,) = heard.said
    assert said.startswith("node-7 process 12 was at work here since ")
    assert "may have died: waiting up to 0 s for a sign of life" in said


def test_a_driver_that_lost_its_study_does_not_conclude_it(tmp_path: Path, heard: Heard) -> None:
    store = open_store(str(tmp_path))
    with study_lock.only_driver(store, STUDY) as check:
        hold = json.loads(store.read(KEY)) | {"token": "another"}
        store.write(KEY, json.dumps(hold).encode())
        with pytest.raises(LockLostError, match="start the command again"):
            check()


def test_a_store_that_knows_no_locks_is_warned_of(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    # Such a server takes every put.
    monkeypatch.setattr(
        "thyro_core.store.compare_and_swap.compare_and_swap",
        lambda s, key, data, _: s.write(key, data) or True,
    )
    with study_lock.only_driver(store, STUDY) as check:
        check()
    (said,) = heard.said
    assert "expected a server that honours conditional writes" in said
    assert "start nothing else on this store until this has ended" in said


# Studies


class Bench:
    """A store on S3, images and a home; studies are started on them."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.home, self.server = folder / "home", server
        self.source = write_image_set(folder / "set")
        self.home.mkdir()

    def store(self, name: str) -> Store:
        return open_store(f"s3://{BUCKET}/twice/{name}")

    def start(self, store: Store, *before: str) -> "subprocess.Popen[str]":
        extra = {"THYRO_CHECKPOINT_SECONDS": "0"} | self.server.environment()
        return subprocess.Popen(
            [*before, *command(self.source, store.url, epochs="6")],
            env=environment(self.home, **extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, store: Store) -> str:
        """A study run to its end; what it said."""
        with self.start(store) as process:
            _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
        return said


@pytest.fixture(scope="module")
def bench(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        forget_clients()
        yield Bench(tmp_path_factory.mktemp("twice"), s3_server)
        forget_clients()


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    store = bench.store("undisturbed")
    bench.finish(store)
    return contents(store)


def trains(store: Store) -> bool:
    return any("/checkpoints/" in key for key in store.keys("studies"))


def workers(store: Store) -> list[int]:
    """Processes that train a split of the store's study, in any process namespace."""
    names = [f"ray::{study_id}".encode() for study_id in study_ids(store)]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any((entry / "cmdline").read_bytes().startswith(name) for name in names):
                found.append(int(entry.name))
    return found


@contextmanager
def halted(store: Store) -> Iterator[None]:
    """Its training stands still, so that the study is at work for as long as the block runs."""
    stopped = workers(store)
    assert stopped
    try:
        for worker in stopped:
            os.kill(worker, signal.SIGSTOP)
        yield
    finally:
        for worker in stopped:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)


def kill(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_of_two_starts_one_works_and_the_other_says_so(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    store = bench.store("two")
    first = bench.start(store)
    try:
        wait_until(lambda: trains(store), "a checkpoint")
        with halted(store):
            left = leftovers.in_store(store)
            second = bench.start(store)
            _, refused = second.communicate(timeout=DEADLINE)
        assert second.returncode == 1, refused
        _, said = first.communicate(timeout=DEADLINE)
        assert first.returncode == 0, said
    finally:
        if first.poll() is None:
            kill(first)
    (study_id,) = study_ids(store)
    assert f"process {first.pid}, since" in refused
    assert f"thyro status {study_id} --store {store.url}" in refused
    assert "Traceback" not in refused
    assert contents(store) == undisturbed
    # What lies in the store only as long as a study runs.
    assert any("/checkpoints/" in key for key in left)
    assert study_lock_key(study_id) in left
    assert leftovers.holders(left, [bench.server.secret, str(bench.home)]) == []


@pytest.mark.slow
def test_two_starts_in_the_same_moment_come_to_one_study(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    store = bench.store("moment")
    both = [bench.start(store) for _ in range(2)]
    ended = [process.communicate(timeout=DEADLINE)[1] for process in both]
    # One that comes when the other has ended finds everything done.
    assert sorted(process.returncode for process in both) in ([0, 1], [0, 0]), ended
    assert contents(store) == undisturbed


@pytest.mark.slow
def test_a_driver_killed_in_another_container_is_taken_over_from(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    """Its processes cannot be looked up from here, only the lock can be watched."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no process namespace of one's own")
    store = bench.store("apart")
    first = bench.start(store, *apart)
    try:
        wait_until(lambda: trains(store), "a checkpoint")
        with halted(store):
            living = bench.start(store)
            _, refused = living.communicate(timeout=DEADLINE)
        assert living.returncode == 1, refused
        assert "expected to be its only start, found another at work" in refused
    finally:
        kill(first)
    said = bench.finish(store)
    assert "may have died: waiting up to 30 s for a sign of life" in said
    assert contents(store) == undisturbed
