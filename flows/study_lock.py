"""One driver of a study at a time: a second start of it says who is at work, and ends."""

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


def this_owner() -> str:
    """This process, as others read it in a lock."""
    return f"{socket.gethostname()} process {os.getpid()}"


@contextmanager
def only_driver(store: Store, study_id: str) -> Iterator[Callable[[], None]]:
    """Drive a study alone for as long as the block runs.

    What several drivers write is the same, so nothing is lost where a store knows no locks: then
    a warning is all.

    Yields:
        What makes sure that this is still the only driver; it raises LockLostError.

    Raises:
        ThyroError: another start of the study is at work.
    """
    key = study_lock_key(study_id)
    held = Lock(store, key, this_owner(), STUDY_LOCK_SECONDS, on_wait=say_waiting)
    with ExitStack() as stack:
        try:
            check = stack.enter_context(held).check
        except LockedError as error:
            raise _at_work(store, study_id, error.hold) from error
        except InputError as error:
            _say(f"{error}; do not start study {study_id} twice at once")
            check = _nothing
        yield check


def say_waiting(hold: Hold) -> None:
    """Tell whoever watches that a lock's holder may be dead, and how long that takes to know."""
    _say(
        f"{hold.owner} was at work here since {hold.since} and may have died: waiting up to "
        f"{hold.seconds:.0f} s for a sign of life"
    )


def _say(why: str) -> None:
    get_run_logger().warning(why)
    current_observer().held_up(why)


def _nothing() -> None:
    pass


def _at_work(store: Store, study_id: str, hold: Hold) -> ThyroError:
    return ThyroError(
        f"study {study_id}: expected to be its only start, found another at work ({hold.owner}, "
        f"since {hold.since}); follow that one with `thyro status {study_id} --store "
        f"{redact(store.url)}`, or stop it where it runs and start again"
    )
