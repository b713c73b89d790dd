"""What the driver on a cluster tells the flow that submitted it: marked lines of JSON in its log.

The log is the one thing that a job server passes on. What is not marked is for people.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from thyro_core.cluster.offers import Offer
from thyro_core.study.job import SplitOutcome
from thyro_core.urls import redact

_MARK = "thyro-event "


def offer_event(offer: Offer, version: str) -> str:
    """The answer to a wish, by a cluster that has this version of Thyro."""
    return _line(event="offer", offer=offer.text(), version=version)


def outcome_event(outcome: SplitOutcome) -> str:
    """A split is over."""
    return _line(event="outcome", **asdict(outcome))


def lost_event(split: int, error: str) -> str:
    """A split cannot be finished."""
    return _line(event="lost", split=split, error=redact(error))


def failed_event(error: str, *, of_input: bool) -> str:
    """The driver itself cannot go on; `of_input`: by a fault of what it was given."""
    return _line(event="failed", error=redact(error), of_input=of_input)


def _line(**values: object) -> str:
    return _MARK + json.dumps(values)


def parse_outcome(event: dict[str, Any]) -> SplitOutcome:
    """The outcome in an `outcome` event."""
    return SplitOutcome(event["split"], tuple(event["trained"]), dict(event["failed"]))


class LogReader:
    """Reads a growing log: events go one way, lines for people another, bounded in number."""

    LINES = 2000
    """Lines of a job that are passed on."""

    WIDTH = 1000
    """Characters of a line that are passed on."""

    def __init__(
        self, event: Callable[[dict[str, Any]], None], say: Callable[[str], None], rest: str
    ) -> None:
        """Start at the beginning of a log.

        Args:
            event: called with each event.
            say: called with each other line.
            rest: said once in place of the lines beyond the bound: where they can be read.
        """
        self._event = event
        self._say = say
        self._rest = rest
        self._read = 0
        self._said = 0
        self.last: list[str] = []
        """The last few lines for people."""

    def read(self, log: str, *, ended: bool) -> None:
        """Pass on what is new in the whole log; a line that is not whole waits, unless it ended."""
        new = log[self._read :]
        if not ended:
            new = new[: new.rfind("\n") + 1]
        self._read += len(new)
        for line in new.splitlines():
            event = _parse(line)
            if event is not None:
                self._event(event)
            elif line.strip():
                self._pass_on(redact(line.rstrip())[: self.WIDTH])

    def _pass_on(self, line: str) -> None:
        self.last = [*self.last[-7:], line]
        if self._said < self.LINES:
            self._say(line)
        elif self._said == self.LINES:
            self._say(self._rest)
        self._said += 1


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith(_MARK):
        return None
    try:
        found = json.loads(line.removeprefix(_MARK))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None
