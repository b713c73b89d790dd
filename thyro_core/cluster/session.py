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
    """What each worker of a split job holds while it runs, and how many share it."""

    cpus: int
    gpus: float
    workers: int = 1


@contextmanager
def session(address: str) -> Iterator[Capacity]:
    """A connection to Ray for as long as the block runs; an embedded Ray ends with it.

    Args:
        address: `local` for an embedded Ray, `auto` or `host:port` for a running cluster.

    Raises:
        InputError: no cluster answers at the address.
    """
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
    capacity: Capacity,
    cpus_per_job: int,
    gpus_per_job: float | None,
    jobs: int,
    workers: int = 1,
) -> JobResources:
    """What each of so many jobs gets, checked against what the cluster has.

    GPUs, if there are any and nothing else is said, are shared evenly: with ten jobs on four GPUs
    each GPU takes three jobs at a time. Of several workers that share a job each gets its own.

    Raises:
        ThyroError: a job needs more than the whole cluster has.
    """
    if gpus_per_job is None:
        gpus_per_job = 1 / -(-jobs // int(capacity.gpus)) if capacity.gpus >= 1 else 0.0
        gpus_per_job = float(capacity.gpus >= 1) if workers > 1 else gpus_per_job
    if workers > 1 and gpus_per_job not in (0.0, 1.0):
        msg = (
            f"THYRO_GPUS_PER_JOB: expected 0 or 1 where {workers} workers share a job, each with a "
            f"GPU of its own, found {gpus_per_job:g}"
        )
        raise InputError(msg)
    for name, needed, found in (
        ("CPU", cpus_per_job * workers, capacity.cpus),
        ("GPU", gpus_per_job * workers, capacity.gpus),
    ):
        if needed > found:
            msg = (
                f"a split job needs {needed:g} {name}, and the whole cluster has {found:g}; "
                f"lower THYRO_{name}S_PER_JOB or add a node"
            )
            raise ThyroError(msg)
    return JobResources(cpus_per_job, gpus_per_job, workers)
