"""The Prefect server of a command that runs a flow where none is configured.

Prefect starts one too, but in the command's own process group: a Ctrl-C in a terminal, or a stop
of a whole process group, ends that server before the run can tell it that it was stopped.
"""

import atexit
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

from flows.serving.server import configured_url, run_server, server_needed

if TYPE_CHECKING:
    from fastapi import FastAPI

_HOST = "127.0.0.1"


@contextmanager
def prefect_server() -> Iterator[None]:
    """A Prefect server for what the block runs: the configured one, or one of the command's own.

    An own server lives as long as the program: Prefect sends the last events when that ends.

    Raises:
        InputError: `PREFECT_API_URL` is no http address.
        ServerLostError: the server did not answer.
        ThyroError: an own server did not start.
    """
    if configured_url() is not None:
        with server_needed():
            yield
        return
    log = get_current_settings().home / "thyro-command.log"
    _start(log)
    with server_needed(f"the command started that server itself; see {log}"):
        yield


def _start(log: Path) -> None:
    stack = ExitStack()
    # What is registered first is run last: after what Prefect registers when it is first used.
    atexit.register(stack.close)
    port = _free_port()
    command = (
        "-m",
        "uvicorn",
        "--factory",
        f"{__name__}:app",
        "--host",
        _HOST,
        "--port",
        str(port),
    )
    os.environ["PREFECT_API_URL"] = stack.enter_context(run_server(_HOST, port, command, log))
    # For all threads: Prefect has read the environment when it was imported.
    refresh_global_settings_context()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def app() -> "FastAPI":
    """Prefect's API without pages and schedules; what uvicorn serves."""
    from prefect.server.api.server import create_app

    return create_app(ephemeral=True, final=True)
