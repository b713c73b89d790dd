"""The table `studies`: which images a study is of, how it was started, and what became of it."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import yaml

from thyro_core.config import StudyConfig, canonical_json
from thyro_core.store.store import Store, full_url
from thyro_core.study.lifecycle import unfinished_runs
from thyro_core.study.plan import StudyPlan
from thyro_core.study.provenance import versions
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

StudyState = Literal["running", "finished", "failed", "interrupted"]


def note_start(store: Store, plan: StudyPlan, sources: Sequence[str]) -> None:
    """Write that a study was started; of one that is finished nothing changes.

    Args:
        store: where the study lies.
        plan: the study; it is in the store.
        sources: fsspec URLs of its image sets; empty: names are not kept.
    """
    earlier = study_row(store, plan.study_id)
    if earlier and earlier["state"] == "finished" and not unfinished_runs(store, plan):
        return
    _write_row(
        store,
        {
            "study_id": plan.study_id,
            "manifest_id": plan.manifest_id,
            "source": " ".join(full_url(source) for source in sources) or None,
            "config": canonical_json(plan.config.model_dump(mode="json")),
            "command": study_command(sources or ("SOURCE",), plan.config),
            "started": earlier["started"] if earlier else datetime.now(UTC),
            "finished": None,
            "state": "running",
            "versions": versions(),
        },
    )


def note_end(store: Store, plan: StudyPlan, state: StudyState) -> None:
    """Write what became of a study; one that is finished stays finished.

    Args:
        store: where the study lies.
        plan: the study.
        state: `finished` as soon as its results are complete.
    """
    row = study_row(store, plan.study_id)
    if row and row["state"] != "finished":
        end = datetime.now(UTC) if state == "finished" else None
        _write_row(store, row | {"state": state, "finished": end})


def study_row(store: Store, study_id: str) -> dict[str, Any] | None:
    """A study's row of `studies`; None: an older version of the program made the study."""
    rows: list[dict[str, Any]] = read_table(store, "studies", study_id=study_id).to_pylist()
    return rows[0] if rows else None


def check_row(table: pa.Table, plan: StudyPlan) -> tuple[list[str], str]:
    """Where a study's row of `studies` differs from its plan, and what holds otherwise."""
    rows = table.to_pylist()
    if not rows:
        return [], "not there: an earlier version of the program made the study"
    expected_plan = {"manifest_id": plan.manifest_id, "config": plan.config.model_dump(mode="json")}
    actual = {"manifest_id": rows[0]["manifest_id"], "config": json.loads(rows[0]["config"])}
    faults = [
        f"{name} is {actual[name]}, expected {value}"
        for name, value in expected_plan.items()
        if actual[name] != value
    ]
    return faults, "manifest and config are the plan's"


def study_command(sources: Sequence[str], config: StudyConfig) -> str:
    """The command line that starts a study: its sources, and all keys that are no defaults."""
    changed_keys = config.model_dump(mode="json", exclude_defaults=True)
    pairs = (
        part for name, value in changed_keys.items() for part in ("--set", f"{name}={_yaml(value)}")
    )
    return shlex.join(["thyro", "study", *sources, *pairs])


def _yaml(value: object) -> str:
    """A value as it is written on a command line: plainly where YAML reads it back as it was."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        texts = [str(part) for part in value]
        whole = ",".join(texts)
        return whole if texts and not set('[],"') & set("".join(texts)) else json.dumps(value)
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def _write_row(store: Store, row: dict[str, object]) -> None:
    table = schemas.rows_to_table("studies", [row])
    write_table(store, "studies", table, study_id=str(row["study_id"]))
