"""Where the workers of a split job run: each writes it to the store when it starts.

Clocks of different machines are not compared: an attempt is identified by its name.
"""

import json
import os
import socket
from dataclasses import asdict, dataclass

from thyro_core.store.keys import placement_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import SplitJob


@dataclass(frozen=True)
class Placement:
    """Where a worker of an attempt runs.

    Attributes:
        attempt: The name of the attempt.
        node: The id that the cluster gives the node.
        host: The node's name, for people.
        pid: The worker's process on that host.
    """

    attempt: str
    node: str
    host: str
    pid: int


def write_placement(job: SplitJob, node: str, rank: int = 0) -> None:
    """Record that a worker of an attempt has started in this process.

    Args:
        job: with the attempt's name.
        node: the cluster's id of this node.
        rank: of the worker.
    """
    placement = Placement(job.attempt, node, socket.gethostname(), os.getpid())
    key = placement_key(job.study_id, job.split, rank)
    open_store(job.store).write(key, json.dumps(asdict(placement)).encode())


def read_placements(store: Store, job: SplitJob) -> dict[int, Placement]:
    """Where the workers of an attempt run, or ran, by rank; those that have not started lack."""
    keys = {
        placement_key(job.study_id, job.split, rank): rank for rank in range(job.resources.workers)
    }
    placements = {
        keys[key]: Placement(**json.loads(data)) for key, data in store.read_all(list(keys)).items()
    }
    return {
        rank: placement
        for rank, placement in sorted(placements.items())
        if placement.attempt == job.attempt
    }
