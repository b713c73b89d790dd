"""Heads of Ray clusters as `ray start` makes them, and programs that join one."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.jobs_head import free_ports

_JOIN = """
import sys
from thyro_core.cluster.session import session
from thyro_core.errors import InputError
try:
    with session(sys.argv[1]) as capacity:
        print("joined", capacity.cpus)
except InputError as error:
    print(error)
"""


@dataclass(frozen=True)
class User:
    """A person of this machine: a home, and in it the token that Ray finds there, if any."""

    home: Path
    token: str | None

    def environment(self, **more: str) -> dict[str, str]:
        """Nothing of Ray's but what is in the home."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("THYRO_", "RAY_"))}
        binaries = Path(sys.executable).parent
        path = f"{binaries}:{kept.get('PATH', os.defpath)}"
        return kept | {"HOME": str(self.home), "PATH": path} | more

    def join(self, address: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """What a program of this user that joins a cluster writes."""
        return subprocess.run(
            [sys.executable, "-c", _JOIN, address], env=self.environment(**more),
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@contextmanager
def user(token: str | None) -> Iterator[User]:
    """A user for as long as the block runs."""
    # Short: the paths of Ray's sockets have to fit into 107 characters.
    home = Path(tempfile.mkdtemp(prefix="tu"))
    if token is not None:
        (home / ".ray").mkdir()
        (home / ".ray" / "auth_token").write_text(token)
    try:
        yield User(home, token)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def ray_head(owner: User, **more: str) -> Iterator[str]:
    """The address of a cluster of one CPU that a user has started."""
    (port, client) = free_ports(2)
    command = [
        "ray", "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--include-dashboard=false", f"--ray-client-server-port={client}", "--num-cpus=1",
        "--object-store-memory=134217728", f"--temp-dir={owner.home}/r", "--disable-usage-stats",
        "--block",
    ]  # fmt: skip
    log = owner.home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=owner.environment(**more), stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while b"Ray runtime started" not in log.read_bytes():
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail(f"the head did not get ready; its log: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
