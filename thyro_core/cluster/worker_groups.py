"""Run a split job in several workers that share each batch: a worker group of Ray Train.

The workers hold the job's CPUs and GPUs, through the group's placement group. The Ray task that
starts the group holds none of them: it would take them from its own workers. What bounds how many
such tasks run at once is a seat, a share of the head node's own resource.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.experimental import internal_kv
from ray.util.placement_group import PlacementGroup
from ray.util.placement_group import remove_placement_group as remove

from thyro_core.cluster.resources import JobResources
from thyro_core.errors import ThyroError, WorkerFailedError
from thyro_core.study.job import SplitJob, SplitOutcome

# Ray gives it to the head node alone, 1 in all. Ray Train's helpers take thousandths of it.
_HEAD = "node:__internal_head__"
_MOST_SEATS = 20

# A worker that is done waits for the first one, which draws maps and writes tables. One that is
# gone is told of by its closed connections, and by Ray: no clock is needed for it.
_COLLECTIVE_SECONDS = 7 * 24 * 3600

# Ray Train asks again each minute, for ever if it is let.
_MINUTES_FOR_ROOM = 60


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


def train_in_group(job: SplitJob, retries: int) -> SplitOutcome:
    """Run a split job in as many workers as it says.

    An architecture that fails in a worker ends the group; a new one goes on with the others. A
    worker that dies ends it too; a new one goes on from the checkpoint.

    Args:
        job: what to run.
        retries: how often to go on after workers were lost.

    Raises:
        ThyroError: workers were lost too often, there is no room for them, or one met an error
            outside any architecture.
    """
    failed: dict[str, str] = {}
    lost = 0
    while True:
        errors = _fit(replace(job, skip=tuple(failed)))
        if isinstance(errors, SplitOutcome):
            return replace(errors, failed=failed)
        for error in errors.values():
            if isinstance(error, WorkerFailedError):
                failed[error.architecture] = error.said
                break
        else:
            lost += 1
            _give_up(job, errors, lost, retries)


def _give_up(job: SplitJob, errors: Mapping[int, Exception], lost: int, retries: int) -> None:
    """Raise what cannot be cured by another attempt."""
    for rank, error in sorted(errors.items()):
        if isinstance(error, ThyroError):
            msg = f"worker {rank} of {job.workers}: {error}"
            raise ThyroError(msg) from error
    if lost > retries:
        said = "; ".join(
            f"worker {rank} of {job.workers}: {type(error).__name__}: {str(error)[:300]}"
            for rank, error in sorted(errors.items())
        )
        msg = (
            f"its workers were lost {lost} times (out of memory, or killed), last {said}; give "
            "each worker more room, and start the same command again"
        )
        raise ThyroError(msg)


def _room_key(job: SplitJob) -> bytes:
    return f"thyro-room-{job.study_id}-{job.split}".encode()


def _room_keeper(job: SplitJob) -> Any:  # noqa: ANN401
    """Ray Train's callback that notes in Ray which placement group a job's workers are in."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class RoomKeeper(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:  # noqa: ANN401
            handle = worker_group.get_worker_group_state().placement_group_handle
            held = handle.placement_group.id.binary()
            internal_kv._internal_kv_put(_room_key(job), held, overwrite=True)  # noqa: SLF001

    return RoomKeeper()


def free_room(job: SplitJob) -> None:
    """Give back what a group held whose starter was killed.

    Ray keeps it as long as the program that is connected to it runs. Ray Train's own helper for it
    asks the dashboard, and an embedded Ray has none. Call it as soon as the starter is gone: the
    next job may have the seat by then, and wait for this room.
    """
    held = internal_kv._internal_kv_get(_room_key(job))  # noqa: SLF001
    if held:
        remove(PlacementGroup(ray.PlacementGroupID(held)))
        internal_kv._internal_kv_del(_room_key(job))  # noqa: SLF001


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

    patience: dict[str, Any] = {
        "max_failures": 0,
        "max_preemption_failures": 0,
        "controller_failure_limit": _MINUTES_FOR_ROOM,
    }
    # The workers' current folder is another one.
    scratch = str(Path(job.scratch).absolute())
    each: dict[str, float] = {"CPU": job.threads} | ({"GPU": job.gpus} if job.gpus else {})
    train_loop: Any = partial(_work, replace(job, scratch=scratch))
    trainer = TorchTrainer(
        train_loop,
        torch_config=TorchConfig(timeout_s=_COLLECTIVE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=job.workers, use_gpu=job.gpus > 0, resources_per_worker=each
        ),
        run_config=RunConfig(
            name=f"{job.study_id}-split-{job.split}",
            storage_path=scratch,
            failure_config=FailureConfig(**patience),
            callbacks=[_room_keeper(job)],
        ),
    )
    try:
        result: Any = trainer.fit()
    except WorkerGroupError as error:
        return error.worker_failures
    except ControllerError as error:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in each.items())
        msg = (
            f"no group of {job.workers} workers with {wanted} each could be started in "
            f"{_MINUTES_FOR_ROOM} attempts ({error.controller_failure}); look at `ray status`, "
            "and start the same command again"
        )
        raise ThyroError(msg) from error
    except TrainingFailedError as error:
        return {0: error}
    finished: SplitOutcome = result.return_value
    return finished


def _work(job: SplitJob) -> SplitOutcome:
    # In a worker: Ray Train has made torch's process group.
    from thyro_core.logs import set_up_logs
    from thyro_core.settings import Settings
    from thyro_core.study.split import run_split

    settings = Settings()
    set_up_logs(as_json=settings.log_json)
    # The node's own folder, where it has one.
    return run_split(replace(job, scratch=str(settings.scratch or job.scratch)))
