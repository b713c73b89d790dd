"""What a study asks of a cluster before it has a name, and what it is told."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from thyro_core.cluster.session import JobResources
from thyro_core.config import Precision
from thyro_core.plan import PlannedPrecision


@dataclass(frozen=True)
class Wish:
    """What the jobs of a study are to get.

    Attributes:
        precision: The arithmetic that the config asks for.
        cpus_per_job: CPU cores of a job.
        gpus_per_job: GPUs of a job; None: shared evenly.
        jobs: How many there are.
    """

    precision: Precision
    cpus_per_job: int
    gpus_per_job: float | None
    jobs: int

    def text(self) -> str:
        """As JSON, the same for equal wishes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The wish that `text` wrote."""
        return cls(**json.loads(text))


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
