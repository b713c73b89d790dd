"""Decode untrusted files in a separate process: a crash of the decoder harms nothing else.

A decoder is C code that meets bytes nobody has checked. One file in a million makes it crash, never
end or take all memory. The process is used until it dies; its caller knows which file
it was decoding then.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import LifoQueue
from typing import Generic, TypeVar

PROGRAM = "thyro_core.imaging.sandbox"
"""The module that runs in the process."""

SECONDS = 120.0
"""Time that a file may take [s]."""

MOST_MEMORY = 4 * 1024**3
"""Address space of the process [bytes]; a file that wants more fails alone."""

FileAnswer = TypeVar("FileAnswer")

_PIPE_ERRORS = (EOFError, BrokenPipeError, ConnectionResetError)


class DecoderDiedError(Exception):
    """The process died, or had to be ended, over a file; the text is the reason in its row."""


class DecoderProcess(Generic[FileAnswer]):
    """A process that decodes one file after the other; it starts with the first one.

    Args:
        read: reads a file's bytes; with its arguments, such as a key, it travels through a pipe,
            never as an argument of the process.
    """

    def __init__(self, read: Callable[[bytes], FileAnswer]) -> None:
        self._read = read
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None

    def __call__(self, data: bytes) -> FileAnswer:
        """What `read` returns for a file.

        Raises:
            DecoderDiedError: the process died over it, or took too long.
        """
        process, pipe = self._running or self._launch()
        self._running = (process, pipe)
        try:
            pipe.send(data)
            if pipe.poll(SECONDS):
                answer: FileAnswer = pipe.recv()
                return answer
        except _PIPE_ERRORS as error:
            self.close()
            raise DecoderDiedError("crashed_decoder") from error  # noqa: EM101
        self.close()
        raise DecoderDiedError("hung_decoder")  # noqa: EM101

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            process, pipe = self._running
            self._running = None
            pipe.close()
            process.kill()
            process.wait()

    def _launch(self) -> tuple["subprocess.Popen[bytes]", Connection]:
        ours, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        ours.send(self._read)
        return process, ours


class DecoderPool(Generic[FileAnswer]):
    """Processes that decode for several threads at once, each one file at a time.

    Args:
        read: as for `DecoderProcess`.
        size: most processes; they start as they are needed.
    """

    def __init__(self, read: Callable[[bytes], FileAnswer], size: int) -> None:
        self._processes: list[DecoderProcess[FileAnswer]] = [
            DecoderProcess(read) for _ in range(size)
        ]
        # The last one back is the next one out: a process that is not needed never starts.
        self._idle: LifoQueue[DecoderProcess[FileAnswer]] = LifoQueue()
        for process in self._processes:
            self._idle.put(process)

    def __call__(self, data: bytes) -> FileAnswer:
        """What `read` returns for a file; it waits while all processes are at work.

        Raises:
            DecoderDiedError: the process died over it, or took too long.
        """
        with self._idle_process() as process:
            return process(data)

    @contextmanager
    def _idle_process(self) -> Iterator[DecoderProcess[FileAnswer]]:
        process = self._idle.get()
        try:
            yield process
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.close()


def serve_files(pipe: Connection) -> None:
    """FileAnswer until the other end is gone, which is also how its death is noticed."""
    read: Callable[[bytes], object] = pipe.recv()
    while True:
        try:
            data = pipe.recv()
        except EOFError:
            return
        pipe.send(read(data))


def limit_memory() -> None:
    """Bound the address space of this process, where the system can; a lower bound stays."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MOST_MEMORY if hard == resource.RLIM_INFINITY else min(MOST_MEMORY, hard)
    # macOS has mapped more than that before a program begins, and refuses. Without this bound
    # those of the rules remain: on bytes, pixels and frames.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Serve on the pipe whose number is the only argument."""
    limit_memory()
    # A crash is expected here; its memory image may hold a patient's picture.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve_files(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
