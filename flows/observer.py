"""What someone who watches a study is told: a flow speaks, the terminal's display listens."""

from contextvars import ContextVar

from thyro_core.screening.rules import Counts
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan


class Observer:
    """Hears nothing and does nothing; a display overrides what it shows."""

    def ingesting(self, done: int, total: int) -> None:
        """So many images of the set are decoded."""

    def planned(self, store: Store, plan: StudyPlan) -> None:
        """The study has its name; training starts."""

    def held_up(self, why: str) -> None:
        """It waits, or goes on without what it wanted; whoever watches should know why."""

    def split_ended(self, split: int, failed: dict[str, str]) -> None:
        """A split is trained; `failed` names the architectures that are not, and why."""

    def reported(self, url: str | None, error: str | None) -> None:
        """The report is written, or it could not be; the results stand all the same."""

    def screened(self, counts: Counts, total: int | None) -> None:
        """A screening has come so far; `total` files are in the batch, if they are counted yet."""


observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def current_observer() -> Observer:
    """Whoever watches this run."""
    return observer.get() or Observer()
