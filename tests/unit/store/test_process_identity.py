"""Whether a process lives, told by its name alone."""

import os
import subprocess
import sys

import pytest

from thyro_core.store import process_identity
from thyro_core.store.process_identity import is_gone, is_here, this_process

NAME = (
    "from thyro_core.store.process_identity import this_process; "
    "print(this_process(), flush=True); input()"
)


def test_this_process_is_here() -> None:
    name = this_process()
    assert name.split("/")[-2] == str(os.getpid())
    assert (is_here(name), is_gone(name)) == (True, False)


def test_another_is_here_until_it_ends_even_if_nobody_has_asked_how() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        assert name != this_process()
        assert (is_here(name), is_gone(name)) == (True, False)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert (is_here(name), is_gone(name)) == (False, True)
    assert (is_here(name), is_gone(name)) == (False, True)


def test_an_id_that_is_used_again_is_another_process() -> None:
    machine, pid, started = this_process().rsplit("/", 2)
    earlier = f"{machine}/{pid}/{int(started) - 1}"
    assert (is_here(earlier), is_gone(earlier)) == (False, True)


@pytest.mark.parametrize(
    "name", ["", "/", "//", "host/1/2", "host/pid:[1]/x/2", "another-boot/pid:[4026531836]/1/2"]
)
def test_of_another_machine_nothing_is_known(name: str) -> None:
    assert (is_here(name), is_gone(name)) == (False, False)


def test_without_proc_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    name = this_process()
    monkeypatch.setattr(process_identity, "_PROC", tmp_path)
    process_identity._machine_id.cache_clear()
    try:
        assert this_process() == ""
        assert (is_here(name), is_gone(name)) == (False, False)
        assert (is_here(""), is_gone("")) == (False, False)
    finally:
        process_identity._machine_id.cache_clear()
