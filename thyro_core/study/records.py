"""Records of runs: what each split x architecture ran on, what it cost and how it ended.

Each run has a record of its own, a JSON object; the `runs` table gathers them. Without torch: the
process that leads a study reads and gathers them too.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from thyro_core.errors import Failure
from thyro_core.store.keys import run_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import read_job_progress
from thyro_core.study.provenance import git_commit, versions
from thyro_core.tables import schemas
from thyro_core.training.timer import RunCost, RunTimer


@dataclass(frozen=True)
class RunFacts:
    """What only the job knows about a finished run: columns of `runs`, but for two.

    Attributes:
        train_auc: AUC of the final network on its training images, without augmentation; None:
            undefined. It goes to `metrics`.
        spent: the run's cost, two columns.
    """

    split: int
    architecture: str
    seed: int
    device: str
    precision: str
    side: int
    focal_alpha: float
    threads: int
    n_train: int
    n_test: int
    train_auc: float | None
    weights_missing: str | None
    weights_ignored: str | None
    model_sha256: str | None
    started: str
    peak_memory: int
    resumed_epochs: int
    spent: RunCost


def write_finished(store: Store, plan: StudyPlan, facts: RunFacts) -> None:
    """Record a finished run."""
    columns = asdict(facts) | asdict(facts.spent)
    del columns["spent"]
    _write_record(store, plan, columns | {"status": "finished"})


def write_failed(
    store: Store,
    plan: StudyPlan,
    split: int,
    architecture: str,
    *,
    failure: Failure,
    timer: RunTimer,
) -> None:
    """Record what stopped a run; a later success replaces it."""
    columns = {
        "split": split,
        "architecture": architecture,
        "status": "failed",
        "error": str(failure),
        "started": timer.started.isoformat(),
    }
    _write_record(store, plan, columns | asdict(timer.cost()))


def _write_record(store: Store, plan: StudyPlan, columns: dict[str, Any]) -> None:
    start = plan.weights[columns["architecture"]]
    record: dict[str, Any] = dict.fromkeys(schemas.TABLES["runs"].schema.names)
    record |= {
        "study_id": plan.study_id,
        "weights_origin": start.origin,
        "weights_sha256": start.sha256,
        "versions": versions(),
        "git_commit": git_commit(),
        "host": socket.gethostname(),
    }
    key = run_key(plan.study_id, columns["split"], columns["architecture"])
    store.write(key, json.dumps(record | columns, sort_keys=True).encode())


def read_record(
    store: Store, study_id: str, split: int, architecture: str
) -> dict[str, Any] | None:
    """The record of a finished or failed run, as plain JSON; None: it has none yet."""
    try:
        record: dict[str, Any] = json.loads(store.read(run_key(study_id, split, architecture)))
    except FileNotFoundError:
        return None
    return record


def earlier_costs(store: Store, study_id: str, split: int, architecture: str) -> Iterator[RunCost]:
    """What earlier attempts at a run published of their cost; its checkpoint holds more.

    Each value is a sum up to its own moment: the largest one includes the others.
    """
    progress = read_job_progress(store, study_id, split)
    if progress is not None and progress.architecture == architecture:
        yield RunCost(progress.seconds, progress.gpu_seconds)
    record = read_record(store, study_id, split, architecture)
    if record is not None and record["status"] == "failed":
        # Failures recorded by older versions may lack the cost.
        yield RunCost(record["seconds"] or 0.0, record["gpu_seconds"] or 0.0)


def runs_table(store: Store, plan: StudyPlan) -> pa.Table:
    """The `runs` table of a study, by split and architecture in the config's order."""
    records = (
        read_record(store, plan.study_id, split, architecture)
        for split in range(plan.config.splits)
        for architecture in plan.config.architectures
    )
    columns, later = schemas.TABLES["runs"].schema.names, schemas.LATER_COLUMNS["runs"]
    rows = [
        # A record of an earlier version lacks what came later.
        {name: record.get(name) if name in later else record[name] for name in columns}
        | {"started": datetime.fromisoformat(record["started"])}
        for record in records
        if record is not None
    ]
    return schemas.rows_to_table("runs", rows)


def train_aucs(store: Store, plan: StudyPlan) -> dict[tuple[int, str], float]:
    """AUC of each finished network on its own training images, by split and architecture.

    Runs without one are left out: those of versions that did not score the training part.
    """
    aucs: dict[tuple[int, str], float] = {}
    for split in range(plan.config.splits):
        for architecture in plan.config.architectures:
            record = read_record(store, plan.study_id, split, architecture) or {}
            if record.get("status") == "finished" and record.get("train_auc") is not None:
                aucs[split, architecture] = float(record["train_auc"])
    return aucs
