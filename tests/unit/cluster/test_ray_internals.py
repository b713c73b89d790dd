"""What Ray does not document and Thyro uses, by the version it was read in."""

import inspect

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._private.ray_constants import RAY_WORKER_NICENESS
from ray.experimental import internal_kv
from ray.train import RunConfig
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

from thyro_core.cluster.ray_internals import (
    DAEMON_SETTINGS,
    HEAD,
    memory_option,
    placement_group_recorder,
)


def test_another_version_of_ray_needs_another_look_at_its_internals() -> None:
    assert ray.__version__.startswith("2.60."), "read thyro_core/cluster/ray_internals.py again"
    hook = WorkerGroupCallback.after_worker_group_start
    assert list(inspect.signature(hook).parameters) == ["self", "worker_group"]
    assert "placement_group_handle" in inspect.getsource(WorkerGroup)
    assert list(HEAD) == [HEAD_NODE_RESOURCE_NAME]
    assert RAY_WORKER_NICENESS in DAEMON_SETTINGS
    (option,) = memory_option(10**9)
    assert f'kwargs.pop("{option}"' in inspect.getsource(ray.init)
    for name in ("_internal_kv_get", "_internal_kv_put", "_internal_kv_del"):
        assert callable(getattr(internal_kv, name))
    callback = placement_group_recorder("run")
    assert isinstance(callback, WorkerGroupCallback)
    assert RunConfig(callbacks=[callback]).callbacks == [callback]
