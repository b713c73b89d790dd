"""What all tests share: no deadlines, and no settings of the one who runs them."""

import atexit
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType, ModuleType

import pytest
from hypothesis import settings

from tests.support.browser import browser
from tests.support.finished_study import finished
from tests.support.prefect_process import stop_prefect
from tests.support.report_store import full
from tests.support.s3server import s3_server
from tests.support.screened import model, ward

# Here and nowhere else: a fixture that two modules import is two fixtures, and two servers.
__all__ = ["browser", "finished", "full", "model", "s3_server", "ward"]

# fsspec's and Prefect's event loops, and the pools of asyncio and anyio.
_PROCESS_WIDE_THREADS = ("fsspecIO", "asyncio_", "AnyIO", "GlobalEventLoop", "RunSyncEventLoop")

# As for a command: flows that run in this process start a server of Prefect's, at its own pace.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

# What a command keeps in its user's cache is gone with the tests.
_CACHE = tempfile.TemporaryDirectory(prefix="thyro-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

settings.register_profile("thyro", deadline=None)
# `make fuzz`: new cases each time, and so many that they are a task for a night.
settings.register_profile("fuzz", deadline=None, max_examples=100_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "thyro"))


def _clear_ended_frames() -> None:
    """Let go of the variables of functions that have ended, where something keeps their frames.

    Pydantic's ValidationError keeps what a validator raised, with its frames and their callers, and
    Python's collector cannot see through it: a test that keeps such an error is never let go of.
    """
    # By type: `isinstance` asks the object, and a deprecated one of torch warns.
    for frame in [each for each in gc.get_objects() if type(each) is FrameType]:
        with suppress(RuntimeError):  # it is at work still
            frame.clear()


def _release_import_hook() -> None:
    """Let go of pytest's import hook before Python ends.

    Modules keep it as their loader, and beside torch something keeps such a module beyond the
    interpreter's end. The hook holds the session, so all tests' modules, and DuckDB's binding then
    reports each of its objects that they can reach as leaked: a screen of lines. Modules let go of
    DuckDB itself too.
    """
    hook = __spec__.loader
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.loader is hook:
            spec.loader = None
            module.__loader__ = None  # type: ignore[assignment]
        if isinstance(module, ModuleType):
            vars(module).pop("duckdb", None)


atexit.register(_release_import_hook)
atexit.register(_clear_ended_frames)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's own THYRO_* settings decide no test."""
    for name in [name for name in os.environ if name.startswith("THYRO_")]:
        if name != "THYRO_SHARED":
            monkeypatch.delenv(name)


@pytest.fixture(scope="module", autouse=True)
def _quiet_process() -> Iterator[None]:
    """No module's server, client or thread is still at work in the next one.

    Threads of libraries that serve the whole process and sleep while nobody calls them may stay.
    """
    before = set(threading.enumerate())
    yield
    stop_prefect()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        threads = [thread for thread in threading.enumerate() if thread not in before]
        names = sorted(t.name for t in threads if not t.name.startswith(_PROCESS_WIDE_THREADS))
        if not names:
            return
        time.sleep(0.1)
    pytest.fail(f"threads that the tests of this module left at work: {', '.join(names)}")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums in one order, and room for others on the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
