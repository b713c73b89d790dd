"""A lock in the store: one holder at a time, wherever the programs run.

The lock is an object that names its holder. It is taken, kept up and given back by compare and
swap, never deleted, so that no two programs can both take one whose holder died. A holder keeps it
up by writing it anew; whoever wants it watches it, and takes it when it has not changed for the
span that it names. Each measures that span by its own steady clock, so clocks that differ from
machine to machine do no harm. A holder on the same machine is looked up there: if its process is
gone, nobody waits.

A lock cannot stop a holder that slept past its time from writing on: ask `Lock.check` before what
matters, and let the writes themselves be harmless.
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
    check_conditional_writes,
    compare_and_swap,
    read_versioned,
)
from thyro_core.store.process_identity import is_gone, is_here, this_process
from thyro_core.store.store import Store
from thyro_core.urls import redact

_POLL_SECONDS = 0.2
# What is wrong on our side of an object store is botocore's own, and no OSError.
_UNREACHABLE = (OSError, StoreError, BotoCoreError)
_RENEWALS = 3  # tries within the time held


class LockedError(ThyroError):
    """Somebody else holds the lock."""

    def __init__(self, message: str, hold: "Hold") -> None:
        super().__init__(message)
        self.hold = hold
        """By whom and since when."""


class LockLostError(ThyroError):
    """The lock expired while it was held: somebody else may have taken it."""


@dataclass(frozen=True)
class Hold:
    """What a lock's object says."""

    owner: str
    token: str
    since: str
    """When it was taken, ISO 8601, UTC, by the holder's clock."""
    kept: str
    """When it was last kept up, likewise; only for people, and so that the bytes change."""
    seconds: float
    """Unchanged for so long, it is free [s]; 0: given back."""
    process: str
    """Which process holds it, for others on the same machine; empty: not known."""


class _Watch:
    """What others did with a lock while somebody waited for it."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._since = 0.0
        self.lives = False
        """Whether a holder wrote it meanwhile, or its process was found."""

    def see(self, seen: Versioned, hold: Hold) -> None:
        """Take note of the lock as it is now."""
        if seen.version != self._version:
            self.lives = self._version is not None
            self._version, self._since = seen.version, time.monotonic()
        self.lives = self.lives or is_here(hold.process)

    def unchanged(self) -> float:
        """How long it has been as it is [s]."""
        return time.monotonic() - self._since


class Lock:
    """A lock that is held while its block runs; `lock` makes one."""

    def __init__(
        self,
        store: Store,
        key: str,
        owner: str,
        seconds: float,
        patience: float,
        waiting: Callable[[Hold], None],
    ) -> None:
        self._store = store
        self._key = key
        self._owner = owner
        self._seconds = seconds
        self._patience = patience
        self._waiting = waiting
        self._token = uuid.uuid4().hex
        self._since = ""
        self._good_until = float("-inf")
        self._lost = False
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._keeper = threading.Thread(target=self._keep_up, daemon=True)

    def __enter__(self) -> Self:
        deadline, watch, told = time.monotonic() + self._patience, _Watch(), False
        while (hold := self._try(watch)) is not None:
            # One that may be dead is watched until that is known, however little patience there is.
            if watch.lives and time.monotonic() >= deadline:
                raise LockedError(self._taken(hold), hold)
            if not told:
                self._waiting(hold)
                told = True
            time.sleep(_POLL_SECONDS)
        check_conditional_writes(self._store, self._key)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()
        # What is not given back expires; the block's own error matters more.
        with suppress(*_UNREACHABLE):
            seen = self._ours()
            if seen is not None:
                compare_and_swap(self._store, self._key, _encode(self._hold(0.0)), seen)

    def check(self) -> None:
        """Make sure that the lock is still ours, by asking the store.

        Raises:
            LockLostError: somebody has taken it, or may have and cannot be asked about.
        """
        self._keep_up_once()
        if self._lost or time.monotonic() > self._good_until:
            msg = (
                f"{_place(self._store, self._key)}: the lock of {self._owner} (since "
                f"{self._since}) was lost, because it was not kept up in time; nothing more is "
                "written: start the command again"
            )
            raise LockLostError(msg)

    def _try(self, watch: _Watch) -> Hold | None:
        """Take it if it is free; the hold that is in the way, if it is not."""
        seen = read_versioned(self._store, self._key)
        hold = _decode(seen)
        if hold is not None:
            watch.see(seen, hold)
            if watch.unchanged() < hold.seconds and not is_gone(hold.process):
                return hold
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        # Another may have been faster: then the next look shows it.
        return (
            None if self._put(seen) else _decode(read_versioned(self._store, self._key)) or _NOBODY
        )

    def _put(self, seen: Versioned) -> bool:
        """Write our hold in place of what was seen; it counts from before the writing."""
        before = time.monotonic()
        if not compare_and_swap(self._store, self._key, _encode(self._hold(self._seconds)), seen):
            return False
        self._good_until = before + self._seconds
        return True

    def _hold(self, seconds: float) -> Hold:
        now = datetime.now(UTC).isoformat()
        return Hold(self._owner, self._token, self._since, now, seconds, this_process())

    def _taken(self, hold: Hold) -> str:
        return (
            f"{_place(self._store, self._key)}: expected the lock to be free, found it held by "
            f"{hold.owner} since {hold.since}, which is at work; wait until it has ended, and "
            "start again"
        )

    def _ours(self) -> Versioned | None:
        seen = read_versioned(self._store, self._key)
        hold = _decode(seen)
        return seen if hold is not None and hold.token == self._token else None

    def _keep_up(self) -> None:
        while not self._lost and not self._over.wait(self._seconds / _RENEWALS):
            self._keep_up_once()

    def _keep_up_once(self) -> None:
        # What fails may work at the next try, which may come in time; `check` knows if none did.
        with self._writing, suppress(*_UNREACHABLE):
            seen = self._ours()
            self._lost = seen is None or not self._put(seen)


def lock(
    store: Store,
    key: str,
    owner: str,
    seconds: float = 60.0,
    patience: float = 0.0,
    waiting: Callable[[Hold], None] = lambda _: None,
) -> Lock:
    """Make a lock that is held while a `with` block runs.

    Args:
        store: file, memory or S3 store.
        key: the lock's own key; nothing else may be there.
        owner: who holds it, for others to read: host and process, say, never a person.
        seconds: after so long without a sign of life the lock is free again; it is renewed three
            times in that span.
        patience: how long to wait for another holder that lives [s]. One that may have died is
            watched, in any case, until it gives a sign of life or its span is over.
        waiting: told once who is in the way, if that cannot be decided at once.

    Returns:
        The lock, taken when the block starts; call its `check` before what must not happen twice.
        The block's start raises LockedError if another holds it (the message says who and since
        when), and InputError if the store cannot compare and swap.
    """
    return Lock(store, key, owner, seconds, patience, waiting)


_NOBODY = Hold("somebody", "", "a moment ago", "", 0.0, "")


def _encode(hold: Hold) -> bytes:
    return json.dumps(asdict(hold), sort_keys=True).encode()


def _decode(seen: Versioned) -> Hold | None:
    """What a lock's object says; None: nothing that makes sense, and so nobody's."""
    try:
        hold = Hold(**json.loads(seen.data or b""))
    except (ValueError, TypeError):
        return None
    texts = (hold.owner, hold.token, hold.since, hold.process)
    sound = isinstance(hold.seconds, int | float) and 0 <= hold.seconds < inf
    return hold if sound and all(isinstance(text, str) for text in texts) else None


def _place(store: Store, key: str) -> str:
    return f"{redact(store.url)}/{key}"
