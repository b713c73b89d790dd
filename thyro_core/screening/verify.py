"""Verification of screened nights: whether rows and sums agree, and nothing is scored twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from thyro_core.errors import StoreError, ThyroError
from thyro_core.screening.rules import ScreeningRow, totals_of_row
from thyro_core.screening.store import totals_of
from thyro_core.store.keys import table_key, table_prefix
from thyro_core.store.store import Store
from thyro_core.study.verify.verify import StudyCheck
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table
from thyro_core.tables.merge import local_copies, open_connection, select

_SCREEN_AGAIN = "screen the batch again on that date, which writes its row anew"

# One model has one original of a picture; another model's row is no answer. A copy's original may
# be found by its picture: a row that took the place of one that was deleted has another id.
_FAULTS = """
WITH originals AS (
    SELECT model_id, image_id, picture_id, pattern_id, status FROM parts WHERE status != 'copy'
)
SELECT
    (SELECT count(*) FROM parts AS copy WHERE status = 'copy'
        AND NOT EXISTS (SELECT 1 FROM originals AS o
            WHERE o.model_id = copy.model_id AND o.image_id = copy.copy_of)
        AND NOT EXISTS (SELECT 1 FROM originals AS o
            WHERE o.model_id = copy.model_id AND o.picture_id = copy.picture_id)
        AND NOT EXISTS (SELECT 1 FROM originals AS o
            WHERE o.model_id = copy.model_id AND o.pattern_id = copy.pattern_id)
    ) AS orphans,
    (SELECT count(*) FROM parts WHERE (status = 'copy') != (copy_of IS NOT NULL)) AS unnamed,
    (SELECT coalesce(sum(n - 1), 0) FROM (
        SELECT count(*) AS n FROM originals WHERE status = 'scored' AND picture_id IS NOT NULL
        GROUP BY model_id, picture_id
    )) AS twice,
    (SELECT count(*) FROM parts WHERE status = 'copy') AS copies,
    (SELECT count(*) FROM parts) AS images
"""
_DISTINCT = "SELECT count(DISTINCT image_id) AS n FROM parts"


def has_nights(store: Store) -> bool:
    """Whether a night was screened."""
    return bool(store.keys(table_prefix("screening_batches")))


def verify_nights(store: Store) -> Iterator[StudyCheck]:
    """Check each night's batch, then the copies of all nights together; nothing is written.

    Yields:
        `night <date> <batch_id>` for each row of `screening_batches`: its sums, and that the rows
        of `screening` make them up. Then `copies`: each names a row that has the picture's answer,
        and no picture is scored twice by a model. Nothing in a store without a night.

    Raises:
        StoreError: a store on S3 failed.
    """
    parts = store.keys(table_prefix("screening"))
    batches = read_table(store, "screening_batches").to_pylist()
    for row in batches:
        yield _check(_night_name(row), lambda row=row: _night_faults(store, row))
    batch_keys = {_part_key(row) for row in batches}
    strangers = [f"{key}: no row in screening_batches" for key in parts if key not in batch_keys]
    if parts or strangers:
        yield _check("copies", lambda: _copy_faults(store, parts, strangers))


def _check(name: str, faults_of: Any) -> StudyCheck:  # noqa: ANN401
    import duckdb

    try:
        faults, summary = faults_of()
    except StoreError:
        raise  # no statement about the night
    except (ThyroError, OSError, ValueError, pa.ArrowException, duckdb.Error) as error:
        kind = "" if isinstance(error, ThyroError) else f"{type(error).__name__}: "
        return StudyCheck(name, False, f"{kind}{error}; restore the part, or {_SCREEN_AGAIN}")
    return StudyCheck(name, not faults, "; ".join(faults) or summary)


def _night_name(row: ScreeningRow) -> str:
    return f"night {row['date']} {row['batch_id']}"


def _part_key(row: ScreeningRow) -> str:
    return table_key("screening", date=row["date"], batch_id=row["batch_id"])


def _night_faults(store: Store, row: ScreeningRow) -> tuple[Sequence[str], str]:
    recorded_totals = totals_of_row(row)
    key = _part_key(row)
    recorded_totals.check(_night_name(row))
    rows = totals_of(store, [key])
    rows.check(key)
    faults = []
    if rows != recorded_totals:
        faults.append(
            f"screening_batches says {recorded_totals.sentence}, the rows of {key} say "
            f"{rows.sentence}; {_SCREEN_AGAIN}"
        )
    with local_copies(store, [key]) as files, open_connection() as connection:
        (batch,) = select(connection, _DISTINCT, files)
    if batch["n"][0].as_py() != rows.received:
        faults.append(f"{key}: image ids stand there twice; restore the part")
    if row["files"] is not None and row["files"] < row["known"] + row["late"]:
        faults.append(
            f"{row['files']} files, of which {row['known']} passed over and {row['late']} not "
            f"whole; {_SCREEN_AGAIN}"
        )
    return faults, recorded_totals.sentence


def _copy_faults(
    store: Store, parts: Sequence[str], strangers: Sequence[str]
) -> tuple[Sequence[str], str]:
    with local_copies(store, parts) as files, open_connection() as connection:
        (batch,) = select(connection, _FAULTS, files, schemas.TABLES["screening"].schema)
    counts = batch.to_pylist()[0]
    faults = [*strangers]
    if counts["orphans"]:
        faults.append(
            f"{counts['orphans']} copies of a row that is gone; screen their batch again: its "
            "pictures are scored anew"
        )
    if counts["unnamed"]:
        faults.append(f"{counts['unnamed']} rows whose status and copy_of disagree")
    if counts["twice"]:
        faults.append(f"{counts['twice']} pictures are scored twice by one model; report this")
    return faults, (
        f"{counts['copies']} copies among {counts['images']} images of all nights, each of a row "
        "that is there; no picture is scored twice"
    )
