"""Errors with messages for people.

Every message names the place, what was expected, what was found, and the cure.
"""


class ThyroError(Exception):
    """A failure whose message can be shown as it is, without a traceback."""

    exit_code = 1


class InputError(ThyroError):
    """The user's input (a source, a config, an address) cannot be used as it is."""

    exit_code = 2


class LeakageError(ThyroError):
    """Images of one patient or group are on both sides of a split."""


class IncompleteStudyError(ThyroError):
    """Some jobs of a study failed; finished work is kept, and the same command continues it."""


class DiskFullError(ThyroError):
    """A disk of this node is full; no partial file stays."""


class StoreError(ThyroError):
    """A store failed for longer than the retry policy allows; finished work is kept."""


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
