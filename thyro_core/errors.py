"""Errors with messages for people.

Every message names the place, what was expected, what was found, and the cure.
"""

from collections.abc import Mapping, Sequence

_MOST_DECIMALS = 12


class ThyroError(Exception):
    """A failure whose message can be shown as it is, without a traceback."""

    exit_code = 1


class InputError(ThyroError):
    """The user's input (a source, a config, an address) cannot be used as it is."""

    exit_code = 2


class LeakageError(ThyroError):
    """Images of one patient or group are on both sides of a split."""


class SplitFailedError(ThyroError):
    """A split's job ended without all its architectures.

    Attributes:
        split: Which split.
        failures: What stopped each architecture that is not trained.
    """

    def __init__(self, split: int, failures: Mapping[str, str]) -> None:
        super().__init__(split, failures)
        self.split = split
        self.failures = failures

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {error}" for name, error in self.failures.items())
        return f"split {self.split} failed: {reasons}"


class IncompleteStudyError(ThyroError):
    """Some jobs of a study failed; finished work is kept, and the same command continues it.

    Attributes:
        message: What is not finished.
        causes: The errors of the jobs, where they are known.
    """

    def __init__(self, message: str, causes: Sequence[ThyroError] = ()) -> None:
        super().__init__(message, causes)
        self.message = message
        self.causes = causes

    def __str__(self) -> str:
        # One cause, such as a lost cluster, may have stopped several jobs.
        return "; ".join(dict.fromkeys([self.message, *map(str, self.causes)]))


class DiskFullError(ThyroError):
    """A disk of this node is full; no partial file stays."""


class StoreError(ThyroError):
    """A store failed for longer than the retry policy allows; finished work is kept."""


class NoConditionalWritesError(StoreError):
    """A store answers that it does not know writes that depend on what is there."""


class WorkerFailedError(ThyroError):
    """One of the workers that train a network together failed; the others cannot continue.

    Attributes:
        architecture: The network that they trained.
        reason: The error, and the worker that met it.
    """

    def __init__(self, architecture: str, reason: str) -> None:
        super().__init__(architecture, reason)
        self.architecture = architecture
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.architecture}: {self.reason}"


class StoppedError(ThyroError):
    """The program was stopped on request: no failure, and finished work is kept."""

    exit_code = 130


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 check`, `2 checks`, `2 studies`: for errors, notes and whatever else people read."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def beyond(value: float, bound: float, decimals: int) -> str:
    """A figure that is beyond a bound, with so many decimals, or more if it does not read so.

    Args:
        value: the figure.
        bound: shown beside it as `{bound:g}`.
        decimals: as a rule.
    """
    rounded_bound = float(f"{bound:g}")
    for places in range(decimals, _MOST_DECIMALS):
        text = f"{value:.{places}f}"
        if (float(text) - rounded_bound) * (value - bound) > 0:
            return text
    return f"{value:.{decimals}f}"
