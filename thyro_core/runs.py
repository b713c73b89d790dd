"""The `runs` table, gathered from the records that the jobs left."""

import json
from datetime import datetime

import pyarrow as pa

from thyro_core import paths, schemas
from thyro_core.plan import StudyPlan
from thyro_core.storage import Store


def runs_table(store: Store, plan: StudyPlan) -> pa.Table:
    """The `runs` table of a study, by split and architecture in the config's order."""
    rows = []
    for split in range(plan.config.splits):
        for architecture in plan.config.architectures:
            key = paths.run_key(plan.study_id, split, architecture)
            if store.exists(key):
                row = json.loads(store.read(key))
                rows.append(row | {"started": datetime.fromisoformat(row["started"])})
    return schemas.rows_to_table("runs", rows)
