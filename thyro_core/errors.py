"""Errors for the person who meets them.

Every message says where, what was expected, what was found and the cure.
"""


class ThyroError(Exception):
    """A failure with a message that is fit to be shown as it is, without a traceback."""

    exit_code = 1


class InputError(ThyroError):
    """What the user gave (a source, a config, an address) cannot be used as it is."""

    exit_code = 2


class LeakageError(ThyroError):
    """Images that belong together stand on both sides of a split."""


class IncompleteStudyError(ThyroError):
    """Some jobs of a study failed; what they finished is kept, and the same command goes on."""


class DiskFullError(ThyroError):
    """A disk of this node has no room; nothing half-written stays."""


class StoreError(ThyroError):
    """A store failed for longer than we wait; nothing finished is lost."""


class WorkerFailedError(ThyroError):
    """One of the workers that train a network together met an error; the others cannot go on.

    Attributes:
        architecture: The network that they trained.
        said: What went wrong, and with which worker.
    """

    def __init__(self, architecture: str, said: str) -> None:
        super().__init__(architecture, said)
        self.architecture = architecture
        self.said = said

    def __str__(self) -> str:
        return f"{self.architecture}: {self.said}"


class StoppedError(ThyroError):
    """Somebody stopped the program: no failure, and nothing finished is lost."""

    exit_code = 130
