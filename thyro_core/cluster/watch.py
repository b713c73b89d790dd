"""Whether a Ray cluster's head still answers, and which nodes are up.

Without its head Ray lets calls hang, and in the end aborts the program. So both are asked in
threads of their own, which may hang, and whoever waits for a job reads what they found.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from thyro_core.cluster.resources import Node

LOST_SECONDS = 30.0
"""After so long without an answer the head counts as lost. A node of Ray's gives up after 60."""

_EVERY_SECONDS = 2.0
_KNOCK_SECONDS = 5.0


class ClusterWatch:
    """Knocks at the head's port and lists the nodes now and then, while its block runs.

    Args:
        address: host:port of the head; None: a cluster that ends with this program.
        look: lists the nodes that are up; None: not known at the moment.
        lost_seconds: after so long without an answer `lost` is true.
    """

    def __init__(
        self,
        address: str | None,
        look: Callable[[], tuple[Node, ...] | None],
        lost_seconds: float = LOST_SECONDS,
    ) -> None:
        self.address = address
        self.lost = False
        self.nodes: tuple[Node, ...] = ()
        self._look = look
        self._lost_seconds = lost_seconds
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.nodes = self._look() or ()
        if self.address is not None:
            for target in (self._keep_knocking, self._keep_looking):
                threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _keep_knocking(self) -> None:
        silent_since: float | None = None
        while not self._over.wait(_EVERY_SECONDS):
            now = time.monotonic()
            if answers(self.address or ""):
                silent_since = None
            elif silent_since is None:
                silent_since = now
            # Not from the last answer on: this program itself may have been stopped for a while.
            self.lost = silent_since is not None and now - silent_since >= self._lost_seconds

    def _keep_looking(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            found = self._look()
            if found is not None and not self._over.is_set():
                self.nodes = found


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
