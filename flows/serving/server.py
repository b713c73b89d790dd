"""The Prefect server that `thyro serve` works with: one that is there, or one of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import httpx
import prefect
from filelock import FileLock, Timeout
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from thyro_core.errors import InputError, ThyroError
from thyro_core.store.retry import poll_until
from thyro_core.urls import redact

START_SECONDS = 180.0
"""How long a server may take to answer: the first start makes its database."""

_SERVER_STOP_SECONDS = 20.0
_SERVER_ANSWER_SECONDS = 5.0
_SERVER_POLL_SECONDS = 0.25

LOST_ERRORS = (httpx.HTTPError, ObjectNotFound, RuntimeError)
"""What Prefect's client raises when its server is away, fails, or knows nothing of a run."""

_UNREACHABLE = "Failed to reach API"


class ServerLostError(ThyroError, ConnectionError):
    """Prefect's server does not answer."""


@contextmanager
def server_needed(
    cure: str = "start the server, or unset PREFECT_API_URL to run without one",
) -> Iterator[None]:
    """Say in one sentence that Prefect's server was away when a run began or ended.

    In between it may be: Prefect keeps the states of tasks to itself, and asks for a minute before
    it gives up a run that has ended.

    Args:
        cure: what to do before the command is started again.

    Raises:
        ServerLostError: it did not answer.
    """
    try:
        yield
    except LOST_ERRORS as error:
        if not isinstance(error, httpx.HTTPError) and _UNREACHABLE not in str(error):
            raise
        url = configured_url() or "its own address"
        msg = (
            f"Prefect's server at {redact(url)}: expected an answer, found {type(error).__name__} "
            f"({error}); what is finished is kept: {cure}, and start the command again"
        )
        raise ServerLostError(msg) from error


@contextmanager
def first_start() -> Iterator[None]:
    """Let one server at a time make the database in a new PREFECT_HOME, as the block starts one.

    Two that make it at once lock each other out of it, and the later one ends.
    """
    home = get_current_settings().home
    home.mkdir(parents=True, exist_ok=True)
    # Another version changes the database when it starts.
    mark = home / f"thyro-database-{prefect.__version__}"

    def is_made() -> bool:
        return mark.exists() and (home / "prefect.db").exists()

    if is_made():
        yield
        return
    lock = FileLock(home / "thyro-database.lock")
    # Whoever makes it may be slow or hang: then this one is no worse off than without a lock.
    with suppress(Timeout):
        lock.acquire(START_SECONDS)
    if is_made():
        lock.release()
    try:
        yield
        mark.touch()
    finally:
        lock.release()


def configured_url() -> str | None:
    """`PREFECT_API_URL`, from the environment or the Prefect profile.

    Raises:
        InputError: it is no http address.
    """
    url = get_current_settings().api.url
    if url and not url.startswith(("http://", "https://")):
        msg = f"PREFECT_API_URL: expected http://HOST:PORT/api, found {url}; correct or unset it"
        raise InputError(msg)
    return url


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at an address such as http://127.0.0.1:4200/api."""
    try:
        with urlopen(f"{api_url.rstrip('/')}/health", timeout=_SERVER_ANSWER_SECONDS) as reply:  # noqa: S310
            return bool(reply.read().strip() == b"true")
    except HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError):
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def own_server(host: str, port: int) -> Iterator[str]:
    """A Prefect server with its pages that lives as long as the block; its API's address.

    Raises:
        InputError: the host is not one of this machine's, or the port is taken.
        ThyroError: the server ended or did not answer in time.
    """
    must_be_free(host, port)
    command = ("-m", "prefect", "server", "start", "--host", host, "--port", str(port))
    log = get_current_settings().home / "thyro-server.log"
    with run_server(host, port, command, log) as url:
        yield url


@contextmanager
def run_server(host: str, port: int, command: Sequence[str], log: Path) -> Iterator[str]:
    """A Prefect server that a command of Python's starts; it lives as long as the block.

    Args:
        host: where it listens.
        port: its port.
        command: arguments of Python's that start it.
        log: where its output goes.

    Returns:
        Its API's address.

    Raises:
        ThyroError: the server ended or did not answer in time.
    """
    url = _api_url(host, port)
    log.parent.mkdir(parents=True, exist_ok=True)
    with first_start(), log.open("wb") as out:
        process = _start(command, out.fileno())
        try:
            _wait(process, url, log)
        except BaseException:
            _stop(process)
            raise
    try:
        yield url
    finally:
        _stop(process)


def _api_url(host: str, port: int) -> str:
    return f"http://{name_in_url(host)}:{port}/api"


def name_in_url(host: str) -> str:
    """Where a server that listens at `host` is reached from here."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - the user chose it
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def must_be_free(host: str, port: int, options: str = "--port or --host") -> None:
    """Make sure that a server can listen at an address; `options` name another one.

    Raises:
        InputError: it cannot.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        url = _api_url(host, port)
        if answers(url):
            cure = f"a Prefect server runs there: set PREFECT_API_URL={url} to use it"
        else:
            cure = f"stop the program that listens there, or choose another {options}"
        msg = f"{host}:{port}: expected a free port, found: {error.strerror or error}; {cure}"
        raise InputError(msg) from error


def _start(command: Sequence[str], out: int) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C reaches us first, and its runs can still report to it."""
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_INTERNAL_LOGGING_LEVEL"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    # Relative, so that the UI works under whatever name a browser reaches the server by.
    environment.setdefault("PREFECT_SERVER_UI_API_URL", "/api")
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "flows.serving.child_process", sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    try:
        poll_until(
            lambda: answers(url) or process.poll() is not None, _SERVER_POLL_SECONDS, START_SECONDS
        )
    except TimeoutError as error:
        msg = f"the Prefect server did not answer within {START_SECONDS:g} s; see {log}"
        raise ThyroError(msg) from error
    if process.poll() is not None:
        msg = f"the Prefect server ended with status {process.returncode}; {_last_words(log)}"
        raise ThyroError(msg)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"its last words: {lines[-1].strip()} ({log})" if lines else f"see {log}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SERVER_STOP_SECONDS)
            return
