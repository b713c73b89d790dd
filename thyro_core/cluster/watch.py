"""Whether a Ray cluster's head still answers, and which nodes are up.

Without its head Ray lets calls hang, and in the end aborts the program. So threads of their own,
which may hang, check both, and a thread that waits for a job reads their last result.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from thyro_core.cluster.resources import Node

LOST_SECONDS = 30.0
"""After so long without an answer the head counts as lost. A node of Ray's gives up after 60."""

_INTERVAL_SECONDS = 2.0
_CONNECT_SECONDS = 5.0


class ClusterWatch:
    """Connects to the head's port and lists the nodes every few seconds, while its block runs.

    Args:
        address: host:port of the head; None: a cluster that ends with this program.
        list_nodes: the nodes that are up; None: not known at the moment.
    """

    def __init__(
        self, address: str | None, list_nodes: Callable[[], tuple[Node, ...] | None]
    ) -> None:
        self.address = address
        self.lost = False
        self.nodes: tuple[Node, ...] = ()
        self._list_nodes = list_nodes
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self.nodes = self._list_nodes() or ()
        if self.address is not None:
            for target in (self._watch_head, self._watch_nodes):
                threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch_head(self) -> None:
        silent_since: float | None = None
        while not self._stop.wait(_INTERVAL_SECONDS):
            now = time.monotonic()
            if is_reachable(self.address or ""):
                silent_since = None
            elif silent_since is None:
                silent_since = now
            # Not from the last answer on: this program itself may have been stopped for a while.
            self.lost = silent_since is not None and now - silent_since >= LOST_SECONDS

    def _watch_nodes(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            nodes = self._list_nodes()
            if nodes is not None and not self._stop.is_set():
                self.nodes = nodes


def is_reachable(address: str) -> bool:
    """Whether a server listens at host:port."""
    try:
        check_connection(address, _CONNECT_SECONDS)
    except (OSError, ValueError):
        return False
    return True


def check_connection(address: str, seconds: float) -> None:
    """Connect to host:port, and close the connection.

    Raises:
        ValueError: the port is no number.
        OSError: no server answers.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
