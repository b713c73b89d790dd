"""Run a split job in a worker group of Ray Train: one worker, or several that share each batch.

The workers hold the job's CPUs, GPUs and memory, through the group's placement group. The Ray task
that starts the group holds none of them: it would take them from its own workers. It runs on the
head node, and what bounds how many such tasks there are is a `GroupQueue`.

Ray Train shows each group as a run, and watches it. What a job has done stands in the study's
store, and so does where it goes on: of Ray Train's own storage and checkpoints nothing is used.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from thyro_core.cluster import session
from thyro_core.cluster.failures import NODE_LOST, WorkerLostError, process_end
from thyro_core.cluster.ray_internals import (
    failed_health_check,
    placement_group_recorder,
    remove_recorded_placement_group,
)
from thyro_core.cluster.resources import room_for_jobs
from thyro_core.errors import Failure, ThyroError, WorkerFailedError
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, SplitJob, SplitOutcome
from thyro_core.study.placement import read_placements

# A worker that is done waits for the first one, which draws maps and writes tables. A lost one
# shows by its closed connections, and through Ray: no timeout is needed for it.
_COLLECTIVE_SECONDS = 7 * 24 * 3600

# Ray Train tries again each minute, without end by default.
_START_ATTEMPTS = 60


class GroupQueue:
    """The order in which the worker groups of a study start.

    A group that waits for its resources already holds several processes on the head node. So no
    more groups start than the cluster has room for now, and one that waits: a cluster that grows
    with the demand adds a node for it.
    """

    def __init__(self, splits: Sequence[int], resources: JobResources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._waiting = list(splits)
        self._started_splits: set[int] = set()

    def may_start(self, split: int) -> bool:
        """Whether it is a job's turn; a job that had its turn keeps it until it leaves."""
        with self._lock:
            if split in self._started_splits:
                return True
            room = room_for_jobs(session.nodes(), self._resources) + 1
            if self._waiting[:1] != [split] or len(self._started_splits) >= room:
                return False
            self._started_splits.add(self._waiting.pop(0))
            return True

    def leave(self, split: int) -> None:
        """A job is over."""
        with self._lock:
            self._started_splits.discard(split)
            if split in self._waiting:
                self._waiting.remove(split)


def train_in_group(job: SplitJob) -> SplitOutcome:
    """Run an attempt at a split job in as many workers as it says.

    An architecture that fails in one of several workers ends the group; a new one goes on with the
    others.

    Raises:
        WorkerLostError: a worker, or the node below it, is gone.
        ThyroError: there is no room for the workers, or one met an error outside any architecture.
    """
    failures_by_name: dict[str, Failure] = {}
    while True:
        result = _fit(replace(job, skip=tuple(failures_by_name)))
        if isinstance(result, SplitOutcome):
            return replace(result, failed={**result.failed, **failures_by_name})
        for error in result.values():
            if isinstance(error, WorkerFailedError):
                failures_by_name[error.architecture] = error.failure
                break
        else:
            raise _error_of(job, result)


def _error_of(job: SplitJob, errors: Mapping[int, Exception]) -> ThyroError:
    """What ended a group, of the errors of its workers: the job's own error, or a loss."""
    workers = job.resources.workers
    for rank, error in sorted(errors.items()):
        if isinstance(error, ThyroError):
            return ThyroError(f"worker {rank} of {workers}: {error}") if workers > 1 else error
    alive = session.list_nodes()
    placements = read_placements(open_store(job.store), job)
    gone_ranks = [
        rank
        for rank, place in placements.items()
        if alive is not None and place.node not in {node.id for node in alive}
    ]
    if gone_ranks:
        return WorkerLostError(gone_ranks[0], "node", NODE_LOST)
    ends = {rank: failed_health_check(error) for rank, error in sorted(errors.items())}
    for rank, end in ends.items():
        if end is not None:
            return WorkerLostError(rank, "process", process_end(end))
    rank, error = min(errors.items())
    if workers > 1:
        # Such as a collective that broke: one of the others is gone.
        return WorkerLostError(rank, "process", process_end(error))
    return ThyroError(f"{type(error).__name__}: {error}")


def remove_placement_group_of(job: SplitJob) -> None:
    """Give back the resources of a job's workers when the task that started them was killed.

    Call it as soon as that task is gone: the next job may have the seat by then, and wait for these
    resources.
    """
    remove_recorded_placement_group(job.name)


def _fit(job: SplitJob) -> SplitOutcome | Mapping[int, Exception]:
    """One worker group: how the job ended, or what stopped which worker."""
    from ray.train import (
        ControllerError,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
        WorkerGroupError,
    )
    from ray.train.torch import TorchConfig, TorchTrainer

    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings

    failures: dict[str, Any] = {
        "max_failures": 0,
        "max_preemption_failures": 0,
        "controller_failure_limit": _START_ATTEMPTS,
    }
    # The workers' current folder is another one.
    scratch = str(scratch_folder(Settings(), job.scratch).absolute())
    resources = job.resources
    per_worker: dict[str, float] = {"CPU": resources.cpus}
    if resources.gpus:
        per_worker["GPU"] = resources.gpus
    if resources.memory:
        per_worker["memory"] = resources.memory
    train_loop: Any = partial(_work, job)
    trainer = TorchTrainer(
        train_loop,
        torch_config=TorchConfig(timeout_s=_COLLECTIVE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=scratch,
            failure_config=FailureConfig(**failures),
            callbacks=[placement_group_recorder(job.name)],
        ),
    )
    try:
        result: Any = trainer.fit()
    except WorkerGroupError as error:
        return error.worker_failures
    except ControllerError as error:
        needs = " and ".join(f"{amount:g} {name}" for name, amount in per_worker.items())
        msg = (
            f"no group of {resources.workers} workers with {needs} each could be started in "
            f"{_START_ATTEMPTS} attempts ({error.controller_failure}); look at `ray status`, "
            "and start the same command again"
        )
        raise ThyroError(msg) from error
    except TrainingFailedError as error:
        return {0: error}
    outcome: SplitOutcome = result.return_value
    return outcome


def _work(job: SplitJob) -> SplitOutcome:
    # In a worker: Ray Train has made torch's process group.
    from ray.train import get_context

    return train_here(job, get_context().get_world_rank())


def train_here(job: SplitJob, rank: int = 0) -> SplitOutcome:
    """Run a worker of a split job in this process of the cluster.

    Args:
        job: what to run.
        rank: of the worker.
    """
    from thyro_core.host import scratch_folder
    from thyro_core.logs import set_up_logs
    from thyro_core.settings import Settings
    from thyro_core.study.placement import write_placement
    from thyro_core.study.split import run_split

    settings = Settings()
    set_up_logs(as_json=settings.log_json)
    write_placement(job, ray.get_runtime_context().get_node_id(), rank)
    return run_split(replace(job, scratch=str(scratch_folder(settings, job.scratch))))
