"""Progress of a whole study, added up from its jobs: share of the work, and time left."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapreplace

from thyro_core.config import Architecture, StudyConfig
from thyro_core.study.progress import JobProgress, slowest_first
from thyro_core.study.work import results_work, run_work
from thyro_core.training.networks import NETWORK_FIGURES

_SLOWEST_CORE = 1 / 100
"""Tables and report are made on a CPU core, wherever training runs [s/GFLOP]."""

_TURNOVER = timedelta(seconds=60)
"""Between the end of a job and the first position of the next one on the same cores."""


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        work_done: Of all splits [GFLOP].
        work_total: Of all splits, of the tables that follow and of the report [GFLOP]; as if a
            split were 1 before any job has published.
        splits: Of the study.
        n_ended: Splits whose job is over.
        images_per_second: Of the jobs that run.
        training_seconds: Until the last split is trained [s]; None: nothing is measured yet.
        results_seconds: Of the tables and the report after it [s]; None: the same.
        job_seconds: Until each running job is done [s].
    """

    work_done: float
    work_total: float
    splits: int
    n_ended: int
    images_per_second: float
    training_seconds: float | None
    results_seconds: float | None
    job_seconds: Mapping[int, float]
    results_work: float
    """Of the tables and the report, in `work_total` [GFLOP]."""

    @property
    def results_share(self) -> float:
        """Of the work, what the tables and the report are."""
        return self.results_work / self.work_total

    @property
    def share(self) -> float:
        """Of the work, what is done."""
        return self.work_done / self.work_total

    @property
    def seconds_left(self) -> float | None:
        """Until the report is there [s]; None: not known yet."""
        if self.training_seconds is None or self.results_seconds is None:
            return None
        return self.training_seconds + self.results_seconds


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
    config: StudyConfig,
    positions: Mapping[int, JobProgress],
    running: Collection[int],
    now: datetime,
) -> StudyProgress:
    """Add up the jobs of a study.

    Each architecture takes as long as it took in this study so far; one that has not begun is
    expected to take what its work takes. The splits that wait are dealt to the jobs' places as they
    become free.

    Args:
        config: of the study.
        positions: where the jobs were last, by split.
        running: the splits whose jobs run now.
        now: the present, with its time zone.
    """
    jobs = list(positions.values())
    runs = _runs(config, jobs)
    results = results_work(config) if jobs else 0.0
    speeds = _Speeds(jobs)
    job_seconds: dict[int, float] = {}
    training_seconds, results_seconds = None, None
    if speeds.mean is not None:
        rest = {
            split: sum(
                work * speeds.of(name) for name, work in _rest(runs, positions.get(split)).items()
            )
            for split in range(config.splits)
        }
        job_seconds = {
            split: max(0.0, rest[split] - (positions[split].silence(now) or 0.0))
            for split in running
        }
        waiting = [rest[split] for split in rest if split not in job_seconds]
        training_seconds = _makespan(
            list(job_seconds.values()),
            waiting,
            _concurrent_jobs(jobs, [positions[s] for s in running]),
        )
        results_seconds = results * max(speeds.mean, _SLOWEST_CORE)
    split_work = max((job.work_total for job in jobs), default=1.0)
    return StudyProgress(
        work_done=sum(job.work_done for job in jobs),
        work_total=config.splits * split_work + results,
        splits=config.splits,
        n_ended=sum(job.state in {"finished", "failed"} for job in jobs),
        images_per_second=sum(positions[split].images_per_second for split in running),
        training_seconds=training_seconds,
        results_seconds=results_seconds,
        job_seconds=job_seconds,
        results_work=results,
    )


def _runs(config: StudyConfig, jobs: list[JobProgress]) -> dict[Architecture, float]:
    """Work of each architecture of a split, in the order of training."""
    names = slowest_first(config.architectures)
    images = next(((job.n_train, job.n_test) for job in jobs if job.n_train), None)
    if images is not None:
        return {name: run_work(config, name, images) for name in names}
    total = max((job.work_total for job in jobs), default=0.0)
    whole = sum(NETWORK_FIGURES[name].gflop for name in names)
    return {name: total * NETWORK_FIGURES[name].gflop / whole for name in names}


def _rest(runs: Mapping[Architecture, float], job: JobProgress | None) -> dict[Architecture, float]:
    """What is left of a split, by architecture."""
    if job is None:
        return dict(runs)
    if job.state in {"finished", "failed"}:
        return {}
    rest, work_done = {}, job.work_done
    for name, work in runs.items():
        rest[name] = work - min(work, work_done)
        work_done -= min(work, work_done)
    return rest


class _Speeds:
    """Seconds that a unit of work took in this study, by architecture."""

    def __init__(self, jobs: list[JobProgress]) -> None:
        seconds: dict[str, float] = defaultdict(float)
        work: dict[str, float] = defaultdict(float)
        for job in jobs:
            for name, (run_seconds, done_work) in job.costs.items():
                seconds[name] += run_seconds
                work[name] += done_work
            current = job.current_cost
            if current is not None and current[0] > 0 and current[1] > 0:
                seconds[job.architecture] += current[0]
                work[job.architecture] += current[1]
        self._by_name = {name: seconds[name] / work[name] for name in work if work[name] > 0}
        all_work = sum(work.values())
        self.mean = sum(seconds.values()) / all_work if all_work > 0 else None

    def of(self, name: Architecture) -> float:
        return self._by_name.get(name, self.mean or 0.0)


def _concurrent_jobs(jobs: list[JobProgress], live: list[JobProgress]) -> int:
    """How many jobs run at once: the most that did lately, as one may just be taking its place."""
    spans = [span for job in jobs if (span := job.span) is not None]
    if not spans:
        return max(1, len(live))
    starts = [span[0] for job in live if (span := job.span) is not None]
    since = min(starts, default=max(end for _, end in spans)) - _TURNOVER
    moments = [max(start, since) for start, end in spans if end >= since]
    at_once = (sum(start <= moment <= end for start, end in spans) for moment in moments)
    return max(1, len(live), *at_once)


def _makespan(live: list[float], waiting: list[float], places: int) -> float:
    """Until the last job is over, each of those that wait taken up by the place that is free first.

    Args:
        live: seconds left of the jobs that run.
        waiting: seconds of those that do not.
        places: for jobs.
    """
    ends = sorted([*live, *[0.0] * (places - len(live))])
    for seconds in sorted(waiting, reverse=True):
        heapreplace(ends, ends[0] + seconds)
    return max(ends, default=0.0)
