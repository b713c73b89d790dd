"""`thyro screen` as its user runs it: Ray, Prefect, exit codes, kills, overlap, a bucket."""

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_study_cli import DEADLINE, environment, run, wait_until
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.support.screened import RULES, write_colour, write_image
from tests.unit.screening.test_night import SUMS
from thyro_core.store.keys import screening_lock_key, worklist_key
from thyro_core.store.lock import Lock
from thyro_core.store.store import Store, open_store
from thyro_core.tables.query import run_query

DATE = "2026-11-25"
# Ray's workers and the ensemble get one thread each.
QUIET = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def store(model, tmp_path: Path) -> Store:
    shutil.copytree(Path(model[0].root) / "registry", tmp_path / "store" / "registry")
    return open_store(str(tmp_path / "store"))


def command(batch: Path | str, store: Store, *more: str) -> list[str]:
    thyro = str(Path(sys.executable).with_name("thyro"))
    return [thyro, "screen", str(batch), "--store", store.url, "--date", DATE, "--json",
            "--set", f"outlier_quantile={RULES.outlier_quantile}", *more]  # fmt: skip


def fill(batch: Path, images: int) -> None:
    for i in range(images):
        write_image(batch / f"{i % 3}" / f"Nowak-{i}.png", i, malignant=i % 3 == 0)


def worklist(store: Store) -> list[dict[str, str]]:
    text = store.read(worklist_key(DATE, "csv")).decode()
    return list(csv.DictReader(io.StringIO(text)))


def sums(store: Store) -> list[dict]:
    found = run_query(store.url, SUMS).to_pylist()
    for row in found:
        statuses = ("scored", "rejected", "failed", "copies")
        assert row["received"] == sum(row[status] for status in statuses)
        assert row["received"] == row["images"] == row["distinct_images"]
    return found


def test_a_night_as_its_user_runs_it(store: Store, home: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    fill(batch, 9)
    shutil.copy(batch / "0" / "Nowak-0.png", batch / "twice.png")
    write_colour(batch / "colour.png", 1)
    (batch / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    done = run(command(batch, store), home, **QUIET)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["received"], said["known"], said["late"], said["failed"]) == (12, 0, 0, 1)
    assert (said["files"], said["copies"]) == (12, 1)
    assert said["received"] == said["scored"] + said["rejected"] + said["failed"] + 1
    assert said["notice"].startswith("Research use only")
    assert len(worklist(store)) == 12
    (row,) = sums(store)
    assert row["received"] == 12
    for suffix, url in said["worklist"].items():
        assert url.endswith(f"screening/{DATE}/worklist.{suffix}")
        assert Path(url.removeprefix("file://")).is_file()

    # Nothing of it is left running, and no name is kept anywhere.
    names = [entry for entry in store.keys("") if "registry" not in entry]
    assert not [key for key in names if "/rows/" in key or key.endswith(".bin")]
    for file in [home / ".prefect" / "prefect.db", *Path(store.root).rglob("*")]:
        if file.is_file():
            assert b"Nowak" not in file.read_bytes(), file
    assert "Nowak" not in done.stdout + done.stderr
    database = sqlite3.connect(home / ".prefect" / "prefect.db")
    kinds = [kind for (kind,) in database.execute("select type from artifact")]
    assert {"progress", "markdown", "table"} <= set(kinds)
    (page,) = database.execute("select data from artifact where type = 'markdown'").fetchone()
    assert "12 | " in page
    assert "12 received = " in page
    assert "Research use only" in page


def start(arguments: list[str], home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments,
        env=environment(home, **QUIET),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def chunks(store: Store) -> list[str]:
    return [key for key in store.keys("screening") if "/rows/" in key]


def workers_of(program: int) -> list[int]:
    """Ray's processes that are of a program's session: their command lines name its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"_{program}/".encode() in line or f"_{program}\0".encode() in line:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(
    store: Store, home: Path, tmp_path: Path
) -> None:
    batch = tmp_path / "batch"
    fill(batch, 400)
    process = start(command(batch, store), home)
    try:
        wait_until(lambda: bool(chunks(store)), "a finished block")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until(lambda: not workers_of(process.pid), "Ray's processes end with the program")
    assert not store.exists(worklist_key(DATE, "csv"))
    # The dead run holds the lock still; that it is dead can be seen here, and nobody waits for it.
    assert b'"seconds": 120' in store.read(screening_lock_key())
    before = {key: store.read(key) for key in chunks(store)}
    assert 0 < len(before) < 7
    done = run(command(batch, store), home, **QUIET)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["received"] == 400
    assert said["known"] >= 64
    (row,) = sums(store)
    assert row["received"] == 400
    assert len({each["image_id"] for each in worklist(store)}) == 400
    assert chunks(store) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(store: Store, home: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    fill(batch, 400)
    process = start(command(batch, store), home)
    try:
        wait_until(lambda: bool(chunks(store)), "a finished block")
        victims = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and is_scorer(entry) and descends(int(entry.name), process.pid)
        ]
        assert victims
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    (row,) = sums(store)
    assert row["received"] == 400
    assert len(worklist(store)) == 400


def is_scorer(entry: Path) -> bool:
    try:
        return b"Scorer" in (entry / "cmdline").read_bytes()
    except OSError:
        return False


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_a_clean_stop_and_frees_the_lock(
    store: Store, home: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    batch = tmp_path / "batch"
    fill(batch, 600)
    process = start(command(batch, store), home)
    wait_until(lambda: bool(chunks(store)), "a finished block")
    process.send_signal(stop)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    wait_until(lambda: not workers_of(process.pid), "Ray's processes end with the program")
    with Lock(store, screening_lock_key(), "the next one"):
        pass


@pytest.mark.slow
def test_a_night_from_bucket_to_bucket(
    model, s3_server: S3Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    store = open_store(f"s3://{BUCKET}/screen-test")
    for key in model[0].keys("registry"):
        store.write(key, model[0].read(key))
    fill(tmp_path / "batch", 9)
    (tmp_path / "batch" / "broken.png").write_bytes(b"broken")
    for file in (tmp_path / "batch").rglob("*.png"):
        store.write(f"in/{file.name}", file.read_bytes())
    extra = QUIET | s3_server.environment()
    for known in (0, 10):
        done = run(command(f"{store.url}/in", store), home, **extra)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said["received"], said["failed"], said["known"]) == (10, 1, known)
        (row,) = sums(store)
        assert row["received"] == 10
        assert len(worklist(store)) == 10
    assert chunks(store) == []
    everything = b"".join(store.read(key) for key in store.keys("screening"))
    assert s3_server.secret.encode() not in everything
    forget_clients()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--date", "yesterday"], "date: expected one such as 2026-11-25"),
        (["--model", "b0"], "expected a promoted model b0"),
        (["--set", "min_side=2"], "min_side"),
        (["--set", "colour"], "expected key=value"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(store, home, tmp_path, more, said) -> None:
    (tmp_path / "batch").mkdir()
    done = run(command(tmp_path / "batch", store, *more), home)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_batch_that_is_not_there_is_said_at_once(store, home) -> None:
    done = run(command("/no/such/batch", store), home)
    assert done.returncode == 2
    assert "/no/such/batch: expected a folder" in done.stderr


@pytest.mark.slow
def test_two_runs_do_not_overlap(store, home, tmp_path) -> None:
    write_image(tmp_path / "batch" / "a.png", 1)
    with Lock(store, screening_lock_key(), "ward 7 process 12"):
        done = run(command(tmp_path / "batch", store), home)
    assert done.returncode == 1
    assert "held by ward 7 process 12" in done.stderr
    assert "wait until it has ended" in done.stderr
    assert not [key for key in store.keys("screening") if key != screening_lock_key()]
