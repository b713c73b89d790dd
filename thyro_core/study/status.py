"""Where a study stands, told from its store alone: nothing that runs it is asked."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.study.progress import JobProgress, parse_job_progress

SILENT_SECONDS = 300.0
"""A job that says it runs but has published nothing for so long [s] may have been stopped.

While it trains it publishes once a second or once a batch; while it predicts its test part, not at
all. So silence is no proof, and is shown with its length.
"""

State = Literal["finished", "running", "silent", "failed", "interrupted", "waiting"]
STATES: tuple[State, ...] = (
    "finished",
    "running",
    "silent",
    "failed",
    "interrupted",
    "waiting",
)
"""`silent`: says it runs, and has said nothing for `SILENT_SECONDS`. `interrupted`: a checkpoint
is there and no job. `waiting`: nothing is there yet."""

_Run = tuple[int, str]


@dataclass(frozen=True)
class RunStatus:
    """Where one split x architecture stands; None is what nothing in the store tells.

    Attributes:
        epoch: The epoch it is in, or its last one.
        images_per_second: Training images, while it runs.
        seconds_left: Of its split's job [s], from the work done since the job started.
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
        seconds_left: Until all training is done at the speed of the jobs that run [s]; None:
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
        finished: Runs whose predictions are there.
        checkpoints: Runs that have a resumable state.
        records: What finished and failed runs wrote of themselves.
        progress: The jobs' last positions, by split.
        measured: Whether the metrics are written.
    """

    plan: StudyPlan
    finished: frozenset[_Run] = frozenset()
    checkpoints: frozenset[_Run] = frozenset()
    records: Mapping[_Run, Mapping[str, Any]] = field(default_factory=dict)
    progress: Mapping[int, JobProgress] = field(default_factory=dict)
    measured: bool = False


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
    """What a study left, with few questions to the store however many runs it has.

    Raises:
        InputError: there is no such study.
    """
    plan = load_plan(store, study_id)
    runs = [(s, a) for s in range(plan.config.splits) for a in plan.config.architectures]
    predictions = f"{table_prefix('predictions')}/study_id={study_id}"
    there = {*store.keys(study_folder(study_id)), *store.keys(predictions)}
    records = {run_key(study_id, *run): run for run in runs}
    progress = {progress_key(study_id, s): s for s in range(plan.config.splits)}
    found = store.read_all(sorted(there & (records.keys() | progress.keys())))
    return Traces(
        plan=plan,
        finished=frozenset(run for run in runs if _predictions_key(study_id, run) in there),
        checkpoints=frozenset(run for run in runs if checkpoint_key(study_id, *run) in there),
        records={records[key]: json.loads(found[key]) for key in found if key in records},
        progress={
            progress[key]: parse_job_progress(found[key]) for key in found if key in progress
        },
        measured=store.exists(table_key("metrics", study_id=study_id)),
    )


def _predictions_key(study_id: str, run: _Run) -> str:
    split, architecture = run
    return table_key("predictions", study_id=study_id, split=split, architecture=architecture)


def status_of(traces: Traces, now: datetime) -> StudyStatus:
    """Judge what a study left; reads nothing.

    Args:
        traces: what is in the store.
        now: the present, with its time zone.
    """
    config = traces.plan.config
    runs = tuple(
        _run_status(traces, (split, architecture), now)
        for split in range(config.splits)
        for architecture in config.architectures
    )
    counts = Counter(run.state for run in runs)
    live = [traces.progress[split] for split in _live_splits(runs)]
    return StudyStatus(
        study_id=traces.plan.study_id,
        concluded=traces.measured and counts["finished"] == len(runs),
        epochs=config.epochs,
        runs=runs,
        counts={state: counts[state] for state in STATES if counts[state]},
        images_per_second=sum(progress.images_per_second for progress in live),
        seconds_left=_study_seconds_left(traces, live),
        seconds=sum(run.seconds or 0.0 for run in runs),
        gpu_seconds=sum(run.gpu_seconds or 0.0 for run in runs),
    )


def _live_splits(runs: Sequence[RunStatus]) -> list[int]:
    return [run.split for run in runs if run.state == "running"]


def _run_status(traces: Traces, run: _Run, now: datetime) -> RunStatus:
    split, architecture = run
    record = traces.records.get(run, {})
    if run in traces.finished:
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
    if progress and progress.state == "running" and progress.architecture == architecture:
        return _running(progress, now)
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


def _running(progress: JobProgress, now: datetime) -> RunStatus:
    age = _seconds_since(progress.updated, now)
    # Positions of older versions bear no time: nothing tells that they are stale.
    silent = age is not None and age > SILENT_SECONDS
    return RunStatus(
        progress.split,
        progress.architecture,
        "silent" if silent else "running",
        epoch=progress.epoch,
        images_per_second=None if silent else progress.images_per_second,
        seconds_left=None if silent else _seconds_left(progress),
        silent_seconds=age,
        seconds=progress.seconds,
        gpu_seconds=progress.gpu_seconds,
        host=progress.host,
    )


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    if moment is None:
        return None
    # Clocks of two machines may differ by a little: nothing is published in the future.
    return max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())


def _rate(progress: JobProgress) -> float | None:
    """Work done in a second since the job started [GFLOP/s]; None: not known yet."""
    if progress.started is None or progress.updated is None:
        return None
    seconds = datetime.fromisoformat(progress.updated) - datetime.fromisoformat(progress.started)
    work = progress.work_done - progress.work_before
    return work / seconds.total_seconds() if work > 0 and seconds.total_seconds() > 0 else None


def _seconds_left(progress: JobProgress) -> float | None:
    rate = _rate(progress)
    return None if rate is None else (progress.work_total - progress.work_done) / rate


def _study_seconds_left(traces: Traces, live: Sequence[JobProgress]) -> float | None:
    """All work that is left, at the speed of the jobs that run now."""
    splits = traces.plan.config.splits
    if not live:
        everything = splits * len(traces.plan.config.architectures)
        return 0.0 if len(traces.finished) == everything else None
    rates = [rate for progress in live if (rate := _rate(progress)) is not None]
    if len(rates) < len(live):
        return None
    total = live[0].work_total * splits
    return (total - sum(_work_done(traces, split) for split in range(splits))) / sum(rates)


def _work_done(traces: Traces, split: int) -> float:
    """Work of a split's finished runs, and of the one that its job is at [GFLOP]."""
    progress = traces.progress.get(split)
    return 0.0 if progress is None else progress.work_done
