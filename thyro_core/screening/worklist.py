"""A night's worklist: which images to read first, and why.

The CSV, for programs, has every image. The page, for people (`reporting.worklist`), shows the
first images of each band.
"""

import base64
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.registry.bundle import Bundle, load_bundle
from thyro_core.registry.card_bands import promise_text
from thyro_core.screening.rules import WHY, Night, ScreeningRow, Totals, date_number
from thyro_core.store.keys import pictures_key, table_key, worklist_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.merge import local_copies, open_connection, select

MOST_PICTURES: Mapping[str, int] = {"refer": 300, "review": 150, "not scored": 150}
"""Pictures of each band on a page, of the images ranked first."""

MOST_ROWS: Mapping[str, int] = {
    "refer": 1000, "review": 1000, "not scored": 1000, "routine": 200, "copy": 200,
}  # fmt: skip
"""Images of each band on a page."""

CSV_COLUMNS = (
    "rank", "image_id", "file_id", "frame", "name", "patient_id", "exam_id", "band",
    "prob_malignant", "prob_raw", "sd", "status", "copy_of", "reason", "why", "detail",
    "device", "model_id", "batch", "notice",
)  # fmt: skip
"""Columns of `worklist.csv`."""

REFERRAL_REASON = "The probability reaches the bound from which the model refers."
"""Why an image is referred."""

_RANKING = (
    "SELECT *, row_number() OVER (ORDER BY rank_key DESC, "
    "prob_malignant DESC NULLS LAST, image_id) AS rank, "
    "CASE WHEN exam_id IS NULL THEN 0 ELSE count(*) OVER (PARTITION BY model_id, exam_id) END "
    "AS exam_images FROM parts"
)
_PSEUDONYMS = "SELECT count(patient_id) + count(*) FILTER (exam_id LIKE 'e%') AS n FROM parts"
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
    """The first rows of `screening` of each band, with their `rank`, in order; `exam_images`: how
    many rows their exam has in all, 0: not noted."""
    pictures: Mapping[str, str]
    """Data URLs by image_id."""
    totals: Totals
    """Counts over all images of the date, shown or not."""
    batches: list[ScreeningRow]
    """Rows of `screening_batches`."""
    of_members: frozenset[str] = frozenset()
    """Models whose card is of version 1: threshold and figures are single members'."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By model, from where on it refers; one that is gone by now is missing."""
    promises: Mapping[str, str] = field(default_factory=dict)
    """By model with conformal bands: what they promise, and on which conditions."""
    has_pseudonyms: bool = True
    """Whether an image of the date has the pseudonym of a patient or an exam."""


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
    schema = schemas.TABLES["screening"].schema
    with local_copies(store, parts) as files, open_connection() as connection:
        ranking = select(connection, f"{_RANKING} ORDER BY rank", files, schema)
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
    return read_worklist(store, date, parts, totals, batches)


def read_worklist(
    store: Store, date: str, parts: list[str], totals: Totals, batches: pa.Table
) -> Worklist:
    """What the page of a date shows; the arguments are those of `write_worklist_csv`."""
    schema = schemas.TABLES["screening"].schema
    with local_copies(store, parts) as files, open_connection() as connection:
        first_rows = select(connection, _FIRST_ROWS, files, schema)
        rows = [row for batch in first_rows for row in batch.to_pylist()]
        (count,) = select(connection, _PSEUDONYMS, files, schema)
    models = [_model(store, model) for model in sorted(set(batches["model_id"].to_pylist()))]
    bundles = [bundle for bundle in models if bundle is not None]
    return Worklist(
        date=date,
        rows=rows,
        pictures=_data_urls(store, date, batches, rows),
        totals=totals,
        batches=batches.to_pylist(),
        of_members=frozenset(each.model_id for each in bundles if each.is_of_version_1),
        thresholds={each.model_id: _refers_from(each) for each in bundles},
        promises={
            each.model_id: promise
            for each in bundles
            if (promise := promise_text(each.card)) is not None
        },
        has_pseudonyms=bool(count["n"][0].as_py()),
    )


def _refers_from(bundle: Bundle) -> float:
    return bundle.threshold if bundle.cuts is None else max(bundle.cuts)


def _model(store: Store, model_id: str) -> Bundle | None:
    try:
        return load_bundle(store, model_id)
    except InputError:  # a model that is gone by now; its rows stay
        return None


def device_counts(store: Store, night: Night) -> str:
    """The devices of a batch's files with their numbers, most first, in one line; may be empty."""
    part = table_key("screening", date=night.number, batch_id=night.batch_id)
    sql = (
        "SELECT device, count(DISTINCT coalesce(path_id, image_id)) AS n FROM parts "
        "WHERE device IS NOT NULL GROUP BY device ORDER BY n DESC, device"
    )
    schema = schemas.TABLES["screening"].schema
    with local_copies(store, [part]) as files, open_connection() as connection:
        rows = [
            row for batch in select(connection, sql, files, schema) for row in batch.to_pylist()
        ]
    return ", ".join(f"{row['device']} {row['n']}" for row in rows)


def unscored_rows(store: Store, night: Night) -> list[dict[str, str]]:
    """A batch's first hundred images that are not scored: digits of the file's hash, and why."""
    part = table_key("screening", date=night.number, batch_id=night.batch_id)
    sql = (
        "SELECT file_id, image_id, frame, status, reason, detail FROM parts "
        "WHERE status IN ('rejected', 'failed') ORDER BY image_id LIMIT 100"
    )
    with local_copies(store, [part]) as files, open_connection() as connection:
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


def unscored_reasons(store: Store, date: str, batch_id: str) -> dict[str, int]:
    """How many of a batch's images are not scored for which reason, the most frequent first."""
    part = table_key("screening", date=date_number(date), batch_id=batch_id)
    sql = (
        "SELECT reason, count(*) AS n FROM parts WHERE status IN ('rejected', 'failed') "
        "GROUP BY reason ORDER BY n DESC, reason"
    )
    with local_copies(store, [part]) as files, open_connection() as connection:
        rows = [row for batch in select(connection, sql, files) for row in batch.to_pylist()]
    return {row["reason"]: row["n"] for row in rows}


def why(row: Mapping[str, Any]) -> str:
    """Why an image stands where it stands, in words; empty for routine."""
    if row["status"] == "copy":
        same = f"The same picture as that of the row {row['copy_of'][:16]}"
        return f"{same}, which is not scored: {WHY[row['reason']]}" if row["reason"] else f"{same}."
    if row["reason"] is not None:
        return WHY[row["reason"]]
    return REFERRAL_REASON if row["band"] == "refer" else ""


def _data_urls(
    store: Store, date: str, batches: pa.Table, rows: list[ScreeningRow]
) -> dict[str, str]:
    """Data URLs of the first images' pictures, by image."""
    image_ids = {
        row["image_id"]
        for band, most in MOST_PICTURES.items()
        for row in [r for r in rows if r["band"] == band][:most]
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
