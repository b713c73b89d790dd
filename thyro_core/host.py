"""What this process may use of its machine: cores, memory, a folder of its own, its loopback.

Schedulers and containers give a process less than the machine has. What the operating system counts
is the machine.
"""

import os
import stat
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from thyro_core.errors import InputError

if TYPE_CHECKING:
    from thyro_core.settings import Settings

_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_ROOT = Path("/")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cores() -> int:
    """Cores that this process may use: of its affinity, and of its control groups' quotas."""
    # macOS has no affinity.
    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups("cpu") if (quota := _cpu_quota(folder))]
    return max(1, min([usable, *(int(quota) for quota in quotas)]))


def memory() -> int:
    """Memory [bytes] that this process may use: the machine's, or the least of its groups'."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [
        int(text)
        for folder in _control_groups("memory")
        for name in names
        if (text := _text(folder / name)).isdigit()
    ]
    return min([machine_memory(), *limits])


def machine_memory() -> int:
    """Memory of the machine [bytes]."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process and of all above them, versions 2 and 1."""
    mount = _ROOT / "sys/fs/cgroup"
    for line in _text(_ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controllers if controllers else mount
        # In a container the path may be the host's: what is not there has no limit for us.
        group = base / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(base))


def _cpu_quota(folder: Path) -> float | None:
    """Cores a second of a control group; None: no limit."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if not quota.isdigit() or not period.isdigit():
        return None
    # A part of a core still runs one thread.
    return max(1.0, int(quota) / int(period))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def existing_folder(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there: what its disk is known by."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def scratch_folder(settings: "Settings", elsewhere: str = "") -> Path:
    """The node-local folder for packs and weights, made if it is not there.

    Its content is trusted: what others put there would be trained on. So nobody else can write into
    it. `THYRO_SCRATCH` is used as it is where only this user can write into it; else it is a folder
    of the user's own below it. Without it, it lies in the user's cache.

    Args:
        settings: of this node.
        elsewhere: the setting of the machine that a job comes from, if this one has none.

    Raises:
        InputError: what is to be the user's own folder is somebody else's, others write into it, or
            it cannot be made.
    """
    folder = settings.scratch or (Path(elsewhere) if elsewhere else None)
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return _own_folder(Path(cache) / "thyro")
    if not folder.exists() or _is_private(folder):
        return _make(folder)
    return _own_folder(folder / f"user-{os.getuid()}")


def _own_folder(folder: Path) -> Path:
    if not _is_private(_make(folder)):
        msg = (
            f"{folder}: expected a folder of this user alone, found one of user "
            f"{folder.stat().st_uid} with mode {stat.filemode(folder.stat().st_mode)}; remove it, "
            "or set THYRO_SCRATCH to a folder of your own"
        )
        raise InputError(msg)
    return folder


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    except OSError as error:
        msg = (
            f"{folder}: expected a folder for packs and weights that can be made, found "
            f"{error.strerror}; set THYRO_SCRATCH to a folder of your own"
        )
        raise InputError(msg) from error
    return folder


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & _OTHERS_MAY_WRITE
    )


def keep_loopback_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep requests to this machine's own servers away from a proxy, here and in child processes.

    Args:
        environment: the variables to complete; what they exempt from the proxy stays.
    """
    if not any(name.lower().endswith("_proxy") for name in environment):
        return
    for name in ("NO_PROXY", "no_proxy"):
        hosts = _exempt_hosts(environment)
        environment[name] = ",".join([*hosts, *(h for h in _LOOPBACK if h not in hosts)])


def drop_unusable_proxies(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take proxies that speak no HTTP out of the environment, here and for child processes.

    The HTTP clients of Prefect and of S3 do not even start beside one (SOCKS), although no request
    of theirs would go through it.

    Args:
        environment: the variables to go through.

    Returns:
        The kind of each proxy that was taken out, such as socks5, by its variable.
    """
    schemes = {
        name: value.partition("://")[0].lower()
        for name, value in environment.items()
        if name.lower() in _PROXY_VARIABLES and "://" in value
    }
    unusable = {name: kind for name, kind in schemes.items() if kind not in {"http", "https"}}
    for name in unusable:
        del environment[name]
    return unusable


def _exempt_hosts(environment: Mapping[str, str]) -> list[str]:
    values = [environment.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    hosts = (host.strip() for value in values for host in value.split(","))
    return [host for host in dict.fromkeys(hosts) if host]


def peak_bytes(maximum: int) -> int:
    """Peak resident memory [bytes] from `ru_maxrss`, which macOS counts in bytes, Linux in KiB.

    Args:
        maximum: `resource.getrusage(...).ru_maxrss`.
    """
    return maximum if sys.platform == "darwin" else maximum * 1024
