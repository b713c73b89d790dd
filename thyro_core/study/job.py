"""A split job: input, resources and outcome, as small values that travel, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.errors import Failure
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store


@dataclass(frozen=True)
class JobResources:
    """What each worker of a split job holds while it runs, and how many workers share the job.

    Attributes:
        cpus: Cores, and torch threads, of a worker.
        gpus: GPUs (or a fraction) of a worker.
        workers: Processes that share each batch.
        memory: Memory set aside for a worker on its node [bytes]; 0: none.
    """

    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1
    memory: int = 0


@dataclass(frozen=True)
class RestartPolicy:
    """How often a split job starts again, and how long it waits for a node.

    Attributes:
        restarts: Starts after its process died; lost nodes are not counted here.
        node_patience: Longest time without any node that could run the job [s].
    """

    restarts: int
    node_patience: float


@dataclass(frozen=True)
class SplitJob:
    """One split to train: keys and small settings, never arrays.

    Attributes:
        store: URL of the store.
        study_id: The study.
        split: Number of the split.
        scratch: Folder for temporary files on a node whose settings name none; empty: the cache
            of the node's user.
        resources: What the job holds while it runs.
        skip: Architectures that failed since the job was submitted.
        checkpoint_seconds: Time between two checkpoints [s].
        keep_models: Whether the trained weights stay in the store.
        attempt: Name of this start of the job.
    """

    store: str
    study_id: str
    split: int
    scratch: str
    resources: JobResources = JobResources()
    skip: tuple[str, ...] = ()
    checkpoint_seconds: float = 60.0
    keep_models: bool = True
    attempt: str = ""

    @property
    def name(self) -> str:
        """Name of the job in Ray."""
        return f"{self.study_id}-split-{self.split}"


@dataclass(frozen=True)
class SplitOutcome:
    """How a split job ended: the architectures it trained, and what stopped the others."""

    split: int
    trained: tuple[str, ...]
    failed: Mapping[str, Failure]


def is_finished(store: Store, study_id: str, split: int, architecture: str) -> bool:
    """Whether an architecture of a split has its predictions, which are written last."""
    return store.exists(predictions_key(study_id, split, architecture))


def predictions_key(study_id: str, split: int, architecture: str) -> str:
    """Key of the part of `predictions` that shows an architecture of a split to be finished."""
    return table_key("predictions", **hive_keys(study_id, split, architecture))


def hive_keys(study_id: str, split: int, architecture: str) -> dict[str, str | int]:
    """Hive keys of the tables that a job writes."""
    return {"study_id": study_id, "split": split, "architecture": architecture}
