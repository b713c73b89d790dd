"""Patience with a store: what may pass by itself is tried again, for so long and no longer.

The one policy for every kind of store. Waits double from attempt to attempt, with jitter, so that
many jobs do not knock at once. Patience counts from when the store last answered anyone in this
process: while it stays away, each further question costs one attempt, not all the patience again.
"""

import asyncio
import errno
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
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


def _answers() -> tuple[type[Exception], ...]:
    """What S3's client raises for refusals, and for what is no answer."""
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
    )

    return ClientError, BotoCoreError, *_lost_connections()


def _lost_connections() -> tuple[type[Exception], ...]:
    """What S3's client raises when no whole answer comes: three packages' errors."""
    from aiohttp import ClientError
    from botocore.exceptions import (
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

    async def ask(self, question: Callable[[], Awaitable[Answer]], place: str, what: str) -> Answer:
        """The answer to a question, which is asked again while it may help.

        Args:
            question: one attempt; asking twice must do no harm.
            place: the store's address, for people.
            what: what is asked, and of which object.

        Raises:
            StoreError: the store failed for `seconds`.
            Exception: the question's own error, if asking again cannot help.
        """
        started, tries = time.monotonic(), 0
        expected: tuple[type[Exception], ...] = (OSError, *_answers())
        while True:
            try:
                answer = await question()
            except expected as error:
                tries += 1
                if not may_pass(error):
                    self._answered()
                    raise
                failed = self._failing_for(started)
                left = self.seconds - failed
                if left <= 0:
                    raise _given_up(place, what, error, f"{failed:.0f} s ({tries} x)") from error
                if failed > _QUIET_SECONDS and not self._warned:
                    self._warned = True
                    told = "%s does not answer %s (%s): trying for up to %g s"
                    _LOG.warning(told, place, what, type(error).__name__, self.seconds)
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


def _given_up(place: str, what: str, error: Exception, tried: str) -> StoreError:
    # Without the addresses' queries, which say nothing to people.
    found = " ".join(re.sub(r"(://[^\s?]+)\?[^\s\"]*", r"\1", str(error)).split())
    return StoreError(
        f"{place}: expected the store to answer {what}, found failures for {tried}, the last "
        f"{type(error).__name__}: {found}; nothing finished is lost: check AWS_ENDPOINT_URL, and "
        "when the store is back the same command goes on (THYRO_STORE_PATIENCE says how long is "
        "waited)"
    )


def _wait(tries: int) -> float:
    """Before the next attempt [s]."""
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
