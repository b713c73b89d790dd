"""A lock in the store: one holder at a time, on any number of machines.

The lock is an object that names its holder. It is taken, renewed and released by compare and swap,
never deleted, so that no two programs can both take one whose holder died. A holder renews it by
writing it again. A program that waits for it watches it, and takes it when it has not changed for
the period that it states. Each program measures that period by its own steady clock, so clocks that
differ between machines do no harm. The process of a holder on the same machine is looked up there:
if it has ended, the lock is free at once.

A lock cannot stop a holder that slept past its time from writing on: call `Lock.check` before
critical writes, and let the writes themselves be harmless.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import inf
from typing import Self

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from thyro_core.errors import StoreError, ThyroError
from thyro_core.store.compare_and_swap import (
    Versioned,
    compare_and_swap,
    conditional_writes_fault,
    read_versioned,
)
from thyro_core.store.process_identity import is_gone, is_here, this_process
from thyro_core.store.store import Store
from thyro_core.urls import redact

_POLL_SECONDS = 0.2
# Errors on our side of an object store are botocore's own, and no OSError.
_STORE_ERRORS = (OSError, StoreError, BotoCoreError)
_CLOCKS_DIFFER = 300.0
"""How far the clocks of two machines may be apart [s]."""
_RENEWALS = 3
"""Attempts to renew a lock within its period."""


@dataclass(frozen=True)
class Hold:
    """The content of a lock's object; the field names are part of the store's format."""

    owner: str
    token: str
    since: str
    """When it was taken, ISO 8601, UTC, by the holder's clock."""
    kept: str
    """When it was last renewed, likewise; for people, and so that the bytes change."""
    seconds: float
    """The period after which an unchanged lock is free [s]; 0: released."""
    process: str
    """The holder's process, for others on the same machine; empty: not known."""


class LockedError(ThyroError):
    """Another program holds the lock.

    Attributes:
        hold: Who holds it, and since when.
    """

    def __init__(self, message: str, hold: Hold) -> None:
        super().__init__(message)
        self.hold = hold


class LockLostError(ThyroError):
    """The lock expired while it was held: another program may have taken it."""


class _Watch:
    """What happened to a lock while a program waited for it."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._since = 0.0
        self.is_alive = False
        """Whether a holder wrote it meanwhile, or its process runs on this machine."""

    def update(self, content: Versioned, hold: Hold) -> None:
        """Take note of the lock's present content."""
        if content.version != self._version:
            self.is_alive = self._version is not None
            self._version, self._since = content.version, time.monotonic()
        self.is_alive = self.is_alive or is_here(hold.process)

    def unchanged_seconds(self) -> float:
        """How long the content has been the same [s]."""
        return time.monotonic() - self._since


class Lock:
    """A lock that is held while a `with` block runs.

    The block's start raises LockedError if another program holds the lock, and InputError if the
    store cannot compare and swap. Call `check` before what must not happen twice.

    Attributes:
        weakness: Why two programs that start in the same moment could both hold it, on a store
            without conditional writes; None: they cannot. For the holder to announce.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        owner: str,
        seconds: float = 60.0,
        *,
        on_wait: Callable[[Hold], None] = lambda _: None,
    ) -> None:
        """Describe the lock; nothing is written yet.

        Args:
            store: file, memory or S3 store.
            key: the lock's own key; no other object may be there.
            owner: the holder's name for others to read: host and process, say, never a person.
            seconds: the period after which a lock without a sign of life is free again; it is
                renewed three times in that period.
            on_wait: called once with the present holder when that may have died, before the lock
                is watched for a sign of life.
        """
        self._store = store
        self._key = key
        self._owner = owner
        self._seconds = seconds
        self._on_wait = on_wait
        self.weakness: str | None = None
        self._token = uuid.uuid4().hex
        self._since = ""
        self._valid_until = -inf
        self._is_lost = False
        self._end = threading.Event()
        self._renewal = threading.Lock()
        self._keeper = threading.Thread(target=self._renew_until_end, daemon=True)

    def __enter__(self) -> Self:
        watch, is_waiting = _Watch(), False
        while (hold := self._try_to_take(watch)) is not None:
            if watch.is_alive:
                msg = (
                    f"{self._url}: expected the lock to be free, found it held by {hold.owner} "
                    f"since {hold.since}, which is at work; wait until it has ended, and start "
                    "again"
                )
                raise LockedError(msg, hold)
            if not is_waiting:
                self._on_wait(hold)
                is_waiting = True
            # Not a retry: a holder that may have died is watched for its period.
            time.sleep(_POLL_SECONDS)
        self.weakness = conditional_writes_fault(self._store, self._key)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._keeper.join()
        # A lock that is not released expires; the block's own error matters more.
        with suppress(*_STORE_ERRORS):
            own = self._read_own()
            if own is not None:
                compare_and_swap(self._store, self._key, _encode_lock(self._hold(0.0)), own)

    def check(self) -> None:
        """Make sure, by a request to the store, that the lock is still held.

        Raises:
            LockLostError: another program has taken it, or may have and the store does not answer.
        """
        self._renew()
        if self._is_lost or time.monotonic() > self._valid_until:
            msg = (
                f"{self._url}: the lock of {self._owner} (since {self._since}) was lost, because "
                "it was not kept up in time; nothing more is written: start the command again"
            )
            raise LockLostError(msg)

    @property
    def _url(self) -> str:
        return f"{redact(self._store.url)}/{self._key}"

    def _try_to_take(self, watch: _Watch) -> Hold | None:
        """Take the lock if it is free; otherwise the hold that is in the way."""
        content = read_versioned(self._store, self._key)
        hold = _decode(content)
        if hold is not None:
            watch.update(content, hold)
            if watch.unchanged_seconds() < hold.seconds and not is_gone(hold.process):
                return hold
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        if self._put(content):
            return None
        # Another program was faster: the next look shows it.
        return _decode(read_versioned(self._store, self._key)) or _NOBODY

    def _put(self, old: Versioned) -> bool:
        """Write our hold in place of the old content; its period starts before the writing."""
        start = time.monotonic()
        if not compare_and_swap(
            self._store, self._key, _encode_lock(self._hold(self._seconds)), old
        ):
            return False
        self._valid_until = start + self._seconds
        return True

    def _hold(self, seconds: float) -> Hold:
        now = datetime.now(UTC).isoformat()
        return Hold(self._owner, self._token, self._since, now, seconds, this_process())

    def _read_own(self) -> Versioned | None:
        content = read_versioned(self._store, self._key)
        hold = _decode(content)
        return content if hold is not None and hold.token == self._token else None

    def _renew_until_end(self) -> None:
        while not self._is_lost and not self._end.wait(self._seconds / _RENEWALS):
            self._renew()

    def _renew(self) -> None:
        # The next attempt may succeed in time; `check` knows if none did.
        with self._renewal, suppress(*_STORE_ERRORS):
            own = self._read_own()
            self._is_lost = own is None or not self._put(own)


def last_hold(store: Store, key: str) -> Hold | None:
    """Who holds a lock, or held it last; None: nobody ever did."""
    return _decode(read_versioned(store, key))


def may_be_held(hold: Hold | None, now: datetime) -> bool:
    """Whether a lock's holder may be at work still, as far as one look can tell.

    Args:
        hold: what `last_hold` returned.
        now: the present, with its time zone. Clocks of two machines may differ by some minutes.
    """
    if hold is None or hold.seconds == 0 or is_gone(hold.process):
        return False
    if is_here(hold.process):
        return True
    silence = (now - datetime.fromisoformat(hold.kept)).total_seconds()
    return silence < hold.seconds + _CLOCKS_DIFFER


_NOBODY = Hold("somebody", "", "a moment ago", "", 0.0, "")


def _encode_lock(hold: Hold) -> bytes:
    return json.dumps(asdict(hold), sort_keys=True).encode()


def _decode(content: Versioned) -> Hold | None:
    """The content of a lock's object; None: it makes no sense, and so the lock is free."""
    try:
        hold = Hold(**json.loads(content.data or b""))
    except (ValueError, TypeError):
        return None
    texts = (hold.owner, hold.token, hold.since, hold.process)
    is_valid = isinstance(hold.seconds, int | float) and 0 <= hold.seconds < inf
    return hold if is_valid and all(isinstance(text, str) for text in texts) else None
