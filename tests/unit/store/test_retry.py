"""The retry policy: which errors are transient, how long an outage may last, how waits grow."""

import asyncio
import errno
import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from thyro_core.errors import IncompleteStudyError, InputError, LeakageError, ThyroError
from thyro_core.store import retry
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy, is_transient, poll_until


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.EBUSY, "slow down"),
        OSError(errno.EREMOTEIO, "internal error"),
        OSError(errno.EIO, "unknown"),
        OSError(errno.ESTALE, "stale file handle"),
        EndpointConnectionError(endpoint_url="http://store"),
        ReadTimeoutError(endpoint_url="http://store"),
    ],
)
def test_what_is_transient(error) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        InputError("no such folder"),
        LeakageError("one patient on both sides"),
        IncompleteStudyError("one run failed"),
        ThyroError("anything"),
        FileNotFoundError(errno.ENOENT, "none"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "no space left"),
        OSError(errno.EROFS, "read only"),
        OSError(errno.EINVAL, "bad request"),
        NoCredentialsError(),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_permanent_errors(error) -> None:
    assert not is_transient(error)


def test_an_input_error_that_a_lost_connection_caused_is_permanent() -> None:
    error = InputError("no store")
    error.__cause__ = ConnectionRefusedError()
    assert not is_transient(error)


class Clock:
    """Time that only waiting moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    async def sleep(seconds: float) -> None:
        made.sleep(seconds)

    monkeypatch.setattr(retry.time, "monotonic", made.monotonic)
    monkeypatch.setattr(retry.time, "sleep", made.sleep)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return made


def call(policy: RetryPolicy, attempt: Callable[[], object]) -> object:
    return policy.call(attempt, "something")


def call_async(policy: RetryPolicy, attempt: Callable[[], object]) -> object:
    async def attempt_async() -> object:
        return attempt()

    # The loop of asyncio.run reads the patched clock once a turn, which is harmless.
    return asyncio.run(policy.call_async(attempt_async, "something"))


WAYS = pytest.mark.parametrize("run", [call, call_async], ids=lambda run: run.__name__)


def failing(times: float, error: Exception | None = None) -> Callable[[], int]:
    """A function that fails a number of times, then returns how often it was called."""
    calls = 0

    def attempt() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error or ConnectionResetError("gone")
        return calls

    return attempt


@WAYS
def test_a_transient_error_is_retried_with_growing_waits(clock: Clock, run) -> None:
    assert run(RetryPolicy(60, first_wait=1, longest_wait=4), failing(5)) == 6
    bounds = [1, 2, 4, 4, 4]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(clock.waits, bounds, strict=True))


@WAYS
def test_a_permanent_error_is_raised_as_it_is_after_one_attempt(clock: Clock, run) -> None:
    error = PermissionError(errno.EACCES, "no")
    with pytest.raises(PermissionError) as caught:
        run(RetryPolicy(60), failing(9, error))
    assert caught.value is error
    assert clock.waits == []


@WAYS
def test_an_outage_ends_a_call_after_the_policys_seconds(clock: Clock, run) -> None:
    with pytest.raises(RetriesExhaustedError) as caught:
        run(RetryPolicy(10), failing(float("inf")))
    assert caught.value.seconds == pytest.approx(10)
    assert caught.value.attempts == len(clock.waits) + 1
    assert isinstance(caught.value.error, ConnectionResetError)
    assert caught.value.__cause__ is caught.value.error


@WAYS
def test_no_seconds_or_one_attempt_is_one_attempt(clock: Clock, run) -> None:
    for policy in (RetryPolicy(0), RetryPolicy(attempts=1)):
        with pytest.raises(RetriesExhaustedError) as caught:
            run(policy, failing(9))
        assert caught.value.attempts == 1
    assert clock.waits == []


@WAYS
def test_attempts_are_counted_call_by_call(clock: Clock, run) -> None:
    policy = RetryPolicy(attempts=3)
    for _ in range(2):
        assert run(policy, failing(2)) == 3
        with pytest.raises(RetriesExhaustedError, match="gone"):
            run(policy, failing(3))


@WAYS
def test_calls_share_the_outage_clock_until_one_is_answered(clock: Clock, run) -> None:
    policy = RetryPolicy(10)
    with pytest.raises(RetriesExhaustedError):
        run(policy, failing(float("inf")))
    with pytest.raises(RetriesExhaustedError) as caught:
        run(policy, failing(1))
    assert caught.value.attempts == 1
    # A refusal is an answer.
    with pytest.raises(FileNotFoundError):
        run(policy, failing(9, FileNotFoundError()))
    assert run(policy, failing(3)) == 4


def test_an_outage_long_ago_is_forgotten(clock: Clock) -> None:
    policy = RetryPolicy(10)
    with pytest.raises(RetriesExhaustedError):
        call(policy, failing(float("inf")))
    clock.now += 11
    assert call(policy, failing(2)) == 3


def test_an_interrupt_is_neither_retried_nor_an_answer(clock: Clock) -> None:
    policy = RetryPolicy(10)
    with pytest.raises(RetriesExhaustedError):
        call(policy, failing(float("inf")))
    with pytest.raises(KeyboardInterrupt):
        call(policy, failing(1, KeyboardInterrupt()))
    with pytest.raises(RetriesExhaustedError) as caught:
        call(policy, failing(1))
    assert caught.value.attempts == 1


def test_the_caller_decides_what_is_transient(clock: Clock) -> None:
    policy = RetryPolicy(60, retry_on=lambda error: isinstance(error, KeyError))
    assert call(policy, failing(2, KeyError())) == 3
    with pytest.raises(ConnectionResetError):
        call(policy, failing(1))


def test_an_outage_is_announced_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    policy = RetryPolicy(60)
    with caplog.at_level(logging.WARNING):
        assert call(policy, failing(2)) == 3
        assert caplog.messages == []
        call(policy, failing(9))
        assert caplog.messages == [
            "no answer to something (ConnectionResetError): trying for up to 60 s"
        ]
        call(policy, failing(9))
        assert len(caplog.messages) == 2


def test_jitter_leaves_the_global_generator_alone(clock: Clock) -> None:
    state = random.getstate()
    policies = [RetryPolicy(60), RetryPolicy(60)]
    for policy in policies:
        call(policy, failing(5))
    assert random.getstate() == state
    # Two policies do not wait for the same times.
    assert clock.waits[:5] != clock.waits[5:]


def test_a_wait_stays_bounded_after_many_attempts() -> None:
    assert 4 <= RetryPolicy(1).wait_seconds(10_000) <= 8


def test_threads_share_one_policy() -> None:
    policy = RetryPolicy(60, first_wait=0.001, longest_wait=0.001)
    barrier = threading.Barrier(8)

    def work() -> int:
        barrier.wait()
        return policy.call(failing(20), "something")

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work) for _ in range(8)]
        assert [future.result() for future in futures] == [21] * 8


def test_tasks_of_one_loop_share_one_policy() -> None:
    policy = RetryPolicy(60, first_wait=0.001, longest_wait=0.001)

    async def work() -> int:
        attempt = failing(20)

        async def attempt_async() -> int:
            await asyncio.sleep(0)
            return attempt()

        return await policy.call_async(attempt_async, "something")

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(work() for _ in range(8)))

    assert asyncio.run(all_of_them()) == [21] * 8


def test_what_starts_by_itself_is_looked_at_until_it_is_there_or_its_time_is_up() -> None:
    looks = iter([None, False, "there", "too late"])
    assert poll_until(lambda: next(looks), every=0.0) == "there"
    with pytest.raises(TimeoutError):
        poll_until(lambda: None, every=0.0, seconds=0.0)
    with pytest.raises(KeyError):
        poll_until(lambda: {}["absent"], every=0.0)
