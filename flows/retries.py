"""Steps that are tried again, but only after an error that may pass by itself."""

import errno
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from thyro_core.errors import ThyroError

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 4
"""Attempts after the first one."""

BACKOFF_SECONDS = 5.0
"""Wait before the first of them, doubled each time: all together a store may be away for a
minute."""

_JITTER = 0.3

_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EREMOTEIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""What a store or a network share says when it is busy, restarting or out of reach."""


def may_pass(error: BaseException) -> bool:
    """Whether the same attempt may succeed a moment later.

    A wrong address, a wrong password, bad images, leakage, a full disk: the same attempt fails in
    the same way, and whoever can cure it should hear of it at once.
    """
    if isinstance(error, ThyroError):
        return False
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ConnectionError as S3ConnectionError,
    )
    from botocore.exceptions import HTTPClientError

    lost = (ConnectionError, TimeoutError, S3ConnectionError, HTTPClientError)
    return isinstance(error, lost) or (isinstance(error, OSError) and error.errno in _PASSING)


def _should_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, BaseException) and may_pass(state.data)


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
