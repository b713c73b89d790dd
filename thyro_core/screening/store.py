"""A screening's objects in the store: chunks while it runs, then one part a night's batch."""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thyro_core.config import canonical_json
from thyro_core.errors import ThyroError
from thyro_core.screening.known_files import write_known
from thyro_core.screening.reader import reading_id
from thyro_core.screening.rules import TRIED_AGAIN, Night, Totals, date_number
from thyro_core.store.keys import (
    chunk_key,
    known_hashes_key,
    night_key,
    pictures_key,
    sample_key,
    screening_prefix,
    table_key,
    table_prefix,
)
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.merge import connected, distinct, fetched, select, write_merged

EXTRAS = pa.schema(
    [
        ("image_id", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("picture", pa.binary()),
    ]
)
"""What a scored image leaves beside its row: its embedding; a JPEG, if it is referred."""

PICTURES = pa.schema([("image_id", pa.string()), ("picture", pa.binary())])
"""The pictures of a night's batch."""

EMBEDDING_SAMPLE = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
"""Embeddings of 2000 images of a night's batch, for drift: ids are hashes, so the first ones are
a random sample."""

KINDS = ("rows", "cams", "extras")
_TOTALS = """
SELECT count(*) AS received,
    count(*) FILTER (status = 'scored') AS scored,
    count(*) FILTER (status = 'rejected') AS rejected,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (band = 'refer') AS refer,
    count(*) FILTER (band = 'review') AS review,
    count(*) FILTER (band = 'routine') AS routine
FROM parts
"""


# Of a file that was refused and then read again, under other rules or by other decoders, the latest
# reading counts; one that led to a score comes before all others.
_LATEST_READING = """
SELECT * FROM parts QUALIFY reading_id IS NOT DISTINCT FROM first_value(reading_id) OVER (
    PARTITION BY coalesce(file_id, image_id)
    ORDER BY status = 'scored' DESC, part_number DESC, image_id
)
"""
_ONE_ROW_AN_IMAGE = """
QUALIFY row_number() OVER (
    PARTITION BY image_id ORDER BY status = 'scored' DESC, part_number DESC
) = 1 ORDER BY image_id
"""


def write_chunk(store: Store, night: Night, kind: str, name: str, table: pa.Table) -> None:
    """Write the results of one block."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(chunk_key(night.date, night.batch_id, kind, name), buffer.getvalue())


def chunks(store: Store, night: Night, kind: str) -> list[str]:
    """Keys of the chunks of one kind that a night's batch has."""
    return store.keys(f"{screening_prefix(night.date, night.batch_id)}/{kind}")


def save_night(store: Store, night: Night) -> None:
    """Record what a night's batch is, before anything else of it is written."""
    key = night_key(night.date, night.batch_id)
    store.write(key, canonical_json(night).encode())


def unfinished_nights(store: Store) -> list[Night]:
    """Nights' batches with chunks that no run has put together yet, oldest first."""
    keys = store.keys("screening")
    prefixes = {
        key.rsplit("/", 2)[0] for key in keys if key.endswith(".parquet") and "/rows/" in key
    }
    nights = [f"{prefix}/night.json" for prefix in sorted(prefixes)]
    return [Night.model_validate_json(store.read(key)) for key in nights]


def publish_known(store: Store, night: Night) -> str:
    """Write the hashes of all files that the night's model has an answer for.

    It has scored an image of such a file, or refused all as it would today (`reading_id`).

    Returns:
        The object's key, made of what it holds.
    """
    with tempfile.NamedTemporaryFile(prefix="thyro-") as file:
        write_known(_answered_files(store, night), file)
        file.flush()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = known_hashes_key(night.date, night.batch_id, digest[:16])
        file.seek(0)
        with store.writing(key) as out:
            while data := file.read(1 << 22):
                out.write(data)
    return key


def _answered_files(store: Store, night: Night) -> Iterator[pa.Table]:
    names = {"file_id", "model_id", "status", "reason", "reading_id"}
    refused = pc.equal(pc.field("reading_id"), reading_id(night.rules)) & ~pc.field("reason").isin(
        TRIED_AGAIN
    )
    is_answered = (pc.field("status") == "scored") | refused
    condition = (pc.field("model_id") == night.model_id) & pc.field("file_id").is_valid()
    tables = store.keys(table_prefix("screening"))
    loose = [key for night in unfinished_nights(store) for key in chunks(store, night, "rows")]
    for key in (*tables, *loose):
        with store.fs.open(store.path(key), "rb") as file:
            part = pq.ParquetFile(file)
            for batch in part.iter_batches(columns=names.intersection(part.schema_arrow.names)):
                rows = pa.Table.from_batches([batch])
                if "reading_id" not in rows.column_names:
                    # Written before it was noted.
                    rows = rows.append_column("reading_id", pa.nulls(len(rows), pa.string()))
                yield rows.filter(condition & is_answered).select(["file_id"])


def gather(store: Store, night: Night) -> Totals:
    """Put the chunks of a night's batch into its parts, and the chunks away.

    What is there already stays, but for the refusal of a file that was read again. An image that
    stands in two chunks (the same bytes twice in a batch, or a block that was redone) is taken
    once. Interrupted anywhere, it can be done again.

    Returns:
        The totals of the part.

    Raises:
        ThyroError: an image is not accounted for; the chunks are kept.
    """
    keys: dict[str, str | int] = {"date": night.number, "batch_id": night.batch_id}
    by_kind = {kind: chunks(store, night, kind) for kind in KINDS}
    part = table_key("screening", **keys)
    if by_kind["rows"] or not store.exists(part):
        pictures = pictures_key(night.date, night.batch_id)
        sample = sample_key(night.date, night.batch_id)
        _merge_extras(store, by_kind["extras"], pictures, sample)
        cams = table_key("screening_cams", **keys)
        by = ("image_id", "target_class")
        _merge_into(store, cams, by_kind["cams"], schemas.TABLES["screening_cams"].schema, by)
        schema = schemas.TABLES["screening"].schema
        present = _present(store, part)
        sources = [*present, *by_kind["rows"]]
        # What had no contents has no hash to tell it by once it has; each run lists it anew.
        is_new = f"part_number > {len(present)}"
        latest = f"SELECT * FROM ({_LATEST_READING}) WHERE file_id IS NOT NULL OR {is_new}"  # noqa: S608
        before = _distinct_images(store, sources, latest)
        sql = f"SELECT * FROM ({latest}) {_ONE_ROW_AN_IMAGE}"  # noqa: S608
        rows = write_merged(store, part, sources, schema, sql)
        if rows != before:
            msg = (
                f"{part}: expected {before} images, wrote {rows}; the chunks are kept: report this"
            )
            raise ThyroError(msg)
    totals = totals_of(store, [part])
    totals.check(f"night {night.date}, batch {night.batch_id}")
    # The rows last: without them the other kinds would be of no image.
    for kind in reversed(KINDS):
        for key in by_kind[kind]:
            store.delete(key)
    return totals


def totals_of(store: Store, parts: list[str]) -> Totals:
    """Counts over parts of `screening`."""
    with fetched(store, parts) as files, connected() as connection:
        (batch,) = select(connection, _TOTALS, files)
    return Totals(**batch.to_pylist()[0])


def _distinct_images(store: Store, sources: list[str], rows: str) -> int:
    if not sources:
        return 0
    with fetched(store, sources) as files, connected() as connection:
        sql = f"SELECT count(DISTINCT image_id) AS n FROM ({rows})"  # noqa: S608
        (batch,) = select(connection, sql, files, schemas.TABLES["screening"].schema)
    return int(batch["n"][0].as_py())


def _present(store: Store, key: str) -> list[str]:
    return [key] if store.exists(key) else []


def _merge_into(
    store: Store, target: str, sources: list[str], schema: pa.Schema, by: tuple[str, ...]
) -> int:
    everything = [*_present(store, target), *sources]
    return write_merged(store, target, everything, schema, distinct(by))


def _merge_extras(store: Store, sources: list[str], pictures: str, sample: str) -> None:
    with_picture = (
        "SELECT image_id, any_value(picture) AS picture FROM parts WHERE picture IS NOT NULL "
        "GROUP BY image_id ORDER BY image_id"
    )
    some = (
        "SELECT image_id, any_value(embedding) AS embedding FROM parts "
        "GROUP BY image_id ORDER BY image_id LIMIT 2000"
    )
    write_merged(store, pictures, [*_present(store, pictures), *sources], PICTURES, with_picture)
    write_merged(store, sample, [*_present(store, sample), *sources], EMBEDDING_SAMPLE, some)


@dataclass(frozen=True)
class DriftSample:
    """What a night's batch is judged by, against the training set."""

    rows: pa.Table
    """status, prob_malignant, mean, sharpness of one image of up to 100,000 files."""
    embeddings: npt.NDArray[np.float64]
    """(n, k), of those of these images that are scored and among the first 2000."""


def drift_sample(store: Store, night: Night) -> DriftSample:
    """One image a file of a night's batch, a scored one where there is one.

    Ids are hashes, so the first one is as good as any.
    """
    part = table_key("screening", date=night.number, batch_id=night.batch_id)
    names = ("image_id", "status", "prob_malignant", "mean", "sharpness")
    sql = f"""
    SELECT {", ".join(names)} FROM parts QUALIFY row_number() OVER (
        PARTITION BY coalesce(file_id, image_id) ORDER BY status = 'scored' DESC, image_id
    ) = 1 ORDER BY image_id LIMIT 100000
    """  # noqa: S608
    with fetched(store, [part]) as files, connected() as connection:
        batches = list(select(connection, sql, files))
    schema = schemas.TABLES["screening"].schema
    rows = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in names]))
    data = store.read(sample_key(night.date, night.batch_id))
    sample = pq.ParquetFile(io.BytesIO(data)).read()
    chosen = sample.filter(pc.is_in(sample["image_id"], rows["image_id"].combine_chunks()))
    embeddings = np.array(chosen["embedding"].to_pylist(), dtype=np.float64)
    return DriftSample(rows.drop_columns(["image_id"]), embeddings)


def write_batch_row(store: Store, night: Night, totals: Totals, figures: dict[str, object]) -> None:
    """Put the row of a night's batch into `screening_batches`, in place of an earlier one.

    Args:
        store: holds the table.
        night: which batch.
        totals: its counts.
        figures: further columns: known, late, seconds, drift; what is missing is null.
    """
    row: dict[str, object] = dict.fromkeys(schemas.TABLES["screening_batches"].schema.names)
    row |= {
        "date": night.number,
        "batch_id": night.batch_id,
        "batch": night.batch,
        "model_id": night.model_id,
        "rules": canonical_json(night.rules),
        **asdict(totals),
        **figures,
    }
    old = read_table(store, "screening_batches", date=night.number)
    others = old.filter(pc.not_equal(old["batch_id"], night.batch_id))
    new = schemas.rows_to_table("screening_batches", [row])
    table = pa.concat_tables([others, new]).sort_by("batch_id")
    write_table(store, "screening_batches", table, date=night.number)


def batch_row(store: Store, date: str, batch_id: str) -> dict[str, Any]:
    """The row of a night's batch in `screening_batches`."""
    rows = read_table(store, "screening_batches", date=date_number(date)).to_pylist()
    return next(row for row in rows if row["batch_id"] == batch_id)
