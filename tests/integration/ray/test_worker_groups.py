"""Worker groups of Ray Train: who holds what, what is tried again, and a study with two workers."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.test_study_cli import command, environment, run
from tests.support.imagesets import write_image_set
from thyro_core.cluster import worker_groups
from thyro_core.cluster.resources import Capacity, Node, ResourceRequest, capacity_of, job_resources
from thyro_core.cluster.worker_groups import seat, train_in_group
from thyro_core.errors import InputError, ThyroError, WorkerFailedError
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import JobResources, SplitJob, SplitOutcome
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


@pytest.mark.parametrize(
    ("cluster", "resources", "at_once"),
    [
        ({"CPU": 2.0}, JobResources(1, 0.0, 2), 1),
        ({"CPU": 9.0}, JobResources(1, 0.0, 2), 4),
        ({"CPU": 64.0, "GPU": 6.0}, JobResources(1, 1.0, 2), 3),
        ({"CPU": 1000.0}, JobResources(1, 0.0, 2), 20),
        ({"CPU": 1.0}, JobResources(1, 0.0, 2), 1),
        ({"CPU": 64.0, "memory": 20e9}, JobResources(1, 0.0, 2, 3 * 10**9), 3),
    ],
)
def test_seats_let_as_many_jobs_start_as_there_is_room_for(
    monkeypatch, cluster, resources, at_once
) -> None:
    monkeypatch.setattr(worker_groups.ray, "cluster_resources", lambda: cluster)
    (share,) = seat(resources).values()
    assert at_once * share <= 1 < (at_once + 1) * share
    assert 1 - at_once * share >= 0.001 * at_once, "Ray Train's helpers take a thousandth each"


def groups(monkeypatch: pytest.MonkeyPatch, *ends: object) -> list[SplitJob]:
    """Let worker groups end so, one after the other; the jobs they were given."""
    given: list[SplitJob] = []

    def fit(job: SplitJob) -> object:
        given.append(job)
        return ends[len(given) - 1]

    monkeypatch.setattr(worker_groups, "_fit", fit)
    return given


DONE = SplitOutcome(3, ("vgg16",), {})
KILLED = {1: RuntimeError("the actor died")}


def test_an_architecture_that_fails_in_a_worker_is_left_out_and_the_others_go_on(
    monkeypatch,
) -> None:
    error = WorkerFailedError("resnet18", "worker 1 of 2: ValueError: no")
    given = groups(monkeypatch, {1: error}, DONE)
    expected = {"resnet18": "worker 1 of 2: ValueError: no"}
    assert train_in_group(JOB, 0) == SplitOutcome(3, ("vgg16",), expected)
    assert [job.skip for job in given] == [(), ("resnet18",)]


def test_lost_workers_are_replaced_so_often_and_then_named(monkeypatch) -> None:
    given = groups(monkeypatch, KILLED, KILLED, DONE)
    assert train_in_group(JOB, 2) == DONE
    assert len(given) == 3
    groups(monkeypatch, KILLED, KILLED, KILLED)
    with pytest.raises(ThyroError, match=r"lost 3 times.*worker 1 of 2: .*the actor died"):
        train_in_group(JOB, 2)


def test_an_error_outside_any_architecture_is_not_tried_again(monkeypatch) -> None:
    given = groups(monkeypatch, {1: InputError("no such study")})
    with pytest.raises(ThyroError, match="worker 1 of 2: no such study"):
        train_in_group(JOB, 5)
    assert len(given) == 1


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
