"""The report on centres: their mean, a further one, and networks that know a centre."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.config import StudyConfig
from thyro_core.reporting.queries import TableRow, Tables, condition, literal

_DECIDE_SPLITS = frozenset(
    {"scheme", "splits", "folds", "test_fraction", "val_fraction", "seed", "subgroups", "readers"}
)
"""Keys that two studies may differ in and still train alike."""


@dataclass(frozen=True)
class Centres:
    """What a report says of the centres; nothing, where the config looks at none."""

    effects: list[TableRow]
    """Rows of `centres`, one a network."""
    mixed_study: str | None
    """The latest study of the same images whose networks were trained alike, on every centre."""
    beside: Mapping[tuple[str, str], TableRow]
    """(architecture, centre) -> that study's row of `subgroups` with the AUC there."""


def centres(tables: Tables, config: StudyConfig) -> Centres:
    """Everything that the tables say of the centres.

    Args:
        tables: for queries.
        config: the study's.
    """
    effects = tables.rows("centres", ("architecture",))
    effects.sort(key=lambda row: config.architectures.index(row["architecture"]))
    if config.scheme == "leave_one_centre_out":
        for study_id in _alike_studies(tables, config):
            rows = _auc_rows(tables, study_id, config.centre_column)
            if rows:
                return Centres(effects, study_id, rows)
    return Centres(effects, None, {})


def _alike_studies(tables: Tables, config: StudyConfig) -> list[str]:
    """Finished studies of these images, the latest first, with splits that mix the centres."""
    rows = tables.query(
        "SELECT study_id, config FROM studies WHERE finished IS NOT NULL "
        f"AND manifest_id = {literal(tables.manifest_id)} "
        f"AND study_id <> {literal(tables.study_id)} ORDER BY finished DESC, study_id"
    )
    own = _training(config.model_dump(mode="json"))
    return [
        row["study_id"]
        for row in rows
        if (other := json.loads(row["config"]))["scheme"] != config.scheme
        and _training(other) == own
    ]


def _training(config: Mapping[str, object]) -> dict[str, object]:
    # As JSON: an earlier version's config need not be valid today.
    return {key: value for key, value in config.items() if key not in _DECIDE_SPLITS}


def _auc_rows(tables: Tables, study_id: str, column: str) -> Mapping[tuple[str, str], TableRow]:
    key = {"study_id": study_id, "subgroup": column, "metric": "auc"}
    rows = tables.query(f"SELECT * FROM subgroups WHERE {condition(key)} AND NOT isnan(estimate)")
    identity = ("architecture", "place")
    return {
        (row["architecture"], row["value"]): TableRow(
            "subgroups", key | {name: row[name] for name in identity}, row
        )
        for row in rows
    }
