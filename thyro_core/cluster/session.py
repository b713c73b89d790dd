"""Connect to Ray: an embedded one on this machine, or a cluster that runs already."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from thyro_core.errors import InputError, ThyroError

# Only keys and small specs travel through Ray's object store; its default takes 30 % of memory.
_OBJECT_STORE_BYTES = 128 * 1024**2

_KNOCK_SECONDS = 10.0

PATIENCE_SECONDS = 1.0
"""How long a watcher waits for its job before it looks up again."""

closing = threading.Event()
"""Set when a session ends early: whoever watches a job of it stops it."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has in all."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class JobResources:
    """What one split job holds while it runs."""

    cpus: int
    gpus: float


@contextmanager
def session(address: str) -> Iterator[Capacity]:
    """A connection to Ray for as long as the block runs; an embedded Ray ends with it.

    Args:
        address: `local` for an embedded Ray, `auto` or `host:port` for a running cluster.

    Raises:
        InputError: no cluster answers at the address, or it is of a kind that cannot be joined.
    """
    _check_kind(address)
    # Read by Ray when it is imported. Workers at niceness 15 starve beside anything else.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A call after the end of the session must fail, not start another Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    options: dict[str, Any] = {
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    if ":" in address:
        _knock(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(options if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error
    # Ray's own handler aborts the program; whoever had one wants to stop it in good order.
    if on_sigterm is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
    closing.clear()
    try:
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield Capacity(found.get("CPU", 0.0), found.get("GPU", 0.0))
    except BaseException:
        closing.set()
        # Threads that watch jobs cancel them now; after the shutdown they could not.
        time.sleep(2 * PATIENCE_SECONDS)
        raise
    finally:
        ray.shutdown()


def _check_kind(address: str) -> None:
    kind, separator, rest = address.partition("://")
    if not separator:
        return
    if kind in {"http", "https"}:
        msg = (
            f"Ray at {address}: only a study goes through a cluster's dashboard; this command "
            "joins the cluster: expected local, auto or host:port (as a rule the port is 6379)"
        )
        raise InputError(msg)
    host = rest.partition("/")[0].rpartition(":")[0] or rest
    msg = (
        f"Ray at {address}: expected local, auto, host:port, or the dashboard's address, found "
        f"{kind}://, which keeps the study on the wire; for a cluster that this machine cannot "
        f"join, use http://{host}:8265"
    )
    raise InputError(msg)


def _knock(address: str) -> None:
    """Ask whether anyone listens at host:port; Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise _no_cluster(address, "no port after the colon")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, found: object) -> InputError:
    return InputError(
        f"Ray at {address}: expected a cluster to answer, found: {found}; start one with "
        "`ray start --head`, or leave --ray out to run on this machine"
    )


def job_resources(
    capacity: Capacity, cpus_per_job: int, gpus_per_job: float | None, jobs: int
) -> JobResources:
    """What each of so many jobs gets, checked against what the cluster has.

    GPUs, if there are any and nothing else is said, are shared evenly: with ten jobs on four GPUs
    each GPU takes three jobs at a time.

    Raises:
        ThyroError: a job needs more than the whole cluster has.
    """
    if gpus_per_job is None:
        gpus_per_job = 1 / -(-jobs // int(capacity.gpus)) if capacity.gpus >= 1 else 0.0
    for name, needed, found in (
        ("CPU", cpus_per_job, capacity.cpus),
        ("GPU", gpus_per_job, capacity.gpus),
    ):
        if needed > found:
            msg = (
                f"a split job needs {needed:g} {name}, and the whole cluster has {found:g}; "
                f"lower THYRO_{name}S_PER_JOB or add a node"
            )
            raise ThyroError(msg)
    return JobResources(cpus_per_job, gpus_per_job)
