"""The studies of a store: their images, state and primary result, and which were abandoned."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from thyro_core.evaluation.tables import PRIMARY_METRIC, image_level
from thyro_core.store.keys import study_lock_key, table_key
from thyro_core.store.lock import Hold, last_hold, may_be_held
from thyro_core.store.store import Store
from thyro_core.study.plan import load_plan, study_ids
from thyro_core.study.study_table import StudyState, study_row
from thyro_core.tables.io import read_table

ABANDONED_DAYS = 14
"""An unfinished study without a sign of life for so long counts as abandoned."""


@dataclass(frozen=True)
class ListedStudy:
    """A study in a listing.

    Attributes:
        source: Where its images were at its last start; None: not kept.
        state: Where the table says `running` and no program is at work, `interrupted`.
        start_time: Its first start; None: an older version of the program made it.
        last_sign: The last sign of life of a program that led it; None: there is none.
        auc: Primary endpoint: the first architecture's AUC by image, mean over splits; None: the
            study is not finished, or its metrics are damaged. NaN: undefined.
        in_table: Whether it has a row in `studies`; older versions wrote none.
    """

    study_id: str
    manifest_id: str
    source: str | None
    state: StudyState
    start_time: datetime | None
    last_sign: datetime | None
    architectures: tuple[str, ...]
    auc: float | None
    in_table: bool

    def is_abandoned(self, now: datetime) -> bool:
        """Whether nobody seems to want it any more.

        Args:
            now: the present, with its time zone.
        """
        if self.state in {"finished", "running"}:
            return False
        last = max(filter(None, (self.last_sign, self.start_time)), default=None)
        return last is None or (now - last).days >= ABANDONED_DAYS


def list_studies(store: Store, now: datetime) -> list[ListedStudy]:
    """All studies of a store, the latest start first; those without a time last.

    Args:
        store: where they lie.
        now: the present, with its time zone.
    """
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(_studies(store, now), key=lambda study: study.start_time or never, reverse=True)


def _studies(store: Store, now: datetime) -> Iterator[ListedStudy]:
    for study_id in study_ids(store):
        plan, row = load_plan(store, study_id), study_row(store, study_id) or {}
        hold = last_hold(store, study_lock_key(study_id))
        state = _state(store, study_id, row.get("state"), may_be_held(hold, now))
        first = plan.config.architectures[0]
        yield ListedStudy(
            study_id=study_id,
            manifest_id=plan.manifest_id,
            source=row.get("source"),
            state=state,
            start_time=row.get("started"),
            last_sign=_last_sign(hold),
            architectures=plan.config.architectures,
            auc=_primary_auc(store, study_id, first) if state == "finished" else None,
            in_table=bool(row),
        )


def _state(
    store: Store, study_id: str, recorded_state: StudyState | None, is_driven: bool
) -> StudyState:
    is_old = recorded_state is None and store.exists(table_key("metrics", study_id=study_id))
    if recorded_state == "finished" or is_old:
        return "finished"
    if is_driven:
        return "running"
    return recorded_state if recorded_state == "failed" else "interrupted"


def _last_sign(hold: Hold | None) -> datetime | None:
    try:
        return None if hold is None else datetime.fromisoformat(hold.kept)
    except ValueError:
        return None


def _primary_auc(store: Store, study_id: str, architecture: str) -> float | None:
    try:
        metrics = image_level(read_table(store, "metrics", study_id=study_id))
    except (pa.ArrowException, OSError):
        return None
    key = {"split": None, "metric": PRIMARY_METRIC, "architecture": architecture}
    rows = metrics.select([*key, "value"]).to_pylist()
    values = (row["value"] for row in rows if key.items() <= row.items())
    return next(values, None)
