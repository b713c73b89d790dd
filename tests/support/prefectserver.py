"""`thyro serve` as people start it: a real Prefect server in a home of its own, asked by REST."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.prefect_home import prepare_home

DEADLINE = 420.0
OVER = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A home of its own, and nothing of Prefect or Thyro that the one who tests has set."""
    mine = ("THYRO_", "PREFECT_", "XDG_")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(mine)}
    own = {"HOME": str(prepare_home(home)), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return kept | own | extra


def wait_until(met: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of `met`."""
    deadline = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.1)
    return found


def _answer(request: Request) -> bytes:
    """What the server says, or nothing while it is too busy; never empty."""
    try:
        with urlopen(request, timeout=30) as reply:
            return bytes(reply.read()) or b" "
    except HTTPError as error:
        if error.code != 503:  # its database is locked; Prefect's own client asks again, too
            raise
        error.close()
        return b""


@dataclass(frozen=True)
class Serving:
    """A running `thyro serve`."""

    process: "subprocess.Popen[str]"
    url: str
    home: Path
    log: Path

    def ask(self, path: str, body: Any = None, method: str = "") -> Any:
        """One request to the API; its JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"{self.url}/api{path}",
            data=data,
            headers={"content-type": "application/json"},
            method=method or ("GET" if body is None else "POST"),
        )
        text = wait_until(lambda: _answer(request), f"{path} is answered", 60)
        return json.loads(text) if text.strip() else None

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/deployments/name/{name}/{name}")
        return found

    def create(self, name: str, **parameters: Any) -> str:
        """Ask for a run; its id."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.ask(path, {"parameters": parameters})["id"])

    def refusal(self, name: str, **parameters: Any) -> str:
        """Why a run is refused."""
        try:
            run_id = self.create(name, **parameters)
        except HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode()}"
        raise AssertionError(f"{run_id} was taken")

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{run_id}")
        return found

    def state(self, run_id: str) -> str:
        return str(self.run(run_id)["state_type"])

    def over(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended."""
        wait_until(lambda: self.state(run_id) in OVER, f"run {run_id} ends\n{self.said()}")
        return self.run(run_id)

    def runs(self, name: str) -> list[dict[str, Any]]:
        body = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}}
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", body)
        return found

    def artifacts(self, run_id: str) -> dict[str, list[dict[str, Any]]]:
        """The artifacts of a run by type."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        found: dict[str, list[dict[str, Any]]] = {}
        for artifact in self.ask("/artifacts/filter", body):
            found.setdefault(artifact["type"], []).append(artifact)
        return found

    def task_runs(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The task runs of a run by name."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        return {run["name"].split("-")[0]: run for run in self.ask("/task_runs/filter", body)}

    def logs(self, run_id: str) -> str:
        """What the run logged."""
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}}
        return "\n".join(entry["message"] for entry in self.ask("/logs/filter", body))

    def said(self) -> str:
        """What it said on its terminal."""
        return self.log.read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


def thyro(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments]


@contextmanager
def serving(folder: Path, *options: str, **extra: str) -> Iterator[Serving]:
    """`thyro serve` on a free port with its home in `folder`, for as long as the block runs."""
    home, log, port = folder / "home", folder / "serve.log", free_port()
    ports = ["--port", str(port), "--pages-port", str(free_port())]
    home.mkdir(exist_ok=True)
    store = ["--store", str(folder / "store")]
    with log.open("w") as out:
        process = subprocess.Popen(
            thyro("serve", *ports, *store, *options),
            cwd=folder,
            env=environment(home, **extra),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    api = extra.get("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    found = Serving(process, api.removesuffix("/api"), home, log)
    try:
        wait_until(lambda: "serving" in log.read_text() or process.poll() is not None, "it serves")
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        if process.poll() is None:
            found.stop()
        for left in processes_of(home):
            os.kill(left, signal.SIGKILL)


class PrefectServer:
    """A Prefect server without Thyro, which can be killed and started again as it was."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "home").mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        """Start it on its database; returns when it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self._port)]
        with (self._folder / "server.log").open("a") as out:
            self._process = subprocess.Popen(
                command,
                env=environment(self._folder / "home"),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: answers(self._port), "the server answers")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with all its processes; SIGKILL: like a power cut."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, how)
            self._process.wait(30)

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """One question to the API; its JSON."""
        request = Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server without Thyro; its API's address."""
    server = PrefectServer(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def processes_of(home: Path) -> dict[int, str]:
    """Processes whose HOME is this one, by id, with their command lines; zombies are none."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"HOME={home}".encode() in variables and command:
            found[int(entry.name)] = command.strip()
    return found
