"""Which process this is, so that others on the same machine can tell whether it still lives.

Host names and process ids repeat; what is compared is the machine's start, the namespace in which
the process has its id, the id, and when the process started. Linux only: elsewhere nothing is
known, and nobody is taken for dead.
"""

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_ENDED = frozenset("ZXx")


def this_process() -> str:
    """A name of this process that no other bears, on any machine; empty: not known here."""
    place, started = _machine(), _started(os.getpid())
    return f"{place}/{os.getpid()}/{started}" if place and started else ""


def is_here(process: str) -> bool:
    """Whether a process, named by its `this_process`, lives on this machine."""
    found = _look_up(process)
    return found is not None and found


def is_gone(process: str) -> bool:
    """Whether it is known to have ended: it ran on this machine and does no more."""
    found = _look_up(process)
    return found is not None and not found


def _look_up(process: str) -> bool | None:
    """Whether it lives; None: it cannot be told from here."""
    place, _, rest = process.rpartition("/")
    place, _, pid = place.rpartition("/")
    if not place or place != _machine() or not pid.isdigit():
        return None
    return _started(int(pid)) == rest


@cache
def _machine() -> str:
    """This start of this machine, and the namespace that process ids here belong to."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty: there is none, or it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the program's name, which may hold anything.
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in _ENDED else rest[18]
