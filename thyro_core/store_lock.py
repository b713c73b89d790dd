"""A lock in the store: one holder at a time, wherever the programs run.

The lock is an object that names its holder and the time until which it is held. It is taken, kept
up and given back by compare and swap, never deleted, so that no two programs can both take one
that has expired. Holders that die leave it to expire. Expiry goes by the clocks of the machines:
hold for much longer than they may differ. A lock cannot stop a holder that slept past its time
from writing on: ask `Lock.check` before what matters, and let the writes themselves be harmless.
"""

import json
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from thyro_core.errors import StoreError, ThyroError
from thyro_core.storage import Store, public
from thyro_core.swap import Seen, check_honoured, read_seen, swap

_POLL_SECONDS = 0.2
# What is wrong on our side of an object store is botocore's own, and no OSError.
_UNREACHABLE = (OSError, StoreError, BotoCoreError)
_RENEWALS = 3  # tries within the time held
_FREE = datetime.fromtimestamp(0, UTC)


class LockedError(ThyroError):
    """Somebody else holds the lock."""


class LockLostError(ThyroError):
    """The lock expired while it was held: somebody else may have taken it."""


@dataclass(frozen=True)
class _Hold:
    owner: str
    token: str
    since: str
    until: str
    """When it expires, ISO 8601, UTC; long ago: given back."""


class Lock:
    """A lock that is held while its block runs; `lock` makes one."""

    def __init__(self, store: Store, key: str, owner: str, seconds: float, patience: float) -> None:
        self._store = store
        self._key = key
        self._owner = owner
        self._seconds = seconds
        self._patience = patience
        self._token = uuid.uuid4().hex
        self._since = ""
        self._good_until = float("-inf")
        self._lost = False
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, daemon=True)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._patience
        while not self._try():
            if time.monotonic() >= deadline:
                raise LockedError(self._taken())
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        check_honoured(self._store, self._key)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()
        # What is not given back expires; the block's own error matters more.
        with suppress(*_UNREACHABLE):
            seen = self._ours()
            if seen is not None:
                hold = _Hold(self._owner, self._token, self._since, _FREE.isoformat())
                swap(self._store, self._key, _encode(hold), seen)

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            LockLostError: it expired before it could be kept up, or somebody has taken it.
        """
        if self._lost or time.monotonic() > self._good_until:
            msg = (
                f"{_place(self._store, self._key)}: the lock of {self._owner} (since "
                f"{self._since}) was lost, because it was not kept up in time; nothing more is "
                "written: start the command again"
            )
            raise LockLostError(msg)

    def _try(self) -> bool:
        seen = read_seen(self._store, self._key)
        now = datetime.now(UTC)
        if _until(seen) > now:
            return False
        self._since = now.isoformat(timespec="seconds")
        return self._put(seen, now)

    def _put(self, seen: Seen, now: datetime) -> bool:
        """Write our hold in place of what was seen; it counts from before the writing."""
        before = time.monotonic()
        until = (now + timedelta(seconds=self._seconds)).isoformat()
        hold = _Hold(self._owner, self._token, self._since, until)
        if not swap(self._store, self._key, _encode(hold), seen):
            return False
        self._good_until = before + self._seconds
        return True

    def _taken(self) -> str:
        hold = _decode(read_seen(self._store, self._key))
        who = f"{hold.owner} since {hold.since}, until {hold.until}" if hold else "somebody"
        return (
            f"{_place(self._store, self._key)}: expected the lock to be free, found it held by "
            f"{who}; wait until it has ended, or until that time if it died, and start again"
        )

    def _ours(self) -> Seen | None:
        seen = read_seen(self._store, self._key)
        hold = _decode(seen)
        return seen if hold is not None and hold.token == self._token else None

    def _keep_up(self) -> None:
        while not self._lost and not self._over.wait(self._seconds / _RENEWALS):
            self._keep_up_once()

    def _keep_up_once(self) -> None:
        # What fails may work at the next try, which may come in time; `check` knows if none did.
        with suppress(*_UNREACHABLE):
            seen = self._ours()
            self._lost = seen is None or not self._put(seen, datetime.now(UTC))


def lock(store: Store, key: str, owner: str, seconds: float = 60.0, patience: float = 0.0) -> Lock:
    """Make a lock that is held while a `with` block runs.

    Args:
        store: file, memory or S3 store.
        key: the lock's own key; nothing else may be there.
        owner: who holds it, for others to read: host and process, say, never a person.
        seconds: after so long without a sign of life the lock is free again; it is renewed three
            times in that span.
        patience: how long to wait for another holder [s].

    Returns:
        The lock, taken when the block starts; call its `check` before what must not happen twice.
        The block's start raises LockedError if another holds it (the message says who, since when
        and until when), and InputError if the store cannot compare and swap.
    """
    return Lock(store, key, owner, seconds, patience)


def _encode(hold: _Hold) -> bytes:
    return json.dumps(asdict(hold), sort_keys=True).encode()


def _decode(seen: Seen) -> _Hold | None:
    """What a lock's object says; None: nothing that makes sense, and so nobody's."""
    try:
        return _Hold(**json.loads(seen.data or b""))
    except (ValueError, TypeError):
        return None


def _until(seen: Seen) -> datetime:
    hold = _decode(seen)
    try:
        until = datetime.fromisoformat(hold.until) if hold else _FREE
    except (ValueError, TypeError):
        return _FREE
    return until if until.tzinfo else _FREE


def _place(store: Store, key: str) -> str:
    return f"{public(store.url)}/{key}"
