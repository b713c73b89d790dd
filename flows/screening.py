"""A night's screening as a Prefect flow: lock, recover, stream, conclude, say what came of it."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.events import emit_event
from pydantic import Field

from flows.artifacts import (
    ProgressBar,
    best_effort,
    completed_state,
    name_run,
    run_of,
    show_table,
)
from flows.drift import announce
from flows.forms import Address, ModelForm, Source
from flows.observer import current_observer
from flows.retries import step
from flows.study_lock import announce_wait, announce_weakness, lock_owner
from thyro_core import NOTICE
from thyro_core.cluster.session import session
from thyro_core.errors import ThyroError
from thyro_core.host import scratch_folder
from thyro_core.reporting.worklist import write_worklist_page
from thyro_core.reporting.worklist_exams import check_viewer
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.files import stream_files
from thyro_core.screening.identifiers import check_study_links, study_book
from thyro_core.screening.night import (
    Means,
    NightResult,
    checked_date,
    conclude_night,
    fetch_batch,
    make_job,
    plan_night,
    recover,
)
from thyro_core.screening.results import begin_delivery, deliver
from thyro_core.screening.rules import Counts, Night
from thyro_core.screening.worklist import unscored_rows
from thyro_core.settings import Settings
from thyro_core.store.keys import screening_lock_key, worklist_key
from thyro_core.store.lock import Lock
from thyro_core.store.store import Store, open_store

REFERRALS = "thyro.night.referrals"
"""Name of the event of a night that refers images; its payload holds a sentence for people."""

LOCK_SECONDS = 120.0
"""After so long without a sign of life a run counts as dead, and the next one may start [s]."""

_COUNT_COLUMNS = (
    "received", "scored", "rejected", "failed", "copies", "refer", "review", "routine",
)  # fmt: skip

NightDate = Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]
"""A date, or empty."""

ScreeningForm = Annotated[ScreeningRules, ModelForm(())]
"""The rules of a screening."""


@flow(name="screening")
def screening(
    batch: Source,
    date: NightDate = "",
    model_id: str = "",
    rules: ScreeningForm = ScreeningRules(),  # noqa: B008
    store: Address = "",
    ray: str = "",
) -> str:
    """Score what is new in a batch of images and write the night's worklist; research use only.

    Args:
        batch: Where the night's images are: a folder that the server can read, or an address such
            as s3://bucket/folder, or a DICOMweb archive, such as
            dicomweb+https://host/dicom-web?ModalitiesInStudy=US. Never write a password or a key
            into it: everybody who can open this page can read it.
        date: The night, such as 2026-11-25. Empty: today.
        model_id: A promoted model. Empty: the one in use.
        rules: Which images are scored, and how they are banded. The defaults are good.
        store: Where results are kept, such as s3://bucket/thyro. Empty: the server's own store.
        ray: Where the scoring runs: host:port of a Ray cluster. Empty: the server's own choice,
            which is the server's machine unless somebody changed it.

    Returns:
        The night's batch: `<date>/<batch_id>`.
    """
    with run_of("screening"):
        settings = Settings()
        night = checked_date(date, settings.timezone)
        name_run(f"screening-{night}")
        place = store or settings.store
        batch_place, sentence = _screen(
            batch, night, model_id or None, rules, store=place, ray=ray or settings.ray
        )
        return completed_state(batch_place, sentence)


@step("night")
def _screen(
    batch: str, date: str, model_id: str | None, rules: ScreeningRules, *, store: str, ray: str
) -> tuple[str, str]:
    settings = Settings()
    opened_store, viewer = open_store(store), settings.viewer_link
    check_viewer(viewer)
    check_study_links(settings)
    night = plan_night(opened_store, batch, date, model_id, rules)
    key = screening_lock_key()
    with Lock(opened_store, key, lock_owner(), LOCK_SECONDS, on_wait=announce_wait) as night_lock:
        announce_weakness(night_lock)
        for night_result in recover(opened_store):
            write_worklist_page(opened_store, night_result.worklist, viewer)
            earlier = night_result.night
            get_run_logger().warning(
                "put together what a run of %s had left (%s)", earlier.date, earlier.batch_id
            )
        start = time.monotonic()
        begin_delivery(opened_store, night, settings)
        files = fetch_batch(opened_store, batch, settings)
        counts = _stream(opened_store, files.place, night, ray, night_lock)
        night_lock.check()
        result = conclude_night(opened_store, night, counts, time.monotonic() - start)
        write_worklist_page(opened_store, result.worklist, viewer)
        if (book := study_book(opened_store, settings)) is not None:
            book.add(night, files.place)
        delivery = deliver(
            opened_store, night, settings, files.place, are_all_here=files.are_all_here
        )
        files.conclude(counts, delivery.unsent if delivery else ())
    _publish(opened_store, result)
    if delivery is not None:
        current_observer().on_delivery(delivery.sentence)
        level = logging.INFO if delivery.is_whole else logging.WARNING
        get_run_logger().log(level, delivery.sentence)
    sentence = end_of_night(opened_store, result)
    return (
        f"{night.date}/{night.batch_id}",
        f"{sentence}; {delivery.sentence}" if delivery else sentence,
    )


def _stream(store: Store, batch: str, night: Night, ray: str, night_lock: Lock) -> Counts:
    settings = Settings()
    with session(ray) as capacity:
        from thyro_core.cluster.screening import pools, run_blocks

        sizes = pools(capacity, settings.cpus_per_job, settings.gpus_per_job)
        means = Means(
            scratch=scratch_folder(settings),
            threads=settings.cpus_per_job,
            gpus=sizes.scorer_gpus,
            keep_names=settings.keep_names is True,
        )

        def job() -> Any:  # noqa: ANN401
            night_lock.check()
            return make_job(store, batch, night, means)

        watch = _progress_watcher(batch, night)
        counts = run_blocks(job, sizes, settings.job_retries, watch)
    watch(counts, at_once=True)
    return counts


def _progress_watcher(batch: str, night: Night) -> Callable[..., None]:
    """Shows the counts as a Prefect progress artifact, once in a few seconds.

    How many files there are is counted beside the work: listing a million takes minutes.
    """
    state: dict[str, int | None] = {"total": None}
    threading.Thread(target=partial(_count_files, batch, state), daemon=True).start()
    bar = ProgressBar(f"screening of {night.date}, batch {night.batch_id}")

    def watch(counts: Counts, *, at_once: bool = False) -> None:
        total = state["total"]
        current_observer().on_files(counts, total)
        if at_once:
            bar.show(100.0)
        elif bar.due():
            bar.show(min(99.0, 100 * counts.files / total) if total else 0.0)

    return watch


def _count_files(batch: str, state: dict[str, int | None]) -> None:
    try:
        state["total"] = sum(1 for _ in stream_files(batch))
    except ThyroError:
        state["total"] = None  # the stream itself meets the same error, and reports it


def _publish(store: Store, result: NightResult) -> None:
    night, totals = result.night, result.totals
    key = f"screening-{night.date}-{night.batch_id}"
    page = summary(store, result)
    best_effort(create_markdown_artifact, page, key=key, description="A night's screening")
    counts = [[name, str(getattr(totals, name))] for name in _COUNT_COLUMNS]
    show_table(f"{key}-counts", [["state", "images"], *counts], "What became of the images")
    rows = unscored_rows(store, night)
    if rows:
        title = "Images not scored, and why"
        best_effort(create_table_artifact, rows, key=f"{key}-unscored", description=title)
        get_run_logger().warning(
            "%d images are not scored: the worklist says why; read them as if there were no model",
            totals.rejected + totals.failed,
        )
    if totals.refer:
        emit_event(
            REFERRALS,
            resource={
                "prefect.resource.id": f"thyro.batch.{night.number}.{night.batch_id}",
                "prefect.resource.name": f"batch {night.batch_id} of {night.date}",
            },
            payload={"sentence": end_of_night(store, result)},
        )
    announce(result.drift, night.number, night.batch_id, night.model_id)


def end_of_night(store: Store, result: NightResult) -> str:
    """What came of a night's batch in one sentence, for lists of runs."""
    totals = result.totals
    n_unscored = totals.rejected + totals.failed
    drift = "; the batch drifted" if result.breaches else ""
    return (
        f"{totals.received} received, {totals.refer} refer, {totals.review} review, "
        f"{n_unscored} not scored{drift}; worklist at "
        f"{store.url}/{worklist_key(result.night.date, 'html')}"
    )


def summary(store: Store, result: NightResult) -> str:
    """A night's batch in Markdown."""
    night, counts = result.night, result.counts
    names = _COUNT_COLUMNS
    values = (str(getattr(result.totals, name)) for name in names)
    drift = f"**Drift: {'; '.join(result.breaches)}.** Trust the order less.\n\n"
    worklist = f"{store.url}/{worklist_key(night.date, 'html')}"
    return (
        f"# Screening of {night.date}\n\n**{NOTICE}**\n\n"
        f"Batch `{night.batch_id}` with model `{night.model_id}`.\n\n"
        f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n| {' | '.join(values)} |\n\n"
        f"{result.totals.sentence}. A copy shows the same picture as another row, which has its "
        f"score.\n\nThis run met {counts.sentence}.\n\n"
        f"{drift if result.breaches else ''}Worklist: `{worklist}`\n"
    )
