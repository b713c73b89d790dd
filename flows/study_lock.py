"""One driver of a study at a time: a second start of it names the first one, and ends."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import get_run_logger

from flows.observer import current_observer
from thyro_core.errors import InputError, ThyroError
from thyro_core.store.keys import study_lock_key
from thyro_core.store.lock import Hold, Lock, LockedError
from thyro_core.store.store import Store
from thyro_core.urls import redact

STUDY_LOCK_SECONDS = 30.0
"""After so long without a sign of life a driver counts as dead [s]; on its own machine at once."""


def lock_owner() -> str:
    """This process, as others read it in a lock."""
    return f"{socket.gethostname()} process {os.getpid()}"


@contextmanager
def only_driver(store: Store, study_id: str) -> Iterator[Callable[[], None]]:
    """Hold the study's lock as long as the block runs.

    What several drivers write is the same, so nothing is lost where a store knows no locks, or
    none that hold whatever happens: then a warning is all.

    Yields:
        A check that this is still the only driver; it raises LockLostError.

    Raises:
        ThyroError: another start of the study is at work.
    """
    key = study_lock_key(study_id)
    study_lock = Lock(store, key, lock_owner(), STUDY_LOCK_SECONDS, on_wait=announce_wait)
    with ExitStack() as stack:
        try:
            check = stack.enter_context(study_lock).check
            announce_weakness(study_lock)
        except LockedError as error:
            hold = error.hold
            msg = (
                f"study {study_id}: expected to be its only start, found another at work "
                f"({hold.owner}, since {hold.since}); follow that one with `thyro status "
                f"{study_id} --store {redact(store.url)}`, or stop it where it runs and start again"
            )
            raise ThyroError(msg) from error
        except InputError as error:
            _announce(f"{error}; do not start study {study_id} twice at once")
            check = _no_check
        yield check


def _no_check() -> None:
    pass


def announce_wait(hold: Hold) -> None:
    """Show that a lock's holder may be dead, and how long it takes to be sure."""
    _announce(
        f"{hold.owner} was at work here since {hold.since} and may have died: waiting up to "
        f"{hold.seconds:.0f} s for a sign of life"
    )


def announce_weakness(lock: Lock) -> None:
    """Show that a store's lock does not keep out a program that starts in the same moment."""
    if lock.weakness is not None:
        _announce(f"{lock.weakness}; start nothing else on this store until this has ended")


def _announce(reason: str) -> None:
    get_run_logger().warning(reason)
    current_observer().on_delay(reason)
