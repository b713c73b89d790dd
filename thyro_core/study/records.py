"""The `runs` table: what each split x architecture ran on, with and from, and how it ended."""

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from thyro_core.store.keys import run_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.provenance import git_commit, versions
from thyro_core.tables import schemas
from thyro_core.training.device import device_name, peak_memory
from thyro_core.training.loop import Recipe
from thyro_core.training.timer import Meter, Spent


@dataclass(frozen=True)
class RunFacts:
    """What only the job knows about a finished run."""

    split: int
    architecture: str
    threads: int
    n_train: int
    n_test: int
    weights_missing: tuple[str, ...]
    model_sha256: str | None
    started: datetime
    spent: Spent
    resumed_epochs: int


def write_finished(store: Store, plan: StudyPlan, recipe: Recipe, facts: RunFacts) -> None:
    """Record a finished run."""
    row = _empty(plan, facts.split, facts.architecture, "finished")
    row |= asdict(facts) | asdict(facts.spent)
    row |= {
        "seed": recipe.seed,
        "device": device_name(recipe.device),
        "precision": recipe.precision,
        "side": plan.config.side(facts.architecture),  # type: ignore[arg-type]
        "focal_alpha": recipe.alpha,
        "weights_missing": ", ".join(facts.weights_missing) or None,
        "started": facts.started.isoformat(),
        "peak_memory": peak_memory(),
    }
    del row["spent"]
    _write(store, row)


def write_failed(
    store: Store, plan: StudyPlan, split: int, architecture: str, error: str, meter: Meter
) -> None:
    """Record what stopped a run; a later success takes its place."""
    row = _empty(plan, split, architecture, "failed")
    row |= {"error": error, "started": meter.started.isoformat()} | asdict(meter.spent())
    _write(store, row)


def _empty(plan: StudyPlan, split: int, architecture: str, status: str) -> dict[str, object]:
    start = plan.weights[architecture]
    row: dict[str, object] = dict.fromkeys(schemas.TABLES["runs"].schema.names)
    return row | {
        "study_id": plan.study_id,
        "split": split,
        "architecture": architecture,
        "status": status,
        "weights_origin": start.origin,
        "weights_sha256": start.sha256,
        "versions": versions(),
        "git_commit": git_commit(),
        "host": socket.gethostname(),
    }


def _write(store: Store, row: Mapping[str, object]) -> None:
    key = run_key(str(row["study_id"]), int(str(row["split"])), str(row["architecture"]))
    store.write(key, json.dumps(row, sort_keys=True).encode())
