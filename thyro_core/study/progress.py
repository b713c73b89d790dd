"""Progress of a split: each job publishes its position in the store; who watches adds them up."""

import json
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from thyro_core.config import Architecture, StudyConfig
from thyro_core.store.keys import progress_key
from thyro_core.store.store import WRITE_ERRORS, Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.work import run_work, training_work
from thyro_core.training.networks import NETWORK_FIGURES
from thyro_core.training.timer import NO_COST, RunCost

_SHARE = 0.05
"""Of a job's time that its reports may take."""

_LONGEST_PAUSE = 120.0
"""Between two reports to a slow store [s]; silence of some minutes looks like death."""

SILENT_SECONDS = 300.0
"""A running job that has published nothing for so long [s] may have been stopped.

While it trains it publishes once a second or once a batch; while it predicts its test part, not at
all. So silence is no proof, and is shown with its length.
"""

_LOG = logging.getLogger(__name__)

State = Literal["running", "finished", "failed", "stopped"]
"""`stopped`: by the program that leads the study, which was stopped itself."""


@dataclass(frozen=True)
class JobProgress:
    """A split job's position. Work is in GFLOP of training, to add up over architectures.

    What objects of older versions lack is None, or 0.

    Attributes:
        started: Start of this attempt at the job, ISO 8601 in UTC.
        updated: When this was published, ISO 8601 in UTC.
        work_before: The part of `work_done` that earlier attempts did.
        seconds: Wall-clock time of the architecture's run, over all its attempts [s].
        gpu_seconds: The same x GPUs held [s].
        host: Where the job runs.
        costs: Seconds and work of the architectures that this attempt finished.
        n_train: Images of the training part.
        n_test: Images of the test part.
    """

    split: int
    state: State
    architecture: str
    epoch: int
    images_per_second: float
    work_done: float
    work_total: float
    started: str | None = None
    updated: str | None = None
    work_before: float = 0.0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    host: str | None = None
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n_train: int = 0
    n_test: int = 0

    @property
    def share(self) -> float:
        """Of its work, what is done."""
        return self.work_done / self.work_total

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Start of this attempt, and the last publication; None: not known."""
        if self.started is None or self.updated is None:
            return None
        return datetime.fromisoformat(self.started), datetime.fromisoformat(self.updated)

    @property
    def current_cost(self) -> tuple[float, float] | None:
        """Seconds and work of this attempt at the architecture it is at; None: not known."""
        if self.span is None or self.state != "running":
            return None
        seconds, work = (sum(cost[part] for cost in self.costs.values()) for part in (0, 1))
        start, end = self.span
        return (end - start).total_seconds() - seconds, self.work_done - self.work_before - work

    def silence(self, now: datetime) -> float | None:
        """Seconds since the last publication; None: positions of older versions have no time."""
        if self.updated is None:
            return None
        # Clocks of two machines may differ by a little: nothing is published in the future.
        return max(0.0, (now - datetime.fromisoformat(self.updated)).total_seconds())

    def is_silent(self, now: datetime) -> bool:
        """Whether the job may have been stopped; without a time nothing tells that it has."""
        return (self.silence(now) or 0.0) > SILENT_SECONDS


def slowest_first(architectures: Iterable[Architecture]) -> list[Architecture]:
    """Architectures by descending cost, so that the last ones of a study are short."""
    return sorted(architectures, key=lambda name: -NETWORK_FIGURES[name].gflop)


def longest_first(
    config: StudyConfig,
    todo: Iterable[tuple[int, Architecture]],
    positions: Mapping[int, JobProgress],
) -> list[int]:
    """Splits by the work that is left of them, most first, so that no long one starts last.

    Args:
        config: of the study.
        todo: the split x architecture that are not finished.
        positions: where the splits' jobs were last, by split.
    """
    work: dict[int, float] = defaultdict(float)
    for split, architecture in todo:
        job = positions.get(split)
        is_current = job is not None and job.architecture == architecture
        epochs = config.epochs - (job.epoch - 1 if job is not None and is_current else 0)
        work[split] += NETWORK_FIGURES[architecture].gflop * epochs
    return sorted(work, key=lambda split: (-work[split], split))


class JobReporter:
    """Publishes one job's position, at most once in `interval` seconds while it runs.

    It is for watchers alone: a position that the store does not take at once is left out, and a
    store that is slow to take it, or to refuse it, is called less often.
    """

    def __init__(
        self,
        store: Store,
        plan: StudyPlan,
        split: int,
        images: tuple[int, int],
        *,
        interval: float = 1.0,
    ) -> None:
        """Begin an attempt at a split.

        Args:
            store: of the study.
            plan: the study.
            split: its number.
            images: of the training part and of the test part.
            interval: least time between two positions [s].
        """
        self._store = store
        self._store_without_retries = store.without_retries()
        self._plan = plan
        self._split = split
        self._images = images
        self._interval = interval
        self._due = float("-inf")
        self._work_done = 0.0
        self._before = 0.0
        self._resumed: dict[str, float] = defaultdict(float)
        self._costs: dict[str, tuple[float, float]] = {}
        self._start_time = _now()
        self._run_start = time.monotonic()
        self._total = sum(self._whole(name) for name in plan.config.architectures)

    def _whole(self, architecture: Architecture) -> float:
        return run_work(self._plan.config, architecture, self._images)

    def _work(self, architecture: Architecture, epochs: int, images: int = 0) -> float:
        return training_work(self._plan.config, architecture, epochs * self._images[0] + images)

    def add_resumed(self, architecture: Architecture, epochs: int) -> None:
        """So many epochs of an architecture were done by an earlier attempt."""
        self._resumed[architecture] = self._work(architecture, epochs)
        self._before += self._resumed[architecture]

    def position(
        self,
        architecture: Architecture,
        epochs: int,
        images: int,
        seconds: float,
        cost: RunCost = NO_COST,
    ) -> None:
        """So many epochs are done, and so many images of the next one in so many seconds."""
        if time.monotonic() < self._due:
            return
        work = self._work(architecture, epochs, images)
        where = {"architecture": architecture, "epoch": epochs + 1}
        began = time.monotonic()
        speed = images / seconds
        self._write(
            self._store_without_retries,
            "running",
            self._work_done + work,
            speed,
            where | asdict(cost),
        )
        now = time.monotonic()
        pause = min(_LONGEST_PAUSE, (now - began) / _SHARE)
        self._due = now + max(self._interval, pause)

    def add_finished(self, architecture: Architecture, *, earlier: bool = False) -> None:
        """An architecture is done: now, or by an earlier attempt."""
        work, now = self._whole(architecture), time.monotonic()
        self._work_done += work
        if earlier:
            self._before += work
        else:
            own_work = work - self._resumed[architecture]
            self._costs[architecture] = (now - self._run_start, own_work)
        self._run_start = now

    def end(self, state: State) -> None:
        """The job is over."""
        nowhere = {"architecture": "", "epoch": 0}
        self._write(self._store, state, self._work_done, 0.0, nowhere)

    def _write(
        self, store: Store, state: State, work_done: float, speed: float, where: dict[str, Any]
    ) -> None:
        progress = JobProgress(
            split=self._split,
            state=state,
            images_per_second=speed,
            work_done=work_done,
            work_total=self._total,
            started=self._start_time,
            updated=_now(),
            work_before=self._before,
            host=socket.gethostname(),
            costs=self._costs,
            n_train=self._images[0],
            n_test=self._images[1],
            **where,
        )
        key = progress_key(self._plan.study_id, self._split)
        try:
            store.write(key, json.dumps(asdict(progress)).encode())
        except WRITE_ERRORS as error:
            _LOG.warning("%s could not be published (%s): the job goes on", key, error)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def read_positions(store: Store, study_id: str, splits: Iterable[int]) -> dict[int, JobProgress]:
    """Positions of those splits' jobs that have published one, read together."""
    keys = {split: progress_key(study_id, split) for split in splits}
    objects = store.read_all(list(keys.values()))
    return {split: parse_job_progress(objects[k]) for split, k in keys.items() if k in objects}


def mark_stopped(store: Store, study_id: str, splits: Iterable[int]) -> None:
    """Note of jobs that were at work that they are no longer; their work and times stay.

    Args:
        store: where the study lies.
        study_id: the study.
        splits: whose jobs are over, whatever they published last.
    """
    for split, job in read_positions(store, study_id, splits).items():
        if job.state == "running":
            stopped_job = replace(job, state="stopped", images_per_second=0.0)
            store.write(progress_key(study_id, split), json.dumps(asdict(stopped_job)).encode())


def read_job_progress(store: Store, study_id: str, split: int) -> JobProgress | None:
    """A job's position; None: it has not published one."""
    try:
        return parse_job_progress(store.read(progress_key(study_id, split)))
    except FileNotFoundError:
        return None


def parse_job_progress(data: bytes) -> JobProgress:
    """A published position; what a newer version adds to it is passed over."""
    plain = json.loads(data)
    plain["costs"] = {name: tuple(cost) for name, cost in plain.get("costs", {}).items()}
    names = {field.name for field in fields(JobProgress)}
    return JobProgress(**{name: value for name, value in plain.items() if name in names})
