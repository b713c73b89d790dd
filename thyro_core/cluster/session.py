"""Connect to Ray: an embedded one on this machine, or a cluster that runs already."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thyro_core.cluster.resources import Capacity, Node, capacity_of
from thyro_core.cluster.watch import LOST_SECONDS, ClusterWatch, knock
from thyro_core.errors import InputError, ThyroError

# Only keys and small specs travel through Ray's object store; its default takes 30 % of memory.
_OBJECT_STORE_BYTES = 128 * 1024**2

_KNOCK_SECONDS = 10.0

PATIENCE_SECONDS = 1.0
"""How long a watcher waits for its job before it looks up again."""

closing = threading.Event()
"""Set when a session ends early: whoever watches a job of it stops it."""


_watch: ClusterWatch | None = None


def check_open(who: str) -> None:
    """Make sure that there is still a cluster to wait for.

    Args:
        who: what waits, for the message.

    Raises:
        ThyroError: the session is closing, or the cluster's head is lost.
    """
    if closing.is_set():
        msg = f"{who} was stopped; the same command goes on from its checkpoint"
        raise ThyroError(msg)
    if _watch is not None and _watch.lost:
        msg = (
            f"Ray's head at {_watch.address} has not answered for {LOST_SECONDS:g} s, and its jobs "
            "are lost; restart the cluster, and the same command goes on from their checkpoints"
        )
        raise ThyroError(msg)


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
    # Without its head Ray would abort this program; `check_open` lets it end in good order.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
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
    gcs = None if address == "local" else ray.get_runtime_context().gcs_address
    try:
        with _watched(gcs):
            yield capacity_of(nodes())
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


@contextmanager
def _watched(address: str | None) -> Iterator[None]:
    # One session at a time, like Ray's own.
    global _watch
    with ClusterWatch(address, _look) as _watch:
        yield


def nodes() -> tuple[Node, ...]:
    """The session's nodes that were up a moment ago; none without a session."""
    return () if _watch is None else _watch.nodes


def _look() -> tuple[Node, ...] | None:
    """The nodes that are up now, asked of Ray; None: it could not tell."""
    import ray
    from ray.exceptions import RayError

    try:
        found = ray.nodes()  # type: ignore[no-untyped-call]
    except (RayError, ConnectionError, RuntimeError):
        return None
    return tuple(
        Node(
            str(each["NodeManagerHostname"]),
            float(each["Resources"].get("CPU", 0.0)),
            float(each["Resources"].get("GPU", 0.0)),
            str(each["NodeID"]),
            float(each["Resources"].get("memory", 0.0)),
        )
        for each in found
        if each["Alive"]
    )


def _knock(address: str) -> None:
    """Ask whether anyone listens at host:port; Ray itself would go on asking for minutes."""
    if not address.rpartition(":")[2].isdigit():
        raise _no_cluster(address, "no port after the colon")
    try:
        knock(address, _KNOCK_SECONDS)
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, found: object) -> InputError:
    return InputError(
        f"Ray at {address}: expected a cluster to answer, found: {found}; start one with "
        "`ray start --head`, or leave --ray out to run on this machine"
    )
