"""Progress of a study: each job publishes its position in the store; who watches adds them up.

Terminal, Prefect's artifacts and `thyro status` show the same figures, computed here.
"""

import json
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from thyro_core.config import Architecture, StudyConfig
from thyro_core.store.keys import progress_key
from thyro_core.store.store import WRITE_ERRORS, Store
from thyro_core.study.plan import StudyPlan
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

    @property
    def share(self) -> float:
        """Of its work, what is done."""
        return self.work_done / self.work_total

    @property
    def rate(self) -> float | None:
        """Work in a second since this attempt started [GFLOP/s]; None: not known yet."""
        if self.started is None or self.updated is None:
            return None
        duration = datetime.fromisoformat(self.updated) - datetime.fromisoformat(self.started)
        work, seconds = self.work_done - self.work_before, duration.total_seconds()
        return work / seconds if work > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until the job is done at this rate [s]; None: not known yet."""
        return None if self.rate is None else (self.work_total - self.work_done) / self.rate

    def silence(self, now: datetime) -> float | None:
        """Seconds since the last publication; None: positions of older versions have no time."""
        if self.updated is None:
            return None
        # Clocks of two machines may differ by a little: nothing is published in the future.
        return max(0.0, (now - datetime.fromisoformat(self.updated)).total_seconds())

    def is_silent(self, now: datetime) -> bool:
        """Whether the job may have been stopped; without a time nothing tells that it has."""
        return (self.silence(now) or 0.0) > SILENT_SECONDS


@dataclass(frozen=True)
class Progress:
    """How far the training of a study is.

    Attributes:
        work_done: Of all splits [GFLOP].
        work_total: Of all splits [GFLOP]; as if it were 1 a split before any job has published.
        ended: Splits whose job is over.
        images_per_second: Of the jobs that run.
        seconds_left: Until all training is done at the rate of the jobs that run [s]; None: none
            runs, or the rate of one is not known yet.
    """

    work_done: float
    work_total: float
    ended: int
    images_per_second: float
    seconds_left: float | None

    @property
    def share(self) -> float:
        """Of the work, what is done."""
        return self.work_done / self.work_total


def running_splits(positions: Mapping[int, JobProgress], now: datetime) -> list[int]:
    """Splits whose jobs run and are not silent.

    Args:
        positions: where the jobs were last, by split.
        now: the present, with its time zone.
    """
    return [
        split
        for split, job in positions.items()
        if job.state == "running" and not job.is_silent(now)
    ]


def study_progress(
    splits: int, positions: Mapping[int, JobProgress], running: Iterable[int]
) -> Progress:
    """Add up the jobs of a study.

    Args:
        splits: how many the study has.
        positions: where the jobs were last, by split.
        running: the splits whose jobs run now.
    """
    jobs = list(positions.values())
    work_total = splits * max((job.work_total for job in jobs), default=1.0)
    work_done = sum(job.work_done for job in jobs)
    live = [positions[split] for split in running]
    rates = [job.rate for job in live if job.rate is not None]
    seconds_left = None
    if sum(job.state == "finished" for job in jobs) == splits:
        seconds_left = 0.0
    elif live and len(rates) == len(live):
        seconds_left = (work_total - work_done) / sum(rates)
    return Progress(
        work_done=work_done,
        work_total=work_total,
        ended=sum(job.state in {"finished", "failed"} for job in jobs),
        images_per_second=sum(job.images_per_second for job in live),
        seconds_left=seconds_left,
    )


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
        self, store: Store, plan: StudyPlan, split: int, images: int, interval: float = 1.0
    ) -> None:
        self._store = store
        self._store_without_retries = store.without_retries()
        self._plan = plan
        self._split = split
        self._images = images
        self._interval = interval
        self._due = float("-inf")
        self._work_done = 0.0
        self._before = 0.0
        self._start_time = _now()
        self._total = sum(self._whole(name) for name in plan.config.architectures)

    def _whole(self, architecture: Architecture) -> float:
        return self._work(architecture, self._plan.config.epochs * self._images)

    def _work(self, architecture: Architecture, images: int) -> float:
        return (
            NETWORK_FIGURES[architecture].gflop * images * (self._plan.config.image_size / 224) ** 2
        )

    def add_resumed(self, architecture: Architecture, epochs: int) -> None:
        """So many epochs of an architecture were done by an earlier attempt."""
        self._before += self._work(architecture, epochs * self._images)

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
        work = self._work(architecture, epochs * self._images + images)
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
        self._work_done += self._whole(architecture)
        if earlier:
            self.add_resumed(architecture, self._plan.config.epochs)

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
    names = {field.name for field in fields(JobProgress)}
    return JobProgress(**{name: value for name, value in plain.items() if name in names})
