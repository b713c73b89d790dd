"""Steps that are tried again, but only after an error that may pass by itself.

That is for a store on a network share, whose errors come from the operating system. S3 is waited
for beneath, request by request (`thyro_core.store.retry`), and is not tried again here.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from thyro_core.store.retry import is_transient

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 4
"""Attempts after the first one."""

BACKOFF_SECONDS = 5.0
"""Wait before the first of them, doubled each time: all together a store may be away for a
minute."""

_JITTER = 0.3


def _should_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, BaseException) and is_transient(state.data)


def step(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorator: a task of a flow that touches a store, tried again where that can help."""
    return task(
        name=name,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(BACKOFF_SECONDS),
        retry_jitter_factor=_JITTER,
        retry_condition_fn=_should_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
