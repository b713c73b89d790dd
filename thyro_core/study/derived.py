"""Tables of a finished study that follow from its predictions, splits, metrics and images."""

from collections.abc import Callable, Mapping

import pyarrow as pa

from thyro_core.config import StudyConfig
from thyro_core.datasets.attributes import column_values, kept_columns
from thyro_core.errors import InputError
from thyro_core.evaluation.ensemble import calibration_table, ensemble_table
from thyro_core.evaluation.operating import operating_points_table, predictive_values_table
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
    "readers": ("architecture", "reader"),
    "shortcuts": ("architecture",),
}
"""Table -> the columns that name a row."""


def derived_table(name: str, plan: StudyPlan, sources: Sources) -> pa.Table:
    """One of `DERIVED_TABLES`, worked out anew.

    Args:
        name: the table.
        plan: the study's.
        sources: the tables that it follows from.
    """
    study_id, config = plan.study_id, plan.config
    images, parts = sources["images"], (sources["predictions"], sources["splits"])

    def cells(names: list[str]) -> dict[str, Mapping[str, str]]:
        return {column: column_values(images, column) for column in names}

    subgroups = [spec.name for spec in config.subgroup_columns]
    readers = [spec.name for spec in config.reader_columns]
    makers: dict[str, Callable[[], pa.Table]] = {
        "comparisons": lambda: comparisons_table(study_id, *parts, config),
        "ensemble": lambda: ensemble_table(study_id, *parts, config),
        "calibration": lambda: calibration_table(study_id, *parts, config),
        "operating_points": lambda: operating_points_table(study_id, *parts, config),
        "predictive_values": lambda: predictive_values_table(study_id, sources["metrics"], config),
        "subgroups": lambda: subgroups_table(study_id, *parts, config, columns=cells(subgroups)),
        "readers": lambda: readers_table(study_id, *parts, config, columns=cells(readers)),
        "shortcuts": lambda: shortcuts_table(study_id, *parts, config, images=images),
    }
    return makers[name]()


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
