"""Where a running job stands: one small object in the store, which anyone may watch."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from thyro_core import paths
from thyro_core.config import Architecture
from thyro_core.plan import StudyPlan
from thyro_core.storage import Store

# GFLOP of one training image at the paper's sizes: the unit that makes epochs comparable.
_GFLOP = {"resnet18": 10.65, "alexnet": 4.1, "vgg16": 92.6, "inception_v3": 34.3}

State = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class JobProgress:
    """A split job's position. Work is in GFLOP of training, to add up over architectures."""

    split: int
    state: State
    architecture: str
    epoch: int
    images_per_second: float
    work_done: float
    work_total: float


def slowest_first(architectures: Iterable[Architecture]) -> list[Architecture]:
    """Architectures by descending cost, so that the last ones of a study are short."""
    return sorted(architectures, key=lambda name: -_GFLOP[name])


class JobReporter:
    """Publishes one job's position, at most once in `interval` seconds while it runs."""

    def __init__(
        self, store: Store, plan: StudyPlan, split: int, images: int, interval: float = 1.0
    ) -> None:
        self._store = store
        self._plan = plan
        self._split = split
        self._images = images
        self._interval = interval
        self._last = float("-inf")
        self._done = 0.0
        self._total = sum(self._whole(name) for name in plan.config.architectures)

    def _whole(self, architecture: str) -> float:
        return self._work(architecture, self._plan.config.epochs * self._images)

    def _work(self, architecture: str, images: int) -> float:
        return _GFLOP[architecture] * images * (self._plan.config.image_size / 224) ** 2

    def position(self, architecture: str, epochs: int, images: int, seconds: float) -> None:
        """So many epochs are done, and so many images of the next one in so many seconds."""
        if time.monotonic() - self._last < self._interval:
            return
        work = self._work(architecture, epochs * self._images + images)
        self._write("running", architecture, epochs + 1, images / seconds, self._done + work)

    def finished(self, architecture: str) -> None:
        """An architecture is done, now or long ago."""
        self._done += self._whole(architecture)

    def end(self, state: State) -> None:
        """The job is over."""
        self._write(state, "", 0, 0.0, self._done)

    def _write(
        self, state: State, architecture: str, epoch: int, speed: float, done: float
    ) -> None:
        progress = JobProgress(self._split, state, architecture, epoch, speed, done, self._total)
        key = paths.progress_key(self._plan.study_id, self._split)
        self._store.write(key, json.dumps(asdict(progress)).encode())
        self._last = time.monotonic()


def read_job_progress(store: Store, study_id: str, split: int) -> JobProgress | None:
    """A job's position; None: it has not published one."""
    try:
        plain = json.loads(store.read(paths.progress_key(study_id, split)))
    except FileNotFoundError:
        return None
    return JobProgress(**plain)
