"""CPUs, GPUs and memory: what a cluster has, what a study requests, and what each job gets."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from thyro_core.config import Precision
from thyro_core.errors import InputError, ThyroError
from thyro_core.study.job import JobResources
from thyro_core.study.plan import PlannedPrecision

# Ray counts resources in units of 1/10000: a third is 0.3333, and three of them fit.
_UNITS = 10_000
_LISTED_NODES = 6


@dataclass(frozen=True)
class Node:
    """What one node has for jobs."""

    name: str
    cpus: float
    gpus: float = 0.0
    id: str = ""
    memory: float = 0.0
    """Bytes."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has in all, and on which nodes."""

    cpus: float
    gpus: float
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class ResourceRequest:
    """What the jobs of a study need, before the study has a name.

    Attributes:
        precision: The arithmetic of the config.
        cpus: CPU cores of a job, or of each of its workers.
        gpus: GPUs of a job, or of each of its workers; None: shared.
        workers: Processes that share a job.
        jobs: How many jobs there are.
        gpu_bytes: GPU memory of a job.
        cpu_bytes: Memory of its node that a job without a GPU takes.
        node_patience: Longest wait while no node could run a job [s].
    """

    precision: Precision
    cpus: int
    gpus: float | None
    workers: int
    jobs: int
    gpu_bytes: int
    cpu_bytes: int
    node_patience: float

    def text(self) -> str:
        """As JSON, the same for equal requests."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The request that `text` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Allocation:
    """What each job of a study gets on a cluster, and the arithmetic that it trains in there."""

    resources: JobResources
    precision: PlannedPrecision

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The allocation that `text` wrote."""
        plain = json.loads(text)
        return cls(JobResources(**plain["resources"]), plain["precision"])


def capacity_of(nodes: Sequence[Node]) -> Capacity:
    """The capacity of a cluster of these nodes."""
    nodes = _job_nodes(nodes)
    return Capacity(sum(n.cpus for n in nodes), sum(n.gpus for n in nodes), nodes)


def _job_nodes(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Those that run jobs: the head, and a driver's node, often have no resources."""
    return tuple(node for node in nodes if node.cpus or node.gpus)


def job_resources(
    capacity: Capacity, request: ResourceRequest, jobs_per_gpu: int = 1
) -> JobResources:
    """What each job of a study gets, checked against what a node of the cluster has.

    CPUs are as requested: the threads of a job decide the last bits of its results, so the cluster
    must not. GPUs, if there are any and the request leaves them open, are shared so that all jobs
    run at once, as far as their memory goes: ten jobs on four GPUs get a third each.

    A job without a GPU sets memory aside, so that a node runs no more jobs than it can hold. Where
    no node has as much as the estimate, a job takes all that the largest one has, its workers in
    equal parts, and runs there alone: an estimate forbids no study.

    Args:
        capacity: what the cluster has.
        request: of the study.
        jobs_per_gpu: jobs that a GPU's memory holds at once.

    Raises:
        InputError: workers of one job would share a GPU.
        ThyroError: no node has what a job needs.
    """
    cpus, gpus, workers = request.cpus, request.gpus, request.workers
    if gpus is None:
        gpus = gpu_share(int(capacity.gpus), request.jobs, jobs_per_gpu, workers)
    if workers > 1 and gpus not in (0.0, 1.0):
        msg = (
            f"THYRO_GPUS_PER_JOB: expected 0 or 1 where {workers} workers share a job, each with a "
            f"GPU of its own, found {gpus:g}"
        )
        raise InputError(msg)
    lacking = shortage(capacity.nodes, JobResources(cpus, gpus, workers))
    if lacking is not None:
        msg = f"{lacking}; lower THYRO_CPUS_PER_JOB or THYRO_GPUS_PER_JOB, or add a node"
        raise ThyroError(msg)
    memory = 0
    if not gpus:
        largest = max((node.memory for node in capacity.nodes if node.cpus >= cpus), default=0.0)
        memory = int(min(request.cpu_bytes, largest / workers))
    return JobResources(cpus, gpus, workers, memory)


def gpu_share(gpus: int, jobs: int, jobs_per_gpu: int, workers: int = 1) -> float:
    """The GPUs that one worker of a job gets when the request leaves them open.

    Args:
        gpus: GPUs of the cluster; 0: jobs get none.
        jobs: jobs of the study.
        jobs_per_gpu: jobs that a GPU's memory holds at once.
        workers: workers of a job; more than one never share a GPU with each other, so each gets
            a whole one.
    """
    if gpus < 1:
        return 0.0
    if workers > 1:
        return 1.0
    at_once = max(1, min(math.ceil(jobs / gpus), jobs_per_gpu))
    return math.floor(_UNITS / at_once) / _UNITS


def shortage(nodes: Sequence[Node], resources: JobResources) -> str | None:
    """What the nodes lack, for people; None: they could run such a job, each worker on one.

    Args:
        nodes: of the cluster.
        resources: of a job.
    """
    nodes = _job_nodes(nodes)
    needs = f"{resources.cpus:g} CPU"
    if resources.gpus:
        needs += f" and {resources.gpus:g} GPU"
    if not nodes:
        return f"a split job needs {needs}, and the cluster has no node that takes jobs"
    room = sum(_workers_on(node, resources) for node in nodes)
    if room >= resources.workers:
        return None
    if room:
        return (
            f"a split job needs {needs} for each of {resources.workers} workers, and the cluster "
            f"has room for {room}"
        )
    amounts = {"CPU": resources.cpus, "GPU": resources.gpus, "GB of memory": resources.memory / 1e9}
    for name, amount in amounts.items():
        largest = max(nodes, key=lambda node: _amount(node, name))
        if _amount(largest, name) < amount:
            return (
                f"a split job needs {amount:.3g} {name} on one node, and the largest of "
                f"{len(nodes)} ({largest.name}) has {_amount(largest, name):.3g}"
            )
    names = [name for name, amount in amounts.items() if amount]
    sizes = [
        f"{node.name} has " + " and ".join(f"{_amount(node, name):.3g} {name}" for name in names)
        for node in nodes[:_LISTED_NODES]
    ]
    more = f" and {len(nodes) - _LISTED_NODES} more" if len(nodes) > _LISTED_NODES else ""
    needs = " and ".join(f"{amounts[name]:.3g} {name}" for name in names)
    return (
        f"a split job needs {needs} on one node, and no node has it all: {', '.join(sizes)}{more}"
    )


def with_more_memory(resources: JobResources, nodes: Sequence[Node], losses: int) -> JobResources:
    """What a job holds when it starts again after it was killed for memory.

    So much memory that the largest node, beside jobs that hold what this one held at first, runs
    half as many at once; after the next loss a quarter, and so on until the job runs alone.

    Args:
        resources: what the job held at first.
        nodes: of the cluster.
        losses: how often it was killed for memory.
    """
    nodes = [node for node in _job_nodes(nodes) if _workers_on(node, resources)]
    if not nodes:
        return resources
    node = max(nodes, key=lambda node: node.memory)
    at_once = max(1, _workers_on(node, resources) >> losses)
    # All workers of a job must still find room.
    memory = min(node.memory - (at_once - 1) * resources.memory, node.memory / resources.workers)
    return replace(resources, memory=max(resources.memory, int(memory)))


def room_for_jobs(nodes: Sequence[Node], resources: JobResources) -> int:
    """How many such jobs the nodes hold at once, of all that they have.

    Args:
        nodes: of the cluster.
        resources: of a job.
    """
    return sum(_workers_on(node, resources) for node in _job_nodes(nodes)) // resources.workers


def _workers_on(node: Node, resources: JobResources) -> int:
    rooms = [node.cpus / resources.cpus]
    if resources.gpus:
        rooms.append(node.gpus / resources.gpus)
    if resources.memory:
        rooms.append(node.memory / resources.memory)
    return int(min(rooms))


def _amount(node: Node, name: str) -> float:
    return {"CPU": node.cpus, "GPU": node.gpus}.get(name, node.memory / 1e9)
