"""The `runs` table, gathered from the records that the jobs left."""

import json
from datetime import datetime
from typing import Any

import pyarrow as pa

from thyro_core.store.keys import run_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables import schemas


def runs_table(store: Store, plan: StudyPlan) -> pa.Table:
    """The `runs` table of a study, by split and architecture in the config's order."""
    rows = []
    for split in range(plan.config.splits):
        for architecture in plan.config.architectures:
            row = read_record(store, plan.study_id, split, architecture)
            if row is not None:
                rows.append(row | {"started": datetime.fromisoformat(row["started"])})
    return schemas.rows_to_table("runs", rows)


def read_record(
    store: Store, study_id: str, split: int, architecture: str
) -> dict[str, Any] | None:
    """What a finished or failed run left, as plain JSON; None: it has left nothing yet."""
    try:
        row: dict[str, Any] = json.loads(store.read(run_key(study_id, split, architecture)))
    except FileNotFoundError:
        return None
    return row
