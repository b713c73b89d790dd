"""What Ray does not document and Thyro uses, by the version it was read in."""

import inspect

import ray
from ray.experimental import internal_kv
from ray.train import RunConfig
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

from thyro_core.cluster.ray_internals import placement_group_recorder


def test_another_version_of_ray_needs_another_look_at_its_internals() -> None:
    assert ray.__version__.startswith("2.60."), "read thyro_core/cluster/ray_internals.py again"
    hook = WorkerGroupCallback.after_worker_group_start
    assert list(inspect.signature(hook).parameters) == ["self", "worker_group"]
    assert "placement_group_handle" in inspect.getsource(WorkerGroup)
    for name in ("_internal_kv_get", "_internal_kv_put", "_internal_kv_del"):
        assert callable(getattr(internal_kv, name))
    callback = placement_group_recorder("run")
    assert isinstance(callback, WorkerGroupCallback)
    assert RunConfig(callbacks=[callback]).callbacks == [callback]
