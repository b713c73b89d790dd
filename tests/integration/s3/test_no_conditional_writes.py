"""A store that knows no conditional writes serves one program at a time, and that is announced.

A real S3 server behind a proxy that answers as such servers do.
"""

import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest

from flows.observer import Observer, observer
from flows.study_lock import only_driver
from tests.support import faultproxy
from tests.support.faultproxy import running_proxy
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.support.screened import RULES, Ward
from thyro_core.registry.champion import champion_weakness, rollback, set_champion
from thyro_core.screening.rules import Counts
from thyro_core.store.compare_and_swap import (
    compare_and_swap,
    conditional_writes_fault,
    read_versioned,
)
from thyro_core.store.keys import champion_key
from thyro_core.store.lock import Lock, LockedError, last_hold
from thyro_core.store.store import Store, open_store

ANSWERS = {"501": (501, "NotImplemented"), "400": (400, "InvalidArgument")}


def knows_no_conditions(status: int, code: str) -> faultproxy.Fault:
    """A server that refuses conditional writes, and nothing else."""

    def act(exchange: faultproxy.Exchange) -> None:
        head = exchange.raw.split(b"\r\n\r\n")[0].lower()
        is_conditional = b"if-none-match" in head or b"if-match" in head
        if exchange.request.method == "PUT" and is_conditional:
            faultproxy.answers(status, code)(exchange)
        else:
            exchange.pass_on()

    return act


@pytest.fixture(params=ANSWERS)
def store(
    request: pytest.FixtureRequest, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    with running_proxy(s3_server) as proxy:
        for name, value in proxy.through.environment().items():
            monkeypatch.setenv(name, value)
        proxy.fail(knows_no_conditions(*ANSWERS[request.param]))
        forget_clients()
        yield open_store(f"s3://{BUCKET}/weak/{uuid4().hex}")
    forget_clients()


class Heard(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def on_delay(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr("flows.study_lock.get_run_logger", lambda: logging.getLogger("test"))
    listening = Heard()
    token = observer.set(listening)
    yield listening
    observer.reset(token)


def test_it_compares_before_it_puts(store: Store) -> None:
    assert compare_and_swap(store, "there/new", b"one", read_versioned(store, "there/new"))
    before = read_versioned(store, "there/new")
    assert compare_and_swap(store, "there/new", b"two", before)
    assert not compare_and_swap(store, "there/new", b"three", before), "it is another one now"
    fault = conditional_writes_fault(store, "there/new")
    assert fault is not None
    assert "does not know them" in fault
    assert "run one program at a time" in fault
    assert store.read("there/new") == b"two"


def test_its_lock_keeps_out_all_but_those_that_start_in_the_same_moment(store: Store) -> None:
    with Lock(store, "lock.json", "first") as lock:
        assert "does not know them" in str(lock.weakness)
        lock.check()
        with pytest.raises(LockedError, match="held by first"), Lock(store, "lock.json", "second"):
            pytest.fail("held twice")
    hold = last_hold(store, "lock.json")
    assert hold is not None
    assert hold.seconds == 0, "released"


def test_a_study_starts_and_announces_it(store: Store, heard: Heard) -> None:
    with only_driver(store, "s" + 16 * "0") as check:
        check()
    (reason,) = heard.reasons
    assert "run one program at a time" in reason


def test_a_screening_runs_and_announces_it(
    ward: Ward, store: Store, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import screening

    for key in ward.store.keys("registry"):
        store.write(key, ward.store.read(key))
    monkeypatch.setattr(screening, "_stream", lambda *_: Counts())
    monkeypatch.setattr(screening, "_publish", lambda *_: None)
    ward.batch.mkdir(exist_ok=True)
    place, _ = screening._screen.fn(
        str(ward.batch), "2026-11-25", None, RULES, store=store.url, ray=""
    )
    assert place.startswith("2026-11-25/")
    (reason,) = heard.reasons
    assert "run one program at a time" in reason


def test_a_champion_is_set_and_the_weakness_named(ward: Ward, store: Store) -> None:
    for key in ward.store.keys("registry"):
        if key != champion_key():
            store.write(key, ward.store.read(key))
    (model_id,) = {key.split("/")[2] for key in store.keys("registry/models")}
    assert set_champion(store, model_id, "promoted", "a test", lambda _: "not asked") is not None
    assert "does not know them" in str(champion_weakness(store))
    with pytest.raises(Exception, match="expected a champion before the current one"):
        rollback(store)
