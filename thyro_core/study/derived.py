"""Tables of a finished study that follow from its predictions, splits, metrics and images."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import pyarrow as pa

from thyro_core.config import StudyConfig
from thyro_core.config.columns import ColumnSpec, ReaderSpec
from thyro_core.datasets.attributes import column_values, kept_columns
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import CrossFit, cross_fit
from thyro_core.evaluation.centres import centres_table, has_centres
from thyro_core.evaluation.ensemble import calibration_table, ensemble_table
from thyro_core.evaluation.operating import operating_points_table, predictive_values_table
from thyro_core.evaluation.out_of_fold import Ensembles, out_of_fold_ensembles
from thyro_core.evaluation.readers import readers_table, reading
from thyro_core.evaluation.shortcuts import shortcuts_table
from thyro_core.evaluation.subgroups import subgroups_table
from thyro_core.evaluation.tables import comparisons_table
from thyro_core.study.plan import StudyPlan

Sources = Mapping[str, pa.Table]
"""A study's `images`, `splits`, `predictions` and `metrics`, and maybe other tables."""

MOST_GROUPS = 12
"""Most different texts that a column of subgroups may hold: a column of more is a number to cut, or
tells images apart."""

DERIVED_TABLES: Mapping[str, tuple[str, ...]] = {
    "comparisons": ("split", "baseline", "metric"),
    "ensemble": ("architecture", "image_id"),
    "calibration": ("architecture", "probability", "metric"),
    "operating_points": ("architecture", "declared"),
    "predictive_values": ("architecture", "measure", "prevalence"),
    "subgroups": ("architecture", "subgroup", "place", "metric"),
    "centres": ("architecture",),
    "readers": ("architecture", "reader"),
    "shortcuts": ("architecture",),
}
"""Table -> the columns that name a row."""


def derived_tables(config: StudyConfig) -> tuple[str, ...]:
    """Those of `DERIVED_TABLES` that a study has: `centres` only where it looks at centres.

    Args:
        config: the study's.
    """
    return tuple(name for name in DERIVED_TABLES if name != "centres" or has_centres(config))


class Derivation:
    """Works the derived tables of one study out; its ensembles and their fits once.

    Args:
        plan: the study's.
        sources: the tables that they follow from.
    """

    def __init__(self, plan: StudyPlan, sources: Sources) -> None:
        self._plan = plan
        self._sources = sources

    @cached_property
    def _ensembles(self) -> Ensembles:
        parts = (self._sources["predictions"], self._sources["splits"])
        return out_of_fold_ensembles(*parts, self._plan.config.architectures)

    @cached_property
    def _fits(self) -> dict[str, CrossFit]:
        return {name: cross_fit(ensemble) for name, ensemble in self._ensembles.items()}

    def table(self, name: str) -> pa.Table:
        """One of `DERIVED_TABLES`.

        Raises:
            ValueError: the predictions are not of exactly the splits' test images.
        """
        study_id, config, sources = self._plan.study_id, self._plan.config, self._sources
        images, splits = sources["images"], sources["splits"]
        parts = (sources["predictions"], splits)

        def cells(specs: Sequence[ColumnSpec | ReaderSpec]) -> dict[str, Mapping[str, str]]:
            return {spec.name: column_values(images, spec.name) for spec in specs}

        def subgroups() -> pa.Table:
            columns = cells(config.subgroup_columns)
            return subgroups_table(study_id, self._ensembles, config, columns=columns)

        def centres() -> pa.Table:
            cells = column_values(images, config.centre_column)
            return centres_table(study_id, self._ensembles, config, cells)

        def readers() -> pa.Table:
            columns = cells(config.reader_columns)
            return readers_table(study_id, self._ensembles, config, columns=columns)

        makers: dict[str, Callable[[], pa.Table]] = {
            "comparisons": lambda: comparisons_table(study_id, *parts, config),
            "ensemble": lambda: ensemble_table(study_id, self._ensembles, self._fits, splits),
            "calibration": lambda: calibration_table(study_id, self._ensembles, self._fits),
            "operating_points": lambda: operating_points_table(study_id, self._ensembles, config),
            "predictive_values": lambda: predictive_values_table(
                study_id, sources["metrics"], config
            ),
            "subgroups": subgroups,
            "centres": centres,
            "readers": readers,
            "shortcuts": lambda: shortcuts_table(study_id, *parts, config, images=images),
        }
        return makers[name]()


def derived_table(name: str, plan: StudyPlan, sources: Sources) -> pa.Table:
    """One of `DERIVED_TABLES` alone; of several a `Derivation` shares what they have in common.

    Args:
        name: the table.
        plan: the study's.
        sources: the tables that it follows from.
    """
    return Derivation(plan, sources).table(name)


def check_columns(images: pa.Table, config: StudyConfig) -> None:
    """Whether the image set has the columns that a config names; before anything is trained.

    Args:
        images: an `images` table.
        config: the study's config.

    Raises:
        InputError: a column is not there (columns that identify people are never kept), a column of
            subgroups has too many different texts, or no cell of a reader can be read.
    """
    names = ", ".join(kept_columns(images)) or "none"
    for spec in config.subgroup_columns:
        cells = _cells(images, "subgroups", spec.name, names)
        texts = set(cells.values())
        if not spec.cuts and len(texts) > MOST_GROUPS:
            msg = (
                f"subgroups: expected at most {MOST_GROUPS} different texts in {spec.name}, found "
                f"{len(texts)}; give cuts of its numbers ({spec.name}:10,20), or fewer groups"
            )
            raise InputError(msg)
    for reader in config.reader_columns:
        cells = _cells(images, "readers", reader.name, names)
        if all(reading(reader, cell) is None for cell in cells.values()):
            kind = f"categories as {reader.cut}" if reader.cut else "benign or malignant"
            msg = (
                f"readers: expected {kind} in {reader.name}, found none in {len(cells)} cells; "
                f"give the category from which on it is malignant ({reader.name}:4a), or drop it"
            )
            raise InputError(msg)


def _cells(images: pa.Table, key: str, column: str, names: str) -> Mapping[str, str]:
    cells = column_values(images, column)
    if not cells:
        msg = (
            f"{key}: expected a kept column of labels.csv, found no {column}; kept are {names} "
            "(columns that identify people are not)"
        )
        raise InputError(msg)
    return cells
