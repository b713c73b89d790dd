"""Table 1 of a paper: who and what the images are, by class."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thyro_core.config import CLASS_NAMES
from thyro_core.reporting.manuscript.page import PageTable
from thyro_core.reporting.queries import Tables

_FACTS = ("width", "height")
_FEW_VALUES = 5
"""A column of numbers with no more different values than these is counted like words."""
_MOST_VALUES = 12
"""Words with more different values than these are named in the caption, not counted."""
_NOT_GIVEN = "not given"


def characteristics(tables: Tables) -> PageTable:
    """The images in the splits by class: sizes, and every column that the labels came with.

    A column whose value is the same in all images of each patient is counted by patient where
    every image has one, every other column by image. Numbers are given as median and quartiles.

    Args:
        tables: of the study.
    """
    rows = tables.query(
        "SELECT image_id, label, patient_id, width, height, attributes "
        f"FROM {tables.source('images')} AND included AND label IS NOT NULL ORDER BY image_id"
    )
    images = pd.DataFrame([_image_facts(row) for row in rows])
    images["unit"] = images["image_id"]
    by_patient = images["patient_id"].notna().all()
    body: list[tuple[str, ...]] = [_count_line("Images, n", images)]
    if by_patient:
        # A patient with images of both classes counts in both.
        body.append(_count_line("Patients, n", images.assign(unit=images["patient_id"])))
    names = [name for name in images.columns if name.startswith("attribute ")]
    crowded_columns: list[str] = []
    for fact in _FACTS:
        body += _lines(f"{fact} [pixels]", images, fact)
    for name in sorted(names):
        title = name.removeprefix("attribute ")
        count_rows = images
        if by_patient and images.groupby("patient_id")[name].nunique(dropna=False).max() == 1:
            count_rows = images.assign(unit=images["patient_id"])
            title += " (by patient)"
        lines = _lines(title, count_rows, name)
        body += lines
        if not lines:
            crowded_columns.append(title)
    return PageTable(
        section="table-1",
        title="Characteristics of the images by class",
        caption=_table_caption(crowded_columns, by_patient=bool(by_patient)),
        header=(("Characteristic", *(name.capitalize() for name in CLASS_NAMES), "All"),),
        body=tuple(body),
        numeric=(False, True, True, True),
    )


def _table_caption(crowded_columns: Sequence[str], *, by_patient: bool) -> str:
    text = (
        "Characteristics of the images by class. Numbers are median (first to third quartile), "
        "others count (share of those that are given)."
    )
    if not by_patient:
        text += " Not every image has a patient, so that all rows count images."
    if crowded_columns:
        names = ", ".join(crowded_columns)
        text += f" Not shown, of more than {_MOST_VALUES} different texts: {names}."
    return text


def _image_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    attributes = json.loads(row["attributes"] or "{}")
    plain = {name: value for name, value in row.items() if name != "attributes"}
    return plain | {f"attribute {name}": value or None for name, value in attributes.items()}


def _class_parts(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Benign, malignant, all; rows of patients have each once in every part."""
    parts = [*(rows[rows["label"] == label] for label in (0, 1)), rows]
    return [part.drop_duplicates("unit") for part in parts]


def _count_line(title: str, rows: pd.DataFrame) -> tuple[str, ...]:
    return (title, *(f"{len(part):,}" for part in _class_parts(rows)))


def _lines(title: str, rows: pd.DataFrame, name: str) -> list[tuple[str, ...]]:
    """The lines of one column; none: it has too many different words."""
    values = rows[name].dropna()
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and np.isfinite(numbers).all() and values.nunique() > _FEW_VALUES:
        cells = [_quartiles(pd.to_numeric(part[name].dropna())) for part in _class_parts(rows)]
        return [(title, *cells), *_missing_line(rows, name)]
    if values.nunique() > _MOST_VALUES:
        return []
    lines: list[tuple[str, ...]] = [(title, "", "", "")]
    for value in sorted(values.astype(str).unique()):
        cells = [_share(part[name].dropna().astype(str), value) for part in _class_parts(rows)]
        lines.append((f"  {value}", *cells))
    return [*lines, *_missing_line(rows, name)]


def _missing_line(rows: pd.DataFrame, name: str) -> list[tuple[str, ...]]:
    if rows[name].notna().all():
        return []
    return [(f"  {_NOT_GIVEN}", *(f"{part[name].isna().sum():,}" for part in _class_parts(rows)))]


def _quartiles(numbers: "pd.Series[float]") -> str:
    if numbers.empty:
        return "\N{EN DASH}"
    low, middle, high = (_round_text(float(numbers.quantile(q))) for q in (0.25, 0.5, 0.75))
    return f"{middle} ({low} to {high})"


def _round_text(value: float) -> str:
    return f"{value:.0f}" if math.isclose(value, round(value)) else f"{value:.1f}"


def _share(texts: "pd.Series[str]", value: str) -> str:
    count = int((texts == value).sum())
    return f"{count:,} ({100 * count / len(texts):.1f} %)" if len(texts) else "0"
