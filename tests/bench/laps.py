"""How the benchmarks time: several ways of doing one thing in turn, and medians with their spread.

Taking turns within each lap lets a machine's slow minutes fall on all ways alike; ratios are taken
within laps for the same reason.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def measure(ways: Mapping[str, Callable[[], object]], laps: int) -> dict[str, list[float]]:
    """Seconds of each way in each lap, after one lap unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(laps + 1):
        for name, call in ways.items():
            started = time.perf_counter()
            call()
            if lap:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """One way's values over another's, lap by lap."""
    return [value / other for value, other in zip(values, others, strict=True)]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, with the least and the most in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*cells: str) -> str:
    """The head of a Markdown table."""
    return f"{row(*cells)}\n|{'---|' * len(cells)}"
