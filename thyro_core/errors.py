"""Errors with messages for people.

Every message names the place, what was expected, what was found, and the cure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

_MOST_DECIMALS = 12


class ThyroError(Exception):
    """A failure whose message can be shown as it is, without a traceback."""

    exit_code = 1


class InputError(ThyroError):
    """The user's input (a source, a config, an address) cannot be used as it is."""

    exit_code = 2


class LeakageError(ThyroError):
    """Images of one patient or group are on both sides of a split."""


@dataclass(frozen=True)
class Failure:
    """What stopped a run or a job, recorded in the process where it happened.

    An exception can leave its process only where it can be pickled and its class imported. This
    record is plain values: a cluster, a pipe and a store carry it unchanged, and it becomes text
    where a person reads it.

    Attributes:
        kind: Name of the error's class.
        message: The error's message.
        facts: Where it happened, such as `worker`: `1 of 2`.
    """

    kind: str
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception, facts: Mapping[str, str] | None = None) -> Self:
        """The record of an error."""
        return cls(type(error).__name__, str(error), facts or {})

    def __str__(self) -> str:
        places = [f"{name} {value}" for name, value in self.facts.items()]
        return ": ".join([*places, self.kind, self.message])

    def to_error(self) -> ThyroError:
        """An error whose message is for people, as an exception again."""
        return (InputError if self.kind == InputError.__name__ else ThyroError)(self.message)


class SplitFailedError(ThyroError):
    """A split's job ended without all its architectures.

    Attributes:
        split: Which split.
        failures: What stopped each architecture that is not trained.
    """

    def __init__(self, split: int, failures: Mapping[str, Failure]) -> None:
        super().__init__(split, failures)
        self.split = split
        self.failures = failures

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {failure}" for name, failure in self.failures.items())
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
        failure: What stopped it, and in which worker.
    """

    def __init__(self, architecture: str, failure: Failure) -> None:
        super().__init__(architecture, failure)
        self.architecture = architecture
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.architecture}: {self.failure}"


class StoppedError(ThyroError):
    """The program was stopped on request: no failure, and finished work is kept."""

    exit_code = 130


def sentence(error: ThyroError | OSError) -> str:
    """What a person reads of an error that is no bug: one of ours, or the system's."""
    if isinstance(error, ThyroError):
        return str(error)
    place = error.filename or "the store or the source"
    cure = "check the path, its permissions and the free space, and start the command again"
    return f"{place}: {error.strerror or error}; what is finished is kept; {cure}"


def amount(number: int, noun: str, plural: str = "") -> str:
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
