"""A night's worklist: what to read first and why, as CSV for programs and as a page for people.

The CSV has every image. The page is one file without scripts that asks for nothing from any
network, and shows so many of each band; it says what it leaves out.
"""

import base64
import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thyro_core import NOTICE
from thyro_core.screening.rules import BANDS, WHY, Night, Totals
from thyro_core.store.keys import pictures_key, table_key, worklist_key
from thyro_core.store.store import Store
from thyro_core.tables.merge import connected, fetched, select

MOST_PICTURES = 300
"""Pictures on a page, of the images ranked first."""

MOST_ROWS: Mapping[str, int] = {"refer": 1000, "review": 1000, "not scored": 1000, "routine": 200}
"""Images of each band on a page."""

CSV_COLUMNS = (
    "rank", "image_id", "file_id", "frame", "name", "patient_id", "band", "prob_malignant", "sd",
    "status", "reason", "why", "detail", "model_id", "batch", "notice",
)  # fmt: skip
"""Columns of `worklist.csv`."""

REFERRED = "The members' mean probability reaches the model's threshold."
"""Why an image is referred."""

_RANKED = (
    "SELECT *, row_number() OVER (ORDER BY rank_key DESC, "
    "prob_malignant DESC NULLS LAST, image_id) AS rank FROM parts"
)
_SHOWN = f"""
SELECT * FROM ({_RANKED})
QUALIFY row_number() OVER (PARTITION BY band ORDER BY rank)
    <= CASE band {" ".join(f"WHEN '{band}' THEN {n}" for band, n in MOST_ROWS.items())} END
ORDER BY rank
"""  # noqa: S608

Row = dict[str, Any]


def write_worklist(
    store: Store, date: str, parts: list[str], totals: Totals, batches: pa.Table
) -> None:
    """Write `worklist.csv` and `worklist.html` of a date, over all its batches.

    Args:
        store: holds the parts; the worklist goes to `screening/<date>/`.
        date: ISO 8601.
        parts: keys of the date's parts of `screening`, at least one.
        totals: counts over them.
        batches: the date's rows of `screening_batches`.
    """
    with fetched(store, parts) as files, connected() as connection:
        ranked = select(connection, f"{_RANKED} ORDER BY rank", files)
        with store.writing(worklist_key(date, "csv")) as out:
            text = io.TextIOWrapper(out, encoding="utf-8", newline="")
            _write_csv(ranked, text)
            text.flush()
            text.detach()
        shown = [row for batch in select(connection, _SHOWN, files) for row in batch.to_pylist()]
    pictures = _pictures(store, date, batches, shown)
    page = worklist_page(date, shown, pictures, totals, batches.to_pylist())
    store.write(worklist_key(date, "html"), page.encode())


def unscored_rows(store: Store, night: Night) -> list[dict[str, str]]:
    """A batch's first hundred images that are not scored: digits of the file's hash, and why."""
    part = table_key("screening", date=night.number, batch_id=night.batch_id)
    sql = (
        "SELECT file_id, frame, status, reason, detail FROM parts WHERE status != 'scored' "
        "ORDER BY image_id LIMIT 100"
    )
    with fetched(store, [part]) as files, connected() as connection:
        rows = [row for batch in select(connection, sql, files) for row in batch.to_pylist()]
    return [
        {
            "file": row["file_id"][:16],
            "frame": str(row["frame"]),
            "status": row["status"],
            "why": WHY[row["reason"]],
            "detail": row["detail"] or "",
        }
        for row in rows
    ]


def why(row: Mapping[str, Any]) -> str:
    """Why an image stands where it stands, in words; empty for routine."""
    if row["reason"] is not None:
        return WHY[row["reason"]]
    return REFERRED if row["band"] == "refer" else ""


def _write_csv(batches: Iterator[pa.RecordBatch], text: io.TextIOWrapper) -> None:
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for batch in batches:
        for row in batch.to_pylist():
            # No spreadsheet takes a path that starts with a point for a formula.
            name = None if row["name"] is None else f"./{row['name']}"
            writer.writerow(row | {"name": name, "why": why(row), "notice": NOTICE})


def _pictures(store: Store, date: str, batches: pa.Table, shown: list[Row]) -> dict[str, str]:
    """Data URLs of the first images' pictures, by image."""
    first = [row["image_id"] for row in shown if row["band"] == "refer"][:MOST_PICTURES]
    wanted, found = set(first), {}
    for batch_id in batches["batch_id"].to_pylist():
        key = pictures_key(date, batch_id)
        if not wanted or not store.exists(key):
            continue
        with store.fs.open(store.path(key), "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    if row["image_id"] in wanted:
                        found[row["image_id"]] = _data_url(row["picture"])
    return found


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def worklist_page(
    date: str,
    rows: list[Row],
    pictures: Mapping[str, str],
    totals: Totals,
    batches: list[Row],
) -> str:
    """The page.

    Args:
        date: ISO 8601.
        rows: rows of `screening` to show, with their `rank`, in order.
        pictures: data URLs by image_id.
        totals: counts over all images of the date, shown or not.
        batches: rows of `screening_batches`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("thyro_core", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = {
        "refer": totals.refer,
        "review": totals.review,
        "not scored": totals.rejected + totals.failed,
        "routine": totals.routine,
    }
    bands = [
        {"name": band, "count": counts[band], "rows": [row for row in rows if row["band"] == band]}
        for band in BANDS
    ]
    return environment.get_template("worklist.html").render(
        date=date,
        bands=bands,
        pictures=pictures,
        totals=totals,
        batches=batches,
        known=sum(row["known"] or 0 for row in batches),
        late=sum(row["late"] or 0 for row in batches),
        breaches=[part for row in batches for part in (row["breaches"] or "").split(",") if part],
        notice=NOTICE,
        why=why,
        most_pictures=MOST_PICTURES,
    )
