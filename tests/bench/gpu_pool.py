"""Worker processes that are started once and share one GPU; needs nothing beside Python."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("gpu_worker.py")


class WorkerError(RuntimeError):
    """A worker has ended, or could not do what it was asked."""


class Pool:
    """Some worker processes.

    Attributes:
        size: How many there are.
    """

    def __init__(self, processes: Sequence["subprocess.Popen[str]"]) -> None:
        self._processes = processes
        self.size = len(processes)

    def ask(self, request: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        """The answers of the first workers to one request, which they work on at the same time."""
        for process in self._processes[:count]:
            self._send(process, request)
        return [self._receive(process) for process in self._processes[:count]]

    def work_off(self, requests: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answers as they come: each worker takes the next request when it has answered one."""
        waiting: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        found: queue.SimpleQueue[dict[str, Any] | WorkerError] = queue.SimpleQueue()
        for request in requests:
            waiting.put(request)

        def serve(process: "subprocess.Popen[str]") -> None:
            while True:
                try:
                    request = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._send(process, request)
                    found.put({**request, **self._receive(process)})
                except (WorkerError, OSError) as error:
                    found.put(WorkerError(str(error)))
                    return

        for process in self._processes:
            threading.Thread(target=serve, args=(process,), daemon=True).start()
        for _ in requests:
            answer = found.get()
            if isinstance(answer, WorkerError):
                raise answer
            yield answer

    @staticmethod
    def _send(process: "subprocess.Popen[str]", request: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()

    @staticmethod
    def _receive(process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            msg = "a worker process has ended"
            raise WorkerError(msg)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


@contextmanager
def workers(count: int, options: Sequence[str], more: Mapping[str, str]) -> Iterator[Pool]:
    """So many worker processes, ready; they end with the block.

    Args:
        count: how many.
        options: of the setting.
        more: added to their environment.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(more)
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(count)
    ]
    try:
        pool = Pool(processes)
        for process in processes:
            pool._receive(process)
        yield pool
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
