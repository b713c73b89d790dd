"""Checks of tables against their schema, their recomputed values, and each other."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit

from thyro_core.config import IngestConfig
from thyro_core.imaging.burned_text import boxes_of
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import from_parquet

TOLERANCE = 1e-9
"""How far, relatively or absolutely, a figure may be from the recomputed one."""

_PROBABILITY_TOLERANCE = 1e-6


def read_part(store: Store, name: str, key: str) -> pa.Table:
    """One part of a registered table, with exactly the registered columns and its own hive keys.

    `schemas.LATER_COLUMNS` may lack: then they are null.

    Args:
        store: where it lies.
        name: the table.
        key: the part's key.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: it is gone, damaged, or another table.
    """
    table = from_parquet(store.read(key))
    schema = schemas.TABLES[name].schema
    later = schemas.LATER_COLUMNS.get(name, frozenset()) - set(table.column_names)
    written_schema = pa.schema([field for field in schema if field.name not in later])
    if not table.schema.equals(written_schema):
        odd = sorted({str(field) for field in table.schema} ^ {str(field) for field in schema})
        msg = f"expected the registered columns, found a difference in {', '.join(odd) or 'order'}"
        raise ValueError(msg)
    for folder in key.split("/")[2:-1]:
        column, _, expected_rows = folder.partition("=")
        strangers = {str(value) for value in table[column].unique().to_pylist()} - {expected_rows}
        if strangers:
            msg = f"expected {column} {expected_rows}, found rows of {', '.join(sorted(strangers))}"
            raise ValueError(msg)
    return schemas.with_later_columns(table, schema)


def summary_faults(
    summary: Mapping[str, object], images: pa.Table, rules: IngestConfig
) -> list[str]:
    """Where the summary of an ingest differs from its rows and from the rules of the study.

    Args:
        summary: the manifest's JSON.
        images: its `images` table.
        rules: the ingest's part of the study's config.
    """
    rows = images.select(["manifest_id", "label", "included"]).to_pylist()
    labels = Counter(row["label"] for row in rows if row["included"])
    expected_rows = {
        "manifest_id": rows[0]["manifest_id"] if rows else None,
        "images": len(rows),
        "included": {"benign": labels[0], "malignant": labels[1], "unlabelled": labels[None]},
        "rules": rules.model_dump(mode="json"),
    }
    faults = [
        f"{name} is {summary.get(name)}, expected {value}"
        for name, value in expected_rows.items()
        if summary.get(name) != value
    ]
    return faults + _text_box_faults(images)


def _text_box_faults(images: pa.Table) -> list[str]:
    """Boxes around text that are none, or lie outside their picture."""
    rows = images.select(["image_id", "text_boxes", "width", "height"]).to_pylist()
    return [
        f"image {row['image_id'][:12]}: text_boxes {sides}, expected boxes inside "
        f"{row['width']} x {row['height']} pixels"
        for row in rows
        if (sides := row["text_boxes"]) and not _are_boxes(sides, row["width"], row["height"])
    ]


def _are_boxes(sides: list[int], width: int, height: int) -> bool:
    return len(sides) % 4 == 0 and all(
        0 <= left < right <= width and 0 <= top < bottom <= height
        for left, top, right, bottom in boxes_of(sides)
    )


def differences(
    name: str, stored_rows: pa.Table, expected_rows: pa.Table, keys: Sequence[str]
) -> list[str]:
    """Where a table differs from a recomputed one: rows first, then values; order does not count.

    Figures are equal within `TOLERANCE`; NaN equals NaN, null equals null only. Columns that the
    program which wrote the table did not have yet are left out.

    Args:
        name: the table's.
        stored_rows: the stored table.
        expected_rows: the recomputed table.
        keys: columns that name a row.
    """
    later = schemas.LATER_COLUMNS.get(name, frozenset())
    unwritten_columns = [
        column for column in later if stored_rows[column].null_count == stored_rows.num_rows
    ]
    left, right = (
        _by_key(table.drop_columns(unwritten_columns), keys)
        for table in (stored_rows, expected_rows)
    )
    faults = (
        []
        if len(left) == stored_rows.num_rows
        else [f"{stored_rows.num_rows - len(left)} rows twice"]
    )
    changes = []
    for key in dict.fromkeys([*right, *left]):
        row = ", ".join(f"{column} {part}" for column, part in zip(keys, key, strict=True))
        if key not in left:
            faults.append(f"{row}: lacking")
        elif key not in right:
            faults.append(f"{row}: not expected")
        else:
            changes += [
                f"{row}: {column} is {value}, expected {right[key][column]}"
                for column, value in left[key].items()
                if not _is_same(value, right[key][column])
            ]
    return faults + changes


def _by_key(table: pa.Table, keys: Sequence[str]) -> dict[tuple[object, ...], dict[str, object]]:
    return {tuple(row[key] for key in keys): row for row in table.to_pylist()}


def _is_same(value: object, expected_rows: object) -> bool:
    if not isinstance(value, float) or not isinstance(expected_rows, float):
        return value == expected_rows
    if math.isnan(value) or math.isnan(expected_rows):
        return math.isnan(value) and math.isnan(expected_rows)
    return math.isclose(value, expected_rows, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def prediction_faults(predictions: pa.Table, splits: pa.Table) -> list[str]:
    """Faults of predictions that do not match their test images one to one or are inconsistent.

    Probabilities must be the float64 softmax of the logits, within 1e-6. A split x architecture
    without any prediction is not checked.

    Args:
        predictions: a study's `predictions`.
        splits: its `splits`.
    """
    rows = splits.to_pandas()
    tests = rows[rows["role"] == "test"]
    return [
        f"split {split} {architecture}: {fault}"
        for (split, architecture), part in predictions.to_pandas().groupby(
            ["split", "architecture"]
        )
        for fault in _part_faults(part, tests[tests["split"] == split])
    ]


def cam_faults(cams: pa.Table, predictions: pa.Table) -> list[str]:
    """Faults of maps that do not match predictions and classes one to one or are not whole.

    Args:
        cams: a study's `cams`.
        predictions: its `predictions`.
    """
    keys = ["split", "architecture", "image_id", "target_class"]
    maps = cams.select([*keys, "height", "width"]).to_pandas()
    cells = pc.list_value_length(cams["map"]).to_numpy()
    images = predictions.select(keys[:-1]).to_pandas()
    expected_rows = images.merge(pd.DataFrame({"target_class": [0, 1]}), how="cross")
    both = expected_rows.merge(maps.drop_duplicates(keys), on=keys, how="outer", indicator=True)
    counts = {
        "maps are missing": (both["_merge"] == "left_only").sum(),
        "maps are of images that this split does not test": (both["_merge"] == "right_only").sum(),
        "maps are there twice": maps.duplicated(keys).sum(),
        "maps have not height x width cells": (cells != maps["height"] * maps["width"]).sum(),
    }
    return [f"{number} {fault}" for fault, number in counts.items() if number]


def _part_faults(part: pd.DataFrame, test: pd.DataFrame) -> Iterator[str]:
    facts = ["image_id", "patient_id", "label"]
    both = part[facts].merge(test[facts], on=facts, how="outer", indicator=True)
    logits = part[["logit_benign", "logit_malignant"]].to_numpy(np.float64)
    finite = np.isfinite(logits).all(axis=1)
    benign, malignant = np.where(finite[:, None], logits, 0.0).T
    # The softmax of two logits is the logistic function of their difference.
    gap = np.abs(part["prob_malignant"].to_numpy(np.float64) - expit(malignant - benign))
    images = part["image_id"]
    strangers = both.loc[both["_merge"] == "left_only", "image_id"]
    missing = both.loc[both["_merge"] == "right_only", "image_id"]
    for fault, image_ids in (
        ("are not test images with that label", strangers),
        ("test images lack theirs", missing),
        ("are there twice", images[images.duplicated()]),
        ("have logits that are not finite", images[~finite]),
        ("have a probability that is not their logits' softmax",
         images[finite & ~(gap <= _PROBABILITY_TOLERANCE)]),
    ):  # fmt: skip
        names = image_ids.unique()
        if len(names):
            yield f"{len(names)} {fault}, the first image {names[0][:12]}"
