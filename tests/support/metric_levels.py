"""Rows of `metrics` at another level than images, for readers that must not count them."""

import math

import pyarrow as pa

from thyro_core.tables import schemas


def with_patient_level(metrics: pa.Table) -> pa.Table:
    """The rows as those of images, and after each of them one of patients without a value."""
    rows = []
    for row in metrics.to_pylist():
        rows.append(row | {"level": "image"})
        rows.append(row | {"level": "patient", "value": math.nan, "ci_low": 2.0, "n": 0})
    return pa.Table.from_pylist(rows, schema=schemas.TABLES["metrics"].schema)
