"""Which Ray clusters this machine belongs to: what `auto` may join."""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from thyro_core.cluster.ray_internals import joined_address
from thyro_core.errors import InputError

_PROC = Path("/proc")
_LIST_SECONDS = 10.0

_LOG = logging.getLogger(__name__)


def local_clusters() -> list[str]:
    """Addresses of the Ray clusters that processes of this machine belong to.

    Those of containers with a network of their own, which this process cannot reach, are left out.

    Linux shows its processes in /proc; elsewhere `ps` lists them.

    Raises:
        InputError: the system shows its processes in neither way.
    """
    has_processes = any(_PROC.glob("self/cmdline"))
    commands = _commands() if has_processes else _listed_commands()
    return sorted({address for words in commands if (address := joined_address(words))})


def _commands() -> Iterator[list[str]]:
    """The words of the command of each process that can be reached from here."""
    for path in _PROC.glob("[0-9]*/cmdline"):
        # Processes end while they are listed, and another user's may be hidden.
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if _shares_network(path.parent):
                yield words


def _listed_commands() -> Iterator[list[str]]:
    """The same as `ps` lists it, which parts words at blanks: macOS has no /proc."""
    command = ["ps", "-axww", "-o", "command="]
    try:
        listing = subprocess.run(  # noqa: S603 - no argument is anybody's
            command, capture_output=True, check=True, timeout=_LIST_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        msg = (
            "Ray at auto: expected the processes of this machine in /proc or from `ps`, to find "
            f"the cluster among them, found neither ({error}); say which one (--ray host:port), or "
            "leave --ray out to run without any"
        )
        raise InputError(msg) from error
    for line in listing.stdout.decode(errors="replace").splitlines():
        yield line.split()


def _shares_network(process: Path) -> bool:
    """Whether a process is in this one's network namespace; yes, where nobody may know."""
    try:
        return (process / "ns/net").readlink() == (process.parent / "self/ns/net").readlink()
    except OSError:
        return True


def one_cluster() -> str:
    """The cluster that `auto` stands for: RAY_ADDRESS, or else the one on this machine.

    Ray itself would join the one that was started last, which may be inside somebody's study.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address not in {"", "auto"}:
        return address
    clusters = local_clusters()
    if len(clusters) > 1:
        msg = (
            f"Ray at auto: expected one cluster on this machine, found {', '.join(clusters)}; say "
            "which one (--ray host:port), or leave --ray out to run without any"
        )
        raise InputError(msg)
    if not clusters:
        return "auto"
    _LOG.warning("Ray at auto: this program joins the cluster at %s", clusters[0])
    return clusters[0]
