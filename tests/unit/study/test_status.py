"""Where a study stands: every state from the traces that make it, and nothing invented."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli.main import app
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.study.test_progress import a_plan
from thyro_core.errors import InputError
from thyro_core.store.keys import checkpoint_key, progress_key, run_key, study_key, table_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import save_plan
from thyro_core.study.progress import SILENT_SECONDS, JobProgress
from thyro_core.study.status import (
    STATES,
    Traces,
    read_traces,
    status_of,
    study_status,
)
from thyro_core.study.work import results_work

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
PLAN = a_plan("resnet18", "vgg16", epochs=4, splits=3)
RUNS = [(split, name) for split in range(3) for name in ("resnet18", "vgg16")]
STUDY = PLAN.study_id


def position(split: int = 0, **changes: Any) -> JobProgress:
    """Ten of forty units of work in 100 s, two of them done before; last heard of 4 s ago."""
    plain: dict[str, Any] = {
        "split": split, "state": "running", "architecture": "vgg16", "epoch": 2,
        "images_per_second": 5.0, "work_done": 12.0, "work_total": 40.0, "work_before": 2.0,
        "started": (NOW - timedelta(seconds=104)).isoformat(),
        "updated": (NOW - timedelta(seconds=4)).isoformat(),
        "seconds": 150.0, "gpu_seconds": 75.0, "host": "node-1",
    }  # fmt: skip
    return JobProgress(**plain | changes)


def record(status: str = "finished", **changes: Any) -> dict[str, Any]:
    plain = {"status": status, "seconds": 60.0, "gpu_seconds": 30.0, "host": "node-2"}
    return plain | {"error": "RuntimeError: no room" if status == "failed" else None} | changes


def states(traces: Traces) -> list[str]:
    return [run.state for run in status_of(traces, NOW).runs]


def test_a_study_that_has_not_begun_waits_and_knows_nothing() -> None:
    found = status_of(Traces(PLAN), NOW)
    assert {run.state for run in found.runs} == {"waiting"}
    assert found.counts == {"waiting": 6}
    assert found.seconds_left is None
    assert (found.images_per_second, found.gpu_seconds, found.concluded) == (0, 0, False)


def test_each_state_comes_from_its_traces() -> None:
    long_ago = (NOW - timedelta(seconds=SILENT_SECONDS + 1)).isoformat()
    traces = Traces(
        PLAN,
        finished_runs=frozenset({(0, "vgg16")}),
        checkpoints=frozenset({(2, "vgg16"), (0, "vgg16"), (1, "vgg16")}),
        records={(0, "vgg16"): record(), (2, "resnet18"): record("failed")},
        progress={
            0: position(0, architecture="resnet18"),
            1: position(1, updated=long_ago),
            2: position(2, state="failed", architecture=""),
        },
    )
    assert states(traces) == ["running", "finished", "waiting", "silent", "failed", "interrupted"]
    found = status_of(traces, NOW)
    assert set(found.counts) <= set(STATES)
    running, finished, _, silent, failed, _ = found.runs
    assert (running.epoch, running.images_per_second, running.host) == (2, 5.0, "node-1")
    assert (finished.epoch, finished.gpu_seconds) == (4, 30.0)
    assert silent.silent_seconds == SILENT_SECONDS + 1
    assert (silent.images_per_second, silent.seconds_left) == (None, None)
    assert failed.error == "RuntimeError: no room"
    assert found.gpu_seconds == 30 + 30 + 75 + 75
    assert found.seconds == 60 + 60 + 150 + 150
    assert found.images_per_second == 5.0


@pytest.mark.parametrize(("age", "state"), [(0, "running"), (300, "running"), (301, "silent")])
def test_silence_has_a_bound(age: int, state: str) -> None:
    updated = (NOW - timedelta(seconds=age)).isoformat()
    assert states(Traces(PLAN, progress={0: position(updated=updated)}))[1] == state


def test_a_clock_that_goes_ahead_makes_no_negative_age() -> None:
    updated = (NOW + timedelta(seconds=9)).isoformat()
    found = status_of(Traces(PLAN, progress={0: position(updated=updated)}), NOW)
    assert found.runs[1].silent_seconds == 0.0


def test_a_retry_that_runs_is_not_called_failed() -> None:
    traces = Traces(PLAN, records={(0, "vgg16"): record("failed")}, progress={0: position()})
    found = status_of(traces, NOW)
    assert (found.runs[1].state, found.runs[1].error) == ("running", None)
    assert found.gpu_seconds == 75.0, "the position counts the failed attempt already"


def test_a_job_that_was_stopped_is_interrupted_at_once_and_keeps_its_times() -> None:
    stopped = position(state="stopped", images_per_second=0.0)
    traces = Traces(PLAN, records={(0, "vgg16"): record("failed")}, progress={0: stopped})
    run = status_of(traces, NOW).runs[1]
    assert (run.state, run.error, run.epoch, run.host) == ("interrupted", None, 2, "node-1")
    assert (run.seconds, run.gpu_seconds, run.images_per_second) == (150.0, 75.0, None)


RESULTS = results_work(PLAN.config) * 10.0
"""Of the tables and the report, where a unit of work takes 10 s."""


def test_time_left_is_from_the_work_since_the_job_started() -> None:
    """Ten units in 100 s, 28 to go: 280 s. With the two done before it would be 233 s.

    Four seconds of them have passed since.
    """
    found = status_of(Traces(PLAN, progress={0: position()}), NOW)
    assert found.runs[1].seconds_left == pytest.approx(276.0)
    # Two more splits of 40 units follow, at 10 s a unit, then tables and report.
    assert found.seconds_left == pytest.approx(276.0 + 800.0 + RESULTS)


def test_of_two_jobs_the_one_that_takes_up_the_third_split_decides() -> None:
    found = status_of(Traces(PLAN, progress={0: position(0), 1: position(1)}), NOW)
    assert found.seconds_left == pytest.approx(276.0 + 400.0 + RESULTS)
    assert found.images_per_second == 10.0


def test_work_that_is_done_is_not_left() -> None:
    ended = position(1, state="finished", architecture="", work_done=40.0)
    found = status_of(Traces(PLAN, progress={0: position(0), 1: ended}), NOW)
    assert found.seconds_left == pytest.approx(400.0 + RESULTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"started": None},
        {"updated": None},
        {"work_done": 2.0},
        {"started": (NOW - timedelta(seconds=4)).isoformat()},
    ],
)
def test_what_is_unknown_is_not_invented(changes: dict[str, Any]) -> None:
    alone = status_of(Traces(PLAN, progress={0: position(**changes)}), NOW)
    assert alone.runs[1].state == "running"
    assert alone.runs[1].seconds_left is None
    assert alone.seconds_left is None
    # Another job of the same study tells how fast this one is.
    both = status_of(Traces(PLAN, progress={0: position(**changes), 1: position(1)}), NOW)
    assert both.runs[1].seconds_left is not None
    assert both.seconds_left is not None


def test_a_finished_study_has_nothing_left() -> None:
    traces = Traces(PLAN, finished_runs=frozenset(RUNS), records=dict.fromkeys(RUNS, record()))
    found = status_of(traces, NOW)
    assert (found.seconds_left, found.concluded) == (0.0, False)
    assert status_of(replace(traces, has_metrics=True), NOW).concluded
    assert found.gpu_seconds == 180.0


def test_predictions_that_were_deleted_are_work_of_unknown_duration() -> None:
    over = {s: position(s, state="finished", architecture="", work_done=40.0) for s in range(3)}
    found = status_of(Traces(PLAN, finished_runs=frozenset(RUNS[1:]), progress=over), NOW)
    assert found.seconds_left is None


def test_a_job_between_two_architectures_adds_no_speed() -> None:
    traces = Traces(PLAN, finished_runs=frozenset({(0, "vgg16")}), progress={0: position()})
    found = status_of(traces, NOW)
    assert (found.images_per_second, found.seconds_left) == (0.0, None)


@given(
    finished_runs=st.frozensets(st.sampled_from(RUNS)),
    checkpoints=st.frozensets(st.sampled_from(RUNS)),
    failed=st.frozensets(st.sampled_from(RUNS)),
    running=st.dictionaries(st.integers(0, 2), st.sampled_from(["resnet18", "vgg16", ""])),
    age=st.integers(0, 1000),
    has_metrics=st.booleans(),
)
def test_every_run_has_one_state_and_the_sums_are_of_the_runs(
    finished_runs, checkpoints, failed, running, age, has_metrics
) -> None:
    updated = (NOW - timedelta(seconds=age)).isoformat()
    traces = Traces(
        PLAN,
        finished_runs,
        checkpoints,
        {run: record("failed") for run in failed} | {run: record() for run in finished_runs},
        {s: position(s, architecture=name, updated=updated) for s, name in running.items()},
        has_metrics,
    )
    found = status_of(traces, NOW)
    assert [(run.split, run.architecture) for run in found.runs] == RUNS
    assert Counter(run.state for run in found.runs) == Counter(found.counts)
    assert {(r.split, r.architecture) for r in found.runs if r.state == "finished"} == finished_runs
    assert found.concluded == (has_metrics and len(finished_runs) == 6)
    assert found.seconds_left is None or found.seconds_left >= 0
    alive = sum(run.images_per_second or 0 for run in found.runs if run.state == "running")
    assert found.images_per_second == alive or len(found.counts) == 0
    json.dumps([run.__dict__ for run in found.runs], allow_nan=False)


def fill(store: Store) -> Store:
    """A study in the middle: one run finished, one running, one failed, one interrupted."""
    save_plan(store, PLAN)
    done = table_key("predictions", study_id=STUDY, split=0, architecture="vgg16")
    store.write(done, b"there")
    store.write(run_key(STUDY, 0, "vgg16"), json.dumps(record()).encode())
    store.write(run_key(STUDY, 2, "vgg16"), json.dumps(record("failed")).encode())
    now = datetime.now(UTC)
    times = {
        "updated": now.isoformat(),
        "started": (now - timedelta(seconds=100)).isoformat(),
    }
    plain = position(0, architecture="resnet18", **times).__dict__
    store.write(progress_key(STUDY, 0), json.dumps(plain).encode())
    store.write(checkpoint_key(STUDY, 1, "vgg16"), b"there")
    return store


@pytest.fixture
def store(tmp_path: object) -> Store:
    return fill(open_store(str(tmp_path)))


def test_the_store_alone_tells(store: Store) -> None:
    traces = read_traces(store, STUDY)
    assert traces.finished_runs == {(0, "vgg16")}
    assert traces.checkpoints == {(1, "vgg16")}
    assert traces.records.keys() == {(0, "vgg16"), (2, "vgg16")}
    assert traces.progress.keys() == {0}
    assert not traces.has_metrics
    found = study_status(store, STUDY, datetime.now(UTC))
    counts = {"finished": 1, "running": 1, "failed": 1, "interrupted": 1, "waiting": 2}
    assert found.counts == counts
    store.write(table_key("metrics", study_id=STUDY), b"there")
    assert read_traces(store, STUDY).has_metrics


def test_no_more_questions_with_more_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = Store.read

    def read(self: Store, key: str) -> bytes:
        asked.append(key)
        return real(self, key)

    monkeypatch.setattr(Store, "read", read)
    read_traces(store, STUDY)
    assert asked == [study_key(STUDY)]


def test_an_object_that_vanishes_while_it_is_read_is_no_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.keys
    gone = progress_key(STUDY, 1)
    monkeypatch.setattr(Store, "keys", lambda self, prefix: [*real(self, prefix), gone])
    assert read_traces(store, STUDY).progress.keys() == {0}


def test_an_unknown_study_is_named_with_those_there_are(store: Store) -> None:
    with pytest.raises(InputError, match=STUDY):
        study_status(store, "s404", NOW)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_shows_every_run_its_errors_and_the_sum(store: Store) -> None:
    text = said("status", STUDY, "--store", store.root)
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "vgg16", "finished", "4", "of", "4", "30", "node-2"] in lines
    (running,) = [line for line in lines if "running" in line and line[0] == "0"]
    assert running[:7] == ["0", "resnet18", "running", "2", "of", "4", "5.0"]
    assert "split 2, vgg16: RuntimeError: no room" in text
    assert "6 runs: 1 finished, 1 running, 1 failed, 1 interrupted, 2 waiting" in text
    assert "Research use only" in text


def test_json_is_one_object_with_the_same(store: Store) -> None:
    found = json.loads(said("status", STUDY, "--store", store.root, "--json"))
    assert found["study_id"] == STUDY
    assert [run["state"] for run in found["runs"]].count("waiting") == 2
    assert found["gpu_seconds"] == 30 + 30 + 75
    assert found["seconds_left"] > 0
    assert found["notice"].startswith("Research use only")


def test_it_works_on_s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:

    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    remote = fill(open_store(f"s3://{BUCKET}/status"))
    assert study_status(remote, STUDY, datetime.now(UTC)).counts["running"] == 1
    forget_clients()
