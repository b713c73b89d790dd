"""Where a study stands, from its store alone: no running process takes part."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from thyro_core.store.keys import (
    checkpoint_key,
    progress_key,
    run_key,
    study_folder,
    table_key,
    table_prefix,
)
from thyro_core.store.store import Store
from thyro_core.study.job import predictions_key
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.study.progress import JobProgress, parse_job_progress
from thyro_core.study.study_progress import study_progress

State = Literal["finished", "running", "silent", "failed", "interrupted", "waiting"]
STATES: tuple[State, ...] = (
    "finished",
    "running",
    "silent",
    "failed",
    "interrupted",
    "waiting",
)
"""`silent`: the last position is a running job's, and older than `SILENT_SECONDS`. `interrupted`:
the job was stopped, or a checkpoint is there and no job. `waiting`: nothing is there yet."""

_Run = tuple[int, str]


@dataclass(frozen=True)
class RunStatus:
    """Where one split x architecture stands; None is what the store does not tell.

    Attributes:
        epoch: The epoch it is in, or its last one.
        images_per_second: Training images, while it runs.
        seconds_left: Of its split's job [s].
        silent_seconds: How long ago a running job last published [s].
        seconds: Wall-clock time so far, all attempts [s].
        gpu_seconds: The same x GPUs held [s].
        error: What stopped a failed run.
    """

    split: int
    architecture: str
    state: State
    epoch: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    silent_seconds: float | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    host: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class StudyStatus:
    """Where a study stands.

    Attributes:
        concluded: Whether all runs are finished and the metrics are written.
        epochs: Epochs of a run.
        runs: By split, then in the config's order of architectures.
        counts: Runs in each state, those there are.
        images_per_second: Of all running jobs.
        seconds_left: Until the report is there, as fast as the study was so far [s]; None:
            unknown, because none runs or none has got anywhere yet.
        seconds: Sum of the runs' wall-clock times so far [s].
        gpu_seconds: Sum of the runs' GPU times so far [s].
    """

    study_id: str
    concluded: bool
    epochs: int
    runs: tuple[RunStatus, ...]
    counts: Mapping[str, int]
    images_per_second: float
    seconds_left: float | None
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class Traces:
    """What a study left in its store so far.

    Attributes:
        finished_runs: Runs whose predictions are there.
        checkpoints: Runs that have a resumable state.
        records: What finished and failed runs wrote of themselves.
        progress: The jobs' last positions, by split.
        has_metrics: Whether the metrics are written.
    """

    plan: StudyPlan
    finished_runs: frozenset[_Run] = frozenset()
    checkpoints: frozenset[_Run] = frozenset()
    records: Mapping[_Run, Mapping[str, Any]] = field(default_factory=dict)
    progress: Mapping[int, JobProgress] = field(default_factory=dict)
    has_metrics: bool = False


def study_status(store: Store, study_id: str, now: datetime) -> StudyStatus:
    """Where a study stands, from its store.

    Args:
        store: where it lies.
        study_id: the study.
        now: the present, with its time zone.

    Raises:
        InputError: there is no such study.
    """
    return status_of(read_traces(store, study_id), now)


def read_traces(store: Store, study_id: str) -> Traces:
    """What a study left, with few requests to the store however many runs it has.

    Raises:
        InputError: there is no such study.
    """
    plan = load_plan(store, study_id)
    runs = [(s, a) for s in range(plan.config.splits) for a in plan.config.architectures]
    predictions = f"{table_prefix('predictions')}/study_id={study_id}"
    keys = {*store.keys(study_folder(study_id)), *store.keys(predictions)}
    records = {run_key(study_id, *run): run for run in runs}
    progress = {progress_key(study_id, s): s for s in range(plan.config.splits)}
    objects = store.read_all(sorted(keys & (records.keys() | progress.keys())))
    return Traces(
        plan=plan,
        finished_runs=frozenset(run for run in runs if predictions_key(study_id, *run) in keys),
        checkpoints=frozenset(run for run in runs if checkpoint_key(study_id, *run) in keys),
        records={records[key]: json.loads(objects[key]) for key in objects if key in records},
        progress={
            progress[key]: parse_job_progress(objects[key]) for key in objects if key in progress
        },
        has_metrics=store.exists(table_key("metrics", study_id=study_id)),
    )


def status_of(traces: Traces, now: datetime) -> StudyStatus:
    """Judge what a study left; reads nothing.

    Args:
        traces: what is in the store.
        now: the present, with its time zone.
    """
    config = traces.plan.config
    runs = [
        _run_status(traces, (split, architecture), now)
        for split in range(config.splits)
        for architecture in config.architectures
    ]
    counts = Counter(run.state for run in runs)
    is_finished = counts["finished"] == len(runs)
    running = [run.split for run in runs if run.state == "running"]
    progress = study_progress(config, traces.progress, running, now)
    seconds = progress.job_seconds
    return StudyStatus(
        study_id=traces.plan.study_id,
        concluded=traces.has_metrics and is_finished,
        epochs=config.epochs,
        runs=tuple(
            replace(run, seconds_left=seconds.get(run.split)) if run.state == "running" else run
            for run in runs
        ),
        counts={state: counts[state] for state in STATES if counts[state]},
        images_per_second=progress.images_per_second,
        # Old studies have predictions and no positions; where predictions were deleted since, the
        # positions of jobs that are over do not count.
        seconds_left=0.0 if is_finished else progress.seconds_left if running else None,
        seconds=sum(run.seconds or 0.0 for run in runs),
        gpu_seconds=sum(run.gpu_seconds or 0.0 for run in runs),
    )


def _run_status(traces: Traces, run: _Run, now: datetime) -> RunStatus:
    split, architecture = run
    record = traces.records.get(run, {})
    if run in traces.finished_runs:
        return RunStatus(
            split,
            architecture,
            "finished",
            epoch=traces.plan.config.epochs,
            seconds=record.get("seconds"),
            gpu_seconds=record.get("gpu_seconds"),
            host=record.get("host"),
        )
    progress = traces.progress.get(split)
    if progress is not None and progress.architecture != architecture:
        progress = None
    if progress and progress.state == "running":
        return _running(progress, now)
    if progress and progress.state == "stopped":
        return RunStatus(
            split,
            architecture,
            "interrupted",
            epoch=progress.epoch,
            seconds=progress.seconds,
            gpu_seconds=progress.gpu_seconds,
            host=progress.host,
        )
    state: State = "interrupted" if run in traces.checkpoints else "waiting"
    return RunStatus(
        split,
        architecture,
        "failed" if record.get("status") == "failed" else state,
        seconds=record.get("seconds"),
        gpu_seconds=record.get("gpu_seconds"),
        host=record.get("host"),
        error=record.get("error"),
    )


def _running(job: JobProgress, now: datetime) -> RunStatus:
    silent = job.is_silent(now)
    return RunStatus(
        job.split,
        job.architecture,
        "silent" if silent else "running",
        epoch=job.epoch,
        images_per_second=None if silent else job.images_per_second,
        silent_seconds=job.silence(now),
        seconds=job.seconds,
        gpu_seconds=job.gpu_seconds,
        host=job.host,
    )
