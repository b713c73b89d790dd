"""The log of a job on a cluster: its lines for people, and the driver's answer in its last line."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from thyro_core.store.retry import RetryPolicy
from thyro_core.urls import redact

_LOG = logging.getLogger(__name__)

_MARK = "thyro-answer "
_RECONNECT_SECONDS = 5.0
_LAST_LINES = 8


def answer_line(**values: object) -> str:
    """A driver's answer as a line of its log: it is for the flow, not for people."""
    return _MARK + json.dumps(values)


class JobLog:
    """Passes on the lines of a growing log, bounded in number and length, without secrets."""

    MAX_LINES = 2000
    """Lines of a job that are passed on."""

    MAX_WIDTH = 1000
    """Characters of a line that are passed on."""

    def __init__(self, log: Callable[[str], None], rest: str) -> None:
        """Start at the beginning of a log.

        Args:
            log: called with each line.
            rest: passed on once in place of the lines beyond the bound: where they can be read.
        """
        self._log = log
        self._rest = rest
        self._length = 0
        self._partial = ""
        self._lines = 0
        self.last_lines: list[str] = []
        """The last few lines for people."""
        self.answer: dict[str, Any] = {}
        """The driver's answer; empty until the log has one."""

    def add(self, text: str, position: int) -> None:
        """Pass on what is new in a part of the log; an incomplete last line waits.

        Args:
            text: the part.
            position: where it starts in the whole log; not beyond the parts before it.
        """
        new = text[max(0, self._length - position) :]
        self._length += len(new)
        complete, separator, self._partial = (self._partial + new).rpartition("\n")
        for line in (complete + separator).splitlines():
            self._add_line(line)

    def end(self) -> None:
        """The log is complete."""
        if self._partial:
            self._add_line(self._partial)
        self._partial = ""

    def _add_line(self, line: str) -> None:
        if line.startswith(_MARK):
            try:
                self.answer = dict(json.loads(line.removeprefix(_MARK)))
            except (ValueError, TypeError):
                _LOG.warning("an answer in the job's log is incomplete")
            else:
                return
        line = redact(line.rstrip())[: self.MAX_WIDTH]
        if not line:
            return
        self.last_lines = [*self.last_lines[1 - _LAST_LINES :], line]
        if self._lines < self.MAX_LINES:
            self._log(line)
        elif self._lines == self.MAX_LINES:
            self._log(self._rest)
        self._lines += 1


@contextmanager
def following(log: JobLog, open_tail: Callable[[], AsyncIterator[str]]) -> Iterator[None]:
    """Pass on a log's parts while the block runs, in a thread of their own.

    It is for people alone: a server that does not send them costs the study nothing, and what was
    missed is passed on when the block adds the whole log.

    Args:
        log: where the parts go.
        open_tail: opens the log at its beginning; the parts end with the job.
    """
    follower = _Follower(log, open_tail)
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        follower.stop()
        thread.join()


class _Follower:
    def __init__(self, log: JobLog, open_tail: Callable[[], AsyncIterator[str]]) -> None:
        self._log = log
        self._open_tail = open_tail
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._follow())

    def run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _follow(self) -> None:
        policy = RetryPolicy(
            first_wait=_RECONNECT_SECONDS,
            longest_wait=_RECONNECT_SECONDS,
            # Ray's client and aiohttp raise many kinds, and none of them concerns the study.
            retry_on=lambda _: True,
        )
        await policy.call_async(self._read_tail, "the job's log")

    async def _read_tail(self) -> None:
        position = 0
        async for text in self._open_tail():
            self._log.add(text, position)
            position += len(text)
