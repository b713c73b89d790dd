"""A faulty store: transient errors are retried, the others end with a clear sentence.

All requests go through a proxy with faults on demand, in front of a real S3 server.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import faultproxy
from tests.support.faultproxy import FaultProxy, running_proxy
from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import InputError, StoreError
from thyro_core.store import s3
from thyro_core.store.compare_and_swap import compare_and_swap, read_versioned
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import Store, filesystem, open_store

RETRY_SECONDS = 60.0
"""Longer than any fault here, on a busy machine."""

LARGE = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def shared(s3_server: S3Server) -> Iterator[tuple[FaultProxy, Store]]:
    """A proxy and a store behind it; one for all tests, because a client takes a while to make."""
    with running_proxy(s3_server) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.through.environment().items():
            patch.setenv(name, value)
        patch.setenv("THYRO_STORE_PATIENCE", str(RETRY_SECONDS))
        patch.setattr(RetryPolicy, "wait_seconds", lambda _, attempts: min(0.01 * attempts, 0.05))
        forget_clients()
        yield running, open_store(f"s3://{BUCKET}/faults")
    forget_clients()


@pytest.fixture
def proxy(shared: tuple[FaultProxy, Store]) -> FaultProxy:
    """The proxy, honest, and with nothing met."""
    shared[0].mend()
    shared[0].met.clear()
    shared[0].at_once = 0
    return shared[0]


@pytest.fixture
def store(proxy: FaultProxy, shared: tuple[FaultProxy, Store]) -> Store:
    """A store behind the proxy with one object."""
    name = uuid4().hex
    opened = replace(shared[1], url=f"{shared[1].url}/{name}", root=f"{shared[1].root}/{name}")
    opened.write("there/old", LARGE)
    proxy.met.clear()
    return opened


def with_retries(store: Store, seconds: float) -> Store:
    """The same store with another limit of its retries."""
    return replace(store, fs=filesystem(store.url, seconds)[0])


# The operations. Each is given a store with one object, and checks what it got.


def exists(store: Store, _: Path) -> None:
    assert store.exists("there/old")
    assert not store.exists("there/none")


def read(store: Store, _: Path) -> None:
    assert store.read("there/old") == LARGE


def read_nothing(store: Store, _: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("there/none")


def write(store: Store, _: Path) -> None:
    store.write("there/new", LARGE[::-1])
    assert store.read("there/new") == LARGE[::-1]


def stream(store: Store, _: Path) -> None:
    with store.fs.open(store.path("there/old"), "rb") as file:
        assert file.read() == LARGE


def local_copy(store: Store, folder: Path) -> None:
    assert store.local("there/old", folder).read_bytes() == LARGE
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".lock", ".json"}, "nothing half written"


def keys(store: Store, _: Path) -> None:
    assert store.keys("there") == ["there/old"]
    assert store.keys("nowhere") == []


def delete(store: Store, _: Path) -> None:
    store.delete("there/old")
    store.delete("there/none")
    assert store.keys("") == []


def several(store: Store, _: Path) -> None:
    place = store.path("there/old")
    assert store.read_all(["there/old", "there/none"]) == {"there/old": LARGE}
    assert store.fs.cat_ranges([place, place], [None, 10], [None, 20]) == [LARGE, LARGE[10:20]]


def make_once(store: Store, _: Path) -> None:
    assert compare_and_swap(store, "there/new", b"mine", read_versioned(store, "there/new"))
    assert not compare_and_swap(
        store, "there/new", b"another's", read_versioned(store, "there/none")
    )
    assert store.read("there/new") == b"mine"


def change(store: Store, _: Path) -> None:
    seen = read_versioned(store, "there/old")
    assert compare_and_swap(store, "there/old", b"mine", seen)
    assert not compare_and_swap(store, "there/old", b"another's", seen)
    assert store.read("there/old") == b"mine"


OPERATIONS: tuple[Callable[[Store, Path], None], ...] = (
    exists, read, read_nothing, write, stream, local_copy, keys, delete, several, make_once, change,
)  # fmt: skip


def _timed_out(exchange: faultproxy.Exchange) -> None:
    # An answer to HEAD has no body, and so no code: 400 alone says that we asked for nonsense.
    bodiless = exchange.request.method == "HEAD"
    (faultproxy.cut_before if bodiless else faultproxy.answers(400, "RequestTimeout"))(exchange)


FAULTS: dict[str, faultproxy.Fault] = {
    "500": faultproxy.answers(500, "InternalError"),
    "503": faultproxy.answers(503, "SlowDown"),
    "502": faultproxy.answers(502, "BadGateway"),
    "timeout": _timed_out,
    "cut before": faultproxy.cut_before,
    "reset before": faultproxy.reset_before,
    "cut after": faultproxy.cut_after,
    "reset after": faultproxy.reset_after,
    "cut in body": faultproxy.cut_in_body,
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_outlasts_every_fault(
    proxy: FaultProxy, store: Store, operation: Callable[[Store, Path], None], tmp_path: Path
) -> None:
    for fault in FAULTS.values():
        proxy.fail(fault, times=1)
    operation(store, tmp_path)
    # All of them, or what is left of them when the operation has few requests.
    assert sum(rule.left == 0 for rule in proxy.rules) >= 3


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", [read, make_once], ids=lambda operation: operation.__name__)
def test_every_request_of_an_operation_may_fail_twice(
    proxy: FaultProxy,
    store: Store,
    operation: Callable[[Store, Path], None],
    fault: str,
    tmp_path: Path,
) -> None:
    met: dict[tuple[str, str], int] = {}

    def twice(exchange: faultproxy.Exchange) -> None:
        which = exchange.request.method, exchange.request.path
        met[which] = met.get(which, 0) + 1
        (FAULTS[fault] if met[which] <= 2 else faultproxy.Exchange.pass_on)(exchange)

    proxy.fail(twice)
    operation(store, tmp_path)
    assert min(met.values()) >= 2


def test_a_body_cut_short_is_never_taken_for_whole(
    proxy: FaultProxy, store: Store, tmp_path: Path
) -> None:
    proxy.fail(faultproxy.cut_in_body, method="GET", match="old")
    brief = with_retries(store, 0.5)
    for attempt in (
        lambda: brief.read("there/old"),
        lambda: brief.fs.open(brief.path("there/old"), "rb").read(),
        lambda: brief.local("there/old", tmp_path),
        lambda: brief.read_all(["there/old"]),
    ):
        with pytest.raises(StoreError, match=r"get_object of s3://.*/there/old"):
            attempt()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old.lock"]


REFUSALS: dict[str, tuple[faultproxy.Fault, type[Exception]]] = {
    "404": (faultproxy.answers(404, "NoSuchKey"), FileNotFoundError),
    "403": (faultproxy.answers(403, "AccessDenied"), PermissionError),
    "400": (faultproxy.answers(400, "InvalidRequest"), OSError),
    "501": (faultproxy.answers(501, "NotImplemented"), OSError),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_raised_after_one_request(
    proxy: FaultProxy, store: Store, refusal: str
) -> None:
    fault, error = REFUSALS[refusal]
    proxy.fail(fault)
    with pytest.raises(error):
        store.read("there/old")
    with pytest.raises(error):
        store.write("there/new", b"data")
    assert proxy.counted() == {"GET": 1, "PUT": 1}


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_read_that_is_refused_is_not_blamed_on_conditional_writes(
    proxy: FaultProxy, store: Store, status: int, code: str
) -> None:
    """A stream names the version that it reads, which is a condition of another kind."""
    proxy.fail(faultproxy.answers(status, code), method="GET")
    with pytest.raises(OSError, match="made up by the proxy") as caught:
        store.read("there/old")
    assert "conditional" not in str(caught.value)
    with store.fs.open(store.path("there/old"), "rb") as file:
        with pytest.raises(OSError, match="made up by the proxy") as caught:
            file.read()
        assert "conditional" not in str(caught.value)


def test_a_store_that_is_gone_is_named_with_what_was_tried(proxy: FaultProxy, store: Store) -> None:
    gone = with_retries(store, 0.5)
    gone.read("there/old")
    proxy.vanish()
    with pytest.raises(StoreError) as caught:
        gone.read("there/old")
    said = str(caught.value)
    assert said.startswith(f"{proxy.through.endpoint}: expected the store to answer get_object of ")
    assert f"{gone.url}/there/old" in said
    assert "the same command goes on" in said
    assert "EndpointConnectionError" in said
    assert caught.value.exit_code == 1
    proxy.mend()
    assert gone.read("there/old") == LARGE


def test_an_error_that_repeats_is_named_with_its_object(proxy: FaultProxy, store: Store) -> None:
    proxy.fail(faultproxy.answers(500, "InternalError"), match="there/bad", method="PUT")
    stubborn = with_retries(store, 0.5)
    stubborn.write("there/good", b"data")
    with pytest.raises(
        StoreError, match=r"put_object of s3://.*/there/bad, found .*(InternalError|made up by)"
    ):
        stubborn.write("there/bad", b"data")
    stubborn.write("there/good", b"more")
    assert stubborn.keys("there") == ["there/good", "there/old"]


def test_after_an_outage_each_further_call_is_one_request_until_one_is_answered(
    proxy: FaultProxy, store: Store
) -> None:
    gone = with_retries(store, 0.5)
    proxy.fail(faultproxy.answers(503, "SlowDown"))
    with pytest.raises(StoreError):
        gone.read("there/old")
    assert len(proxy.met) > 2
    proxy.met.clear()
    for ask in (gone.read, gone.delete, gone.exists, gone.keys):
        with pytest.raises(StoreError):
            ask("there/old")
    assert len(proxy.met) == 4
    # It answers again, and so calls are retried again.
    proxy.mend()
    gone.read("there/old")
    proxy.fail(faultproxy.answers(503, "SlowDown"), times=2)
    assert gone.read("there/old") == LARGE


def test_a_store_without_retries_makes_one_request(proxy: FaultProxy, store: Store) -> None:
    proxy.fail(faultproxy.answers(503, "SlowDown"), times=1)
    with pytest.raises(StoreError, match=r"\(1 x\)"):
        store.without_retries().write("there/new", b"data")
    assert len(proxy.met) == 1
    store.without_retries().write("there/new", b"data")


def test_listing_a_store_that_is_gone_is_no_empty_store(proxy: FaultProxy, store: Store) -> None:
    proxy.fail(faultproxy.answers(503, "SlowDown"))
    whole = Store(f"s3://{BUCKET}", filesystem(store.url, 0.2)[0], BUCKET)
    for ask in (lambda: whole.keys(""), lambda: whole.read_all(["a", "b"])):
        with pytest.raises(StoreError):
            ask()


def test_a_server_that_accepts_and_says_nothing_is_left_after_a_while(
    proxy: FaultProxy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.5)
    proxy.fail(faultproxy.silent(60), times=1)
    waiting = replace(store, fs=s3.RetryingS3FileSystem(RETRY_SECONDS + 1))
    assert waiting.read("there/old") == LARGE
    assert len(proxy.met) == 2


def test_a_slow_server_is_waited_for(proxy: FaultProxy, store: Store) -> None:
    proxy.fail(faultproxy.slow(0.1, bytes_per_second=len(LARGE) * 2))
    store.write("there/new", LARGE)
    assert store.read("there/new") == LARGE
    assert len(proxy.met) == 2


def test_requests_at_once_are_bounded(proxy: FaultProxy, store: Store) -> None:
    proxy.fail(faultproxy.slow(0.1))
    names = [f"many/{number}" for number in range(3 * s3.CONNECTIONS)]
    assert store.read_all(names) == {}
    assert proxy.at_once == s3.CONNECTIONS


def test_a_put_whose_answer_was_lost_is_not_somebody_elses(proxy: FaultProxy, store: Store) -> None:
    for lost in (faultproxy.cut_after, faultproxy.reset_after):
        for key in ("there/old", f"there/{uuid4().hex}"):
            proxy.fail(lost, times=2, method="PUT")
            assert compare_and_swap(store, key, uuid4().bytes, read_versioned(store, key))


def test_a_conflict_behind_a_lost_answer_is_a_conflict(proxy: FaultProxy, store: Store) -> None:
    seen = read_versioned(store, "there/old")

    def overtaken(exchange: faultproxy.Exchange) -> None:
        proxy.rules.clear()
        store.write("there/old", b"another's")
        exchange.client.close()

    proxy.fail(overtaken, method="PUT")
    assert not compare_and_swap(store, "there/old", b"mine", seen)
    assert store.read("there/old") == b"another's"


def test_what_is_sent_in_parts_arrives_whole(
    proxy: FaultProxy, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE * 24)  # parts of 5 MB are the least that S3 takes
    for fault in ("cut after", "500", "reset before", "cut in body"):
        proxy.fail(FAULTS[fault], times=1, match="there/parts")
    store.fs.put_file(str(file), store.path("there/parts"), chunksize=5 << 20, max_concurrency=4)
    assert store.read("there/parts") == file.read_bytes()
    assert proxy.counted()["POST"] >= 2


def test_a_wrong_key_is_reported_at_once_and_an_absent_server_after_retries(
    proxy: FaultProxy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THYRO_STORE_PATIENCE", "0.3")
    proxy.fail(faultproxy.answers(403, "AccessDenied"))
    with pytest.raises(InputError, match="lets us in"):
        open_store(store.url)
    assert len(proxy.met) == 1
    proxy.vanish()
    with pytest.raises(StoreError, match="expected the store to answer list_objects_v2"):
        open_store(store.url)
