"""Steps of a flow, retried after transient errors only.

The loop is Prefect's own, which shows each attempt; what is transient is decided as everywhere
(`thyro_core.store.retry`). It serves a store on a network share, whose errors come from the
operating system. Requests to S3 are retried one by one below, and their outage ends a step.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from thyro_core.store.retry import is_transient

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

RETRIES = 4
"""Number of attempts after the first one."""

BACKOFF_SECONDS = 5.0
"""Wait before the first of them [s], doubled each time: an outage may last for a minute in all."""

_JITTER = 0.3


def _should_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, BaseException) and is_transient(state.data)


def step(name: str) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Decorator for a task of a flow that uses a store: it is retried after transient errors."""
    return task(
        name=name,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(BACKOFF_SECONDS),
        retry_jitter_factor=_JITTER,
        retry_condition_fn=_should_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
