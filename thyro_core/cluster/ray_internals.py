"""The one place that uses what Ray does not document, as of Ray 2.60.

Ray keeps the placement group of a worker group whose starter was killed for as long as the program
that is connected to it runs. Ray Train's own helper against it queries the dashboard, which an
embedded Ray lacks. No public interface names the placement group of a trainer: a callback of Ray
Train notes it in Ray's key-value store.

That a worker is gone is an error of Ray Train that only its internal modules name.

Ray reads no control group's limit of memory, gives its processes settings by undocumented names,
and lists no clusters. Ray is imported within the functions: its settings come first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = {"node:__internal_head__": 0.001}
"""Puts a task on the head node, which alone has this resource, 1 in all; so does Ray Train."""

DAEMON_SETTINGS: Mapping[str, str] = {
    # Workers at niceness 15 starve beside anything else.
    "RAY_worker_niceness": "0",
    # Without its head Ray would abort this program; `check_open` lets it end in good order.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}
"""Environment variables that Ray's processes read, and this one."""

_DAEMON = "raylet"
_ADDRESS_FLAG = "--gcs-address="


def memory_option(size: int) -> dict[str, int]:
    """The argument of `ray.init` for the memory that jobs may hold [bytes]."""
    return {"_memory": size}


def joined_address(command: Sequence[str]) -> str | None:
    """The address of the cluster that a process of Ray belongs to; None: it is no such process.

    Args:
        command: the words of the process.
    """
    if not command or command[0].rpartition("/")[2] != _DAEMON:
        return None
    flags = (word.removeprefix(_ADDRESS_FLAG) for word in command if word.startswith(_ADDRESS_FLAG))
    return next(flags, None)


def _storage_key(run: str) -> bytes:
    return f"thyro-placement-group-{run}".encode()


def placement_group_recorder(run: str) -> Any:  # noqa: ANN401
    """A callback for `RunConfig` that records which placement group a run's workers are in.

    Args:
        run: a name of the run.
    """
    from ray.experimental import internal_kv
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class PlacementGroupRecorder(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:  # noqa: ANN401
            handle = worker_group.get_worker_group_state().placement_group_handle
            group_id = handle.placement_group.id.binary()
            internal_kv._internal_kv_put(_storage_key(run), group_id, overwrite=True)  # noqa: SLF001

    return PlacementGroupRecorder()


def remove_recorded_placement_group(run: str) -> None:
    """Give back the resources of a run's workers, if they are recorded."""
    from ray import PlacementGroupID
    from ray.experimental import internal_kv
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    group_id = internal_kv._internal_kv_get(_storage_key(run))  # noqa: SLF001
    if group_id:
        remove_placement_group(PlacementGroup(PlacementGroupID(group_id)))
        internal_kv._internal_kv_del(_storage_key(run))  # noqa: SLF001


def failed_health_check(error: Exception) -> Exception | None:
    """What Ray reports of the end of a worker that is gone.

    Args:
        error: of a worker, from `ray.train.WorkerGroupError.worker_failures`.

    Returns:
        None: the worker itself raised the error.
    """
    from ray.train.v2._internal.exceptions import (
        WorkerHealthCheckFailedError,
        WorkerHealthCheckTimeoutError,
    )

    if isinstance(error, WorkerHealthCheckFailedError):
        return error.health_check_failure
    return error if isinstance(error, WorkerHealthCheckTimeoutError) else None
