"""The ten-split study as a Prefect flow: prepare, one task a split, conclude."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.observer import current_observer
from thyro_core import paths
from thyro_core.cluster.session import JobResources, job_resources, session
from thyro_core.config import StudyConfig
from thyro_core.errors import IncompleteStudyError, ThyroError
from thyro_core.job_spec import SplitJob
from thyro_core.manifest import Manifest
from thyro_core.plan import StudyPlan
from thyro_core.progress import read_job_progress
from thyro_core.settings import Settings, scratch_folder
from thyro_core.storage import Store, open_store, public
from thyro_core.study import Site, conclude, ingest_for, prepare, study_notes, unfinished
from thyro_core.summary import figures, markdown_summary, undefined_notes

_PROGRESS_SECONDS = 5.0


@flow(name="study", task_runner=ThreadPoolTaskRunner(max_workers=128))  # type: ignore[arg-type]
def study(
    source: str,
    config: StudyConfig = StudyConfig(),  # noqa: B008
    store: str | None = None,
    ray: str | None = None,
) -> str:
    """Run the cross-split study of the image set at `source`; research use only.

    Args:
        source: folder or fsspec URL of the images with labels.csv, or benign/ and malignant/.
        config: what the study is; the defaults follow the paper.
        store: fsspec URL for everything that is kept; empty: THYRO_STORE.
        ray: Ray address; empty: THYRO_RAY, else an embedded Ray.

    Returns:
        The study's id.
    """
    settings = Settings()
    opened = open_store(store or settings.store)
    # Before Ray starts: what is wrong with the images should be said at once.
    manifest = ingest_for(source, config, opened, current_observer().ingesting)
    with session(ray or settings.ray) as capacity:
        resources = job_resources(
            capacity, settings.cpus_per_job, settings.gpus_per_job, config.splits
        )
        plan = _prepare(manifest, config, opened, settings, resources)
        current_observer().planned(opened, plan)
        errors = _train(opened, plan, settings, resources)
    try:
        conclude(opened, plan)
    except IncompleteStudyError as error:
        msg = "; ".join([str(error), *errors])
        raise IncompleteStudyError(msg) from error
    _publish(opened, plan, scratch_folder(settings))
    return plan.study_id


def _prepare(
    manifest: Manifest,
    config: StudyConfig,
    store: Store,
    settings: Settings,
    resources: JobResources,
) -> StudyPlan:
    from thyro_core.cluster.split_jobs import job_precision

    site = Site(store, scratch_folder(settings), settings.weights)
    plan = prepare(manifest, config, job_precision(config.precision, resources), site)
    for note in study_notes(store, plan):
        get_run_logger().warning(note)
    return plan


def _train(store: Store, plan: StudyPlan, settings: Settings, resources: JobResources) -> list[str]:
    """Run the splits that are not done, all at once; Ray packs them. What went wrong, by split."""
    todo = sorted({split for split, _ in unfinished(store, plan)})
    jobs = [
        SplitJob(
            store=store.url,
            study_id=plan.study_id,
            split=split,
            scratch=str(scratch_folder(settings)),
            threads=resources.cpus,
            gpus=resources.gpus,
            checkpoint_seconds=settings.checkpoint_seconds,
            keep_models=settings.keep_models,
        )
        for split in todo
    ]
    futures = [train_split.submit(job, resources, settings.job_retries) for job in jobs]
    wait(futures)
    return [error for future in futures if (error := _error(future))]


def _error(future: PrefectFuture[None]) -> str | None:
    try:
        future.result()
    except ThyroError as error:
        return str(error)
    return None


@task(name="split", task_run_name="split-{job.split}", persist_result=False)
def train_split(job: SplitJob, resources: JobResources, retries: int) -> None:
    """Train all architectures of one split on the cluster, and watch it.

    Raises:
        ThyroError: an architecture failed, or the job's process died too often.
    """
    from thyro_core.cluster import split_jobs

    ref = split_jobs.submit(job, resources, retries)
    watch = _progress_watcher(job)
    with split_jobs.cancelled_on_error(ref):
        while (outcome := split_jobs.outcome(job, ref, retries)) is None:
            watch()
    watch(at_once=True)
    current_observer().split_ended(job.split, dict(outcome.failed))
    if outcome.failed:
        what = "; ".join(f"{name}: {error}" for name, error in outcome.failed.items())
        msg = f"split {job.split} failed: {what}"
        raise ThyroError(msg)


def _progress_watcher(job: SplitJob) -> Callable[..., None]:
    """Shows a job's position as a Prefect progress artifact, once in a few seconds."""
    store = open_store(job.store)
    state: dict[str, Any] = {"artifact": None, "shown": -1.0, "at": float("-inf")}

    def watch(*, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - state["at"] < _PROGRESS_SECONDS:
            return
        state["at"] = time.monotonic()
        progress = read_job_progress(store, job.study_id, job.split)
        percent = 0.0 if progress is None else 100 * progress.work_done / progress.work_total
        if state["artifact"] is None:
            state["artifact"] = create_progress_artifact(
                percent, description=f"study {job.study_id}, split {job.split}"
            )
        elif percent != state["shown"]:
            artifact: UUID = state["artifact"]
            update_progress_artifact(artifact, percent)
        state["shown"] = percent

    return watch


def _publish(store: Store, plan: StudyPlan, scratch: Path) -> None:
    metrics = store.read_table("metrics", study_id=plan.study_id)
    notes = (*study_notes(store, plan), *undefined_notes(metrics))
    markdown = markdown_summary(plan, figures(metrics, plan.config), notes)
    store.write(paths.summary_key(plan.study_id), markdown.encode())
    create_markdown_artifact(
        markdown, key=f"study-{plan.study_id}", description="Metrics against the paper's"
    )
    _report(store, plan, scratch)


def _report(store: Store, plan: StudyPlan, scratch: Path) -> None:
    """Write the report; what cannot be drawn is said, and takes nothing from the results."""
    from thyro_core.report import FAILURES, write_report

    try:
        url = write_report(store, plan.study_id, scratch)
    except FAILURES as error:
        said = f"{type(error).__name__}: {error}; ask again: thyro report {plan.study_id}"
        get_run_logger().error("the report could not be drawn: %s", said)
        current_observer().reported(None, said)
        return
    create_link_artifact(
        public(url),
        link_text="the report",
        key=f"report-{plan.study_id}",
        description="Research use only. The study's report, one HTML file for a browser.",
    )
    current_observer().reported(url, None)
