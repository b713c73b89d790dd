"""Prefect's server goes away: a study does not care; whoever starts one is told in a sentence."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.artifacts import create_progress_artifact
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from flows import artifacts
from flows.artifacts import ProgressBar, best_effort, show_page, show_table
from flows.serving.server import ServerLostError, server_needed
from tests.e2e.test_study_cli import DEADLINE, command, has_checkpoint
from tests.support.imagesets import write_image_set
from tests.support.prefectserver import PrefectServer, environment, free_port, wait_until
from tests.unit.study.test_split import contents
from thyro_core.store.store import Store, open_store

EPOCHS = "30"


@pytest.fixture(autouse=True)
def _nothing_was_lost_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_last_failure", [float("-inf")])


@pytest.fixture
def nobody_answers() -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        yield url


# Prefect warns that no run is going on; without a server there is none that could.
@pytest.mark.filterwarnings("ignore:Artifact creation outside:FutureWarning")
def test_what_cannot_be_shown_is_left_out(nobody_answers: str, caplog) -> None:
    bar = ProgressBar("splits")
    show_page("page", "text", "a page")
    show_table("table", [["a"], ["1"]], "a table")
    bar.show(10.0)
    bar.show(20.0)
    assert [record.message for record in caplog.records if "artifact" in record.message] == [
        "Prefect's server did not take an artifact: ConnectError"
    ] * 4


def test_a_bar_that_could_not_be_shown_is_shown_when_the_server_is_back(monkeypatch) -> None:
    shown: list[Any] = []
    answers = iter([httpx.ConnectError("refused"), uuid4(), None])

    def create(percent: float, description: str) -> Any:
        shown.append(("create", percent))
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("flows.artifacts.create_progress_artifact", create)
    monkeypatch.setattr(
        "flows.artifacts.update_progress_artifact", lambda _, percent: shown.append(percent)
    )
    bar = ProgressBar("splits")
    for percent in (1.0, 2.0, 3.0):
        bar.show(percent)
    assert shown == [("create", 1.0), ("create", 2.0), 3.0]


def test_a_server_that_was_away_a_moment_ago_is_asked_only_once(monkeypatch) -> None:
    asked: list[int] = []

    def show() -> None:
        asked.append(PREFECT_CLIENT_MAX_RETRIES.value())
        raise httpx.ReadTimeout("slow")

    now = [1000.0]
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: now[0])
    for seconds in (0, 1, 59, 61):
        now[0] += seconds
        assert best_effort(show) is None
    assert asked == [3, 0, 0, 3]


def test_our_own_mistakes_are_not_taken_for_a_lost_server() -> None:
    def mistake() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        best_effort(mistake)
    with pytest.raises(RuntimeError, match="torch"), server_needed():
        raise RuntimeError("torch")


def test_a_flow_without_its_server_ends_in_a_sentence(nobody_answers: str) -> None:
    @flow
    def nothing() -> None:
        create_progress_artifact(1.0)

    with pytest.raises(ServerLostError) as caught, server_needed():
        nothing()
    said = str(caught.value)
    assert said.startswith(f"Prefect's server at {nobody_answers}: expected an answer, found ")
    assert "unset PREFECT_API_URL" in said
    assert caught.value.exit_code == 1


def test_a_command_without_its_server_ends_in_a_sentence(tmp_path: Path) -> None:
    url = f"http://user:geheim@127.0.0.1:{free_port()}/api"
    done = subprocess.run(
        command(write_image_set(tmp_path / "set"), tmp_path / "store"),
        env=environment(tmp_path, PREFECT_API_URL=url),
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("thyro: Prefect's server at http://127.0.0.1:")
    assert "start the command again" in line
    assert "geheim" not in line


# A real server, and studies


class Bench:
    """A Prefect server, images, and studies that report to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, PrefectServer(folder)
        self.source = write_image_set(folder / "set")
        # Not the server's, whose database an undisturbed study would write into.
        self.home = folder / "studies"
        self.home.mkdir()

    def start(self, store: Store, **extra: str) -> "subprocess.Popen[str]":
        extra = {"THYRO_CHECKPOINT_SECONDS": "0"} | extra
        return subprocess.Popen(
            command(self.source, store.root, epochs=EPOCHS),
            env=environment(self.home, **extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, store: Store) -> "subprocess.Popen[str]":
        """A study that reports to the server, and trains."""
        process = self.start(store, PREFECT_API_URL=self.server.url)
        wait_until(lambda: has_checkpoint(store) or process.poll() is not None, "a checkpoint")
        assert process.poll() is None, process.communicate()
        return process


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found = Bench(tmp_path_factory.mktemp("lost"))
    try:
        yield found
    finally:
        found.server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    store = open_store(str(bench.folder / "undisturbed"))
    with bench.start(store) as process:
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    return contents(store)


def ended(process: "subprocess.Popen[str]") -> tuple[dict[str, Any], str]:
    """What a study printed at its end, and what it said on the way."""
    out, said = process.communicate(timeout=2 * DEADLINE)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "Error logging to API" not in said
    return json.loads(out.splitlines()[-1]), said


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_costs_a_study_nothing(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    store = open_store(str(bench.folder / "again"))
    bench.server.start()
    process = bench.train(store)
    bench.server.stop(signal.SIGKILL)
    time.sleep(10)  # long enough for progress to be due, twice
    bench.server.start()
    ended(process)
    assert contents(store) == undisturbed
    (run,) = bench.server.ask("/flow_runs/filter", {})
    assert run["state_type"] == "COMPLETED"
    bench.server.stop()


@pytest.mark.slow
def test_a_server_that_stays_away_does_not_lose_a_study(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    store = open_store(str(bench.folder / "away"))
    bench.server.start()
    process = bench.train(store)
    bench.server.stop(signal.SIGKILL)
    printed, said = ended(process)
    assert contents(store) == undisturbed
    assert "the study is concluded all the same" in " ".join(said.split())
    assert printed["report"].endswith("report.html")
