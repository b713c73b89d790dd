"""What a run costs over all its attempts: an interruption hides no time."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class RunCost:
    """Time a run took, attempts that were interrupted or failed included.

    Attributes:
        seconds: Wall-clock time [s].
        gpu_seconds: Wall-clock time x GPUs held [s].
    """

    seconds: float = 0.0
    gpu_seconds: float = 0.0


NO_COST = RunCost()
"""What a run that has not begun took."""


class RunTimer:
    """Counts the time of one attempt, on top of what earlier attempts took.

    Attributes:
        started: Start of this attempt.
    """

    def __init__(self, gpus: float) -> None:
        self.started = datetime.now(UTC)
        self._gpus = gpus
        self._before = NO_COST
        self._clock = time.perf_counter()

    def add_earlier(self, earlier: RunCost) -> None:
        """Count earlier attempts too.

        Several traces of the same attempts may be carried, one after the other: each is a sum up
        to its own moment, so the largest one holds the others.
        """
        self._before = RunCost(
            max(self._before.seconds, earlier.seconds),
            max(self._before.gpu_seconds, earlier.gpu_seconds),
        )

    def cost(self) -> RunCost:
        """All attempts' time until now."""
        seconds = time.perf_counter() - self._clock
        return RunCost(
            self._before.seconds + seconds, self._before.gpu_seconds + seconds * self._gpus
        )
