"""Serve the deployments until somebody stops it."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from httpx import HTTPError
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.serving.child_process import SERVED_BY
from flows.serving.deployments import HEARTBEAT_SECONDS, ensure_automations, keep_schedules
from flows.serving.notifications import NotificationPlan, ensure_notifications
from flows.serving.server import answers, configured_url, own_server
from thyro_core.errors import InputError, ThyroError

_RUNNER_POLL_SECONDS = 5.0
_TICK_SECONDS = 0.05
_LOST_ERRORS = (HTTPError, OSError, RuntimeError)


def serve(
    entries: Sequence[RunnerDeployment],
    host: str,
    port: int,
    say: Callable[[str], None],
    *,
    notify: NotificationPlan | None = None,
) -> None:
    """Serve deployments on the server there is, or on an own one, until SIGINT or SIGTERM.

    What was started is stopped: runs are cancelled, the deployments paused, the own server ended.

    Args:
        entries: what to serve.
        host: where an own server listens.
        port: its port.
        say: tells the person at the terminal.
        notify: who gets word of the nights; None: nobody.

    Raises:
        InputError: the port is taken, the server does not let us in, or it lacks the block that
            sends word.
        ThyroError: the server does not start, or is lost.
    """
    with ExitStack() as stack:
        url = _server(stack, host, port, say)
        # For the processes of the runs, too.
        os.environ["PREFECT_API_URL"] = url
        os.environ[SERVED_BY] = str(os.getpid())
        stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
        try:
            asyncio.run(ensure_notifications(notify))
            asyncio.run(_serve(entries, lambda: say(_ready(url, entries)), lambda: say("stopping")))
        except (*_LOST_ERRORS, PrefectHTTPStatusError, ExceptionGroup) as error:
            raise _explained_error(url, error) from error


def _server(stack: ExitStack, host: str, port: int, say: Callable[[str], None]) -> str:
    url = configured_url()
    if url and answers(url):
        return url
    if url:
        say(f"PREFECT_API_URL={url} does not answer: starting a server here instead")
    say("starting a Prefect server; the first start takes a while")
    return stack.enter_context(own_server(host, port))


def _ready(url: str, entries: Sequence[RunnerDeployment]) -> str:
    names = ", ".join(deployment.name for deployment in entries)
    return f"serving {names}; open {url.removesuffix('/').removesuffix('/api')} (Ctrl-C stops)"


def _explained_error(url: str, error: BaseException) -> BaseException:
    """An error for people, if it is one that the server's absence or refusal explains."""
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, PrefectHTTPStatusError):
        return InputError(
            f"{url}: expected a Prefect server that takes our deployments, found status "
            f"{cause.response.status_code}; check PREFECT_API_URL and PREFECT_API_AUTH_STRING"
        )
    if isinstance(cause, _LOST_ERRORS):
        return ThyroError(
            f"{url}: expected the Prefect server to go on answering, found: {cause}; start it, "
            "and then this, again"
        )
    return error


class _Runner(Runner):
    """A runner that SIGTERM stops in the way Ctrl-C does."""

    def handle_sigterm(self, *_: object) -> None:
        """Called by Prefect's own handler."""
        signal.raise_signal(signal.SIGINT)


async def _serve(
    entries: Sequence[RunnerDeployment], ready: Callable[[], None], ending: Callable[[], None]
) -> None:
    runner = _Runner(
        "thyro", query_seconds=_RUNNER_POLL_SECONDS, heartbeat_seconds=HEARTBEAT_SECONDS
    )
    await ensure_automations()
    await keep_schedules(entries)
    for deployment in entries:
        await runner.aadd_deployment(deployment)
    stop_event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop_event.set)
    running = asyncio.create_task(runner.start())
    stopping = asyncio.create_task(stop_event.wait())
    # What is not started cannot be stopped.
    while not (runner.started or running.done()):
        await asyncio.sleep(_TICK_SECONDS)
    ready()
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    ending()
    if stop_event.is_set():
        await runner.astop()
    await running
