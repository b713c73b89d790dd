"""The one retry policy, for stores, servers and clusters.

Tenacity runs the loop. This module decides which errors are transient, how long the waits are
(doubled from attempt to attempt, with jitter, so that many jobs do not call at once) and when to
stop. The stop rule is an outage clock that all calls of a policy share: it counts from the last
answer that any of them received. While a store is away, each further call costs one attempt and
not the whole time again.

What starts or ends by itself is not tried again but watched: `poll_until`.
"""

import errno
import logging
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception

from thyro_core.errors import ThyroError

_LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 8.0
_QUIET_SECONDS = 2.0
"""An outage shorter than this is not worth a warning."""

_TRANSIENT_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN",
        "EBUSY",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EIO",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "EREMOTEIO",
        "ESTALE",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)  # macOS has no EREMOTEIO
)
"""Errors of a store or a network share that is busy, restarting or out of reach."""

_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
"""S3's error codes below 500 for what was cut, garbled or too much at once."""


def is_transient(error: BaseException) -> bool:
    """Whether the same attempt may succeed a moment later.

    A wrong address, a wrong password, bad images, leakage, a full disk: the same attempt fails in
    the same way, and the person who can cure it should hear of it at once. A store that failed for
    as long as its policy allows counts as such, too.
    """
    if isinstance(error, ThyroError):
        return False
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        return _is_transient_response(response)
    if isinstance(error, OSError) and error.errno in _TRANSIENT_NUMBERS:
        return True
    return isinstance(error, (ConnectionError, TimeoutError, *_lost_connections()))


def _is_transient_response(response: dict[str, dict[str, object]]) -> bool:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 429 or response.get("Error", {}).get("Code") in _TRANSIENT_CODES:
        return True
    # 501: the server does not know the operation, and never will.
    return isinstance(status, int) and status >= 500 and status != 501


def _lost_connections() -> tuple[type[Exception], ...]:
    """What S3's client raises when no whole answer comes: errors of three packages."""
    from aiohttp import ClientError
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ConnectionError as S3ConnectionError,
    )
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    # The last one: a proxy's page in place of S3's XML.
    return S3ConnectionError, HTTPClientError, IncompleteReadError, ClientError, ResponseParserError


def poll_until(look: Callable[[], Answer | None], every: float, seconds: float = inf) -> Answer:
    """The first answer other than None or False.

    Args:
        look: one look; its errors are the caller's.
        every: time between two looks [s].
        seconds: how long to go on [s].

    Raises:
        TimeoutError: none came in that time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(every)
    return answer


class RetriesExhaustedError(Exception):
    """Every attempt failed, for as long or as often as the policy allows.

    Attributes:
        error: The last attempt's error.
        attempts: How many there were.
        seconds: How long this call, or all calls of the policy, met failures.
    """

    def __init__(self, error: Exception, attempts: int, seconds: float) -> None:
        super().__init__(error, attempts, seconds)
        self.error = error
        self.attempts = attempts
        self.seconds = seconds


class RetryPolicy:
    """How long, how often and after which errors something is tried again.

    One object serves all calls to one store or server, from any number of threads and tasks: they
    share its outage clock.
    """

    def __init__(
        self,
        seconds: float = inf,
        *,
        attempts: int = sys.maxsize,
        first_wait: float = _FIRST_WAIT,
        longest_wait: float = _LONGEST_WAIT,
        retry_on: Callable[[Exception], bool] = is_transient,
        part_of: "RetryPolicy | None" = None,
    ) -> None:
        """Set the limits; the one that is reached first ends a call.

        Args:
            seconds: how long an outage may last [s]; 0: one attempt.
            attempts: most attempts of one call.
            first_wait: before the second attempt [s], doubled from then on.
            longest_wait: between two attempts [s].
            retry_on: which errors are transient; any other one is raised at once.
            part_of: policy of the whole server, of which these calls ask a part: what they meet
                counts there too, but an answer of another part is none of theirs.
        """
        self.seconds = seconds
        self._attempts = attempts
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._retry_on = retry_on
        self._outage = _OutageClock(seconds)
        self.outages: tuple[_OutageClock, ...] = (self._outage,)
        """Of these calls, and of all to the server."""
        if part_of is not None:
            self.outages += part_of.outages
        # A generator of its own: drawing from Python's global one in a background thread changes
        # the results of code elsewhere that relies on its seed.
        self._jitter = random.Random()  # noqa: S311 - no secret

    def call(self, attempt: Callable[[], Answer], target: str) -> Answer:
        """The result of a function that is called again while that may help.

        Args:
            attempt: one attempt; repeating it must do no harm.
            target: the operation and the address, for the log.

        Raises:
            RetriesExhaustedError: the limits were reached.
            Exception: the attempt's own error, if it is not transient.
        """
        answer = Retrying(**self._rules(target))(attempt)
        self._end_outages()
        return answer

    async def call_async(self, attempt: Callable[[], Awaitable[Answer]], target: str) -> Answer:
        """The same as `call` for a coroutine function."""
        answer: Answer = await AsyncRetrying(**self._rules(target))(attempt)
        self._end_outages()
        return answer

    def wait_seconds(self, attempts: int) -> float:
        """The wait after a number of failed attempts [s]."""
        # Bounded, as 2 to the power of a large number is no float.
        wait = self._first_wait * 2.0 ** min(attempts - 1, 60)
        return min(self._longest_wait, wait) * self._jitter.uniform(0.5, 1.0)

    def _rules(self, target: str) -> dict[str, Any]:
        """Tenacity's arguments for one call."""
        start = time.monotonic()
        failing_seconds = 0.0

        def measure(_: RetryCallState) -> None:
            nonlocal failing_seconds
            durations = [outage.lasts(start) for outage in self.outages]
            failing_seconds = durations[0]

        def wait(state: RetryCallState) -> float:
            return max(
                0.0, min(self.seconds - failing_seconds, self.wait_seconds(state.attempt_number))
            )

        def stop(state: RetryCallState) -> bool:
            return failing_seconds >= self.seconds or state.attempt_number >= self._attempts

        def warn(state: RetryCallState) -> None:
            is_outage = self.seconds < inf and failing_seconds > _QUIET_SECONDS
            if is_outage and self._outage.is_first_warning():
                name = type(_last_error(state)).__name__
                message = "no answer to %s (%s): trying for up to %g s"
                _LOG.warning(message, target, name, self.seconds)

        def give_up(state: RetryCallState) -> None:
            error = _last_error(state)
            raise RetriesExhaustedError(error, state.attempt_number, failing_seconds) from error

        return {
            "retry": retry_if_exception(self._should_retry),
            "after": measure,
            "wait": wait,
            "stop": stop,
            "before_sleep": warn,
            "retry_error_callback": give_up,
        }

    def _should_retry(self, error: BaseException) -> bool:
        # An interrupted attempt says nothing about the other side.
        if not isinstance(error, Exception):
            return False
        if self._retry_on(error):
            return True
        # A refusal is an answer.
        self._end_outages()
        return False

    def _end_outages(self) -> None:
        for outage in self.outages:
            outage.end()


def _last_error(state: RetryCallState) -> Exception:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Exception):
        msg = "only what failed is tried again"
        raise AssertionError(msg)  # noqa: TRY004 - no caller's mistake
    return error


class _OutageClock:
    """How long a store or server has failed, all its callers taken together."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last_failure = -inf
        self._is_announced = False

    def lasts(self, call_started: float) -> float:
        """How long the outage lasts, or the call that has just met it [s]."""
        with self._lock:
            now = time.monotonic()
            # A failure long ago tells nothing of the time since, in which nothing was tried.
            if self._since is None or now - self._last_failure > self._memory_seconds:
                self._since = call_started
            self._last_failure = now
            return now - min(call_started, self._since)

    def end(self) -> None:
        """Note an answer."""
        with self._lock:
            self._since = None
            self._is_announced = False

    def is_first_warning(self) -> bool:
        """Whether this outage has not been announced yet; from then on it has."""
        with self._lock:
            was_announced, self._is_announced = self._is_announced, True
            return not was_announced
