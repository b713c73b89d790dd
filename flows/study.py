"""The ten-split study as a Prefect flow: prepare, one task a split, conclude."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import (
    ProgressBar,
    best_effort,
    completed_state,
    name_run,
    run_of,
    show_page,
    show_table,
)
from flows.forms import Address, MoreSources, Preset, Source, StudyForm, with_preset
from flows.ingest import read_images
from flows.observer import current_observer
from flows.retries import step
from flows.study_lock import only_driver
from thyro_core import NOTICE
from thyro_core.cluster.backend import Cluster, Training, connect
from thyro_core.cluster.resources import Allocation, ResourceRequest
from thyro_core.config import StudyConfig
from thyro_core.datasets.centres import with_one_split_a_centre
from thyro_core.datasets.manifest import Manifest
from thyro_core.errors import IncompleteStudyError, SplitFailedError, ThyroError, amount
from thyro_core.host import scratch_folder
from thyro_core.settings import Settings
from thyro_core.store.keys import summary_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import RestartPolicy, SplitJob
from thyro_core.study.lifecycle import (
    CONCLUSION,
    conclude_study,
    prepare_study,
    study_notes,
    unfinished_runs,
)
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import longest_first, mark_stopped, read_job_progress, read_positions
from thyro_core.study.study_table import note_end, note_start
from thyro_core.study.summary import (
    markdown_summary,
    metric_summaries,
    summary_rows,
    undefined_notes,
)
from thyro_core.tables.io import read_table
from thyro_core.training.memory import job_cpu_bytes, job_gpu_bytes
from thyro_core.urls import redact

_REPORT = "report"


@flow(name="study", task_runner=ThreadPoolTaskRunner(max_workers=128))  # type: ignore[arg-type]
def study(
    source: Source,
    preset: Preset = "paper",
    config: StudyForm = StudyConfig(),  # noqa: B008
    *,
    store: Address = "",
    ray: str = "",
    more_sources: MoreSources = (),
) -> str:
    """Run the cross-split study of an image set; research use only.

    Args:
        source: Where the images are: a folder that the server can read, or an address such as
            s3://bucket/folder. It holds the images and a file labels.csv (image, label,
            patient_id), or the folders benign and malignant. Never write a password or a key into
            it: everybody who can open this page can read it.
        preset: What fills each value of config that was left at its default. paper leaves them as
            they are; quick look trains ResNet18 alone on 3 splits for 3 epochs at 128 pixels, for a
            first impression that is no result.
        config: What the study is. The defaults follow the paper; with them a study of 500 images
            takes hours without a GPU.
        store: Where results are kept, such as s3://bucket/thyro. Empty: the server's own store.
        ray: Where the training runs: host:port of a Ray cluster, or http://host:8265, its
            dashboard. Empty: the server's own choice, which is the server's machine unless
            somebody changed it.
        more_sources: Further image sets. With them each set, the first one too, is a centre of its
            own, called as its folder is, in the column that centre_column names.

    Returns:
        The study's id.
    """
    with run_of("study"):
        config = with_preset(config, preset)
        settings = Settings()
        opened_store = open_store(store or settings.store)
        # Before Ray starts: an error in the images is reported at once.
        sources = (source, *more_sources)
        manifest = read_images(sources, config, opened_store.url)
        config = with_one_split_a_centre(config, manifest.table)
        with ExitStack() as lock_scope:
            with connect(ray or settings.ray, get_run_logger().info) as cluster:
                allocation = cluster.allocate(_request(settings, config, manifest))
                plan = _prepare(manifest, config, opened_store, settings, allocation)
                name_run(f"study-{plan.study_id}")
                check_lock = lock_scope.enter_context(only_driver(opened_store, plan.study_id))
                note_start(opened_store, plan, () if settings.keep_names is False else sources)
                # Left after the cluster, where all jobs are over.
                lock_scope.push(partial(_note_stop, opened_store, plan))
                current_observer().on_plan(opened_store, plan)
                errors = _train_splits(opened_store, plan, settings, cluster, allocation)
            check_lock()
            _conclude(opened_store, plan, errors)
            note_end(opened_store, plan, "finished")
            _report(opened_store, plan, scratch_folder(settings))
        return completed_state(plan.study_id, _end_of_study(opened_store, plan))


def _end_of_study(store: Store, plan: StudyPlan) -> str:
    means = metric_summaries(read_table(store, "metrics", study_id=plan.study_id), plan.config)
    header, *rows, _of_the_paper = summary_rows(means)
    auc = header.index("auc")
    figures = "; ".join(f"{row[0]}: AUC {row[auc]}" for row in rows)
    return f"{plan.study_id}: {amount(plan.config.splits, 'split')}, {figures}; {NOTICE}"


def _request(settings: Settings, config: StudyConfig, manifest: Manifest) -> ResourceRequest:
    return ResourceRequest(
        precision=config.precision,
        cpus=settings.cpus_per_job,
        gpus=settings.gpus_per_job,
        workers=settings.workers_per_job,
        jobs=config.splits,
        gpu_bytes=job_gpu_bytes(config, manifest.table.num_rows),
        cpu_bytes=job_cpu_bytes(config),
        node_patience=settings.node_patience,
    )


def _note_stop(store: Store, plan: StudyPlan, kind: type[BaseException] | None, *_: object) -> None:
    """Note how the work ended before its end: by a failure, or by an interruption of its jobs."""
    if kind is None:
        return
    has_failed = issubclass(kind, Exception)
    with suppress(ThyroError, OSError):
        note_end(store, plan, "failed" if has_failed else "interrupted")
        if not has_failed:
            mark_stopped(store, plan.study_id, range(plan.config.splits))


@step("plan")
def _prepare(
    manifest: Manifest,
    config: StudyConfig,
    store: Store,
    settings: Settings,
    allocation: Allocation,
) -> StudyPlan:
    plan = prepare_study(
        manifest,
        config,
        allocation.precision,
        store,
        scratch=scratch_folder(settings),
        mirror=settings.weights,
    )
    for note in study_notes(store, plan):
        get_run_logger().warning(note)
    return plan


def _train_splits(
    store: Store, plan: StudyPlan, settings: Settings, cluster: Cluster, allocation: Allocation
) -> list[ThyroError]:
    """Run the splits that are not done, all at once; Ray packs them. The errors of those failed."""
    runs = unfinished_runs(store, plan)
    positions = read_positions(store, plan.study_id, {split for split, _ in runs})
    jobs = [
        SplitJob(
            store=store.url,
            study_id=plan.study_id,
            split=split,
            scratch=str(settings.scratch.absolute()) if settings.scratch else "",
            resources=allocation.resources,
            checkpoint_seconds=settings.checkpoint_seconds,
            keep_models=settings.keep_models,
        )
        for split in longest_first(plan.config, runs, positions)
    ]
    if not jobs:
        return []
    policy = RestartPolicy(settings.job_retries, settings.node_patience)
    with cluster.training(jobs, policy) as training:
        futures = [train_split.submit(job, training) for job in jobs]
        training.follow()
        wait(futures)
    return [error for future in futures if (error := _error(future)) is not None]


def _error(future: PrefectFuture[None]) -> ThyroError | None:
    try:
        future.result()
    except ThyroError as error:
        return error
    return None


@task(name="split", task_run_name="split-{job.split}", persist_result=False, cache_policy=NO_CACHE)
def train_split(job: SplitJob, training: Training) -> None:
    """Watch a split on the cluster until all its architectures are trained.

    Raises:
        SplitFailedError: an architecture failed.
        ThyroError: the job cannot be finished.
    """
    store = open_store(job.store)
    bar = ProgressBar(f"study {job.study_id}, split {job.split}")

    def show_progress() -> None:
        progress = read_job_progress(store, job.study_id, job.split)
        bar.show(0.0 if progress is None else 100 * progress.share)

    while (outcome := training.outcome(job.split)) is None:
        if bar.due():
            show_progress()
    show_progress()
    current_observer().on_split_end(job.split, outcome.failed)
    if outcome.failed:
        raise SplitFailedError(job.split, outcome.failed)


@step("conclude")
def _conclude(store: Store, plan: StudyPlan, errors: Sequence[ThyroError]) -> None:
    try:
        conclude_study(store, plan, _show_result)
    except IncompleteStudyError as error:
        raise IncompleteStudyError(error.message, errors) from error
    metrics = read_table(store, "metrics", study_id=plan.study_id)
    means = metric_summaries(metrics, plan.config)
    notes = (*study_notes(store, plan), *undefined_notes(metrics))
    markdown = markdown_summary(plan, means, notes)
    store.write(summary_key(plan.study_id), markdown.encode())
    key = f"study-{plan.study_id}"
    show_page(key, markdown, "Metrics against the paper's")
    show_table(f"{key}-metrics", summary_rows(means), "Mean over splits (95 % interval)")


def _show_result(name: str) -> None:
    results = (*CONCLUSION, _REPORT)
    current_observer().on_result(name, results.index(name), len(results))


def _report(store: Store, plan: StudyPlan, scratch: Path) -> None:
    from thyro_core.reporting.report import write_report

    _show_result(_REPORT)
    try:
        url = write_report(store, plan.study_id, scratch)
    # The study is concluded: no error in drawing its page is a reason to lose it.
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {error}; ask again: thyro report {plan.study_id}"
        get_run_logger().error("the report could not be drawn: %s", reason)
        current_observer().on_report(None, reason)
        return
    best_effort(
        create_link_artifact,
        redact(url),
        link_text="the report",
        key=f"report-{plan.study_id}",
        description="Research use only. The study's report, one HTML file for a browser.",
    )
    current_observer().on_report(url, None)
