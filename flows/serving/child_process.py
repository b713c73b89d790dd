"""Processes that end with the one that started them, however that ends.

The kernel does it, on Linux; elsewhere they are stopped only by a parent that ends in good order.
"""

import ctypes
import os
import signal
import sys
import threading

from thyro_core.errors import StoppedError

SERVED_BY = "THYRO_SERVED_BY"
"""Environment variable with the process id of the `thyro serve` that runs flows."""

_PR_SET_PDEATHSIG = 1
_LAST_SECONDS = 10


def end_with_parent(how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends, even by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(how))


def end_with_server() -> None:
    """Stop this run when the `thyro serve` that started it ends; other runs stay as they are.

    Raises:
        StoppedError: it has ended already.
    """
    if SERVED_BY in os.environ:
        # Not a kill: Ray's processes end in good order only with a driver that does.
        end_with_parent(signal.SIGTERM)
        if _is_orphan():
            msg = "thyro serve ended before the run began; start it, and then the run, again"
            raise StoppedError(msg)


def end_soon_if_orphan() -> None:
    """End soon, if `thyro serve` has ended: Prefect would go on reporting to its server."""
    if _is_orphan():
        signal.alarm(_LAST_SECONDS)


def end_soon(exit_code: int) -> None:
    """End in a few seconds, whatever still waits: Prefect tries a lost server for minutes."""
    timer = threading.Timer(_LAST_SECONDS, os._exit, [exit_code])
    timer.daemon = True  # who is done before does not wait for it
    timer.start()


def _is_orphan() -> bool:
    return os.environ.get(SERVED_BY, str(os.getppid())) != str(os.getppid())


def main() -> None:
    """Become the command in the arguments, which ends with the parent."""
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    if os.getppid() == parent:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - `thyro serve` says what to start


if __name__ == "__main__":
    main()
