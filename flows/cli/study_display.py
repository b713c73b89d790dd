"""The terminal's view of a running study: one calm display, not three programs' logs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.cli.units import clock
from flows.observer import Observer
from thyro_core.errors import StoreError
from thyro_core.store.store import Store
from thyro_core.study.lifecycle import study_notes
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import JobProgress, read_positions

_REFRESH_SECONDS = 1.0
_QUIET_SECONDS = 30.0


class StudyDisplay(Observer):
    """Splits, epochs, images/s and time left; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._study: tuple[Store, StudyPlan] | None = None
        self.concluded: str | None = None
        """The study, once all of it is in the store."""
        self._over = threading.Event()
        self._rates: list[tuple[float, float]] = []

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it as long as the block runs."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        with self._progress:
            watcher.start()
            try:
                yield
            finally:
                self._over.set()
                watcher.join()

    def ingesting(self, done: int, total: int) -> None:
        """Show how far the images are decoded."""
        self._row("images", done, total, f"{done} of {total} decoded")

    def planned(self, store: Store, plan: StudyPlan) -> None:
        """Show what the study is, and all that a reader must know of it."""
        config = plan.config
        self._console.print(
            f"Study [bold]{plan.study_id}[/]: {config.splits} splits x "
            f"{', '.join(config.architectures)}, {config.epochs} epochs, {plan.precision}"
        )
        warnings = {start.warning for start in plan.weights.values()}
        for note in study_notes(store, plan):
            mark = "[bold red]Warning:[/]" if note in warnings else "[yellow]Note:[/]"
            self._console.print(f"{mark} {escape(note)}", highlight=False, soft_wrap=True)
        self._study = (store, plan)

    def held_up(self, why: str) -> None:
        """Say it at once."""
        self._console.print(f"[yellow]Note:[/] {escape(why)}", highlight=False, soft_wrap=True)

    def split_ended(self, split: int, failed: dict[str, str]) -> None:
        """Say so where no bar shows it; a failure is always said."""
        for architecture, error in failed.items():
            said = f"[red]split {split}, {architecture} failed:[/] {escape(error)}"
            self._console.print(said, highlight=False, soft_wrap=True)
        if not self._console.is_terminal and not failed:
            self._console.print(f"split {split} done")

    def reported(self, url: str | None, error: str | None) -> None:
        """Say only what went wrong; where the report is stands among the results."""
        if self._study is not None:
            self.concluded = self._study[1].study_id
        if url is None:
            said = f"[red]The report could not be drawn:[/] {escape(error or 'no reason given')}"
            self._console.print(said, highlight=False, soft_wrap=True)

    def _row(self, name: str, done: float, total: float, detail: str) -> None:
        with self._lock:
            if name not in self._rows:
                self._rows[name] = self._progress.add_task(name, total=total, detail=detail)
            self._progress.update(self._rows[name], completed=done, total=total, detail=detail)

    def _watch(self) -> None:
        spoken, line = time.monotonic(), "the store does not answer"
        while not self._over.wait(_REFRESH_SECONDS):
            if self._study is None:
                continue
            store, plan = self._study
            # What cannot be asked now is shown at the next turn.
            with suppress(OSError, StoreError):
                line = self._refresh(store.without_retries(), plan)
            if not self._console.is_terminal and time.monotonic() - spoken > _QUIET_SECONDS:
                spoken = time.monotonic()
                self._console.print(line)

    def _refresh(self, store: Store, plan: StudyPlan) -> str:
        found = list(read_positions(store, plan.study_id, range(plan.config.splits)).values())
        for progress in found:
            self._show_split(progress, plan.config.epochs)
        ended = sum(progress.state != "running" for progress in found)
        speed = sum(p.images_per_second for p in found if p.state == "running")
        done = sum(progress.work_done for progress in found)
        total = max((p.work_total for p in found), default=1.0) * plan.config.splits
        left = clock(self._seconds_left(done, total))
        detail = f"{ended} of {plan.config.splits} splits, {speed:.0f} images/s, {left} left"
        self._row("study", done, total, detail)
        return f"{100 * done / total:.0f} %: {detail}"

    def _show_split(self, progress: JobProgress, epochs: int) -> None:
        name = f"split {progress.split}"
        if progress.state == "running":
            detail = (
                f"{progress.architecture}, epoch {progress.epoch} of {epochs}, "
                f"{progress.images_per_second:.0f} images/s"
            )
            self._row(name, progress.work_done, progress.work_total, detail)
        elif name in self._rows:
            with self._lock:
                self._progress.remove_task(self._rows.pop(name))

    def _seconds_left(self, done: float, total: float) -> float | None:
        """From the last minute's work: what an earlier start finished says nothing of the speed."""
        now = time.monotonic()
        self._rates = [(t, d) for t, d in self._rates if now - t < 60] + [(now, done)]
        before, earlier = self._rates[0]
        if done <= earlier:
            return None
        return (total - done) * (now - before) / (done - earlier)
