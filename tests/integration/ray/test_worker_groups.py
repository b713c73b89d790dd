"""Worker groups of Ray Train: who holds what, what is tried again, and a study with two workers."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray import exceptions
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from tests.e2e.test_study_cli import command, environment, run
from tests.support.imagesets import write_image_set
from thyro_core.cluster import session, worker_groups
from thyro_core.cluster.failures import WorkerLostError
from thyro_core.cluster.resources import Capacity, Node, ResourceRequest, capacity_of, job_resources
from thyro_core.cluster.worker_groups import train_in_group
from thyro_core.errors import Failure, InputError, ThyroError, WorkerFailedError
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import JobResources, SplitJob, SplitOutcome
from thyro_core.study.placement import write_placement
from thyro_core.study.plan import study_ids
from thyro_core.tables.io import read_table

TOLERANCE = 1e-2
"""Largest difference of a probability between one and two workers that is declared; see
`tests/unit/study/test_split_workers.py`."""

JOB = SplitJob("memory://x", "s1", 3, "/tmp", JobResources(workers=2))


def shared(capacity: Capacity, cpus: int, gpus: float | None, workers: int) -> JobResources:
    return job_resources(capacity, ResourceRequest("auto", cpus, gpus, workers, 10, 0, 0, 60.0))


def test_several_workers_need_room_for_all_and_get_a_gpu_each() -> None:
    large, small = capacity_of([Node("n", 8, 4)]), capacity_of([Node("n", 2), Node("m", 1)])
    without = capacity_of([Node("n", 8)])
    assert shared(without, 2, None, 4) == JobResources(2, 0.0, 4)
    assert shared(large, 1, None, 2) == JobResources(1, 1.0, 2)
    assert shared(large, 1, 0.0, 2) == JobResources(1, 0.0, 2)
    assert shared(small, 1, None, 3) == JobResources(1, 0.0, 3)
    with pytest.raises(ThyroError, match=r"2 CPU for each of 2 workers, .* has room for 1"):
        shared(small, 2, None, 2)
    with pytest.raises(ThyroError, match=r"1 GPU for each of 5 workers, .* has room for 4"):
        shared(large, 1, None, 5)
    with pytest.raises(InputError, match=r"THYRO_GPUS_PER_JOB: expected 0 or 1 .* found 0.5"):
        shared(large, 1, 0.5, 2)


def groups(monkeypatch: pytest.MonkeyPatch, *ends: object) -> list[SplitJob]:
    """Let worker groups end so, one after the other; the jobs they were given."""
    given: list[SplitJob] = []

    def fit(job: SplitJob) -> object:
        given.append(job)
        return ends[len(given) - 1]

    monkeypatch.setattr(worker_groups, "_fit", fit)
    return given


DONE = SplitOutcome(3, ("vgg16",), {})


def test_an_architecture_that_fails_in_a_worker_is_left_out_and_the_others_go_on(
    monkeypatch,
) -> None:
    failure = Failure("ValueError", "no", {"worker": "1 of 2"})
    error = WorkerFailedError("resnet18", failure)
    given = groups(monkeypatch, {1: error}, DONE)
    expected = {"resnet18": failure}
    assert train_in_group(JOB) == SplitOutcome(3, ("vgg16",), expected)
    assert [job.skip for job in given] == [(), ("resnet18",)]


def test_what_failed_in_the_only_worker_is_in_the_outcome(monkeypatch) -> None:
    failed = SplitOutcome(3, (), {"vgg16": Failure("ValueError", "no")})
    groups(monkeypatch, failed)
    assert train_in_group(replace(JOB, resources=JobResources())) == failed


def killed(error: Exception) -> Exception:
    return WorkerHealthCheckFailedError("A worker health check failed.", failure=error)


@pytest.mark.parametrize(
    ("errors", "rank", "kind", "cause"),
    [
        (
            {0: RuntimeError("connection closed by peer"), 1: killed(exceptions.ActorDiedError())},
            1, "process", "the process crashed, or was killed",
        ),
        (
            {0: killed(exceptions.OutOfMemoryError("no room"))},
            0, "process", "the node ran out of memory, and Ray killed the process",
        ),
        (
            {0: RuntimeError("connection closed by peer")},
            0, "process", "RuntimeError: connection closed by peer",
        ),
        (
            {0: killed(exceptions.ActorDiedError()), 2: killed(exceptions.ActorDiedError())},
            2, "node", "its node was lost",
        ),
    ],
)  # fmt: skip
def test_a_lost_worker_is_told_from_a_lost_node(
    monkeypatch, tmp_path, errors, rank, kind, cause
) -> None:
    job = SplitJob(str(tmp_path), "s1", 3, "/tmp", JobResources(workers=3))
    for each in range(3):
        write_placement(job, "gone" if each == 2 and kind == "node" else "up", each)
    monkeypatch.setattr(session, "list_nodes", lambda: (Node("n", 1, id="up"),))
    groups(monkeypatch, errors)
    with pytest.raises(WorkerLostError) as caught:
        train_in_group(job)
    assert (caught.value.rank, caught.value.kind, caught.value.cause) == (rank, kind, cause)


def test_an_error_outside_any_architecture_is_the_jobs_own(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(session, "list_nodes", tuple)
    given = groups(monkeypatch, {1: InputError("no such study")})
    with pytest.raises(ThyroError, match="worker 1 of 2: no such study"):
        train_in_group(JOB)
    assert len(given) == 1
    job = SplitJob(str(tmp_path), "s1", 3, "/tmp")
    groups(monkeypatch, {0: InputError("no such study")})
    with pytest.raises(InputError, match=r"^no such study"):
        train_in_group(job)
    groups(monkeypatch, {0: KeyError("x")})
    with pytest.raises(ThyroError, match=r"^KeyError: .x."):
        train_in_group(job)


DEADLINE = 500


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_set(tmp_path_factory.mktemp("source") / "set")


def predictions(store: Store) -> dict[tuple[int, str], float]:
    rows = read_table(store, "predictions").to_pylist()
    return {(row["split"], row["image_id"]): row["prob_malignant"] for row in rows}


def processes_of(scratch: Path, title: str) -> list[int]:
    """Processes that Ray calls so, of the Ray that has this folder in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line, environ = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            if line.startswith(f"ray::{title}".encode()) and str(scratch).encode() in environ:
                found.append(int(entry.name))
    return sorted(found)


def wait_until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not met():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


ASKED = {"precision": "fp32", "epochs": "2"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, home: Path, source: Path) -> Store:
    """The study with one worker a job."""
    store = tmp_path_factory.mktemp("alone") / "store"
    done = run(command(source, store, **ASKED), home)
    assert done.returncode == 0, done.stderr
    return open_store(str(store))


@pytest.mark.slow
@pytest.mark.timeout(3 * DEADLINE)
@pytest.mark.parametrize("victim", ["a worker", "the task that started the workers"])
def test_a_study_in_two_workers_a_job_is_the_study_whoever_is_killed(
    alone, home, source, tmp_path, victim
) -> None:
    scratch = tmp_path / "scratch"
    shared = {
        "THYRO_WORKERS_PER_JOB": "2", "THYRO_CHECKPOINT_SECONDS": "0",
        "THYRO_SCRATCH": str(scratch),
    }  # fmt: skip
    process = subprocess.Popen(
        command(source, tmp_path / "two", **ASKED),
        env=environment(home, **shared),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    store = open_store(str(tmp_path / "two"))
    try:
        wait_until(
            lambda: any("/checkpoints/" in key for key in store.keys("studies")), "a checkpoint"
        )
        workers = processes_of(scratch, "RayTrainWorker")
        assert len(workers) == 2, "room for one job of two workers at a time"
        starters = [pid for name in study_ids(store) for pid in processes_of(scratch, name)]
        assert len(starters) == 1
        os.kill(workers[-1] if victim == "a worker" else starters[0], signal.SIGKILL)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert study_ids(store) == study_ids(alone)
    found, expected = predictions(store), predictions(alone)
    assert found.keys() == expected.keys()
    differences = np.array([found[key] - value for key, value in expected.items()])
    assert 0 < np.abs(differences).max() < TOLERANCE
    rows = read_table(store, "runs").to_pylist()
    assert max(row["resumed_epochs"] for row in rows) >= 1
    assert not processes_of(scratch, "RayTrainWorker")
