"""How an attempt at a split job ends before it is done, and why a job does not start again."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from ray import exceptions

from thyro_core.errors import ThyroError

LossKind = Literal["process", "node"]
"""What an attempt lost: a process of its own, or the node below it, by no fault of the job."""

NODE_LOST = "its node was lost"

OUT_OF_MEMORY = "the node ran out of memory, and Ray killed the process"
CRASH = "the process crashed, or was killed"

_NEWLINE = "\n"


class WorkerLostError(ThyroError):
    """A worker of a job is gone.

    Attributes:
        rank: Which worker.
        kind: What was lost.
        cause: How it ended.
    """

    def __init__(self, rank: int, kind: LossKind, cause: str) -> None:
        super().__init__(rank, kind, cause)
        self.rank = rank
        self.kind = kind
        self.cause = cause


def process_end(error: Exception) -> str:
    """How a process of a job ended, as Ray reports it.

    Args:
        error: what waiting for the process raised.
    """
    first_line = str(error).partition(_NEWLINE)[0]
    if isinstance(error, exceptions.OutOfMemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, exceptions.WorkerCrashedError | exceptions.ActorDiedError):
        return CRASH
    return f"{type(error).__name__}: {first_line}"


def may_be_for_memory(cause: str) -> bool:
    """Whether a process ended for want of memory, or may have.

    A process that the kernel kills for memory ends like any other that is killed, and the
    reason cannot be queried on another machine. It is by far the commonest reason.

    Args:
        cause: what `process_end` returned.
    """
    return cause in {OUT_OF_MEMORY, CRASH}


def failure_message(
    split: int, process_failures: Sequence[str], node_failures: Sequence[str], cause: str
) -> str:
    """Why a job does not start again: which one, what happened, where, and the cure.

    Args:
        split: of the job.
        process_failures: where its process died, one place for each time.
        node_failures: where it was when its node was lost.
        cause: how the last attempt ended.
    """
    ends = [f"its process died {len(process_failures)} times"] if process_failures else []
    ends += [f"it lost {len(node_failures)} nodes"] if node_failures else []
    counts = Counter((*process_failures, *node_failures))
    places = ", ".join(f"{n} x {place}" for place, n in counts.items())
    return (
        f"split {split} is given up: {' and '.join(ends)}: {places}; the last time {cause}; look "
        "at that host, or give each job more room (fewer jobs at once: a higher "
        "THYRO_CPUS_PER_JOB), and start the same command again"
    )
