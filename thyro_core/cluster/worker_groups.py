"""Run a split job in several workers that share each batch: a worker group of Ray Train.

The workers hold the job's CPUs and GPUs, through the group's placement group. The Ray task that
starts the group holds none of them: it would take them from its own workers. What bounds how many
such tasks run at once is a seat: a share of the head node's own resource.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from thyro_core.cluster.ray_internals import (
    placement_group_recorder,
    remove_recorded_placement_group,
)
from thyro_core.errors import ThyroError, WorkerFailedError
from thyro_core.study.job import JobResources, SplitJob, SplitOutcome

# Ray gives it to the head node alone, 1 in all. Ray Train's helpers take thousandths of it.
_HEAD = "node:__internal_head__"
_MOST_SEATS = 20

# A worker that is done waits for the first one, which draws maps and writes tables. A lost one
# shows by its closed connections, and through Ray: no timeout is needed for it.
_COLLECTIVE_SECONDS = 7 * 24 * 3600

# Ray Train tries again each minute, without end by default.
_START_ATTEMPTS = 60


def seat(resources: JobResources) -> dict[str, float]:
    """What the task that starts a worker group holds, so that no more run than there is room for.

    Call it in a process that is connected to Ray.
    """
    cluster: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    rooms = [cluster.get("CPU", 0.0) // (resources.cpus * resources.workers)]
    if resources.gpus:
        rooms.append(cluster.get("GPU", 0.0) // (resources.gpus * resources.workers))
    if resources.memory:
        rooms.append(cluster.get("memory", 0.0) // (resources.memory * resources.workers))
    seats = min(max(int(min(rooms)), 1), _MOST_SEATS)
    # Half a seat is left over: no further job fits in, but Ray Train's helpers do.
    return {_HEAD: round(1 / (seats + 0.5), 4)}


def train_in_group(job: SplitJob, restarts: int) -> SplitOutcome:
    """Run a split job in as many workers as it says.

    An architecture that fails in a worker ends the group; a new one goes on with the others. A
    worker that dies ends it too; a new one goes on from the checkpoint.

    Args:
        job: what to run.
        restarts: how often to go on after workers were lost.

    Raises:
        ThyroError: workers were lost too often, there is no room for them, or one met an error
            outside any architecture.
    """
    failed: dict[str, str] = {}
    losses = 0
    while True:
        result = _fit(replace(job, skip=tuple(failed)))
        if isinstance(result, SplitOutcome):
            return replace(result, failed=failed)
        for error in result.values():
            if isinstance(error, WorkerFailedError):
                failed[error.architecture] = error.reason
                break
        else:
            losses += 1
            _raise_if_final(job, result, losses, restarts)


def _raise_if_final(
    job: SplitJob, errors: Mapping[int, Exception], losses: int, restarts: int
) -> None:
    """Raise what another attempt cannot cure."""
    for rank, error in sorted(errors.items()):
        if isinstance(error, ThyroError):
            msg = f"worker {rank} of {job.resources.workers}: {error}"
            raise ThyroError(msg) from error
    if losses > restarts:
        details = "; ".join(
            f"worker {rank} of {job.resources.workers}: {type(error).__name__}: {str(error)[:300]}"
            for rank, error in sorted(errors.items())
        )
        msg = (
            f"its workers were lost {losses} times (out of memory, or killed), last {details}; "
            "give each worker more room, and start the same command again"
        )
        raise ThyroError(msg)


def remove_placement_group_of(job: SplitJob) -> None:
    """Give back the resources of a job's workers when the task that started them was killed.

    Call it as soon as that task is gone: the next job may have the seat by then, and wait for these
    resources.
    """
    remove_recorded_placement_group(_run_name(job))


def _run_name(job: SplitJob) -> str:
    return f"{job.study_id}-split-{job.split}"


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
            name=_run_name(job),
            storage_path=scratch,
            failure_config=FailureConfig(**failures),
            callbacks=[placement_group_recorder(_run_name(job))],
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
    from thyro_core.host import scratch_folder
    from thyro_core.logs import set_up_logs
    from thyro_core.settings import Settings
    from thyro_core.study.split import run_split

    settings = Settings()
    set_up_logs(as_json=settings.log_json)
    return run_split(replace(job, scratch=str(scratch_folder(settings, job.scratch))))
