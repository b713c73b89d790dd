"""A file that a person names on the command line: read, or refused at once and in words."""

import os
import threading
from pathlib import Path

import pytest

from flows.cli.errors import read_input
from thyro_core.errors import InputError


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_input(tmp_path / "link", "a", "a file") == b"abc"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # Whoever reads it all the same is let go, and fails the test, instead of waiting for ever.
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    timer = threading.Timer(10, os.close, (writer,))
    timer.start()
    with pytest.raises(InputError, match="a: expected a file, found a pipe; save its contents"):
        read_input(tmp_path / "pipe", "a", "a file")
    timer.cancel()
    os.close(writer)


def test_what_else_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, words in (
        (Path("/dev/zero"), "a socket or a device"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(InputError, match=words):
            read_input(path, "a", "a file")
