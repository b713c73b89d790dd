"""Run split jobs as Ray Train jobs: one `TorchTrainer` a split, placed by Ray on the nodes.

On a cluster each job is a worker group of Ray Train (`worker_groups`), which Ray's dashboard shows
as a run. A group starts five processes, one after the other (controller, placement group cleaner,
synchronization actor, worker, dataset manager), and imports Ray Train in each: over ten times the
processor time of a trainer in a process that is there, and on a laptop's cores ten such starts are
minutes. So in an embedded Ray, which is one machine that a single study uses, a job of one worker
is a Ray task that holds the job's CPUs and GPU share and runs a `TorchTrainer` in its own process
(Ray Train's local mode); the process starts once and takes one job after the other.

Either way a job whose process or node is lost is started again (`attempts`), and goes on from its
checkpoint.
"""

from functools import partial
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thyro_core.cluster.attempts import NodeDeadline, SplitRun
from thyro_core.cluster.ray_internals import HEAD
from thyro_core.cluster.session import POLL_SECONDS, check_open, nodes
from thyro_core.cluster.worker_groups import GroupQueue, train_here, train_in_group
from thyro_core.config import Precision
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob, SplitOutcome
from thyro_core.study.plan import PlannedPrecision

# A busy GPU still has room for a probe.
_PROBE_GPUS = 0.0001
_PROBE_SECONDS = 120.0


def submit(job: SplitJob, policy: RestartPolicy, queue: GroupQueue | None) -> SplitRun:
    """Queue a split job.

    Args:
        job: what to run.
        policy: how often it starts again.
        queue: when it starts as a worker group; None: it is a Ray task, and Ray starts them in the
            order of their submission, as resources get free.
    """
    options: dict[str, Any] = {"name": job.name, "max_retries": 0}
    if queue is not None:
        options |= {"num_cpus": 0, "num_gpus": 0, "memory": 0, "resources": HEAD}
        return SplitRun(job, ray.remote(train_in_group).options(**options).remote, policy, queue)
    return SplitRun(job, partial(_start_attempt, ray.remote(_train_split), options), policy)


def _start_attempt(
    task: Any,  # noqa: ANN401 - Ray types no remote function
    options: dict[str, Any],
    job: SplitJob,
) -> "ray.ObjectRef[SplitOutcome]":
    # What a job holds may grow from one attempt to the next.
    resources = job.resources
    holds: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory:
        holds["memory"] = resources.memory
    attempt: ray.ObjectRef[SplitOutcome] = task.options(**options, **holds).remote(job)
    return attempt


def job_precision(
    precision: Precision, resources: JobResources, patience: float
) -> PlannedPrecision:
    """The arithmetic that jobs with these resources will train in, as such a job reports it.

    Args:
        precision: of the config.
        resources: of a job.
        patience: how long to wait while no node could run it [s].

    Raises:
        ThyroError: no node can run it, or the head of the cluster is lost.
    """
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    probe = ray.remote(_probe_precision).options(**options).remote(precision, resources.gpus)
    deadline = NodeDeadline(resources, patience)
    while not ray.wait([probe], timeout=POLL_SECONDS)[0]:
        check_open("the study")
        deadline.check("the study", nodes())
    answer: PlannedPrecision = ray.get(probe)
    return answer


def smallest_gpu() -> int | None:
    """Memory of the cluster's smallest GPU [bytes]; None: a node with GPUs did not report it."""
    probe = ray.remote(_probe_gpu)
    probes = [
        probe.options(
            num_cpus=0,
            num_gpus=_PROBE_GPUS,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("GPU", 0.0) > 0
    ]
    try:
        reports = ray.get(probes, timeout=_PROBE_SECONDS)
    except exceptions.RayError:
        return None
    sizes = [size for size in reports if size is not None]
    return min(sizes) if sizes and len(sizes) == len(reports) else None


def _probe_precision(precision: Precision, gpus: float) -> PlannedPrecision:
    from thyro_core.training.device import choose_precision, job_device

    return choose_precision(precision, job_device(gpus))


def _probe_gpu() -> int | None:
    from thyro_core.training.device import gpu_memory

    return gpu_memory()


def _train_split(job: SplitJob) -> SplitOutcome:
    # Here, in the worker: the process that submits stays free of torch.
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings

    train_loop: Any = partial(train_here, job)
    trainer = TorchTrainer(
        train_loop,
        scaling_config=ScalingConfig(num_workers=0, use_gpu=job.resources.gpus > 0),
        run_config=RunConfig(
            name=job.name,
            storage_path=str(scratch_folder(Settings(), job.scratch)),
        ),
    )
    result: Any = trainer.fit()
    outcome: SplitOutcome = result.return_value
    return outcome
