"""A decoder that some files kill, as a fault in C code would.

monkeypatch.setattr(sandbox, "PROGRAM", deadly_reader.__name__)
"""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from thyro_core.imaging import sandbox

SEGV, EXIT, HANG, MEMORY = b"deadly-segv", b"deadly-exit", b"deadly-hang", b"deadly-memory"


def deadly(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The reader, but for files that end with one of the words above."""

    def read_or_die(data: bytes) -> Any:
        if data.endswith(SEGV):
            os.kill(os.getpid(), signal.SIGSEGV)
        if data.endswith(EXIT):
            os._exit(1)
        if data.endswith(HANG):
            time.sleep(3600)
        if data.endswith(MEMORY):
            return len(bytearray(64 * 1024**3))
        return read(data)

    return read_or_die


class DeadlyConnection(Connection):
    """Hands out readers that some files kill."""

    def recv(self) -> Any:
        """A message; a reader, with the words above."""
        message = super().recv()
        return deadly(message) if callable(message) else message


if __name__ == "__main__":
    sandbox.Connection = DeadlyConnection  # type: ignore[misc]
    sandbox.main()
