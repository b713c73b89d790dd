"""The steps of a night around its stream: prepare before it, conclude after it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.archive.dicomweb import parse_address
from thyro_core.archive.spool import Spool, open_spool
from thyro_core.errors import InputError, ThyroError
from thyro_core.host import scratch_folder
from thyro_core.registry.bundle import load_bundle, reference, require_whole_pictures
from thyro_core.registry.champion import champion
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.decode import ScreeningJob
from thyro_core.screening.drift import DriftReport, DriftThresholds, compare_with_training
from thyro_core.screening.drift_sample import drift_sample
from thyro_core.screening.files import check_batch
from thyro_core.screening.rules import Counts, Night, Totals, date_number, date_text, sum_totals
from thyro_core.screening.store import (
    ensure_path_salt,
    file_count,
    gather,
    publish_known,
    save_night,
    totals_of,
    unfinished_nights,
    write_batch_row,
)
from thyro_core.screening.worklist import Worklist, device_counts, write_worklist_csv
from thyro_core.settings import Settings
from thyro_core.store.keys import path_salt_key, sample_key, screening_prefix, table_prefix
from thyro_core.store.store import Store, full_url
from thyro_core.tables.io import read_table
from thyro_core.urls import is_archive, redact

_MOST_POOLED = 60
"""Batches before a small one that may be judged with it."""


@dataclass(frozen=True)
class Means:
    """Resources of a screening; none of them changes a result."""

    scratch: Path
    threads: int = 1
    gpus: float = 0.0
    keep_names: bool = False


@dataclass(frozen=True)
class NightResult:
    """The result of a night's batch."""

    night: Night
    totals: Totals
    """Of this batch."""
    whole: Totals
    """Of all batches of the date."""
    counts: Counts
    """Of the files that this run met."""
    drift: DriftReport
    """This batch against the training set."""
    worklist: Worklist
    """What the page of the date shows; the caller of `conclude_night` writes the page."""

    @property
    def breaches(self) -> tuple[str, ...]:
        """Drift figures past their bound, in words."""
        return tuple(breach.text for breach in self.drift.breaches)


def plan_night(
    store: Store, batch: str, date: str, model_id: str | None, rules: ScreeningRules
) -> Night:
    """Name a night's batch; nothing is written.

    Raises:
        InputError: the batch cannot be listed, the date is none, or there is no such model.
    """
    date_number(date)
    name = batch_name(batch)
    model = load_bundle(store, model_id or champion(store))
    require_whole_pictures(model)
    return Night(date=date, batch=name, model_id=model.model_id, rules=rules)


def batch_name(batch: str) -> str:
    """What tables call a batch.

    Raises:
        InputError: it cannot be listed, or is an archive whose address may not be used.
    """
    if is_archive(batch):
        return parse_address(batch).text
    check_batch(batch)
    return redact(full_url(batch))


@dataclass(frozen=True)
class BatchFiles:
    """Where the files of a batch are read from."""

    place: str
    """Folder or fsspec URL."""
    spool: Spool | None = None
    """Of an archive: what waits in that folder."""

    @property
    def are_all_here(self) -> bool:
        """Whether the archive gave all that it listed."""
        return self.spool is None or not self.spool.n_withheld

    def conclude(self, counts: Counts, keep: Collection[str] = ()) -> None:
        """Note that a night has read them all; of an archive they are removed then.

        Args:
            counts: of the run. Where a file was not whole, or a worker could not reach it, all stay
                for the next one.
            keep: names of files that stay for the next run in any case.
        """
        if self.spool is not None and not counts.late:
            self.spool.conclude(keep)


def fetch_batch(store: Store, batch: str, settings: Settings) -> BatchFiles:
    """The files of a batch; of an archive what is new there is fetched first.

    The caller holds the night's lock.

    Args:
        store: knows what was taken before.
        batch: folder, fsspec URL, or a DICOMweb archive.
        settings: credentials, patience and scratch folder.

    Raises:
        InputError: the archive refuses.
        StoreError: it does not answer.
    """
    if not is_archive(batch):
        return BatchFiles(batch)
    ensure_path_salt(store)
    spool = open_spool(store, batch, store.read(path_salt_key()), scratch_folder(settings))
    spool.fetch(settings)
    return BatchFiles(str(spool.folder), spool)


def files_here(store: Store, batch: str, settings: Settings) -> str | None:
    """Where the files of a batch lie now; of an archive what waits for a later run; None: none do.

    Raises:
        InputError: the archive's address may not be used.
    """
    if not is_archive(batch):
        return batch
    if not store.exists(path_salt_key()):
        return None
    spool = open_spool(store, batch, store.read(path_salt_key()), scratch_folder(settings))
    return str(spool.folder) if spool.folder.is_dir() else None


def checked_date(text: str, timezone: str) -> str:
    """A night's date: the one given, or today's; the worklist of a night to come is nobody's.

    Args:
        text: such as 2026-11-25; empty: today.
        timezone: where a night ends.

    Raises:
        InputError: it is no date, or one to come.
    """
    now = today(timezone)
    if text and date_number(text) > date_number(now):
        msg = (
            f"date: expected a night until today, {now} in {timezone}, found {text}; correct it, "
            "or leave it out"
        )
        raise InputError(msg)
    return text or now


def today(timezone: str) -> str:
    """The date in a time zone.

    Raises:
        InputError: there is no such zone.
    """
    try:
        return datetime.now(ZoneInfo(timezone)).date().isoformat()
    except (ZoneInfoNotFoundError, ValueError) as error:
        msg = f"THYRO_TIMEZONE: expected an IANA zone such as Europe/Warsaw, found {timezone!r}"
        raise InputError(msg) from error


def recover(store: Store) -> Iterator[NightResult]:
    """Conclude the nights' batches that dead runs left unfinished, one after the other."""
    for night in unfinished_nights(store):
        yield conclude_night(store, night)


def make_job(store: Store, source: str, night: Night, means: Means) -> ScreeningJob:
    """The workers' job, with the hashes to pass over as they are now."""
    save_night(store, night)
    ensure_path_salt(store)
    known_key, known_pictures_key = publish_known(store, night)
    bundle = load_bundle(store, night.model_id)
    return ScreeningJob(
        store=store.url,
        source=full_url(source),
        night=night,
        side=bundle.side,
        view=bundle.view,
        known_key=known_key,
        pictures_key=known_pictures_key,
        scratch=str(means.scratch),
        keep_names=means.keep_names,
        threads=means.threads,
        gpus=means.gpus,
    )


def conclude_night(
    store: Store, night: Night, counts: Counts | None = None, seconds: float | None = None
) -> NightResult:
    """Write a night's tables and the CSV of its date's worklist; the page is the caller's to write.

    Args:
        store: holds the chunks.
        night: which batch.
        counts: of the files that the run met; None: a run that died met them.
        seconds: wall-clock time of the run [s].

    Raises:
        ThyroError: an image is not accounted for.
    """
    totals = gather(store, night)
    n_files = file_count(store, night)
    if counts is not None and counts.fresh > n_files:
        msg = (
            f"night {night.date}, batch {night.batch_id}: this run read {counts.fresh} files, rows "
            f"of {n_files} are there; start the same command again, and report this"
        )
        raise ThyroError(msg)
    drift = judge_drift(store, night, reference(store, night.model_id))
    figures: dict[str, object] = {
        "files": counts.files if counts else None,
        "known": counts.known if counts else None,
        "late": counts.late if counts else None,
        "aside": counts.aside if counts else None,
        "aside_reasons": counts.aside_reasons if counts else None,
        "seconds": seconds,
        "devices": device_counts(store, night),
        **drift.figures(),
    }
    write_batch_row(store, night, totals, figures)
    parts = store.keys(f"{table_prefix('screening')}/date={night.number}")
    whole = sum_totals([totals_of(store, [part]) for part in parts])
    batches = read_table(store, "screening_batches", date=night.number)
    worklist = write_worklist_csv(store, night.date, parts, whole, batches)
    for key in store.keys(screening_prefix(night.date, night.batch_id)):
        if key.endswith(".bin"):
            store.delete(key)
    return NightResult(night, totals, whole, counts or Counts(), drift, worklist)


def judge_drift(store: Store, night: Night, training: pa.Table) -> DriftReport:
    """The batch against the training set; of a large one a random sample.

    A batch too small to be judged is judged together with those before it that the same model
    scored, as many as it takes. In 30 nights that is still 30 tests, each at its own level, so the
    declared share of false alarms holds.

    Args:
        store: holds the rows of the batch and of those before it.
        night: which batch.
        training: the reference set of its model.
    """
    thresholds = DriftThresholds()
    own = drift_sample(store, night)
    report = compare_with_training(training, own.rows, thresholds, own.embeddings)
    earlier = _batches_before(store, night) if report.too_few else []
    n_needed = thresholds.minimum
    for n in range(1, len(earlier) + 1):
        n_files = report.n_scored + sum(row["scored"] for row in earlier[:n])
        # Not each step is worth a look: one patient may have many files.
        if n_files < n_needed and n < len(earlier):
            continue
        pool = drift_sample(store, night, earlier[:n])
        pooled_report = compare_with_training(training, pool.rows, thresholds, pool.embeddings)
        if pooled_report.too_few is None:
            return report.pooled_with(pooled_report, n + 1)
        n_needed = 2 * n_files
    return report


def _batches_before(store: Store, night: Night) -> list[dict[str, Any]]:
    """The batches before this one that the same model scored, the last one first."""
    batches = read_table(store, "screening_batches")
    rows = batches.filter(pc.equal(batches["model_id"], night.model_id)).to_pylist()
    this = (night.number, night.batch_id)
    before = [row for row in rows if (row["date"], row["batch_id"]) < this]
    before.sort(key=lambda row: (row["date"], row["batch_id"]), reverse=True)
    return [
        row
        for row in before[:_MOST_POOLED]
        if store.exists(sample_key(date_text(row["date"]), row["batch_id"]))
    ]
