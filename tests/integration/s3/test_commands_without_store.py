"""Commands that read, while their S3 store goes away: one sentence, in a bounded time, no harm."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from tests.support import faultproxy
from tests.support.faultproxy import FaultProxy, running_proxy
from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import StoreError
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan

COMMANDS = {
    "query": ["query", "SELECT count(*) FROM predictions"],
    "status": ["status", "STUDY"],
    "verify": ["verify", "STUDY"],
    "report": ["report", "STUDY"],
    "models": ["models"],
    "gc": ["gc"],
    "promote": ["promote", "STUDY"],
}


@pytest.fixture(scope="module")
def served(
    s3_server: S3Server, finished: tuple[Store, StudyPlan]
) -> Iterator[tuple[FaultProxy, str, str]]:
    """A proxy, the address of a finished study's store behind it, and the study's id."""
    local, plan = finished
    url = f"s3://{BUCKET}/reading-faults"
    with running_proxy(s3_server) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in proxy.through.environment().items():
            patch.setenv(name, value)
        patch.setattr(RetryPolicy, "wait_seconds", lambda _, attempts: min(0.01 * attempts, 0.05))
        forget_clients()
        far = open_store(url)
        for key in local.keys(""):
            far.write(key, local.read(key))
        yield proxy, url, plan.study_id
    forget_clients()


def ask(command: str, url: str, study: str, scratch: Path) -> Result:
    """A command in this process; its errors are raised."""
    arguments = [study if word == "STUDY" else word for word in COMMANDS[command]]
    shutil.rmtree(scratch, ignore_errors=True)
    return CliRunner().invoke(
        app,
        [*arguments, "--store", url],
        env={"THYRO_SCRATCH": str(scratch), "THYRO_STORE_PATIENCE": "0.3"},
        catch_exceptions=False,
    )


def gone_after(requests: int) -> faultproxy.Fault:
    """Pass so many requests on, and answer no other."""
    left = [requests]

    def fault(exchange: faultproxy.Exchange) -> None:
        left[0] -= 1
        (faultproxy.Exchange.pass_on if left[0] >= 0 else faultproxy.cut_before)(exchange)

    return fault


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c == "promote" else c for c in COMMANDS],
)
def test_a_store_that_goes_away_is_said_and_nothing_is_harmed(
    served: tuple[FaultProxy, str, str], command: str, tmp_path: Path
) -> None:
    proxy, url, study = served
    proxy.mend()
    ask(command, url, study, tmp_path / "scratch")  # what only the first one writes is there now
    proxy.met.clear()
    calm = ask(command, url, study, tmp_path / "scratch")
    requests = len(proxy.met)
    assert requests > 1
    before = open_store(url).keys("")
    for passed in sorted({0, 1, requests // 2, requests - 1}):
        proxy.fail(gone_after(passed))
        with pytest.raises(StoreError) as caught:
            ask(command, url, study, tmp_path / "scratch")
        assert str(caught.value).startswith(f"{proxy.through.endpoint}: expected the store to")
        assert caught.value.exit_code == 1
        proxy.mend()
    assert open_store(url).keys("") == before
    assert ask(command, url, study, tmp_path / "scratch").exit_code == calm.exit_code == 0
