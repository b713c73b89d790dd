"""A job server of Ray's for tests: a made-up one in this process, and a real head."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}


class FakeHead:
    """Answers as Ray's job server does; a test says what becomes of each job."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.requests: list[str] = []
        self.answers: list[tuple[int, str]] = []
        """Said once each, in place of the right answer."""
        self.on_submit: Callable[[str], object] = str
        self.on_look: Callable[[str], object] = str
        self.token = ""
        head = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(head._get(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(head._post(self.path, body))

            def _answer(self, right: tuple[int, object]) -> None:
                head.requests.append(f"{self.command} {self.path}")
                status, value = head.answers.pop(0) if head.answers else right
                sent = self.headers.get("Authorization")
                if head.token and sent != f"Bearer {head.token}":
                    status, value = (403 if sent else 401), "Unauthorized"
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, job_id: str, status: str, message: str = "", **metadata: str) -> None:
        """A job that is there already."""
        self.jobs[job_id] = {
            "type": "SUBMISSION", "submission_id": job_id, "entrypoint": "", "status": status,
            "message": message, "metadata": metadata,
        }  # fmt: skip
        self.logs.setdefault(job_id, "")

    def _get(self, path: str) -> tuple[int, object]:
        parts = path.strip("/").split("/")
        if path == "/api/version":
            return 200, {
                "ray_version": "2.60.0",
                "version": "4",
                "ray_commit": "",
                "session_name": "",
            }
        if path == "/api/jobs/":
            return 200, list(self.jobs.values())
        if parts[2] not in self.jobs:
            return 404, f"Job {parts[2]} does not exist"
        if parts[-1] == "logs":
            return 200, {"logs": self.logs[parts[2]]}
        self.on_look(parts[2])
        return 200, self.jobs[parts[2]]

    def _post(self, path: str, body: bytes) -> tuple[int, object]:
        if path == "/api/jobs/":
            order = json.loads(body)
            job_id = order["submission_id"]
            self.on_submit(job_id)
            if job_id in self.jobs:
                said = f"ValueError: Job with submission_id {job_id} already exists. Please use"
                return 500, f"Traceback (most recent call last):\n{said}"
            self.add(job_id, "PENDING", **order.get("metadata", {}))
            self.jobs[job_id]["entrypoint"] = order["entrypoint"]
            return 200, {"job_id": job_id, "submission_id": job_id}
        job = self.jobs[path.strip("/").split("/")[2]]
        was = job["status"] not in ENDED
        if was:
            job["status"] = "STOPPED"
        return 200, {"stopped": was}


@contextmanager
def fake_head() -> Iterator[FakeHead]:
    """A made-up head for as long as the block runs."""
    head = FakeHead()
    thread = threading.Thread(target=head.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield head
    finally:
        head.server.shutdown()
        thread.join()
        head.server.server_close()


@dataclass(frozen=True)
class RealHead:
    """A running head of two CPUs: where it listens, and who may speak to it."""

    address: str
    token: str
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All jobs by their ids, in the order of their start."""
        request = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        ordered = sorted(found, key=lambda job: job["start_time"])
        return {job["submission_id"]: job for job in ordered if job["submission_id"]}


def free_ports(number: int) -> list[int]:
    """Ports of loopback on which nothing listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def real_head() -> Iterator[RealHead]:
    """A head with its dashboard on loopback and token authentication."""
    for package in ("aiohttp_cors", "grpc", "opencensus", "virtualenv"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"no job server without {package}: pip install -c constraints.txt .[cluster]"
            )
    gcs, dashboard, client = free_ports(3)
    token = secrets.token_hex(32)
    binaries = Path(sys.executable).parent
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("THYRO_", "RAY_"))}
    # Short: the paths of Ray's sockets have to fit into 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="tj"))
    environment |= {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "HOME": str(folder),
    }
    command = [
        str(binaries / "ray"), "start", "--head", f"--port={gcs}", "--include-dashboard=true",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        "--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}", "--num-cpus=2",
        "--object-store-memory=134217728", f"--temp-dir={folder}/r", "--disable-usage-stats",
        "--block",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    head = RealHead(f"http://127.0.0.1:{dashboard}", token, process)
    try:
        _wait_until_ready(head, folder / "log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(head: RealHead, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            head.jobs()
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the head did not get ready; its log: {log.read_text()[-2000:]}")
