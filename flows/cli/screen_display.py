"""The terminal's view of a running screening."""

from rich.markup import escape
from rich.status import Status

from flows.observer import Observer
from thyro_core.screening.rules import Counts


class ScreenDisplay(Observer):
    """One line that says how far the run is."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def held_up(self, why: str) -> None:
        """Say it above the line."""
        self._status.console.print(escape(why), highlight=False, soft_wrap=True)

    def screened(self, counts: Counts, total: int | None) -> None:
        """Say how many files are through."""
        of = "" if total is None else f" of {total}"
        self._status.update(
            f"{counts.files}{of} files: {counts.known} known, {counts.images} new images, "
            f"{counts.scored} scored"
        )
