"""The identity of a process, so that others on the same machine can tell whether it still runs.

Host names and process ids repeat; an identity has the machine's boot id, the namespace of the
process id, the id, and the start time of the process. Linux only: elsewhere nothing is known, and
no process counts as dead.
"""

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_ENDED_STATES = frozenset("ZXx")


def this_process() -> str:
    """A process-unique name, on any machine; empty: not known here."""
    machine, start_time = _machine_id(), _start_time(os.getpid())
    return f"{machine}/{os.getpid()}/{start_time}" if machine and start_time else ""


def is_here(process: str) -> bool:
    """Whether a process, named by its `this_process`, runs on this machine."""
    return _is_running(process) is True


def is_gone(process: str) -> bool:
    """Whether a process is known to have ended: it ran on this machine and does no more."""
    return _is_running(process) is False


def _is_running(process: str) -> bool | None:
    """Whether a process runs; None: it cannot be known here."""
    rest, _, start_time = process.rpartition("/")
    machine, _, pid = rest.rpartition("/")
    if not machine or machine != _machine_id() or not pid.isdigit():
        return None
    return _start_time(int(pid)) == start_time


@cache
def _machine_id() -> str:
    """The boot id of this machine, and the namespace of the process ids here."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """The start time of a process in the kernel's ticks; empty: there is none, or it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the program's name, which may hold anything.
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in _ENDED_STATES else rest[18]
