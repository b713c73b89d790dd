"""Whether the head of a Ray cluster still answers: Ray itself ends the program if it does not."""

import socket
import threading
import time
from typing import Self

LOST_SECONDS = 30.0
"""After so long without an answer the head counts as lost. A program of Ray's aborts after 60."""

_EVERY_SECONDS = 2.0
_KNOCK_SECONDS = 5.0


class HeadWatch:
    """Knocks at the head's port now and then, in a thread, while its block runs.

    Args:
        address: host:port of the head; None: there is nothing to watch.
        lost_seconds: after so long without an answer `lost` is true.
    """

    def __init__(self, address: str | None, lost_seconds: float = LOST_SECONDS) -> None:
        self.address = address
        self.lost = False
        self._lost_seconds = lost_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self.address is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        silent_since: float | None = None
        while not self._over.wait(_EVERY_SECONDS):
            now = time.monotonic()
            if answers(self.address or ""):
                silent_since = None
            elif silent_since is None:
                silent_since = now
            # Not from the last answer on: this program itself may have been stopped for a while.
            self.lost = silent_since is not None and now - silent_since >= self._lost_seconds


def answers(address: str) -> bool:
    """Whether somebody listens at host:port."""
    try:
        knock(address, _KNOCK_SECONDS)
    except (OSError, ValueError):
        return False
    return True


def knock(address: str, seconds: float) -> None:
    """Connect to host:port, and go away.

    Raises:
        ValueError: the port is no number.
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
