"""What a study asks of a cluster before it has a name, and what it is told."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from thyro_core.cluster.resources import JobResources
from thyro_core.config import Precision
from thyro_core.study.plan import PlannedPrecision


@dataclass(frozen=True)
class Wish:
    """What the jobs of a study are to get.

    Attributes:
        precision: The arithmetic that the config asks for.
        cpus_per_job: CPU cores of a job, or of each of its workers.
        gpus_per_job: GPUs of a job, or of each of its workers; None: shared.
        workers_per_job: Processes that share a job.
        jobs: How many there are.
        gpu_bytes: What a job takes of a GPU's memory.
        cpu_bytes: What a job without a GPU takes of its node's memory.
        node_patience: How long to wait while no node could run a job [s].
    """

    precision: Precision
    cpus_per_job: int
    gpus_per_job: float | None
    workers_per_job: int
    jobs: int
    gpu_bytes: int
    cpu_bytes: int
    node_patience: float

    def text(self) -> str:
        """As JSON, the same for equal wishes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The wish that `text` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Limits:
    """How much a job may meet before it is given up.

    Attributes:
        retries: How often it is started again after its process died.
        node_patience: How long it waits while no node could run it [s].
    """

    retries: int
    node_patience: float


@dataclass(frozen=True)
class Offer:
    """What each job of a study gets on a cluster, and the arithmetic that it trains in there."""

    resources: JobResources
    precision: PlannedPrecision

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The offer that `text` wrote."""
        plain = json.loads(text)
        return cls(JobResources(**plain["resources"]), plain["precision"])
