"""The one place that uses what Ray does not document, as of Ray 2.60.

Ray keeps the placement group of a worker group whose starter was killed for as long as the program
that is connected to it runs. Ray Train's own helper against it asks the dashboard, and an embedded
Ray has none. No public interface tells which placement group a trainer has made: a callback of Ray
Train notes it in Ray's key-value store.

That a worker is gone is an error of Ray Train that only its internal modules name.
"""

from typing import Any

import ray
from ray.experimental import internal_kv
from ray.util.placement_group import PlacementGroup, remove_placement_group


def _storage_key(run: str) -> bytes:
    return f"thyro-placement-group-{run}".encode()


def placement_group_recorder(run: str) -> Any:  # noqa: ANN401
    """A callback for `RunConfig` that records which placement group a run's workers are in.

    Args:
        run: a name of the run.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class PlacementGroupRecorder(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:  # noqa: ANN401
            handle = worker_group.get_worker_group_state().placement_group_handle
            group_id = handle.placement_group.id.binary()
            internal_kv._internal_kv_put(_storage_key(run), group_id, overwrite=True)  # noqa: SLF001

    return PlacementGroupRecorder()


def remove_recorded_placement_group(run: str) -> None:
    """Give back the resources of a run's workers, if they are recorded."""
    group_id = internal_kv._internal_kv_get(_storage_key(run))  # noqa: SLF001
    if group_id:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group_id)))
        internal_kv._internal_kv_del(_storage_key(run))  # noqa: SLF001


def failed_health_check(error: Exception) -> Exception | None:
    """What Ray says of the end of a worker that is gone.

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
