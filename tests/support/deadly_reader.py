"""A decoder that some files kill, as a fault in C code would.

monkeypatch.setattr(sandbox, "PROGRAM", deadly_reader.__name__)
"""

import os
import signal
import time
from typing import Any

from thyro_core.screening import sandbox
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import ScreeningImage, read_screening_images

SEGV, EXIT, HANG, MEMORY = b"deadly-segv", b"deadly-exit", b"deadly-hang", b"deadly-memory"


def read(data: bytes, name: str, rules: ScreeningRules, pseudonymise: Any) -> list[ScreeningImage]:
    """The real reader, but for files that end with one of the words above."""
    if data.endswith(SEGV):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(EXIT):
        os._exit(1)
    if data.endswith(HANG):
        time.sleep(3600)
    if data.endswith(MEMORY):
        return [ScreeningImage(name, len(bytearray(64 * 1024**3)))]
    return read_screening_images(data, name, rules, pseudonymise)


if __name__ == "__main__":
    sandbox.read_screening_images = read  # type: ignore[assignment]
    sandbox.main()
