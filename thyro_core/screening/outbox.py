"""What of the nights' results an archive has got, and what it is still to get.

A night's batch is marked as open before anything of it is written, so that a run that dies leaves
the mark. Files are known by the keyed hashes of their paths, as in the table `screening`.
"""

import hashlib
import json
from dataclasses import dataclass

from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.rules import Night, date_text
from thyro_core.store.keys import open_results_folder, open_results_key, results_record_key
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table

_TARGET_DIGITS = 16


@dataclass(frozen=True)
class Outbox:
    """The results for one archive.

    Attributes:
        store: of the nights.
        target: THYRO_RESULTS_TO.
    """

    store: Store
    target: str

    def begin(self, night: Night) -> None:
        """Mark a night's batch: its results are to be sent."""
        self.store.write(open_results_key(self._id, night.date, night.batch_id), b"")

    def finish(self, night: Night) -> None:
        """Take the mark away: all are sent that can be."""
        self.store.delete(open_results_key(self._id, night.date, night.batch_id))

    def open_nights(self, batch: str) -> list[Night]:
        """The marked nights of a batch that have rows, oldest first."""
        names = {tuple(key.split("/")[-2:]) for key in self.store.keys(self._folder)}
        dates = {date for date, _ in names}
        return [
            night
            for date in sorted(dates)
            for night in nights_of(self.store, batch, date)
            if (night.date, night.batch_id) in names
        ]

    def files_of(self, night: Night) -> set[str]:
        """The files of a night's batch that the archive has got the results of."""
        key = results_record_key(self._id, night.date, night.batch_id)
        if not self.store.exists(key):
            return set()
        return set(json.loads(self.store.read(key))["files"])

    def note(self, night: Night, files: set[str]) -> None:
        """Note which files' results the archive has got, those noted before among them."""
        record = json.dumps({"files": sorted(files)}).encode()
        self.store.write(results_record_key(self._id, night.date, night.batch_id), record)

    @property
    def _id(self) -> str:
        return hashlib.sha256(self.target.encode()).hexdigest()[:_TARGET_DIGITS]

    @property
    def _folder(self) -> str:
        return open_results_folder(self._id)


def nights_of(store: Store, batch: str, date: str) -> list[Night]:
    """The nights' batches of an address at a date: one for each model that scored it."""
    number = int(date.replace("-", ""))
    return [
        Night(
            date=date_text(row["date"]),
            batch=row["batch"],
            model_id=row["model_id"],
            rules=ScreeningRules.model_validate_json(row["rules"]),
        )
        for row in read_table(store, "screening_batches", date=number).to_pylist()
        if row["batch"] == batch
    ]
