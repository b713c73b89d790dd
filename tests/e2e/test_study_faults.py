"""A study whose S3 server fails, is slow or goes away, and one whose node's disk is full.

What can pass leaves the tables of an undisturbed study; what cannot ends with one sentence, and the
same command goes on when it is cured.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_study_cli import command, environment, has_checkpoint, run, wait_until
from tests.support import faultproxy
from tests.support.faultproxy import FaultProxy, running_proxy
from tests.support.imagesets import write_image_set
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.study.test_split import contents
from thyro_core.store.store import TEMPORARY, Store, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

EPOCHS = "6"
URL = f"s3://{BUCKET}/study-faults"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_set(tmp_path_factory.mktemp("source") / "set")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, home: Path, source: Path):
    folder = tmp_path_factory.mktemp("store") / "local"
    done = run(command(source, folder, epochs=EPOCHS), home)
    assert done.returncode == 0, done.stderr
    return contents(open_store(str(folder)))


@pytest.fixture(scope="module")
def honest(s3_server: S3Server) -> Iterator[S3Server]:
    """The server itself, for looking into the bucket past the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        forget_clients()
        yield s3_server
    forget_clients()


@contextmanager
def studying(
    name: str, source: Path, home: Path, proxy: FaultProxy, **extra: str
) -> Iterator["tuple[subprocess.Popen[str], Store]"]:
    """A study through the proxy, once it has a checkpoint."""
    store = open_store(f"{URL}/{name}")
    settings = {"THYRO_CHECKPOINT_SECONDS": "0", "THYRO_SCRATCH": str(home / name)} | extra
    process = subprocess.Popen(
        command(source, store.url, epochs=EPOCHS),
        env=environment(home, **proxy.through.environment(), **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: has_checkpoint(store) or process.poll() is not None, "a checkpoint")
        yield process, store
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.communicate()


def trouble(seed: int) -> faultproxy.Fault:
    return faultproxy.one_of(
        [
            faultproxy.answers(500, "InternalError"),
            faultproxy.answers(503, "SlowDown"),
            faultproxy.cut_before,
            faultproxy.cut_after,
            faultproxy.cut_in_body,
            faultproxy.reset_before,
        ],
        seed,
    )


def test_a_store_that_fails_for_a_while_changes_no_byte(honest, undisturbed, source, home) -> None:
    with running_proxy(honest) as proxy, studying("failing", source, home, proxy) as found:
        process, store = found
        # More faults in a row than any one request is made by impatience.
        proxy.fail(trouble(1), times=60)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    assert contents(store) == undisturbed


def test_a_slow_store_changes_no_byte(honest, undisturbed, source, home) -> None:
    with running_proxy(honest) as proxy, studying("slow", source, home, proxy) as found:
        process, store = found
        proxy.fail(faultproxy.slow(0.3, bytes_per_second=20e6))
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
    assert contents(store) == undisturbed


def test_a_store_that_is_gone_ends_a_study_with_a_sentence_and_the_command_goes_on(
    honest, undisturbed, source, home
) -> None:
    patience = {"THYRO_STORE_PATIENCE": "5"}
    with running_proxy(honest) as proxy:
        with studying("gone", source, home, proxy, **patience) as (process, store):
            proxy.vanish()
            _, said = process.communicate(timeout=600)
        assert process.returncode == 1, said
        assert "expected the store to answer" in said
        assert "the same command goes on" in said
        assert "Traceback" not in said
    server = honest.environment() | {"THYRO_SCRATCH": str(home / "gone")}
    done = run(command(source, store.url, epochs=EPOCHS), home, **server)
    assert done.returncode == 0, done.stderr
    assert contents(store) == undisturbed


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own with little room."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("place", ["THYRO_SCRATCH", "TMPDIR"])
def test_a_full_disk_is_named_and_the_command_goes_on_when_there_is_room(
    honest, undisturbed, source, home, tmp_path, place
) -> None:
    """Where packs are kept, and where uploads are made ready."""
    url = f"{URL}/full-{place}"
    arguments = command(source, url, epochs=EPOCHS)
    server = honest.environment() | {"RAY_TMPDIR": "/tmp"}
    with small_disk(tmp_path / "small", "80k") as disk:
        done = run(arguments, home, **server, **{place: str(disk)})
        assert done.returncode == 1, done.stderr
        assert str(disk) in done.stderr
        assert "found the disk full" in done.stderr
        assert "Traceback" not in done.stderr
    done = run(arguments, home, **server, THYRO_SCRATCH=str(home / f"room-{place}"))
    assert done.returncode == 0, done.stderr
    assert contents(open_store(url)) == undisturbed


def test_a_full_store_is_named_and_the_command_goes_on_when_there_is_room(
    undisturbed, source, home, tmp_path
) -> None:
    with small_disk(tmp_path / "small", "30m") as disk:
        store = open_store(str(disk / "store"))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(29 << 20))
        done = run(command(source, store.root, epochs=EPOCHS), home)
        assert done.returncode == 1, done.stderr
        assert "found the disk full" in done.stderr
        assert "Traceback" not in done.stderr
        kept = [path for path in Path(store.root).rglob("*") if path.is_file()]
        halves = [path for path in kept if TEMPORARY in path.parts and path.suffix != ".lock"]
        assert not halves, "nothing half-written stays"
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        done = run(command(source, store.root, epochs=EPOCHS), home)
        assert done.returncode == 0, done.stderr
        assert contents(store) == undisturbed
