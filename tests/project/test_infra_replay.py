"""What infra/ starts, started here without containers: the same commands, variables and tokens."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_study_cli import CONFIG
from tests.support.imagesets import write_image_set
from tests.support.infrafiles import REPOSITORY, compose, copies, example_variables, filled, stages

pytestmark = pytest.mark.slow

BINARIES = Path(sys.executable).parent
GIVEN = dict.fromkeys(example_variables(), "given-for-this-test-alone-0123456789") | {
    "PREFECT_AUTH": "admin:given-for-this-test-alone",
    "RAY_WORKER_CPUS": "1",
    "TORCH": "cpu",
}
DEADLINE = 300


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = filled(compose()["services"][name], GIVEN)
    return found


def free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def bare(home: Path, **extra: str) -> dict[str, str]:
    """An environment with nothing of ours in it."""
    return {
        "HOME": str(home), "PATH": f"{BINARIES}:{os.environ['PATH']}", "NO_COLOR": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
    } | extra  # fmt: skip


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(met: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not met():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.3)


def status_of(url: str, login: str | None = None) -> int:
    request = urllib.request.Request(url)
    if login is not None:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.timeout(1800)
def test_the_images_install_steps_work_in_a_clean_environment(tmp_path: Path) -> None:
    """With the ordinary wheels; the CPU ones come from an index that tests do not ask."""
    build, final = stages()
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    environment = bare(tmp_path, TORCH="cuda") | {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or "CERT" in name
    }
    for word, rest in build:
        if word == "ARG" and "=" in rest:
            name, _, default = rest.partition("=")
            environment.setdefault(name, default)
        if word == "COPY":
            for name in copies([(word, rest)])[0][0]:
                if (REPOSITORY / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
                else:
                    # As COPY does: a file lies in the destination, whatever folder it comes from.
                    shutil.copy(REPOSITORY / name, source)
        if word == "RUN":
            done = subprocess.run(
                ["sh", "-ec", rest.replace("/opt/thyro", str(venv)).replace("/opt", str(tmp_path))],
                cwd=source, env=environment, capture_output=True, text=True, timeout=1500,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(source)
    parts = json.loads((venv / "sbom.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    assert {"thyro", "torch", "ray"} <= {part["name"] for part in parts["components"]}
    outside = {"cwd": tmp_path, "env": bare(tmp_path), "text": True, "timeout": DEADLINE}
    (command,) = [json.loads(rest) for word, rest in final if word == "CMD"]
    for arguments in (command, ["thyro", "tables"], ["pip", "check"], ["ray", "--version"]):
        line = [str(venv / "bin" / arguments[0]), *arguments[1:]]
        done = subprocess.run(line, capture_output=True, **outside)
        assert done.returncode == 0, f"{line} {done.stdout} {done.stderr}"


def postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL: Debian's package `postgresql` has it")
    return found[-1].parent


@contextmanager
def postgres(variables: Mapping[str, str], port: int) -> Iterator[None]:
    """A PostgreSQL with the user, database and password that Compose gives its own."""
    binaries = postgres_binaries()
    # It refuses to run as root, and root's temporary folders let nobody else in.
    who: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="thyro-pg-"))
    password = folder / "password"
    password.write_text(variables["POSTGRES_PASSWORD"])
    if who:
        for path in (folder, password):
            shutil.chown(path, **who)
    try:
        data = folder / "data"
        user = variables["POSTGRES_USER"]
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", user, f"--pwfile={password}",
             "--auth=scram-sha-256", "--no-locale", "--encoding=UTF8"],
            check=True, capture_output=True, cwd=folder, **who,
        )  # fmt: skip
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder),
                   "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]  # fmt: skip
        client = {"PGPASSWORD": variables["POSTGRES_PASSWORD"], "PATH": os.environ["PATH"]}
        where = [f"--host={folder}", f"--port={port}", f"--username={user}"]
        log = folder / "log"
        with running(command, log, cwd=folder, **who):
            ready = [binaries / "pg_isready", *where]
            wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, log)
            create = [binaries / "createdb", *where, variables["POSTGRES_DB"]]
            subprocess.run(create, check=True, capture_output=True, env=client)
            yield
    finally:
        shutil.rmtree(folder)


FLOW = """
from prefect import flow, task

@task
def double(x):
    return 2 * x

@flow(name="trivial")
def trivial(x: int = 3):
    return double(x)

print(trivial(4))
"""

COUNT = """
import asyncio, asyncpg, os, sys

async def main():
    connection = await asyncpg.connect(
        host="127.0.0.1", port=int(sys.argv[1]), user="prefect", database="prefect",
        password=os.environ["PGPASSWORD"],
    )
    rows = await connection.fetch("select state_type::text as state from flow_run")
    print([row["state"] for row in rows])

asyncio.run(main())
"""


def test_prefect_keeps_its_runs_in_postgresql_behind_a_password(tmp_path: Path) -> None:
    database, api = free_ports(2)
    given = service("prefect-server")
    variables = given["environment"] | {
        "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
        "PREFECT_SERVER_DATABASE_PORT": str(database),
    }
    command = [{"0.0.0.0": "127.0.0.1", "4200": str(api)}.get(w, w) for w in given["command"]]
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{api}/api"
    with (
        postgres(service("database")["environment"], database),
        running(command, log, env=bare(tmp_path, **variables), cwd=tmp_path),
    ):
        health = given["healthcheck"]["test"][-1].replace("4200", str(api))
        wait_until(lambda: status_of(health) == 200, log)
        assert status_of(f"{url}/admin/version") == 401
        assert status_of(f"{url}/admin/version", "admin:wrong") == 401
        assert status_of(f"{url}/admin/version", GIVEN["PREFECT_AUTH"]) == 200
        worker = service("prefect-worker")["environment"]
        client = {
            "PREFECT_API_URL": worker["PREFECT_API_URL"].replace(
                "http://prefect-server:4200/api", url
            ),
            "PREFECT_API_AUTH_STRING": worker["PREFECT_API_AUTH_STRING"],
        }
        home = tmp_path / "client"
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", FLOW], env=bare(home, **client), cwd=home,
            capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split()[-1] == "8"
        password = service("database")["environment"]["POSTGRES_PASSWORD"]
        rows = subprocess.run(
            [sys.executable, "-c", COUNT, str(database)], env=bare(home, PGPASSWORD=password),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert rows.stdout.strip() == "['COMPLETED']", rows.stderr
    assert not (tmp_path / ".prefect" / "prefect.db").exists(), "nothing went to SQLite"
    assert password not in log.read_text()


@contextmanager
def s3(tmp_path: Path) -> Iterator[str]:
    """S3 by Compose's command, on ports of its own: its endpoint."""
    names = ("master", "volume", "filer", "admin", "s3")
    free = free_ports(2 * len(names))
    given = service("s3")
    changed = {
        "-dir=/data": f"-dir={tmp_path / 'data'}",
        "-ip=s3": "-ip=127.0.0.1",
        "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
    }
    command = ["weed", *(changed.get(w, w) for w in given["command"] if "s3.port" not in w)]
    for name, port, grpc in zip(names, free[::2], free[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    (tmp_path / "data").mkdir()
    log, keys = tmp_path / "s3.log", bare(tmp_path, **given["environment"])
    with running(command, log, env=keys, cwd=tmp_path):
        ready = given["healthcheck"]["test"][-1].replace("8333", str(free[-2]))
        wait_until(lambda: status_of(ready) == 200, log)
        yield f"http://127.0.0.1:{free[-2]}"


def node(name: str, gcs: int) -> list[str]:
    """Compose's command for a node of Ray, on this machine beside other nodes."""
    words = service(name)["command"]
    if words[0] == "sh":
        words = [*words[2].split("&&")[0].split(), "--block"]
    words = [word.replace("ray-head:6379", f"127.0.0.1:{gcs}") for word in words]
    words = [word.replace("--port=6379", f"--port={gcs}") for word in words]
    dashboard, agent = free_ports(2)
    if "--head" in words:
        words += ["--node-ip-address=127.0.0.1", f"--dashboard-port={dashboard}"]
    return [*words, f"--dashboard-agent-listen-port={agent}"]


def answers(command: list[str], environment: dict[str, str]) -> bool:
    done = subprocess.run(command, env=environment, capture_output=True, timeout=DEADLINE)
    return done.returncode == 0


@contextmanager
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """A head without CPUs, a worker and the driver's node, as in compose.yaml: its address."""
    (gcs,) = free_ports(1)
    asked = [*service("ray-head")["healthcheck"]["test"][1:-1], f"127.0.0.1:{gcs}"]
    with ExitStack() as stack:
        for name in ("ray-head", "ray-worker", "prefect-worker"):
            log = tmp_path / f"{name}.log"
            stack.enter_context(running(node(name, gcs), log, env=environment, cwd=tmp_path))
            wait_until(lambda: answers(asked, environment), log)
        yield f"127.0.0.1:{gcs}"


def test_a_study_runs_on_the_cluster_that_compose_starts(tmp_path: Path) -> None:
    # Short: Ray's sockets lie below it. Its own: others on this machine have Ray clusters too.
    folder = Path(tempfile.mkdtemp(prefix="tr"))
    source = write_image_set(tmp_path / "set")
    variables = service("prefect-worker")["environment"]
    variables |= {"RAY_TMPDIR": str(folder), "RAY_worker_niceness": "0"}
    variables |= {"THYRO_SCRATCH": str(folder), "THYRO_LOG_JSON": "true"}
    # This test has no server: Prefect takes one of its own.
    del variables["PREFECT_API_URL"], variables["PREFECT_API_AUTH_STRING"]
    try:
        with s3(tmp_path) as endpoint:
            environment = bare(tmp_path, **variables | {"AWS_ENDPOINT_URL": endpoint})
            with cluster(tmp_path, environment) as address:
                status = ["ray", "status", f"--address={address}"]
                assert answers(status, environment)
                stranger = {"RAY_AUTH_TOKEN": "another-token-of-the-same-length-0123456"}
                assert not answers(status, environment | stranger)
                check_study(source, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_study(source: Path, environment: dict[str, str]) -> None:
    settings = [f"--set={name}={value}" for name, value in CONFIG.items()]
    options: dict[str, Any] = {"env": environment, "cwd": source.parent, "text": True}
    done = subprocess.run(
        ["thyro", "study", str(source), "--json", *settings],
        capture_output=True, timeout=DEADLINE, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["store"] == "s3://thyro/store"
    asked = ["thyro", "status", printed["study_id"], "--json"]
    found = json.loads(subprocess.run(asked, capture_output=True, **options).stdout)
    assert (found["concluded"], found["counts"]) == (True, {"finished": 2})
