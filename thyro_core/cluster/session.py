"""Connect to Ray: an embedded one on this machine, or a cluster that runs already."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from thyro_core.cluster.local_clusters import one_cluster
from thyro_core.cluster.ray_internals import DAEMON_SETTINGS, memory_option
from thyro_core.cluster.resources import Capacity, Node, capacity_of
from thyro_core.cluster.watch import LOST_SECONDS, ClusterWatch, check_connection, is_reachable
from thyro_core.errors import InputError, ThyroError
from thyro_core.host import cores, machine_memory, memory

# Only keys and small specs travel through Ray's object store; its default takes 30 % of memory.
_OBJECT_STORE_BYTES = 128 * 1024**2

# Of what this process may use; Ray itself, and what a job takes beside its tensors, need the rest.
_MEMORY_SHARE = 0.7

_PORT_SECONDS = 10.0
_STDERR = 2
_REFUSAL = b"InvalidAuthToken"

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How long a thread waits for its job before it checks the cluster again."""

closing = threading.Event()
"""Set when a session ends early: each thread that watches a job stops it."""

_watch: ClusterWatch | None = None


def check_open(waiter: str) -> None:
    """Make sure that there is still a cluster to wait for.

    Args:
        waiter: what waits, for the message.

    Raises:
        ThyroError: the session is closing, or the cluster's head is lost.
    """
    if closing.is_set():
        msg = f"{waiter} was stopped; the same command goes on from its checkpoint"
        raise ThyroError(msg)
    if _watch is not None and _watch.lost:
        msg = (
            f"Ray's head at {_watch.address} has not answered for {LOST_SECONDS:g} s, and its jobs "
            "are lost; restart the cluster, and the same command goes on from their checkpoints"
        )
        raise ThyroError(msg)


def head_answers() -> bool:
    """Whether the cluster's head answers now; without it calls of Ray's hang for minutes."""
    return _watch is None or _watch.address is None or is_reachable(_watch.address)


@contextmanager
def session(address: str) -> Iterator[Capacity]:
    """A connection to Ray for as long as the block runs; an embedded Ray ends with it.

    Args:
        address: `local` for an embedded Ray, `auto` or `host:port` for a running cluster.

    Raises:
        InputError: no cluster answers at the address, it is of a kind that cannot be joined or
            does not let this program in, or `auto` finds several.
        ThyroError: an embedded Ray does not start.
    """
    if address == "auto":
        address = one_cluster()
    _check_address(address)
    _set_environment()
    is_local = address == "local"
    if not is_local:
        _prepare_to_join(os.environ)
    import ray
    from ray.exceptions import RayError

    options: dict[str, Any] = {
        # Ray counts the machine's cores, whatever a scheduler or `taskset` leaves of them.
        "num_cpus": cores(),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    if memory() < machine_memory():
        # Ray knows a container's limit, but not that of a job's control group.
        options |= memory_option(int(_MEMORY_SHARE * memory()))
    if ":" in address:
        _check_listening(address)
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if is_local:
        try:
            ray.init(address=address, **common, **options)
        # A machine so busy that Ray's processes do not answer in time gives an Exception as such.
        except Exception as error:
            raise _not_started(error) from error
    else:
        try:
            with _without_refusals():
                ray.init(address=address, **common)
        # A RayError where the cluster is another user's, whose token this program has not.
        except (ConnectionError, ValueError, RuntimeError, RayError) as error:
            raise _no_cluster(address, error) from error
    # Ray's own handler aborts the program; one that was there before stops it in good order.
    if sigterm_handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, sigterm_handler)
    closing.clear()
    gcs = None if is_local else ray.get_runtime_context().gcs_address
    try:
        with _watch_cluster(gcs):
            yield capacity_of(nodes())
    except BaseException:
        closing.set()
        # Threads that watch jobs cancel them now; after the shutdown they could not.
        time.sleep(2 * POLL_SECONDS)
        raise
    finally:
        ray.shutdown()


def _set_environment() -> None:
    """Set what Ray reads when it is imported; what the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A call after the end of the session must fail, not start another Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in DAEMON_SETTINGS.items():
        os.environ.setdefault(name, value)


def _prepare_to_join(environment: MutableMapping[str, str]) -> None:
    """Show a cluster the user's token, which Ray does only where RAY_AUTH_MODE says so.

    `ray start` requires that token wherever there is one, and every embedded Ray leaves one.
    """
    token_file = environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if environment.get("RAY_AUTH_TOKEN") or Path(token_file).is_file():
        environment.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def _without_refusals() -> Iterator[None]:
    """Leave out what Ray's library writes to the standard error for each try that is refused.

    It tries twenty times; the user sees one sentence. All else is written at the end.
    """
    with TemporaryFile() as lines:
        stderr = os.dup(_STDERR)
        os.dup2(lines.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            lines.seek(0)
            for line in lines:
                if _REFUSAL not in line:
                    os.write(_STDERR, line)


def _check_address(address: str) -> None:
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
def _watch_cluster(address: str | None) -> Iterator[None]:
    # One session at a time, like Ray's own.
    global _watch
    with ClusterWatch(address, list_nodes) as _watch:
        yield


def nodes() -> tuple[Node, ...]:
    """The session's nodes that were up a moment ago; none without a session."""
    return () if _watch is None else _watch.nodes


def list_nodes() -> tuple[Node, ...] | None:
    """The nodes that are up now; None: Ray did not answer.

    Call it in a process that is connected to Ray.
    """
    import ray
    from ray.exceptions import RayError

    try:
        node_rows = ray.nodes()  # type: ignore[no-untyped-call]
    except (RayError, ConnectionError, RuntimeError):
        return None
    return tuple(
        Node(
            str(node["NodeManagerHostname"]),
            float(node["Resources"].get("CPU", 0.0)),
            float(node["Resources"].get("GPU", 0.0)),
            str(node["NodeID"]),
            float(node["Resources"].get("memory", 0.0)),
        )
        for node in node_rows
        if node["Alive"]
    )


def _check_listening(address: str) -> None:
    """Fail at once if nothing listens at host:port; Ray itself would try for minutes."""
    if not address.rpartition(":")[2].isdigit():
        raise _no_cluster(address, "no port after the colon")
    try:
        check_connection(address, _PORT_SECONDS)
    except OSError as error:
        raise _no_cluster(address, error) from error


def _not_started(error: Exception) -> ThyroError:
    lines = str(error).splitlines() or [type(error).__name__]
    return ThyroError(
        f"Ray did not start on this machine: {lines[0]} The machine may be too busy just now, or "
        "short of memory or disk (`thyro doctor` tells); what is finished is kept, and the same "
        "command goes on"
    )


def _no_cluster(address: str, answer: object) -> InputError:
    lines = str(answer).splitlines() or [type(answer).__name__]
    # Something listens there, or `_check_listening` had failed before.
    if "token" in lines[0].lower() or lines[0].startswith("Failed to connect to Ray cluster"):
        return InputError(
            f"Ray at {address}: expected a cluster that lets this program in, found something that "
            "does not: a cluster with another token (another user's or another program's), or no "
            "Ray at all; give the address of your own (--ray host:port) and its token "
            "(RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or leave --ray out"
        )
    return InputError(
        f"Ray at {address}: expected a cluster to answer, found: {lines[0]}; start one with "
        "`ray start --head`, or leave --ray out to run on this machine"
    )
