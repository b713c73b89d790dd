"""Where an attempt at a split job runs: the job writes it to the store when it starts.

Clocks of different machines are not compared: an attempt is identified by its name.
"""

import json
import socket
from dataclasses import asdict, dataclass

from thyro_core.store.keys import placement_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import SplitJob


@dataclass(frozen=True)
class Placement:
    """Where an attempt runs.

    Attributes:
        attempt: The name of the attempt.
        node: The id that the cluster gives the node.
        host: The node's name, for people.
    """

    attempt: str
    node: str
    host: str


def write_placement(job: SplitJob, node: str) -> None:
    """Record that an attempt at a job has started on this host.

    Args:
        job: with the attempt's name.
        node: the cluster's id of this node.
    """
    placement = Placement(job.attempt, node, socket.gethostname())
    key = placement_key(job.study_id, job.split)
    open_store(job.store).write(key, json.dumps(asdict(placement)).encode())


def read_placement(store: Store, job: SplitJob) -> Placement | None:
    """Where an attempt runs, or ran; None: it has not started."""
    try:
        data = store.read(placement_key(job.study_id, job.split))
    except FileNotFoundError:
        return None
    placement = Placement(**json.loads(data))
    return placement if placement.attempt == job.attempt else None
