"""The terminal's view of a running screening."""

from rich.markup import escape
from rich.status import Status

from flows.cli.console import say
from flows.observer import Observer
from thyro_core.screening.rules import Counts


class ScreenDisplay(Observer):
    """One line that says how far the run is."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def on_delay(self, reason: str) -> None:
        """Show the reason above the line."""
        say(escape(reason), self._status.console)

    def on_delivery(self, sentence: str) -> None:
        """Show what was sent above the line."""
        say(escape(sentence), self._status.console)

    def on_files(self, counts: Counts, total: int | None) -> None:
        """Show how many files are through."""
        of = "" if total is None else f" of {total}"
        self._status.update(
            f"{counts.files}{of} files: {counts.known} passed over, {counts.images} new "
            f"images, {counts.scored} scored"
        )
