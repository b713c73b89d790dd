"""Events of a run for a display outside Prefect: a flow sends them, the terminal receives them."""

from collections.abc import Mapping
from contextvars import ContextVar

from thyro_core.errors import Failure
from thyro_core.screening.rules import Counts
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan


class Observer:
    """Ignores every event; a display overrides the events that it shows."""

    def on_images(self, n_done: int, total: int) -> None:
        """So many images of the set are decoded."""

    def on_scored(self, n_done: int, total: int) -> None:
        """So many images of an evaluation are scored."""

    def on_plan(self, store: Store, plan: StudyPlan) -> None:
        """The study has its id; training starts."""

    def on_delay(self, reason: str) -> None:
        """The run waits, or goes on without something; the reason is for people."""

    def on_split_end(self, split: int, failures: Mapping[str, Failure]) -> None:
        """A split is over; `failures` names the architectures that were not trained, and why."""

    def on_result(self, name: str, n_done: int, total: int) -> None:
        """Training is over; of the tables and the report `n_done` are made, `name` is next."""

    def on_report(self, url: str | None, error: str | None) -> None:
        """The report is written, or it could not be; the results stand all the same."""

    def on_files(self, counts: Counts, total: int | None) -> None:
        """Progress of a screening; `total` files are in the batch, once they are counted."""

    def on_delivery(self, sentence: str) -> None:
        """A night's results were sent to the archive, or not all of them; the sentence says it."""


observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def current_observer() -> Observer:
    """The observer of this run, or one that ignores every event."""
    return observer.get() or Observer()
