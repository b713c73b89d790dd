"""The report on what a reviewer asks for next: operating points, subgroups, readers, shortcuts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.config import StudyConfig
from thyro_core.evaluation.shortcuts import LEARNERS, shortcuts_tell
from thyro_core.explain.statistics import SIGNIFICANT
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.figures import dots
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.reporting.sections.curves import Plot, make_plot


@dataclass(frozen=True)
class SubgroupColumn:
    """A column's groups, and whether the AUC differs between them."""

    name: str
    test: TableRow
    """A row with the column's P."""
    groups: list[dict[str, TableRow]]
    """Metric -> row of `subgroups`, of each group in order."""

    @property
    def is_tested(self) -> bool:
        """Whether at least two groups are large enough, and have spread."""
        return self.test["p"] is not None and self.test["p"] == self.test["p"]


@dataclass(frozen=True)
class Review:
    """Rows of the review tables, for the config's architectures in their order."""

    operating: list[TableRow]
    subgroups: Mapping[str, list[SubgroupColumn]]
    """Architecture -> its columns; empty: the config names none."""
    forest: Plot | None
    """AUCs in the subgroups, of the first architecture."""
    readers: list[TableRow]
    shortcuts: list[TableRow]
    fact_words: Mapping[bool, tuple[str, ...]]
    """Whether they differ between the images -> names of the facts that the learners are given."""
    lead_over_best: Mapping[str, Cell]
    """Architecture -> its AUC less that of the learner that is best on the tested images."""
    shortcuts_tell: bool
    """Whether the shortcuts alone tell the classes apart: their interval lies above chance."""

    def shown_lead(self, row: TableRow) -> float | None:
        """A network's lead over the shortcuts as far as its test shows one.

        Args:
            row: of `shortcuts`.

        Returns:
            The lead; 0: none is shown; None: there is no test.
        """
        p = row["p_adjusted"]
        if p is None or math.isnan(p):
            return None
        return float(row["lead"]) if p < SIGNIFICANT else 0.0


def review(tables: Tables, config: StudyConfig) -> Review:
    """Everything the review tables say.

    Args:
        tables: for queries.
        config: the study's.
    """
    columns = _subgroups(tables, config)
    shortcuts = _review_rows(tables, config, "shortcuts", ("architecture",))
    first = config.architectures[0]
    return Review(
        operating=_review_rows(tables, config, "operating_points", ("architecture", "declared")),
        subgroups=columns,
        forest=_subgroup_forest(tables, columns.get(first, []), first),
        readers=_review_rows(tables, config, "readers", ("architecture", "reader")),
        shortcuts=shortcuts,
        fact_words=_fact_words(tables),
        lead_over_best={
            row["architecture"]: tables.figure(
                "auc - greatest(" + ", ".join(f"{name}_auc" for name in LEARNERS) + ")",
                tables.source("shortcuts", architecture=row["architecture"]),
                "three",
            )
            for row in shortcuts
        },
        shortcuts_tell=shortcuts_tell([row.values for row in shortcuts]),
    )


_FACT_WORDS = {
    "size": ("width", "height"),
    "grey level": ("mean", "sd"),
    "sharpness": ("sharpness",),
    "overlay": ("overlay_share",),
    "number of windows": ("views",),
}


def _fact_words(tables: Tables) -> Mapping[bool, tuple[str, ...]]:
    """The facts that differ between the images that take part, and those that do not."""
    columns = [column for each in _FACT_WORDS.values() for column in each]
    counts = ", ".join(f"count(DISTINCT {column}) AS {column}" for column in columns)
    source = f"{tables.source('images')} AND included AND label IS NOT NULL"
    (row,) = tables.query(f"SELECT {counts} FROM {source}")
    differ = {word: any(row[name] > 1 for name in each) for word, each in _FACT_WORDS.items()}
    return {
        value: tuple(word for word, differs in differ.items() if differs is value)
        for value in (True, False)
    }


def _review_rows(
    tables: Tables, config: StudyConfig, table: str, identity: tuple[str, ...]
) -> list[TableRow]:
    rows = tables.rows(table, identity)
    return sorted(rows, key=lambda row: config.architectures.index(row["architecture"]))


def _subgroups(tables: Tables, config: StudyConfig) -> dict[str, list[SubgroupColumn]]:
    identity = ("architecture", "subgroup", "place", "metric")
    rows = tables.rows("subgroups", identity)
    columns: dict[str, list[SubgroupColumn]] = {}
    for architecture in config.architectures:
        for spec in config.subgroup_columns:
            key = (architecture, spec.name)
            own = [row for row in rows if (row["architecture"], row["subgroup"]) == key]
            groups: dict[int, dict[str, TableRow]] = {}
            for row in own:
                groups.setdefault(row["place"], {})[row["metric"]] = row
            if groups:
                test = next(iter(groups.values()))["auc"]
                column = SubgroupColumn(spec.name, test, list(groups.values()))
                columns.setdefault(architecture, []).append(column)
    return columns


def _subgroup_forest(
    tables: Tables, columns: list[SubgroupColumn], architecture: str
) -> Plot | None:
    """AUC of each large group; the page's tables have the numbers."""
    rows = [group["auc"].values for column in columns for group in column.groups]
    large = [row for row in rows if row["estimate"] == row["estimate"]]
    if not large:
        return None
    key = {"architecture": architecture, "probability": "raw", "metric": "auc"}
    overall = [row["value"] for row in tables.rows("calibration", tuple(key), **key)]
    svg = dots.subgroup_plot("plot-subgroups", large, overall[0] if overall else None)
    return make_plot("subgroups", svg)
