"""The terminal's view of a running study: one calm display, not three programs' logs."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from flows.cli.console import note, say
from flows.cli.units import clock
from flows.observer import Observer
from thyro_core.errors import Failure, StoreError
from thyro_core.store.store import Store
from thyro_core.study.lifecycle import study_coverage, study_notes
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import JobProgress, read_positions
from thyro_core.study.study_progress import StudyProgress, running_splits, study_progress
from thyro_core.study.work import REPORT_SHARE

_REFRESH_SECONDS = 1.0
_SILENCE_SECONDS = 30.0
_STUDY = "study"
_BEFORE_SHARE = 0.05
"""Of the bar, for what comes before the training: images, starting weights, Ray."""


class StudyDisplay(Observer):
    """Splits, epochs, images/s and time left; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._study: tuple[Store, StudyPlan] | None = None
        self._progress: StudyProgress | None = None
        """The latest."""
        self._result: tuple[str, float] | None = None
        """Which table is made, and the share of all tables that is there; None: not yet."""
        self._end = threading.Event()
        self.concluded: str | None = None
        """The study, once all of it is in the store."""

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show it as long as the block runs."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        with self._bars:
            self._row(_STUDY, 0.0, 1.0, "starting Prefect")
            watcher.start()
            try:
                yield
            finally:
                self._end.set()
                watcher.join()

    def on_images(self, n_done: int, total: int) -> None:
        """Show how far the images are decoded."""
        share = _BEFORE_SHARE * n_done / max(total, 1)
        last = "; starting weights and Ray follow" if n_done == total else ""
        self._row(_STUDY, share, 1.0, f"images: {n_done} of {total} decoded{last}")

    def on_plan(self, store: Store, plan: StudyPlan) -> None:
        """Show what the study is, and all that a reader must know of it."""
        config = plan.config
        self._console.print(
            f"Study [bold]{plan.study_id}[/]: {config.splits} splits x "
            f"{', '.join(config.architectures)}, {config.epochs} epochs, {plan.precision}"
        )
        coverage = study_coverage(store, plan).text
        say(f"Splits ({config.scheme}): {coverage}", self._console)
        warnings = {start.warning for start in plan.weights.values()}
        for text in study_notes(store, plan):
            if text in warnings:
                say(f"[bold red]Warning:[/] {escape(text)}", self._console)
            else:
                note(text, self._console)
        self._study = (store, plan)

    def on_delay(self, reason: str) -> None:
        """Show the reason at once."""
        note(reason, self._console)

    def on_split_end(self, split: int, failures: Mapping[str, Failure]) -> None:
        """Show failures, and where no bar does it, the end of the split."""
        for architecture, failure in failures.items():
            text = escape(str(failure))
            say(f"[red]split {split}, {architecture} failed:[/] {text}", self._console)
        if not self._console.is_terminal and not failures:
            self._console.print(f"split {split} done")

    def on_result(self, name: str, n_done: int, total: int) -> None:
        """Show which table is made, and that nothing is trained any more."""
        is_last = n_done == total - 1
        share = 1 - REPORT_SHARE if is_last else (1 - REPORT_SHARE) * n_done / (total - 1)
        text = f"{name.replace('_', ' ')} ({n_done + 1} of {total})"
        self._result = (text, share)
        self._show_study()
        if n_done == 0 and not self._console.is_terminal:
            self._console.print("all splits are trained; tables and report follow")

    def on_report(self, url: str | None, error: str | None) -> None:
        """Show only an error; where the report is stands among the results."""
        if self._study is not None:
            self.concluded = self._study[1].study_id
        if url is None:
            reason = escape(error or "no reason given")
            say(f"[red]The report could not be drawn:[/] {reason}", self._console)

    def _row(self, name: str, n_done: float, total: float, detail: str) -> None:
        with self._lock:
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(name, total=total, detail=detail)
            self._bars.update(self._rows[name], completed=n_done, total=total, detail=detail)

    def _watch(self) -> None:
        print_time, line = time.monotonic(), "the store does not answer"
        while not self._end.wait(_REFRESH_SECONDS):
            if self._study is None:
                continue
            store, plan = self._study
            # What cannot be read now is shown at the next turn.
            with suppress(OSError, StoreError):
                line = self._refresh(store.without_retries(), plan)
            if not self._console.is_terminal and time.monotonic() - print_time > _SILENCE_SECONDS:
                print_time = time.monotonic()
                self._console.print(line)

    def _refresh(self, store: Store, plan: StudyPlan) -> str:
        splits = plan.config.splits
        positions = read_positions(store, plan.study_id, range(splits))
        for job in positions.values():
            self._show_split(job, plan.config.epochs)
        now = datetime.now(UTC)
        running = running_splits(positions, now)
        self._progress = study_progress(plan.config, positions, running, now)
        return self._show_study()

    def _show_study(self) -> str:
        """The one bar of all phases; returns what it says."""
        progress = self._progress
        if progress is None:
            return ""
        share, seconds = progress.share, progress.seconds_left
        if self._result is not None:
            text, made_share = self._result
            share = 1 - progress.results_share * (1 - made_share)
            whole = progress.results_seconds
            seconds = None if whole is None else whole * (1 - made_share)
            detail = f"results: {text}"
        elif progress.training_seconds is None:
            detail = "training begins"
        else:
            detail = (
                f"{progress.n_ended} of {progress.splits} splits, "
                f"{progress.images_per_second:.0f} images/s"
            )
        ending = "" if seconds is None else f", {clock(seconds)} left"
        share = _BEFORE_SHARE + (1 - _BEFORE_SHARE) * share
        self._row(_STUDY, share, 1.0, detail + ending)
        return f"{100 * share:.0f} %: {detail}{ending}"

    def _show_split(self, job: JobProgress, epochs: int) -> None:
        name = f"split {job.split}"
        if job.state == "running":
            detail = (
                f"{job.architecture}, epoch {job.epoch} of {epochs}, "
                f"{job.images_per_second:.0f} images/s"
            )
            self._row(name, job.work_done, job.work_total, detail)
        elif name in self._rows:
            with self._lock:
                self._bars.remove_task(self._rows.pop(name))
