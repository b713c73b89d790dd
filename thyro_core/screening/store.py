"""A screening's objects in the store: chunks while it runs, then one part a night's batch."""

import hashlib
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thyro_core.config import canonical_json
from thyro_core.errors import ThyroError
from thyro_core.screening.known_files import KNOWN_SCHEMA, write_known
from thyro_core.screening.reader import reading_id
from thyro_core.screening.rules import (
    OTHER_PATIENT,
    TRIED_AGAIN,
    TURNED_NOTE,
    Night,
    Totals,
    date_number,
    rank_key,
)
from thyro_core.store.keys import (
    chunk_key,
    known_hashes_key,
    night_key,
    path_salt_key,
    pictures_key,
    sample_key,
    screening_prefix,
    table_key,
    table_prefix,
)
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, to_parquet, write_table
from thyro_core.tables.merge import distinct, local_copies, open_connection, select, write_merged

EXTRAS = pa.schema(
    [
        ("image_id", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("picture", pa.binary()),
    ]
)
"""What an image leaves beside its row: its embedding, if it is scored; a JPEG, if it is shown."""

PICTURES = pa.schema([("image_id", pa.string()), ("picture", pa.binary())])
"""The pictures of a night's batch."""

EMBEDDING_SAMPLE = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
"""Embeddings of 2000 images of a night's batch, for drift: ids are hashes, so the first ones are
a random sample."""

_SALT_BYTES = 32
_PIECE = 1 << 22
_MOST_OTHER_PICTURES = 2000

KINDS = ("rows", "cams", "extras")
_TOTALS = """
SELECT count(*) AS received,
    count(*) FILTER (status = 'scored') AS scored,
    count(*) FILTER (status = 'rejected') AS rejected,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (band = 'refer') AS refer,
    count(*) FILTER (band = 'review') AS review,
    count(*) FILTER (band = 'routine') AS routine,
    count(*) FILTER (status = 'copy') AS copies
FROM parts
"""
_FILE_COUNT = """
SELECT count(*) AS n FROM
    (SELECT DISTINCT coalesce(path_id, ''), coalesce(file_id, image_id) FROM parts)
"""

# All rows that a run has of a file stand in one chunk. Of a file that was read twice, the rows of
# the run that led to a score count, else of the latest one. What had no contents has no hash to
# tell it by once it has: each run lists it anew. A row of an earlier version, which noted no path,
# gives way to any newer reading of the same bytes.
_LATEST_READING = """
SELECT * FROM (
    SELECT * FROM parts WHERE file_id IS NOT NULL OR part_number > {present}
    QUALIFY part_number = first_value(part_number) OVER (
        PARTITION BY coalesce(path_id, ''), coalesce(file_id, image_id)
        ORDER BY status = 'scored' DESC, part_number DESC
    )
)
QUALIFY path_id IS NOT NULL OR file_id IS NULL OR status = 'scored'
    OR max(path_id) OVER (PARTITION BY file_id) IS NULL
"""

_TURNED_TEXT = TURNED_NOTE.replace("'", "''")
# Blocks are read side by side, and each takes the first row of a picture for the original. Here one
# of these is chosen, a scored one where there is one, and the others become its copies. Copies
# of another night's or batch's picture have no original here and stay as they are. Of a picture and
# its turned and mirrored forms the one that ranks highest stands, as each is scored otherwise; by
# digits that hold however an image's block was made up.
_ORIGINALS = f"""
SELECT * EXCLUDE (place, original_id, original_status, original_reason, original_patient,
    original_picture, has_original, is_new, is_turned) REPLACE (
    CASE WHEN is_new THEN sha256(image_id || '/copy ' || coalesce(path_id, '')) ELSE image_id END
        AS image_id,
    CASE WHEN is_new THEN 'copy' ELSE status END AS status,
    CASE WHEN has_original THEN original_id ELSE copy_of END AS copy_of,
    CASE WHEN NOT has_original THEN reason
        WHEN original_status != 'scored' THEN original_reason END AS reason,
    nullif(concat_ws('; ', detail,
        CASE WHEN is_turned THEN '{_TURNED_TEXT}' END,
        CASE WHEN is_new AND patient_id != original_patient THEN '{OTHER_PATIENT}' END
    ), '') AS detail,
    CASE WHEN is_new THEN NULL ELSE prob_malignant END AS prob_malignant,
    CASE WHEN is_new THEN NULL ELSE prob_raw END AS prob_raw,
    CASE WHEN is_new THEN NULL ELSE sd END AS sd,
    CASE WHEN is_new THEN NULL ELSE distance END AS distance,
    CASE WHEN is_new THEN 'copy' ELSE band END AS band,
    CASE WHEN is_new THEN {rank_key("copy", None)} ELSE rank_key END AS rank_key
)
FROM (
    SELECT *, place > 1 AND original_status != 'copy' AS has_original,
        has_original AND status != 'copy' AS is_new,
        has_original AND picture_id != original_picture
            AND NOT contains(coalesce(detail, ''), '{_TURNED_TEXT}') AS is_turned
    FROM (
        SELECT *,
            row_number() OVER picture AS place,
            first_value(image_id) OVER picture AS original_id,
            first_value(status) OVER picture AS original_status,
            first_value(reason) OVER picture AS original_reason,
            first_value(patient_id) OVER picture AS original_patient,
            first_value(picture_id) OVER picture AS original_picture
        FROM ({{rows}})
        WINDOW picture AS (
            PARTITION BY coalesce(pattern_id, picture_id, image_id)
            ORDER BY status = 'copy', status = 'scored' DESC, round(rank_key, 6) DESC, image_id,
                path_id
        )
    )
)
ORDER BY image_id
"""  # noqa: S608


def write_chunk(store: Store, night: Night, kind: str, name: str, table: pa.Table) -> None:
    """Write the results of one block."""
    store.write(chunk_key(night.date, night.batch_id, kind, name), to_parquet(table))


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


def publish_known(store: Store, night: Night) -> tuple[str, str]:
    """Write the hashes of all files and pictures that the night's model has an answer for.

    It has scored an image of such a file, or refused all as it would today (`reading_id`), or
    these are copies of a picture with such an answer.

    Returns:
        Keys of the files and of the pictures, made of what the objects hold.
    """
    with (
        tempfile.NamedTemporaryFile(prefix="thyro-") as files,
        tempfile.NamedTemporaryFile(prefix="thyro-") as pictures,
    ):
        write_known(_answered_rows(store, night), files, pictures)
        return (
            _publish_object(store, night, "files", files),
            _publish_object(store, night, "pictures", pictures),
        )


def _publish_object(store: Store, night: Night, kind: str, file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while data := file.read(_PIECE):
        digest.update(data)
    key = known_hashes_key(night.date, night.batch_id, f"{kind}-{digest.hexdigest()[:16]}")
    file.seek(0)
    with store.writing(key) as out:
        while data := file.read(_PIECE):
            out.write(data)
    return key


def ensure_path_salt(store: Store) -> None:
    """Make the random bytes of `path_hash`, once for a store; the caller holds the night's lock."""
    if not store.exists(path_salt_key()):
        store.write(path_salt_key(), secrets.token_bytes(_SALT_BYTES))


def _answered_rows(store: Store, night: Night) -> Iterator[pa.Table]:
    names = [*KNOWN_SCHEMA.names, "model_id", "reading_id"]
    schema = schemas.TABLES["screening"].schema
    is_refused = pc.equal(pc.field("reading_id"), reading_id(night.rules)) & ~pc.field(
        "reason"
    ).isin(TRIED_AGAIN)
    is_answered = pc.field("status").isin(["scored", "copy"]) | is_refused
    condition = (pc.field("model_id") == night.model_id) & pc.field("file_id").is_valid()
    tables = store.keys(table_prefix("screening"))
    loose = [key for night in unfinished_nights(store) for key in chunks(store, night, "rows")]
    for key in (*tables, *loose):
        with store.fs.open(store.path(key), "rb") as file:
            part = pq.ParquetFile(file)
            present = [name for name in names if name in part.schema_arrow.names]
            for batch in part.iter_batches(columns=present):
                rows = pa.Table.from_batches([batch])
                for name in set(names).difference(present):
                    # Written before it was noted.
                    rows = rows.append_column(name, pa.nulls(len(rows), schema.field(name).type))
                yield rows.filter(condition & is_answered).select(KNOWN_SCHEMA.names)


def gather(store: Store, night: Night) -> Totals:
    """Put the chunks of a night's batch into its parts, and the chunks away.

    What is there already stays, but for the refusal of a file that was read again. A file that
    stands in two chunks (a block that was redone) is taken once; of a picture that stands in
    several files one row is the original, and each other one is its copy. Interrupted anywhere, it
    can be done again.

    Returns:
        The totals of the part.

    Raises:
        ThyroError: an image is not accounted for; the chunks are kept.
    """
    keys: dict[str, str | int] = {"date": night.number, "batch_id": night.batch_id}
    by_kind = {kind: chunks(store, night, kind) for kind in KINDS}
    part = table_key("screening", **keys)
    if by_kind["rows"] or not store.exists(part):
        schema = schemas.TABLES["screening"].schema
        present = _present(store, part)
        sources = [*present, *by_kind["rows"]]
        latest = _LATEST_READING.format(present=len(present))
        before = _row_count(store, sources, f"SELECT count(*) AS n FROM ({latest})")  # noqa: S608
        rows = write_merged(store, part, sources, schema, _ORIGINALS.format(rows=latest))
        distinct_ids = _row_count(store, [part], "SELECT count(DISTINCT image_id) AS n FROM parts")
        if rows != before or rows != distinct_ids:
            msg = (
                f"{part}: expected {before} images, wrote {min(rows, distinct_ids)}; the chunks "
                "are kept: report this"
            )
            raise ThyroError(msg)
        _merge_cams(store, table_key("screening_cams", **keys), by_kind["cams"], part)
        _merge_extras(store, night, by_kind["extras"], part)
    totals = totals_of(store, [part])
    totals.check(f"night {night.date}, batch {night.batch_id}")
    # The rows last: without them the other kinds would be of no image.
    for kind in reversed(KINDS):
        for key in by_kind[kind]:
            store.delete(key)
    return totals


def totals_of(store: Store, parts: list[str]) -> Totals:
    """Counts over parts of `screening`."""
    with local_copies(store, parts) as files, open_connection() as connection:
        (batch,) = select(connection, _TOTALS, files)
    return Totals(**batch.to_pylist()[0])


def file_count(store: Store, night: Night) -> int:
    """Files of a night's batch that have a row, or several."""
    return _row_count(
        store, [table_key("screening", date=night.number, batch_id=night.batch_id)], _FILE_COUNT
    )


def _row_count(store: Store, sources: list[str], sql: str) -> int:
    if not sources:
        return 0
    with local_copies(store, sources) as files, open_connection() as connection:
        (batch,) = select(connection, sql, files, schemas.TABLES["screening"].schema)
    return int(batch["n"][0].as_py())


def _present(store: Store, key: str) -> list[str]:
    return [key] if store.exists(key) else []


# A row that was scored in its block, and is a copy in the whole night, leaves nothing else behind.
_IS_SCORED = "image_id IN (SELECT image_id FROM whole WHERE status = 'scored')"


def _merge_cams(store: Store, target: str, sources: list[str], part: str) -> None:
    everything = [*_present(store, target), *sources]
    schema = schemas.TABLES["screening_cams"].schema
    sql = f"SELECT * FROM ({distinct(('image_id', 'target_class'))}) WHERE {_IS_SCORED}"  # noqa: S608
    in_order = f"{sql} ORDER BY image_id, target_class"
    write_merged(store, target, everything, schema, in_order, whole=part)


def _merge_extras(store: Store, night: Night, sources: list[str], part: str) -> None:
    # Of the referred all; of the others no more than a page shows.
    with_picture = f"""
        SELECT image_id, any_value(picture) AS picture FROM parts
        WHERE picture IS NOT NULL AND image_id IN (
            SELECT image_id FROM whole WHERE band = 'refer' UNION ALL (
                SELECT image_id FROM whole WHERE band IN ('review', 'not scored')
                ORDER BY rank_key DESC, image_id LIMIT {_MOST_OTHER_PICTURES}
            )
        ) GROUP BY image_id ORDER BY image_id
    """  # noqa: S608
    some = (
        "SELECT image_id, any_value(embedding) AS embedding FROM parts "  # noqa: S608
        f"WHERE {_IS_SCORED} GROUP BY image_id ORDER BY image_id LIMIT 2000"
    )
    for target, schema, sql in (
        (pictures_key(night.date, night.batch_id), PICTURES, with_picture),
        (sample_key(night.date, night.batch_id), EMBEDDING_SAMPLE, some),
    ):
        everything = [*_present(store, target), *sources]
        write_merged(store, target, everything, schema, sql, whole=part)


def write_batch_row(store: Store, night: Night, totals: Totals, figures: dict[str, object]) -> None:
    """Put the row of a night's batch into `screening_batches`, in place of an earlier one.

    Args:
        store: holds the table.
        night: which batch.
        totals: its counts.
        figures: further columns: files, known, late, seconds, drift; what is missing is null.
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
