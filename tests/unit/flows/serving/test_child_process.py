"""Children end with their parent, however that ends; real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.serving import child_process
from flows.serving.child_process import SERVED_BY, end_soon_if_orphan, end_with_server
from thyro_core.errors import StoppedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")

# A parent that starts a child, prints its id and sleeps.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "flows.serving.child_process", "sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""

RUN = """
import os, time
from flows.serving.child_process import end_with_server
end_with_server()
print("ready", flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} lives"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_command_ends_with_its_parent(how) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while b"sleep" not in command(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.send_signal(how)
    wait_until_gone(child)


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


def test_a_run_ends_with_the_server_that_started_it() -> None:
    script = f"""
import os, subprocess, sys, time
os.environ[{SERVED_BY!r}] = str(os.getpid())
run = subprocess.Popen([sys.executable, "-c", {RUN!r}], stdout=subprocess.PIPE, text=True)
run.stdout.readline()
print(run.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as server:
        run = int(server.stdout.readline())
        assert alive(run)
        server.kill()
    wait_until_gone(run)


@pytest.fixture
def called(monkeypatch) -> list[int]:
    """Alarms and death signals asked for; pytest-timeout has an alarm of its own."""
    found: list[int] = []
    monkeypatch.setattr(child_process, "end_with_parent", found.append)
    monkeypatch.setattr(signal, "alarm", found.append)
    return found


def test_a_run_that_nobody_serves_is_left_alone(monkeypatch, called) -> None:
    monkeypatch.delenv(SERVED_BY, raising=False)
    end_with_server()
    end_soon_if_orphan()
    assert called == []


def test_a_run_whose_server_has_ended_does_not_begin(monkeypatch, called) -> None:
    monkeypatch.setenv(SERVED_BY, "1")
    monkeypatch.setattr(os, "getppid", lambda: 2)
    with pytest.raises(StoppedError, match="thyro serve ended"):
        end_with_server()
    assert called == [signal.SIGTERM]


def test_an_orphan_hurries_and_only_an_orphan(monkeypatch, called) -> None:
    monkeypatch.setenv(SERVED_BY, "1")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    end_soon_if_orphan()
    assert called == []
    monkeypatch.setattr(os, "getppid", lambda: 2)
    end_soon_if_orphan()
    assert len(called) == 1
    assert 0 < called[0] <= 10
