"""Kept columns of labels.csv, from the JSON in which a manifest carries them."""

import json
from collections.abc import Mapping

import pyarrow as pa

from thyro_core.datasets.labels import column_key

_NODULE_COLUMNS = ("nodule", "noduleid")


def column_values(images: pa.Table, column: str) -> Mapping[str, str]:
    """A kept column's filled cells: image -> text.

    Args:
        images: an `images` table; rows not included take no part.
        column: its name; case, spaces and underscores do not count.

    Returns:
        Empty, if the image set has no such column.
    """
    key = column_key(column)
    values = {}
    for row in _attributes_of_included(images):
        for name, text in json.loads(row["attributes"] or "{}").items():
            if column_key(name) == key:
                values[row["image_id"]] = text
    return values


def kept_columns(images: pa.Table) -> tuple[str, ...]:
    """Names of the columns that some included image has a value in, in order of the alphabet.

    Args:
        images: an `images` table.
    """
    names = {
        name
        for row in _attributes_of_included(images)
        for name in json.loads(row["attributes"] or "{}")
    }
    return tuple(sorted(name for name in names if column_key(name) != "mask"))


def image_nodules(images: pa.Table) -> Mapping[str, str]:
    """Image -> its nodule, where labels.csv has a column `nodule` or `nodule_id`.

    Args:
        images: an `images` table.
    """
    for column in _NODULE_COLUMNS:
        values = column_values(images, column)
        if values:
            return values
    return {}


def _attributes_of_included(images: pa.Table) -> list[dict[str, str]]:
    rows = images.select(["image_id", "included", "attributes"]).to_pylist()
    return [row for row in rows if row["included"]]
