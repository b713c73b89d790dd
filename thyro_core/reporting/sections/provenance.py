"""The report on how the figures came about: config, starting weights, runs, versions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.study.plan import StudyPlan
from thyro_core.study.provenance import git_commit
from thyro_core.urls import without_local_folders


@dataclass(frozen=True)
class Setting:
    """A field of the config: its value, and what it decides."""

    name: str
    value: Cell
    meaning: str
    is_changed: bool
    """Whether it is not the default."""


@dataclass(frozen=True)
class Provenance:
    """What made the figures."""

    study: list[Setting]
    ingest: list[Setting]
    weights: list[dict[str, object]]
    runs: list[TableRow]
    totals: Mapping[str, Cell]
    versions: list[tuple[str, Cell]]
    """Packages and versions; several where runs differ."""
    commits: list[str]
    """Of the program when it trained."""
    page_version: str
    """Of the program that made the page."""
    page_commit: str | None
    """Its commit; None: it was not run from a checkout."""

    @property
    def is_changed(self) -> bool:
        """Whether some of these commits had been changed when they ran."""
        return any(commit.endswith("-dirty") for commit in (*self.commits, self.page_commit or ""))


def provenance(tables: Tables, plan: StudyPlan) -> Provenance:
    """Config, weights, runs and versions."""
    settings = [_setting(plan, name) for name in StudyConfig.model_fields]
    return Provenance(
        study=[each for each in settings if each.name not in IngestConfig.model_fields],
        ingest=[each for each in settings if each.name in IngestConfig.model_fields],
        weights=[
            {
                "architecture": name,
                "origin": plan.weights[name].display_origin,
                "sha256": plan.weights[name].sha256,
            }
            for name in plan.config.architectures
        ],
        runs=sorted(
            tables.rows("runs", ("split", "architecture")),
            key=lambda row: (row["split"], plan.config.architectures.index(row["architecture"])),
        ),
        totals=tables.figures(
            tables.source("runs"),
            {
                "runs": ("count(*)", "count"),
                "finished": ("count(*) FILTER (status = 'finished')", "count"),
                "hours": ("sum(seconds) / 3600", "two"),
                "gpu_hours": ("sum(gpu_seconds) / 3600", "two"),
                "memory": ("max(peak_memory)", "mebibytes"),
                "started": ("min(started)", "text"),
                "last": ("max(started)", "text"),
            },
        ),
        versions=_versions(tables),
        commits=_commits(tables),
        page_version=metadata.version("thyro"),
        page_commit=git_commit(),
    )


def config_cell(plan: StudyPlan, name: str, form: str = "short") -> Cell:
    """A field of the study's config as the report shows it; lists are joined, empty is `auto`."""
    value = getattr(plan.config, name)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, tuple):
        value = ", ".join(value)
    if value is None:
        value = "auto"
    if isinstance(value, str):
        # A folder of the machine may tell who ran the study.
        value, form = without_local_folders(value) if name == "weights" else value, "text"
    elif isinstance(value, int):
        form = "count"
    return Cell(value, form, ("config", name))


def _setting(plan: StudyPlan, name: str) -> Setting:
    field = StudyConfig.model_fields[name]
    is_changed = getattr(plan.config, name) != field.default
    return Setting(name, config_cell(plan, name), field.description or "", is_changed)


def _versions(tables: Tables) -> list[tuple[str, Cell]]:
    rows = tables.query(
        f"SELECT DISTINCT versions FROM {tables.source('runs')} AND versions IS NOT NULL ORDER BY 1"
    )
    names = sorted({name for row in rows for name in json.loads(row["versions"])})
    runs = tables.source("runs")
    expression = "string_agg(DISTINCT versions->>'{0}', ', ' ORDER BY versions->>'{0}')"
    return [(name, tables.figure(expression.format(f'$."{name}"'), runs, "text")) for name in names]


def _commits(tables: Tables) -> list[str]:
    rows = tables.query(
        f"SELECT DISTINCT git_commit FROM {tables.source('runs')} AND git_commit IS NOT NULL "
        "ORDER BY 1"
    )
    return [row["git_commit"] for row in rows]
