"""A night's worklist: which images to read first, and why.

The CSV, for programs, has every image. The page, for people (`reporting.worklist`), shows the
first images of each band.
"""

import base64
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.registry.bundle import load_bundle
from thyro_core.screening.rules import WHY, Night, ScreeningRow, Totals
from thyro_core.store.keys import pictures_key, table_key, worklist_key
from thyro_core.store.store import Store
from thyro_core.tables.merge import connected, fetched, select

MOST_PICTURES = 300
"""Pictures on a page, of the images ranked first."""

MOST_ROWS: Mapping[str, int] = {
    "refer": 1000, "review": 1000, "not scored": 1000, "routine": 200, "copy": 200,
}  # fmt: skip
"""Images of each band on a page."""

CSV_COLUMNS = (
    "rank", "image_id", "file_id", "frame", "name", "patient_id", "band", "prob_malignant",
    "prob_raw", "sd", "status", "copy_of", "reason", "why", "detail", "model_id", "batch", "notice",
)  # fmt: skip
"""Columns of `worklist.csv`."""

REFERRED = "The probability reaches the model's threshold."
"""Why an image is referred."""

_RANKING = (
    "SELECT *, row_number() OVER (ORDER BY rank_key DESC, "
    "prob_malignant DESC NULLS LAST, image_id) AS rank FROM parts"
)
_FIRST_ROWS = f"""
SELECT * FROM ({_RANKING})
QUALIFY row_number() OVER (PARTITION BY band ORDER BY rank)
    <= CASE band {" ".join(f"WHEN '{band}' THEN {n}" for band, n in MOST_ROWS.items())} END
ORDER BY rank
"""  # noqa: S608


@dataclass(frozen=True)
class Worklist:
    """What the page of a date shows."""

    date: str
    """ISO 8601."""
    rows: list[ScreeningRow]
    """The first rows of `screening` of each band, with their `rank`, in order."""
    pictures: Mapping[str, str]
    """Data URLs by image_id."""
    totals: Totals
    """Counts over all images of the date, shown or not."""
    batches: list[ScreeningRow]
    """Rows of `screening_batches`."""
    of_members: frozenset[str] = frozenset()
    """Models whose card is of version 1: threshold and figures are single members'."""


def write_worklist_csv(
    store: Store, date: str, parts: list[str], totals: Totals, batches: pa.Table
) -> Worklist:
    """Write `worklist.csv` of a date, over all its batches.

    Args:
        store: holds the parts; the worklist goes to `screening/<date>/`.
        date: ISO 8601.
        parts: keys of the date's parts of `screening`, at least one.
        totals: counts over them.
        batches: the date's rows of `screening_batches`.

    Returns:
        What its page shows.
    """
    with fetched(store, parts) as files, connected() as connection:
        ranking = select(connection, f"{_RANKING} ORDER BY rank", files)
        with store.writing(worklist_key(date, "csv")) as out:
            text = io.TextIOWrapper(out, encoding="utf-8", newline="")
            writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            for batch in ranking:
                for row in batch.to_pylist():
                    # No spreadsheet takes a path that starts with a point for a formula.
                    name = None if row["name"] is None else f"./{row['name']}"
                    writer.writerow(row | {"name": name, "why": why(row), "notice": NOTICE})
            text.flush()
            text.detach()
        rows = [
            row for batch in select(connection, _FIRST_ROWS, files) for row in batch.to_pylist()
        ]
    pictures = _pictures(store, date, batches, rows)
    models = set(batches["model_id"].to_pylist())
    of_members = frozenset(model for model in models if _is_of_version_1(store, model))
    return Worklist(date, rows, pictures, totals, batches.to_pylist(), of_members)


def _is_of_version_1(store: Store, model_id: str) -> bool:
    try:
        return load_bundle(store, model_id).is_of_version_1
    except InputError:  # a model that is gone by now; its rows stay
        return False


def unscored_rows(store: Store, night: Night) -> list[dict[str, str]]:
    """A batch's first hundred images that are not scored: digits of the file's hash, and why."""
    part = table_key("screening", date=night.number, batch_id=night.batch_id)
    sql = (
        "SELECT file_id, image_id, frame, status, reason, detail FROM parts "
        "WHERE status IN ('rejected', 'failed') ORDER BY image_id LIMIT 100"
    )
    with fetched(store, [part]) as files, connected() as connection:
        rows = [row for batch in select(connection, sql, files) for row in batch.to_pylist()]
    return [
        {
            "file": (row["file_id"] or row["image_id"])[:16],
            "frame": str(row["frame"]),
            "status": row["status"],
            "why": WHY[row["reason"]],
            "detail": row["detail"] or "",
        }
        for row in rows
    ]


def why(row: Mapping[str, Any]) -> str:
    """Why an image stands where it stands, in words; empty for routine."""
    if row["status"] == "copy":
        same = f"The same picture as that of the row {row['copy_of'][:16]}"
        return f"{same}, which is not scored: {WHY[row['reason']]}" if row["reason"] else f"{same}."
    if row["reason"] is not None:
        return WHY[row["reason"]]
    return REFERRED if row["band"] == "refer" else ""


def _pictures(
    store: Store, date: str, batches: pa.Table, rows: list[ScreeningRow]
) -> dict[str, str]:
    """Data URLs of the first images' pictures, by image."""
    image_ids = {
        row["image_id"] for row in [r for r in rows if r["band"] == "refer"][:MOST_PICTURES]
    }
    pictures: dict[str, str] = {}
    for batch_id in batches["batch_id"].to_pylist():
        key = pictures_key(date, batch_id)
        if not image_ids or not store.exists(key):
            continue
        with store.fs.open(store.path(key), "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    if row["image_id"] in image_ids:
                        jpeg = base64.b64encode(row["picture"]).decode()
                        pictures[row["image_id"]] = f"data:image/jpeg;base64,{jpeg}"
    return pictures
