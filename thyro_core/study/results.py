"""A study's results in memory, for notebooks: data frames of its tables, its status, its report."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from thyro_core.errors import InputError
from thyro_core.store.keys import report_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.study.status import StudyStatus, study_status
from thyro_core.tables.io import read_table
from thyro_core.tables.schemas import STUDY_TABLES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """A study of a store. Each call reads what the store holds at that moment.

    Attributes:
        store: where the study lies.
        plan: its config, manifest, precision and starting weights.
    """

    store: Store
    plan: StudyPlan

    def table(self, name: str) -> pa.Table:
        """The study's rows of a table as Arrow, with the registered column types.

        Args:
            name: of a table with the key study_id, such as `metrics` or `cam_features`.

        Raises:
            InputError: a study has no such table.
        """
        if name not in STUDY_TABLES:
            names = ", ".join(STUDY_TABLES)
            msg = f"{name}: expected the name of a study's table, one of {names}"
            raise InputError(msg)
        return read_table(self.store, name, study_id=self.plan.study_id)

    def metrics(self) -> "pd.DataFrame":
        """Metrics by level, within and over splits; rows without a split are means over splits."""
        return self._frame("metrics")

    def predictions(self) -> "pd.DataFrame":
        """Logits and probabilities, one row a split, architecture and test image."""
        return self._frame("predictions")

    def cams(self) -> "pd.DataFrame":
        """Raw Grad-CAM maps: `map` holds height x width values, row by row."""
        return self._frame("cams")

    def _frame(self, name: str) -> "pd.DataFrame":
        frame: pd.DataFrame = self.table(name).to_pandas()
        return frame

    def status(self) -> StudyStatus:
        """State of each run, work done and time left."""
        return study_status(self.store, self.plan.study_id, datetime.now(UTC))

    def report(self) -> str:
        """The HTML report that the study left.

        Raises:
            InputError: there is none yet.
        """
        key = report_key(self.plan.study_id)
        try:
            return self.store.read(key).decode()
        except FileNotFoundError as error:
            msg = (
                f"{self.store.url}/{key}: expected the study's report, found none; "
                f"run `thyro report {self.plan.study_id}` when the study is finished"
            )
            raise InputError(msg) from error


def load_study(store: Store | str, study_id: str) -> Study:
    """A study whose results are to be read.

    Args:
        store: from `open_store`, or its folder or fsspec URL.
        study_id: as `thyro study` prints it.

    Raises:
        InputError: there is no such study.
    """
    opened_store = open_store(store) if isinstance(store, str) else store
    return Study(opened_store, load_plan(opened_store, study_id))
