"""The report on what a reviewer asks for next: operating points, subgroups, readers, shortcuts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.config import StudyConfig
from thyro_core.evaluation.shortcuts import LEARNERS, SEEN_PREFIX, shortcuts_tell
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
class FactSet:
    """Facts of a file, as learners are given them, against the networks."""

    prefix: str
    """Of their columns in `shortcuts`."""
    words: tuple[str, ...]
    """Names of those that differ between the images."""
    has_size: bool
    """Whether the picture's size is among them."""
    tell: bool
    """Whether they tell the classes apart: the interval of their AUC lies above chance."""
    lead_over_best: Mapping[str, Cell]
    """Architecture -> its AUC less that of the learner that is best on the tested images."""

    def shown_lead(self, row: TableRow | Mapping[str, object]) -> float | None:
        """A network's lead over these facts as far as its test shows one.

        Args:
            row: of `shortcuts`.

        Returns:
            The lead; 0: none is shown; None: there is no test.
        """
        p, lead = row[f"{self.prefix}p_adjusted"], row[f"{self.prefix}lead"]
        if not isinstance(p, float) or not isinstance(lead, float) or math.isnan(p):
            return None
        return lead if p < SIGNIFICANT else 0.0


@dataclass(frozen=True)
class Review:
    """Rows of the review tables, for the config's architectures in their order."""

    operating: list[TableRow]
    subgroups: Mapping[str, list[SubgroupColumn]]
    """Architecture -> its columns; empty: the config names none."""
    forest: Plot | None
    """AUCs in the subgroups, of the first architecture."""
    readers: list[TableRow]
    avoided_ends: Mapping[tuple[str, str], Mapping[str, Cell]]
    """Architecture and reader -> `low` and `high`, ends of the interval of `avoided`."""
    shortcuts: list[TableRow]
    facts: tuple[FactSet, ...]
    """What the networks are compared with: facts that they see, first; then those with the
    picture's size, which they are not given, where it differs. Of a table that an earlier version
    made all of them alone."""
    same_facts: tuple[str, ...]
    """Names of the facts that are the same in every image."""

    def all_leads_shown(self, row: TableRow) -> bool:
        """Whether a network is shown to tell more than each set of facts.

        Args:
            row: of `shortcuts`.
        """
        return all((facts.shown_lead(row) or 0.0) > 0 for facts in self.facts)


def review(tables: Tables, config: StudyConfig) -> Review:
    """Everything the review tables say.

    Args:
        tables: for queries.
        config: the study's.
    """
    columns = _subgroups(tables, config)
    shortcuts = _review_rows(tables, config, "shortcuts", ("architecture",))
    words = _fact_words(tables)
    readers = _review_rows(tables, config, "readers", ("architecture", "reader"))
    first = config.architectures[0]
    return Review(
        operating=_review_rows(tables, config, "operating_points", ("architecture", "declared")),
        subgroups=columns,
        forest=_subgroup_forest(tables, columns.get(first, []), first),
        readers=readers,
        avoided_ends={
            (row["architecture"], row["reader"]): tables.figures(
                tables.source("readers", architecture=row["architecture"], reader=row["reader"]),
                {
                    end: (f"1000 * difference_{end} * (n - n_positive) / n", "one")
                    for end in ("low", "high")
                },
            )
            for row in readers
        },
        shortcuts=shortcuts,
        facts=_fact_sets(tables, shortcuts, words[True]),
        same_facts=words[False],
    )


def _fact_sets(tables: Tables, rows: list[TableRow], words: tuple[str, ...]) -> tuple[FactSet, ...]:
    """The sets of facts that the rows have figures of, those that the networks see first."""
    if not rows:
        return ()
    sets = []
    is_older = rows[0][f"{SEEN_PREFIX}p"] is None
    for prefix in ("",) if is_older else (SEEN_PREFIX, ""):
        has_size = prefix != SEEN_PREFIX and _SIZE in words
        if prefix != SEEN_PREFIX and not is_older and not has_size:
            continue
        best = ", ".join(f"{prefix}{name}_auc" for name in LEARNERS)
        sets.append(
            FactSet(
                prefix=prefix,
                words=tuple(word for word in words if has_size or word != _SIZE),
                has_size=has_size,
                tell=shortcuts_tell([row.values for row in rows], prefix),
                lead_over_best={
                    row["architecture"]: tables.figure(
                        f"auc - greatest({best})",
                        tables.source("shortcuts", architecture=row["architecture"]),
                        "three",
                    )
                    for row in rows
                },
            )
        )
    return tuple(sets)


_SIZE = "size"
_FACT_WORDS = {
    _SIZE: ("width", "height"),
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
