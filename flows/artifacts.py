"""What a run shows in Prefect's UI: name, tables, pages, progress, and what to do about a failure.

No artifact holds anything personal: images are named by their hashes. None is worth a run: where
the server does not take one, the run goes on without it.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed

from flows.serving.child_process import end_soon_if_orphan, end_with_server
from flows.serving.server import LOST_ERRORS
from thyro_core import NOTICE
from thyro_core.errors import ThyroError, sentence

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_DRAWN_NAME = re.compile(r"[a-z]+-[a-z]+")
_PROGRESS_SECONDS = 5.0
# Not a loop of ours: a limit for that of Prefect's client.
_RETRIES = 3
"""After 2, 4 and 8 s."""
_AWAY_SECONDS = 60.0
_last_failure = [float("-inf")]
"""When the server did not answer, by this process's steady clock; threads share it."""


def best_effort(show: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """Show something in Prefect's UI; None: its server is away, restarts or has lost the run.

    A server that restarts is called for a quarter of a minute, one that was away a moment ago only
    once: Prefect's own client would ask for more than a minute, each time, and hold up the work.
    """
    recently = time.monotonic() - _last_failure[0] < _AWAY_SECONDS
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0 if recently else _RETRIES}):
        try:
            return show(*args, **kwargs)
        except LOST_ERRORS as error:
            _last_failure[0] = time.monotonic()
            _LOG.warning("Prefect's server did not take an artifact: %s", type(error).__name__)
            return None


def name_run(name: str) -> None:
    """Call the flow run by what it works on, unless a person has given it a name.

    Args:
        name: shown in Prefect's lists instead of two words drawn at random.
    """
    if flow_run.id is not None and _DRAWN_NAME.fullmatch(flow_run.name or ""):
        best_effort(_rename, UUID(flow_run.id), name)


def _rename(run_id: UUID, name: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(run_id, name=name)


def show_page(key: str, markdown: str, description: str) -> None:
    """A page of Markdown; under one key, the last one stands first."""
    best_effort(create_markdown_artifact, markdown, key=key, description=description)


def show_table(key: str, rows: Sequence[Sequence[str]], description: str) -> None:
    """A table whose first row is the header."""
    header, *body = rows
    table = [dict(zip(header, row, strict=True)) for row in body]
    best_effort(create_table_artifact, table, key=key, description=description)


class ProgressBar:
    """A bar that is moved when it is due, once in a few seconds."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._artifact: UUID | None = None
        self._shown_percent = -1.0
        self._at = float("-inf")

    def due(self) -> bool:
        """Whether it is time to move it again."""
        return time.monotonic() - self._at >= _PROGRESS_SECONDS

    def show(self, percent: float) -> None:
        """Move it to so many of 100."""
        if percent == self._shown_percent:
            return
        self._at, self._shown_percent = time.monotonic(), percent
        if self._artifact is None:
            artifact_id = best_effort(
                create_progress_artifact, percent, description=self._description
            )
            self._artifact = cast("UUID | None", artifact_id)
        else:
            best_effort(update_progress_artifact, self._artifact, percent)

    def count(self, n_done: int, total: int) -> None:
        """Move it to so many of so many, if it is time or this is the end."""
        if self.due() or n_done == total:
            self.show(100.0 * n_done / max(total, 1))


def completed_state(value: R, message: str) -> R:
    """What a flow returns so that its run ends with a sentence of its own in Prefect's lists.

    Args:
        value: what the flow gives its caller; Prefect takes it out of the state.
        message: what came of the run.
    """
    if flow_run.id is None:  # called as a plain function
        return value
    get_run_logger().info(message)
    return cast("R", Completed(data=value, message=message))


class _NoTracebackOfOurErrors(logging.Filter):
    """An error that is a sentence for people is logged without the way it came."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], ThyroError):
            record.exc_info, record.exc_text = None, None
        return True


_WITHOUT_TRACEBACK = _NoTracebackOfOurErrors()


@contextmanager
def run_of(flow: str) -> Iterator[None]:
    """What every flow has around its work: it ends with its server and explains a failure."""
    end_with_server()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_WITHOUT_TRACEBACK)
    try:
        yield
    except (ThyroError, OSError) as error:
        _explain(flow, sentence(error))
        raise
    finally:
        end_soon_if_orphan()


def _explain(flow: str, what: str) -> None:
    page = [
        f"# {flow} failed",
        what,
        "What is finished is kept: the same run started again goes on where this one stopped.",
        f"*{NOTICE}*",
    ]
    show_page(f"{flow}-failure", "\n\n".join(page), "What went wrong and what to do")
