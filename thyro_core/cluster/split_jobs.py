"""Run split jobs as Ray Train jobs: one `TorchTrainer` a split, packed by Ray onto the nodes.

Each job is a Ray task that holds the job's CPUs and GPU share and runs a `TorchTrainer` in its own
process (Ray Train's local mode). A trainer that starts its own worker group costs some 13 s and
five processes on a quiet machine; here a worker process is started once and takes one job after
the other. Ray starts a job again whose process died; it goes on from its checkpoint. Only a job
that several workers share has a worker group (`worker_groups`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import exceptions

from thyro_core.cluster.session import PATIENCE_SECONDS, JobResources, closing
from thyro_core.cluster.worker_groups import seat, train_in_group
from thyro_core.config import Precision
from thyro_core.errors import ThyroError
from thyro_core.job_spec import SplitJob, SplitOutcome
from thyro_core.plan import PlannedPrecision


def submit(job: SplitJob, resources: JobResources, retries: int) -> "ray.ObjectRef[SplitOutcome]":
    """Queue a split job; Ray starts it when its resources are free.

    Args:
        job: what to run.
        resources: what it holds while it runs.
        retries: how often to start it again when its process dies.
    """
    options: dict[str, Any] = {
        "name": f"{job.study_id}-split-{job.split}",
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "max_retries": retries,
    }
    if resources.workers > 1:
        options |= {"num_cpus": 0, "num_gpus": 0, "resources": seat(resources)}
        return ray.remote(train_in_group).options(**options).remote(job, retries)
    return ray.remote(_train_split).options(**options).remote(job)


def outcome(job: SplitJob, ref: "ray.ObjectRef[SplitOutcome]", retries: int) -> SplitOutcome | None:
    """The outcome of a submitted job, waited for a moment; None: it is not over yet.

    Raises:
        ThyroError: the job cannot be finished: its process died too often, it met an error
            outside any architecture, or the session is closing.
    """
    if closing.is_set():
        msg = f"split {job.split} was stopped; the same command goes on from its checkpoint"
        raise ThyroError(msg)
    ready, _ = ray.wait([ref], timeout=PATIENCE_SECONDS)
    if not ready:
        return None
    try:
        return ray.get(ref)
    except exceptions.RayTaskError as error:
        msg = f"split {job.split} failed: {error.cause}"
        raise ThyroError(msg) from error
    except exceptions.RayError as error:
        msg = (
            f"split {job.split}: its process died {retries + 1} times "
            f"({type(error).__name__}: out of memory, or killed); give each job more room "
            "(fewer jobs at once: a higher THYRO_CPUS_PER_JOB), and start the same command again"
        )
        raise ThyroError(msg) from error


def cancel(ref: "ray.ObjectRef[SplitOutcome]") -> None:
    """Stop a job; its checkpoint stays."""
    ray.cancel(ref, force=True)


@contextmanager
def cancelled_on_error(ref: "ray.ObjectRef[SplitOutcome]") -> Iterator[None]:
    """Stop the job when the block that watches it is interrupted."""
    try:
        yield
    except BaseException:
        cancel(ref)
        raise


def job_precision(wanted: Precision, resources: JobResources) -> PlannedPrecision:
    """The arithmetic that jobs with these resources will train in, asked of such a job."""
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    probe = ray.remote(_probe_precision).options(**options)
    found: PlannedPrecision = ray.get(probe.remote(wanted, resources.gpus))
    return found


def _probe_precision(wanted: Precision, gpus: float) -> PlannedPrecision:
    from thyro_core.hardware import choose_precision, job_device

    return choose_precision(wanted, job_device(gpus))


def _train_split(job: SplitJob) -> SplitOutcome:
    # Here, in the worker: the process that submits stays free of torch.
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from thyro_core.jobs import run_split
    from thyro_core.logs import set_up_logs
    from thyro_core.settings import Settings

    set_up_logs(as_json=Settings().log_json)

    train_loop: Any = partial(run_split, job)
    trainer = TorchTrainer(
        train_loop,
        scaling_config=ScalingConfig(num_workers=0, use_gpu=job.gpus > 0),
        run_config=RunConfig(name=f"{job.study_id}-split-{job.split}", storage_path=job.scratch),
    )
    result: Any = trainer.fit()
    finished: SplitOutcome = result.return_value
    return finished
