"""Processes that end with the one that started them, however that ends.

The kernel does it, on Linux; elsewhere they are stopped only by a parent that ends in good order.
"""

import ctypes
import os
import signal
import sys

SERVED_BY = "THYRO_SERVED_BY"
"""Environment variable with the process id of the `thyro serve` that runs flows."""

_PR_SET_PDEATHSIG = 1


def end_with_parent(how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends, even by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(how))


def end_with_server() -> None:
    """End this flow run when the `thyro serve` that started it does; others stay as they are."""
    if os.environ.get(SERVED_BY) == str(os.getppid()):
        # Not a softer signal: there is no server left that could be told how the run ended.
        end_with_parent(signal.SIGKILL)


def main() -> None:
    """Become the command in the arguments, tethered to the parent."""
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    if os.getppid() == parent:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - `thyro serve` says what to start


if __name__ == "__main__":
    main()
