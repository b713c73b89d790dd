"""Where an attempt at a split job runs: said by the job itself when it starts, in the store.

Clocks of different machines are not compared: an attempt is known by its name.
"""

import json
import socket
from dataclasses import asdict, dataclass

from thyro_core.store.keys import placement_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import SplitJob


@dataclass(frozen=True)
class Whereabouts:
    """Where an attempt runs.

    Attributes:
        attempt: The name of the attempt.
        node: The id that the cluster gives the node.
        host: The node's name, for people.
    """

    attempt: str
    node: str
    host: str


def announce(job: SplitJob, node: str) -> None:
    """Say that an attempt at a job has started here.

    Args:
        job: with the attempt's name.
        node: the cluster's id of this node.
    """
    here = Whereabouts(job.attempt, node, socket.gethostname())
    key = placement_key(job.study_id, job.split)
    open_store(job.store).write(key, json.dumps(asdict(here)).encode())


def whereabouts(store: Store, job: SplitJob) -> Whereabouts | None:
    """Where an attempt runs, or ran; None: it has not started."""
    try:
        said = json.loads(store.read(placement_key(job.study_id, job.split)))
    except FileNotFoundError:
        return None
    found = Whereabouts(**said)
    return found if found.attempt == job.attempt else None
