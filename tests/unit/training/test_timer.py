"""Time added up over attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.training import timer
from thyro_core.training.timer import RunCost, RunTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [500.0]
    monkeypatch.setattr(timer.time, "perf_counter", lambda: now[0])
    return now


def test_an_attempt_counts_from_its_start_and_by_its_gpus(clock: list[float]) -> None:
    timer = RunTimer(gpus=0.25)
    assert timer.cost() == RunCost(0.0, 0.0)
    clock[0] += 8.0
    assert timer.cost() == RunCost(8.0, 2.0)


def test_attempts_on_other_shares_of_a_gpu_add_up(clock: list[float]) -> None:
    timer = RunTimer(gpus=1.0)
    timer.add_earlier(RunCost(100.0, 25.0))
    clock[0] += 10.0
    assert timer.cost() == RunCost(110.0, 35.0)


def test_traces_of_the_same_attempts_are_not_added(clock: list[float]) -> None:
    """The checkpoint is older than the position: both speak of the same minutes."""
    for traces in ([60.0, 90.0], [90.0, 60.0]):
        timer = RunTimer(gpus=0.0)
        for seconds in traces:
            timer.add_earlier(RunCost(seconds, 0.0))
        assert timer.cost() == RunCost(90.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 1000), st.sampled_from([0.0, 0.25, 1.0])), min_size=1))
def test_a_chain_of_attempts_is_their_sum(attempts: list[tuple[int, float]]) -> None:
    """Each attempt adds the total of those before it."""
    now = [0.0]
    total = timer.NO_COST
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timer.time, "perf_counter", lambda: now[0])
        for seconds, gpus in attempts:
            attempt = RunTimer(gpus)
            attempt.add_earlier(total)
            now[0] += seconds
            total = attempt.cost()
    assert total.seconds == pytest.approx(sum(seconds for seconds, _ in attempts))
    assert total.gpu_seconds == pytest.approx(sum(seconds * gpus for seconds, gpus in attempts))
