"""What a job holds while it runs, so that jobs share nodes and GPUs well, and each finds a node."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from thyro_core.errors import InputError, ThyroError

# Ray counts resources in units of 1/10000: a third is 0.3333, and three of them fit.
_UNITS = 10_000
_SHOWN = 6


@dataclass(frozen=True)
class Node:
    """What one node offers to jobs."""

    name: str
    cpus: float
    gpus: float = 0.0
    id: str = ""
    memory: float = 0.0
    """Bytes."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has in all, and where."""

    cpus: float
    gpus: float
    nodes: tuple[Node, ...] = ()


def capacity_of(nodes: Sequence[Node]) -> Capacity:
    """The capacity of a cluster of these nodes."""
    taking = _taking(nodes)
    return Capacity(sum(n.cpus for n in taking), sum(n.gpus for n in taking), taking)


def _taking(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Those that take jobs: the head, and a driver's node, often offer nothing."""
    return tuple(node for node in nodes if node.cpus or node.gpus)


@dataclass(frozen=True)
class JobResources:
    """What each worker of a split job holds while it runs, and how many share it."""

    cpus: int
    gpus: float
    workers: int = 1
    memory: int = 0
    """Bytes that are set aside for it; 0: as many as it takes."""


def job_resources(
    capacity: Capacity,
    cpus_per_job: int,
    gpus_per_job: float | None,
    jobs: int,
    fit: int = 1,
    workers: int = 1,
) -> JobResources:
    """What each of so many jobs gets, checked against what a node of the cluster has.

    CPUs are as asked for: the threads of a job decide the last bits of its results, so the cluster
    must not. GPUs, if there are any and nothing else is said, are shared so that all jobs run at
    once, as far as their memory goes: ten jobs on four GPUs get a third each.

    Args:
        capacity: what the cluster has.
        cpus_per_job: cores of a job, or of each of its workers.
        gpus_per_job: GPUs (or a fraction) of a job, or of each of its workers; None: shared.
        jobs: jobs of the study.
        fit: jobs that a GPU's memory holds at once.
        workers: workers that share a job.

    Raises:
        InputError: workers of one job would share a GPU.
        ThyroError: no node has what a job needs.
    """
    if gpus_per_job is None:
        gpus_per_job = gpu_share(jobs, int(capacity.gpus), fit, workers)
    if workers > 1 and gpus_per_job not in (0.0, 1.0):
        msg = (
            f"THYRO_GPUS_PER_JOB: expected 0 or 1 where {workers} workers share a job, each with a "
            f"GPU of its own, found {gpus_per_job:g}"
        )
        raise InputError(msg)
    resources = JobResources(cpus_per_job, gpus_per_job, workers)
    lacking = missing(capacity.nodes, resources)
    if lacking is not None:
        msg = f"{lacking}; lower THYRO_CPUS_PER_JOB or THYRO_GPUS_PER_JOB, or add a node"
        raise ThyroError(msg)
    return resources


def with_memory(resources: JobResources, capacity: Capacity, needed: int) -> JobResources:
    """Resources with memory set aside, so that a node runs no more jobs than it can hold.

    A job with a GPU sets none aside. Where no node has what an estimate says, a job takes all that
    the largest one has, its workers in equal parts, and runs there alone: an estimate forbids no
    study.

    Args:
        resources: what `job_resources` gave.
        capacity: what the cluster has.
        needed: what each worker of a job takes of its node [bytes].
    """
    if resources.gpus:
        return resources
    able = [node.memory for node in capacity.nodes if node.cpus >= resources.cpus]
    most = max(able, default=0.0) / resources.workers
    return replace(resources, memory=int(min(needed, most)))


def gpu_share(jobs: int, gpus: int, fit: int, workers: int = 1) -> float:
    """The GPUs that one worker of a job gets when nobody said how many.

    Args:
        jobs: jobs of the study.
        gpus: GPUs of the cluster; 0: jobs get none.
        fit: jobs that a GPU's memory holds at once.
        workers: workers of a job; more than one never share a GPU with each other, so each gets
            a whole one.
    """
    if gpus < 1:
        return 0.0
    if workers > 1:
        return 1.0
    at_once = max(1, min(math.ceil(jobs / gpus), fit))
    return math.floor(_UNITS / at_once) / _UNITS


def missing(nodes: Sequence[Node], resources: JobResources) -> str | None:
    """What the nodes lack, for people; None: they could run such a job, each worker on one.

    Args:
        nodes: of the cluster.
        resources: of a job.
    """
    nodes = _taking(nodes)
    needs = _amounts(resources.cpus, resources.gpus)
    if any(_holds(node, resources) for node in nodes):
        room = sum(_workers_on(node, resources) for node in nodes)
        if room >= resources.workers:
            return None
        return (
            f"a split job needs {needs} for each of {resources.workers} workers, and the cluster "
            f"has room for {room}"
        )
    if not nodes:
        return f"a split job needs {needs}, and the cluster has no node that takes jobs"
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "GB of memory": resources.memory / 1e9}
    for name, needed in wanted.items():
        largest = max(nodes, key=lambda node: _offer(node, name))
        if _offer(largest, name) < needed:
            return (
                f"a split job needs {needed:.3g} {name} on one node, and the largest of "
                f"{len(nodes)} ({largest.name}) has {_offer(largest, name):.3g}"
            )
    several = [name for name, needed in wanted.items() if needed]
    shown = [_offers(node, several) for node in nodes[:_SHOWN]]
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    needs = " and ".join(f"{wanted[name]:.3g} {name}" for name in several)
    return (
        f"a split job needs {needs} on one node, and no node has it all: {', '.join(shown)}{more}"
    )


def _offers(node: Node, names: Sequence[str]) -> str:
    return f"{node.name} has " + " and ".join(f"{_offer(node, name):.3g} {name}" for name in names)


def _workers_on(node: Node, resources: JobResources) -> int:
    rooms = [node.cpus / resources.cpus]
    if resources.gpus:
        rooms.append(node.gpus / resources.gpus)
    if resources.memory:
        rooms.append(node.memory / resources.memory)
    return int(min(rooms))


def _holds(node: Node, resources: JobResources) -> bool:
    return _workers_on(node, resources) >= 1


def _offer(node: Node, name: str) -> float:
    return {"CPU": node.cpus, "GPU": node.gpus}.get(name, node.memory / 1e9)


def _amounts(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU and {gpus:g} GPU" if gpus else f"{cpus:g} CPU"
