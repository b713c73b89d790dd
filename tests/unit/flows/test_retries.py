"""Steps of a flow are tried again after transient errors only."""

import subprocess
import sys

import pytest

from flows.retries import BACKOFF_SECONDS, RETRIES, step
from tests.support.prefectserver import environment


def test_a_step_waits_longer_each_time_and_about_a_minute_in_all() -> None:
    made = step("x")(lambda: None)
    assert made.retries == RETRIES
    assert made.retry_delay_seconds == [BACKOFF_SECONDS * 2**n for n in range(RETRIES)]
    assert 60 <= sum(made.retry_delay_seconds) <= 120
    assert made.retry_jitter_factor > 0
    assert made.persist_result is False


SCRIPT = """
import sys
from prefect import flow
from flows.retries import step
from thyro_core.errors import InputError

met = []

@step("fails")
def fails(error, times):
    met.append(error)
    if len(met) <= times:
        raise error
    return len(met)

@flow
def tried(error, times):
    quick = fails.with_options(retry_delay_seconds=0.01)
    return quick(error, times)

assert tried(ConnectionResetError("gone"), 2) == 3
met.clear()
for error, tries in ((InputError("no"), 1), (PermissionError(13, "no"), 1), (TimeoutError(), 5)):
    met.clear()
    try:
        tried(error, 99)
    except type(error):
        assert len(met) == tries, (error, len(met))
    else:
        raise AssertionError(error)
print("as promised")
"""


@pytest.mark.slow
def test_a_passing_storage_error_is_retried_and_bad_input_is_not(tmp_path) -> None:
    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    slow = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment(tmp_path, **quiet, **slow),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "as promised" in done.stdout
