"""Rows of a screening, made up, and the worklist of their night."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from thyro_core.reporting.worklist import write_worklist_page
from thyro_core.screening.rules import Totals, rank_key, unscored_columns
from thyro_core.screening.store import PICTURES
from thyro_core.screening.worklist import write_worklist_csv
from thyro_core.store.keys import pictures_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table

DATE, NUMBER = "2026-11-25", 20261125


def jpeg(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (384, 144), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def row(number: int, band: str, mean: float | None = None, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(schemas.TABLES["screening"].schema.names)
    said = {
        "date": NUMBER,
        "batch_id": "n1",
        "batch": "s3://night",
        "image_id": f"{number:064x}",
        "file_id": f"{number:064x}",
        "frame": 0,
        "model_id": "b1",
        "burned_in": False,
    }
    if band == "not scored":
        return empty | said | unscored_columns(more.get("reason", "blurred")) | more
    scored = {
        "status": "scored",
        "band": band,
        "prob_malignant": mean,
        "prob_raw": None if mean is None else 1 - (1 - mean) / 2,
        "sd": 0.05,
        "rank_key": rank_key(band, mean),
    }
    return empty | said | scored | more


def batch_row(**more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(schemas.TABLES["screening_batches"].schema.names)
    said = {"date": NUMBER, "batch_id": "n1", "batch": "s3://night", "model_id": "b1",
            "received": 8, "files": 13, "known": 3, "late": 2}  # fmt: skip
    return empty | said | more


ROWS = [
    row(1, "routine", 0.1),
    row(2, "refer", 0.7, patient_id="q0123456789abcdef"),
    row(3, "not scored", reason="doppler_colour", detail="share of coloured pixels 0.3"),
    row(4, "refer", 0.9),
    row(5, "review", 0.45, reason="uncertain"),
    row(6, "refer", 0.8, burned_in=True),
    row(7, "not scored", reason="crashed_decoder"),
    row(8, "routine", 0.2, sd=float("nan")),
]
TOTALS = Totals(8, 6, 1, 1, 3, 1, 2)
ORDER = [4, 6, 2, 5, 3, 7, 8, 1]


def fill(store: Store, rows: list[dict[str, Any]], *batches: dict[str, Any]) -> pa.Table:
    """Parts of both tables, and pictures of the referred."""
    for batch in batches:
        own = [each for each in rows if each["batch_id"] == batch["batch_id"]]
        table = schemas.rows_to_table("screening", own)
        write_table(store, "screening", table, date=NUMBER, batch_id=batch["batch_id"])
        shown = [
            {"image_id": each["image_id"], "picture": jpeg()}
            for each in own
            if each["band"] == "refer" and not each["burned_in"]
        ]
        buffer = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pylist(shown, schema=PICTURES), buffer)
        store.write(pictures_key(DATE, batch["batch_id"]), buffer.getvalue())
    return schemas.rows_to_table("screening_batches", list(batches))


def written(folder: Path, rows: list[dict[str, Any]], totals: Totals, *batches: Any) -> Path:
    store = open_store(str(folder))
    table = fill(store, rows, *batches)
    parts = store.keys("tables/screening")
    write_worklist_page(store, write_worklist_csv(store, DATE, parts, totals, table))
    return Path(store.path(f"screening/{DATE}"))
