"""The study as its user runs it: the command, its tables, and what it survives."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.html_page import read_page
from tests.support.imagesets import write_image_set
from tests.support.prefect_home import prepare_home
from tests.support.report_checks import check_traces, untraced
from tests.unit.study.test_split import contents
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import load_plan, study_ids
from thyro_core.study.status import study_status
from thyro_core.tables.io import read_table

CONFIG = {
    "architectures": "resnet18", "splits": "2", "epochs": "3", "image_size": "64",
    "batch_size": "8", "weights": "none", "resamples": "100", "blur_bound": "0",
}  # fmt: skip
DEADLINE = 600  # seconds; bounds a hang, however busy the machine is


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for all tests of this module."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_set(tmp_path_factory.mktemp("source") / "set")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A home of its own, and nothing of Prefect or Thyro that the one who tests has set."""
    theirs = ("THYRO_", "PREFECT_API_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {"HOME": str(prepare_home(home)), "NO_COLOR": "1"} | extra


def command(source: Path | str, store: Path | str, **config: str) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in (CONFIG | config).items()]
    thyro = str(Path(sys.executable).with_name("thyro"))
    return [thyro, "study", str(source), "--store", str(store), "--json", *settings]


def run(arguments: list[str], home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment(home, **extra), capture_output=True, text=True, timeout=DEADLINE
    )


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, home: Path, source: Path
) -> tuple[Store, dict[str, object]]:
    """An undisturbed study: its store and what it printed."""
    store = tmp_path_factory.mktemp("store") / "undisturbed"
    done = run(command(source, store), home)
    assert done.returncode == 0, done.stderr
    return open_store(str(store)), json.loads(done.stdout.splitlines()[-1])


def test_json_is_one_object_with_ids_tables_and_metrics(finished) -> None:
    store, printed = finished
    assert {"study_id", "store", "tables", "metrics", "seconds"} <= printed.keys()
    assert printed["store"] == store.url
    auc = printed["metrics"]["resnet18"]["auc"]
    assert auc.keys() == {"value", "sd", "ci_low", "ci_high"}
    rows = read_table(store, "metrics", study_id=printed["study_id"]).to_pylist()
    mean = [r for r in rows if r["metric"] == "auc" and r["split"] is None]
    assert auc["value"] == mean[0]["value"]
    assert printed["notice"].startswith("Research use only")
    for name, place in printed["tables"].items():
        path = Path(place.removeprefix("file://"))
        assert list(path.rglob("part-0.parquet")), name
    assert any("STARTS FROM RANDOM WEIGHTS" in note for note in printed["notes"]) is False
    summary = store.read(f"studies/{printed['study_id']}/summary.md").decode()
    assert "Research use only" in summary
    assert "| paper, resnet18 | 0.997 | 0.984 | 0.978 | 0.939 | 0.957 |" in summary


def test_prefect_shows_a_task_run_a_split_with_progress_and_the_result(finished, home) -> None:
    database = sqlite3.connect(home / ".prefect" / "prefect.db")
    tasks = [name for (name,) in database.execute("select name from task_run")]
    assert {"split-0", "split-1"} <= set(tasks)
    kinds = [kind for (kind,) in database.execute("select type from artifact")]
    assert kinds.count("progress") >= 2
    shown = database.execute("select data from artifact where type = 'progress'").fetchall()
    assert [float(data) for (data,) in shown].count(100.0) >= 2
    assert "markdown" in kinds
    _, printed = finished
    runs = [name for (name,) in database.execute("select name from flow_run")]
    assert runs == [f"study-{printed['study_id']}"]
    pages = database.execute("select data from artifact where type = 'markdown'").fetchall()
    assert any(printed["study_id"] in page for (page,) in pages)


def test_the_report_is_written_linked_and_every_number_in_it_is_traced(finished, home) -> None:
    store, printed = finished
    plan = load_plan(store, str(printed["study_id"]))
    assert printed["report"] == f"{store.url}/studies/{plan.study_id}/report.html"
    page = read_page(store.read(f"studies/{plan.study_id}/report.html").decode())
    assert check_traces(page, store, plan)["sql"] > 250
    assert list(untraced(page.find("body")[0])) == []
    assert len(page.by_id("gallery").find("img")) >= 2
    database = sqlite3.connect(home / ".prefect" / "prefect.db")
    links = database.execute("select data from artifact where type = 'markdown'").fetchall()
    assert any(str(printed["report"]) in link for (link,) in links)


def test_nothing_in_prefects_database_or_the_store_names_a_patient(finished, home) -> None:
    store, _ = finished
    files = [home / ".prefect" / "prefect.db", *Path(store.root).rglob("*")]
    for file in files:
        if file.is_file():
            assert b"patient-1" not in file.read_bytes(), file


def test_the_same_command_again_redoes_nothing(finished, home, source) -> None:
    store, printed = finished
    parts = [store.path(key) for key in store.keys("tables") if "/predictions/" in key]
    before = {part: Path(part).stat().st_mtime_ns for part in parts}
    tables = contents(store)
    row = read_table(store, "studies")
    again = run(command(source, Path(store.root)), home)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["metrics"] == printed["metrics"]
    assert {part: Path(part).stat().st_mtime_ns for part in parts} == before
    assert contents(store) == tables
    assert read_table(store, "studies").equals(row)
    assert row["state"].to_pylist() == ["finished"]


def test_verify_passes_on_what_the_study_left(finished, home) -> None:
    store, printed = finished
    thyro = command("", Path())[0]
    done = run([thyro, "verify", str(printed["study_id"]), "--store", store.root], home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert "metrics" in done.stdout


def start(arguments: list[str], home: Path, **extra: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments,
        env=environment(home, THYRO_CHECKPOINT_SECONDS="0", **extra),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not met():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def has_checkpoint(store: Store) -> bool:
    return any("/checkpoints/" in key for key in store.keys("studies"))


def processes_of(store: Path) -> list[int]:
    """Workers that train a split: Ray names them after their task."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            studies = [p.name for p in (store / "studies").glob("s*")]
            if any(line.startswith(f"ray::{name}".encode()) for name in studies):
                found.append(int(entry.name))
    return found


def test_a_study_killed_with_all_its_processes_goes_on_to_the_same_bytes(
    finished, home, source, tmp_path
) -> None:
    store, _ = finished
    other = open_store(str(tmp_path / "killed"))
    # Longer than the undisturbed study would be a study of another name: only the store differs.
    process = start(command(source, tmp_path / "killed"), home)
    try:
        wait_until(lambda: has_checkpoint(other), "a checkpoint")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until(lambda: not processes_of(tmp_path / "killed"), "Ray's workers end with the program")
    (study_id,) = study_ids(other)
    an_hour_later = datetime.now(UTC) + timedelta(hours=1)
    before = study_status(other, study_id, an_hour_later)
    assert before.counts.keys() <= {"silent", "interrupted", "waiting", "finished"}
    assert not before.concluded
    done = run(command(source, tmp_path / "killed"), home)
    assert done.returncode == 0, done.stderr
    assert "sign of life" not in done.stderr, "it waited for one that is seen to be dead"
    assert contents(other) == contents(store)
    after = study_status(other, study_id, an_hour_later)
    assert (after.concluded, after.seconds_left) == (True, 0.0)
    for cut, whole in zip(before.runs, after.runs, strict=True):
        assert (whole.seconds or 0) > 0
        assert (whole.seconds or 0) >= (cut.seconds or 0), "both attempts are counted"


@pytest.mark.slow
def test_a_study_whose_workers_are_killed_finishes_with_the_same_bytes(
    finished, home, source, tmp_path
) -> None:
    store, _ = finished
    folder = tmp_path / "workers"
    other = open_store(str(folder))
    process = start(command(source, folder), home)
    try:
        wait_until(lambda: has_checkpoint(other), "a checkpoint")
        victims = processes_of(folder)
        assert victims
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert contents(other) == contents(store)
    runs = read_table(other, "runs").to_pylist()
    assert max(row["resumed_epochs"] for row in runs) >= 1


def ended_in_order(said: str, home: Path, folder: Path) -> None:
    """After a stop: one sentence, the run's state is known, and nothing is left at work."""
    assert (
        said.strip()
        .splitlines()[-1]
        .endswith("stopped; what is finished is kept, and the same command goes on")
    )
    assert "Traceback" not in said
    assert "Prefect" not in said, "its server was lost before the run could tell it"
    database = sqlite3.connect(home / ".prefect" / "prefect.db")
    states = database.execute("select state_type from flow_run order by created").fetchall()
    assert states[-1] == ("CRASHED",), "as Prefect calls a run that somebody interrupted"
    wait_until(lambda: not processes_of(folder), "Ray's workers end with the program")
    store = open_store(str(folder))
    (study_id,) = study_ids(store)
    counts = study_status(store, study_id, datetime.now(UTC)).counts
    assert counts.keys() <= {"interrupted", "waiting"}
    assert counts["interrupted"] >= 1, "at once, not when its silence is long enough"


@pytest.mark.parametrize(
    # A shell lets the commands that it starts in the background ignore SIGINT, and their children.
    "stop",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_stop_of_the_whole_process_group_is_a_clean_stop(home, source, tmp_path, stop) -> None:
    """As `timeout`, systemd and Slurm stop a command: every process of its group is told."""
    folder = tmp_path / "stopped"
    process = start(command(source, folder, seed="5", epochs="200"), home)
    wait_until(lambda: has_checkpoint(open_store(str(folder))), "a checkpoint")
    os.killpg(process.pid, stop)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, said
    ended_in_order(said, home, folder)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_is_a_clean_stop(home, source, tmp_path) -> None:
    folder = tmp_path / "terminal"
    arguments = command(source, folder, seed="6", epochs="200")
    process, terminal = pty.fork()
    if process == 0:
        os.execve(arguments[0], arguments, environment(home, THYRO_CHECKPOINT_SECONDS="0"))
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(output_of(terminal)))
    reader.start()
    try:
        wait_until(lambda: has_checkpoint(open_store(str(folder))), "a checkpoint")
        os.write(terminal, b"\x03")
        wait_until(lambda: not reader.is_alive(), "the program ends")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        reader.join()
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    ended_in_order(b"".join(shown).decode(), home, folder)


def output_of(terminal: int) -> Iterator[bytes]:
    """What a program writes to its terminal, until it ends."""
    with suppress(OSError):  # Linux says so of a terminal that no program has open
        while data := os.read(terminal, 65536):
            yield data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "/no/such/folder"], "/no/such/folder"),
        (["study", ".", "--set", "epochs=0"], "epochs"),
        (["study", ".", "--set", "colour=red"], "colour is no config key"),
        (["study", ".", "--set", "splits"], "expected key=value"),
        (["study", ".", "--epochs", "3"], "give --set epochs=3"),
        (["ingest", ".", "--image-size=128"], "give --set image_size=128"),
        (["study", ".", "--config", "/no/such.yaml"], "/no/such.yaml"),
        (["verify", "--store", "/no/such/store"], "expected a study, a night or an evaluation"),
        (["verify", "s123", "--store", "/no/such/store"], "expected a study s123"),
        (["phantom", "somewhere", "--images", "3", "--malignant", "5"], "malignant"),
        (["ingest", "nosuch://place"], "nosuch"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(home, tmp_path, arguments, said) -> None:
    thyro = str(Path(sys.executable).with_name("thyro"))
    done = subprocess.run(
        [thyro, *arguments],
        cwd=tmp_path,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_set_of_which_nothing_can_be_used_is_shown_and_said(home, source, tmp_path) -> None:
    thyro = str(Path(sys.executable).with_name("thyro"))
    store = ["--store", str(tmp_path / "store")]
    done = run([thyro, "ingest", str(source), "--set", "min_side=4096", *store], home)
    assert done.returncode == 2, done.stderr
    assert "too_small" in done.stdout
    assert "expected images that a study can use, found none among 28 files" in done.stderr


def test_a_store_that_cannot_be_written_is_one_sentence_and_exit_1(home, source, tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    thyro = str(Path(sys.executable).with_name("thyro"))
    done = run([thyro, "ingest", str(source), "--store", str(tmp_path / "file" / "store")], home)
    assert done.returncode == 1, done.stderr
    assert str(tmp_path / "file") in done.stderr
    assert "Not a directory" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(home, tmp_path) -> None:
    thyro = str(Path(sys.executable).with_name("thyro"))
    done = run([thyro, "--debug", "ingest", str(tmp_path / "none")], home)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_without_any_weights_the_warning_cannot_be_missed(home, source, tmp_path) -> None:
    """On a terminal, in the JSON, in the page and in `runs`."""
    config = {"weights": "auto", "epochs": "1", "splits": "2"}
    extra = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = run(command(source, tmp_path / "bare", **config), home, **extra)
    assert done.returncode == 0, done.stderr
    shout = "STARTS FROM RANDOM WEIGHTS"
    assert shout in done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert any(shout in note for note in printed["notes"])
    store = open_store(str(tmp_path / "bare"))
    assert shout in store.read(f"studies/{printed['study_id']}/summary.md").decode()
    assert set(read_table(store, "runs")["weights_origin"].to_pylist()) == {"none"}
