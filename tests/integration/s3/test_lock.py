"""Compare and swap, and the lock, on a real S3 server that honours conditional writes."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.store import test_compare_and_swap, test_lock
from thyro_core.store.store import Store, open_store


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield open_store(f"s3://{BUCKET}/{uuid4().hex}")
    forget_clients()


@pytest.mark.parametrize(
    "promise",
    [
        *test_compare_and_swap.CONTRACT,
        *test_lock.CONTRACT,
        test_lock.a_killed_holders_lock_is_free_at_once_on_its_own_machine,
    ],
    ids=lambda promise: promise.__name__,
)
def test_promise(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


def test_processes_lose_no_count(store: Store) -> None:
    assert test_compare_and_swap.count_in_processes(store.url, 2, 10) == b"20"
