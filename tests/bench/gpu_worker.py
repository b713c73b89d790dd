"""A process that trains what it is told to, line by line: one of several that share a GPU.

Each line of its input is a request in JSON, each line of its output the answer:

    {"do": "prepare", "architecture": "resnet18", "graphs": true}
    {"do": "measure"}                                  images a second of what was prepared
    {"do": "train", "architecture": "resnet18", "split": 3, "graphs": true}
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from gpu_setting import (
    Job,
    Setting,
    free_memory,
    prepare,
    rate_of,
    setting_of,
    synchronise,
    warm_up,
)


class Worker:
    """Holds the job that was prepared last."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._job: Job | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        if request["do"] == "measure":
            assert self._job is not None, "nothing is prepared"
            return {"rate": rate_of(self._job.train_epoch, self._setting)}
        started = time.perf_counter()
        self._job = None
        free_memory(self._setting.device)
        job = Job(
            self._setting,
            request["architecture"],
            request.get("split", 0),
            graphs=request["graphs"],
        )
        if request["do"] == "prepare":
            self._job = job
            return {"seconds": warm_up(job), "replayed": job.is_replayed}
        ready = time.perf_counter()
        images = sum(job.train_epoch() for _ in range(self._setting.epochs))
        synchronise(self._setting.device)
        seconds = time.perf_counter() - ready
        return {"seconds": seconds, "preparation": ready - started, "images": images}


def answers(lines: Iterable[str], worker: Worker) -> Iterator[str]:
    """One line for each line."""
    for line in lines:
        try:
            found = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the one who asked is told, and asks on
            found = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        yield json.dumps(found)


def main(words: list[str]) -> None:
    setting = setting_of(words)
    prepare(setting)
    synchronise(setting.device)
    print(json.dumps({"ready": True}), flush=True)
    for text in answers(sys.stdin, Worker(setting)):
        print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
