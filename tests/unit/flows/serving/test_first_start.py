"""A new PREFECT_HOME gets its database from one server at a time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.serving import server
from flows.serving.server import first_start


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with temporary_settings({PREFECT_HOME: tmp_path / "home"}):
        yield tmp_path / "home"


def start(home: Path, made: list[bool]) -> None:
    """As a server that makes the database when it starts."""
    with temporary_settings({PREFECT_HOME: home}), first_start():
        database = home / "prefect.db"
        made.append(not database.exists())
        threading.Event().wait(0.1)
        database.touch()


def test_one_of_several_first_starts_makes_the_database(home) -> None:
    made: list[bool] = []
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: start(home, made), range(3)))
    assert sorted(made) == [False, False, True]


def test_later_starts_wait_for_nobody(home) -> None:
    start(home, [])
    with first_start(), first_start():
        pass


def test_a_start_that_fails_is_the_first_again(home, monkeypatch) -> None:
    with pytest.raises(ZeroDivisionError), first_start():
        1 / 0  # noqa: B018
    start(home, [])
    (home / "prefect.db").unlink()
    taken = []
    monkeypatch.setattr(server.FileLock, "acquire", lambda *_: taken.append(1))
    with first_start():
        pass
    assert taken == [1], "the database is gone: it is made anew"


def test_one_that_hangs_keeps_nobody_for_ever(home, monkeypatch) -> None:
    monkeypatch.setattr(server, "START_SECONDS", 0.1)
    with first_start(), ThreadPoolExecutor(1) as pool:
        pool.submit(start, home, []).result(timeout=20)
