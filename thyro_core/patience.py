"""Patience with a store: what may pass by itself is tried again, for so long and no longer.

The one policy for every kind of store. Waits double from attempt to attempt, with jitter, so that
many jobs do not knock at once. Patience counts from when the store last answered anyone in this
process: while it stays away, each further question costs one attempt, not all the patience again.
"""

import asyncio
import errno
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from thyro_core.errors import StoreError, ThyroError

_LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 8.0
_QUIET_SECONDS = 2.0
"""What passes within this time is not worth a warning."""

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

_PASSING_CODES = frozenset(
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


@dataclass(frozen=True)
class Failing:
    """How a question to a store has gone so far."""

    error: Exception
    """What the last attempt met."""
    tries: int
    seconds: float
    """How long this question, or everything that was asked of the store, has failed [s]."""


def may_pass(error: BaseException) -> bool:
    """Whether the same attempt may succeed a moment later.

    A wrong address, a wrong password, bad images, leakage, a full disk: the same attempt fails in
    the same way, and whoever can cure it should hear of it at once. A store that failed for all
    our patience counts as such, too.
    """
    if isinstance(error, ThyroError):
        return False
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(answer, dict):
        return _answer_may_pass(answer)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return isinstance(error, (ConnectionError, TimeoutError, *_lost_connections()))


def _lost_connections() -> tuple[type[Exception], ...]:
    """What S3's client raises when no whole answer comes: three packages' errors."""
    from aiohttp import ClientError
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ConnectionError as S3ConnectionError,
    )
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    # The last one: a proxy's page in place of S3's XML.
    return S3ConnectionError, HTTPClientError, IncompleteReadError, ClientError, ResponseParserError


def _answer_may_pass(answer: dict[str, dict[str, object]]) -> bool:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = answer.get("Error", {}).get("Code")
    if code in _PASSING_CODES or status == 429:
        return True
    # 501: the server does not know what was asked of it, and never will.
    return isinstance(status, int) and status >= 500 and status != 501


class Patience:
    """How long a store may fail, all that speak to it together.

    Used in one event loop: its state needs no lock.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._silent_since: float | None = None
        self._failed_last = float("-inf")
        self._warned = False

    async def ask(
        self, question: Callable[[], Awaitable[Answer]], given_up: Callable[[Failing], StoreError]
    ) -> Answer:
        """The answer to a question, which is asked again while it may help.

        Args:
            question: one attempt; asking twice must do no harm.
            given_up: the error for people, when patience has ended.

        Raises:
            StoreError: the store failed for `seconds`.
            Exception: the question's own error, if asking again cannot help.
        """
        started, tries = time.monotonic(), 0
        while True:
            try:
                answer = await question()
            except Exception as error:
                tries += 1
                if not may_pass(error):
                    self._answered()
                    raise
                failing = Failing(error, tries, self._failing_for(started))
                left = self.seconds - failing.seconds
                if left <= 0:
                    raise given_up(failing) from error
                self._warn(given_up(failing))
                await asyncio.sleep(min(left, _wait(tries)))
            else:
                self._answered()
                return answer

    def _failing_for(self, started: float) -> float:
        """How long this question, or everything that was asked, has met failures [s]."""
        now = time.monotonic()
        # What failed long ago says nothing of the time since: nobody asked.
        if self._silent_since is None or now - self._failed_last > self.seconds:
            self._silent_since = started
        self._failed_last = now
        return now - min(started, self._silent_since)

    def _answered(self) -> None:
        self._silent_since = None
        self._warned = False

    def _warn(self, error: StoreError) -> None:
        now = time.monotonic()
        if not self._warned and now - (self._silent_since or now) > _QUIET_SECONDS:
            self._warned = True
            _LOG.warning("%s; trying again for up to %g s in all", error, self.seconds)


def _wait(tries: int) -> float:
    """Before the next attempt [s]."""
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
