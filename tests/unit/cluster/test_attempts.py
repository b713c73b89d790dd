"""Attempts at a split job after its process was killed for memory: fewer at once."""

import os
import signal
from pathlib import Path

import pytest
import ray
from ray import exceptions

from thyro_core.cluster import attempts, session
from thyro_core.cluster.attempts import SplitRun
from thyro_core.cluster.failures import may_be_for_memory, process_end
from thyro_core.cluster.resources import Node, room_for_jobs, with_more_memory
from thyro_core.store.retry import RetryPolicy
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob

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
