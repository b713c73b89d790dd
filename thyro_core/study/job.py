"""What a split job is told and what it answers: small values that travel, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.store.keys import table_key
from thyro_core.store.store import Store


@dataclass(frozen=True)
class SplitJob:
    """What a worker needs to know: keys and small settings, never arrays."""

    store: str
    study_id: str
    split: int
    scratch: str
    threads: int = 1
    """Of each worker."""
    gpus: float = 0.0
    """Of each worker."""
    workers: int = 1
    """How many processes share each batch."""
    memory: int = 0
    """Of each worker, set aside on its node [bytes]; 0: none is."""
    skip: tuple[str, ...] = ()
    """Architectures that failed since the job was submitted."""
    checkpoint_seconds: float = 60.0
    keep_models: bool = True
    attempt: str = ""
    """Names this start of the job, for whoever watches it."""


@dataclass(frozen=True)
class SplitOutcome:
    """How a split job ended: which architectures it trained, and what stopped the others."""

    split: int
    trained: tuple[str, ...]
    failed: Mapping[str, str]


def is_finished(store: Store, study_id: str, split: int, architecture: str) -> bool:
    """Whether an architecture of a split is done."""
    keys = hive_keys(study_id, split, architecture)
    return store.exists(table_key("predictions", **keys))


def hive_keys(study_id: str, split: int, architecture: str) -> dict[str, str | int]:
    """Hive keys of the tables that a job writes."""
    return {"study_id": study_id, "split": split, "architecture": architecture}
