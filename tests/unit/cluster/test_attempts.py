"""Attempts at a split job after its process was killed for memory: fewer at once."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from ray import exceptions

from thyro_core.cluster import attempts, session
from thyro_core.cluster.attempts import SplitRun
from thyro_core.cluster.failures import (
    NODE_LOST,
    WorkerLostError,
    may_be_for_memory,
    process_end,
)
from thyro_core.cluster.resources import Node, room_for_jobs, with_more_memory
from thyro_core.cluster.worker_groups import GroupQueue
from thyro_core.errors import ThyroError
from thyro_core.store.retry import RetryPolicy
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob
from thyro_core.study.placement import Placement

GB = 10**9
FOUR = (Node("a", cpus=4, memory=16 * GB), Node("small", cpus=1, memory=2 * GB))


def holds(node: Node, raised: JobResources, others: JobResources) -> int:
    """How many jobs run on a node at once, one of which has more memory."""
    left = Node("left", node.cpus - raised.cpus, memory=node.memory - raised.memory)
    return 1 + room_for_jobs([left] if left.cpus else [], others)


@pytest.mark.parametrize(("losses", "at_once"), [(1, 2), (2, 1), (3, 1)])
def test_each_loss_halves_how_many_run_at_once(losses, at_once):
    resources = JobResources(cpus=1, memory=GB)
    assert room_for_jobs(FOUR[:1], resources) == 4
    raised = with_more_memory(resources, FOUR, losses)
    assert holds(FOUR[0], raised, resources) == at_once
    assert room_for_jobs(FOUR, raised) == 1


def test_workers_of_one_job_still_find_room():
    resources = JobResources(cpus=1, memory=GB, workers=4)
    raised = with_more_memory(resources, FOUR, 3)
    assert raised.memory == 4 * GB
    assert room_for_jobs(FOUR, raised) == 1


def test_jobs_with_gpus_do_not_run_beside_each_other():
    node = Node("a", cpus=8, gpus=1, memory=16 * GB)
    raised = with_more_memory(JobResources(cpus=1, gpus=0.25), [node], 2)
    assert room_for_jobs([node], raised) == 1


def test_without_a_node_nothing_changes():
    resources = JobResources(cpus=1, memory=GB)
    assert with_more_memory(resources, [], 1) == resources


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (exceptions.OutOfMemoryError("no room"), True),
        (exceptions.WorkerCrashedError(), True),
        (exceptions.RaySystemError("other"), False),
    ],
)
def test_what_may_be_for_memory(error, is_memory):
    assert may_be_for_memory(process_end(error)) is is_memory


@pytest.fixture
def job(tmp_path: Path) -> SplitJob:
    resources = JobResources(cpus=1, memory=GB)
    return SplitJob(str(tmp_path / "store"), "s" * 16, 0, str(tmp_path), resources)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(attempts, "RESTARTS", RetryPolicy(first_wait=0.0, longest_wait=0.0))


def test_a_job_killed_for_memory_asks_for_more_and_a_lost_node_does_not(job, quick, monkeypatch):
    ends = [
        exceptions.NodeDiedError("gone"), exceptions.OutOfMemoryError("no room"),
        exceptions.WorkerCrashedError(), None,
    ]  # fmt: skip
    asked: list[int] = []

    def start(attempt: SplitJob) -> str:
        asked.append(attempt.resources.memory)
        return "ref"

    def get(_: str) -> str:
        if (end := ends.pop(0)) is not None:
            raise end
        return "done"

    monkeypatch.setattr(session, "nodes", lambda: FOUR)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    run = SplitRun(job, start, RestartPolicy(restarts=3, node_patience=60.0))
    while (outcome := run.outcome()) is None:
        pass
    assert outcome == "done"
    assert asked == [GB, GB, 15 * GB, 16 * GB]


@pytest.mark.parametrize(
    "end",
    [
        exceptions.NodeDiedError("gone"),
        exceptions.WorkerCrashedError(),
        exceptions.RayTaskError("train", "", WorkerLostError(0, "node", NODE_LOST)),
        exceptions.RayTaskError("train", "", ThyroError("no such file")),
        None,
    ],
    ids=["node", "process", "a worker's node", "error", "done"],
)
def test_an_attempt_that_has_ended_is_not_cancelled(job, quick, monkeypatch, end):
    """Ray aborts the whole process when a cancel meets the end of its task."""

    def get(_: str) -> str:
        if end is not None:
            raise end
        return "done"

    monkeypatch.setattr(session, "nodes", lambda: FOUR)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda *_, **__: pytest.fail("cancelled"))
    monkeypatch.setattr(attempts, "remove_placement_group_of", lambda _: None)
    queue = GroupQueue([job.split], job.resources)
    run = SplitRun(job, lambda _: "ref", RestartPolicy(restarts=1, node_patience=60.0), queue)
    with suppress(ThyroError):
        run.outcome()
    run.cancel()


def test_a_lost_head_is_asked_for_nothing(job, quick, monkeypatch):
    """Its calls would hang for minutes; what ends the wait is the watch's own verdict."""

    def get(_: str) -> str:
        raise exceptions.NodeDiedError("gone")

    answers = [True]
    monkeypatch.setattr(session, "nodes", lambda: FOUR)
    monkeypatch.setattr(session, "head_answers", lambda: answers[0])
    monkeypatch.setattr(attempts, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda *_, **__: pytest.fail("cancelled"))
    monkeypatch.setattr(attempts, "remove_placement_group_of", lambda _: pytest.fail("removed"))
    started: list[str] = []
    queue = GroupQueue([job.split], job.resources)
    policy = RestartPolicy(restarts=1, node_patience=60.0)
    run = SplitRun(job, lambda job: started.append(job.attempt) or "ref", policy, queue)
    answers[0] = False
    for _ in range(3):
        assert run.outcome() is None
    run.cancel()
    assert len(started) == 1
    answers[0] = True
    assert run.outcome() is None
    assert len(started) == 2


def test_an_attempt_on_a_node_that_went_silent_is_cancelled(job, quick, monkeypatch):
    """The task that started its worker may run on, on another node."""
    cancelled: list[str] = []
    monkeypatch.setattr(session, "nodes", lambda: FOUR)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: ([], refs))
    monkeypatch.setattr(ray, "cancel", lambda ref, **_: cancelled.append(ref))
    monkeypatch.setattr(attempts, "remove_placement_group_of", lambda _: None)
    monkeypatch.setattr(attempts, "_NODE_CHECK_SECONDS", 0.0)
    placements = {0: Placement("a", "gone", "host", 1)}
    monkeypatch.setattr(attempts, "read_placements", lambda *_: placements)
    queue = GroupQueue([job.split], job.resources)
    run = SplitRun(job, lambda _: "ref", RestartPolicy(restarts=1, node_patience=60.0), queue)
    assert run.outcome() is None
    assert not cancelled, "the list of nodes may be old"
    assert run.outcome() is None
    assert cancelled == ["ref"]


@pytest.mark.slow
def test_ray_gives_the_next_attempt_more_memory(job, quick, monkeypatch):
    """A real process that is killed without a word, in an embedded Ray."""
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with session.session("local"):
        from thyro_core.cluster import trainer

        def attempt(job: SplitJob) -> dict[str, float]:
            died = Path(job.scratch, "died")
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return ray.get_runtime_context().get_assigned_resources()

        monkeypatch.setattr(trainer, "_train_split", attempt)
        run = trainer.submit(job, RestartPolicy(restarts=1, node_patience=60.0), None)
        while (resources := run.outcome()) is None:
            pass
        node = max(session.nodes(), key=lambda node: node.memory)
        assert resources["CPU"] == 1
        assert resources["memory"] > node.memory / 2
