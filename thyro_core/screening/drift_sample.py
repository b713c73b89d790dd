"""The files by which a night's batch is set against the training set: one of each patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.screening.rules import Night, date_text
from thyro_core.store.keys import sample_key, table_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import from_parquet
from thyro_core.tables.merge import local_copies, open_connection, select


@dataclass(frozen=True)
class DriftSample:
    """What a night's batch is judged by, against the training set."""

    rows: pa.Table
    """status, prob_malignant, mean, sharpness of one image of up to 100,000 files, and two marks:
    `counts`, whether it is the one by which its patient's scored images count, and `is_drawn`,
    whether it is the one drawn of all the patient's files, scored or not; a file without a
    pseudonym counts itself."""
    embeddings: npt.NDArray[np.float64]
    """(n, k), of those of these images that count, are scored and among the first 2000."""


def drift_sample(
    store: Store, night: Night, earlier: Sequence[Mapping[str, Any]] = ()
) -> DriftSample:
    """One image a file of a night's batch, a scored one where there is one; copies do not count.

    By the same rule one file of each patient counts; another is drawn of scored and other files
    alike. Ids are hashes, so the first one is as good as any.

    Args:
        store: holds the batch's rows.
        night: which batch.
        earlier: rows of `screening_batches` whose files are added to the batch's own.
    """
    batches = [(night.number, night.batch_id)]
    batches += [(row["date"], row["batch_id"]) for row in earlier]
    parts = [table_key("screening", date=date, batch_id=batch) for date, batch in batches]
    names = ("image_id", "status", "prob_malignant", "mean", "sharpness")
    sql = f"""
    SELECT {", ".join(names)}, row_number() OVER (
        PARTITION BY coalesce(patient_id, image_id) ORDER BY status = 'scored' DESC, image_id
    ) = 1 AS counts, row_number() OVER (
        PARTITION BY coalesce(patient_id, image_id) ORDER BY image_id
    ) = 1 AS is_drawn FROM (
        FROM parts WHERE status != 'copy' QUALIFY row_number() OVER (
            PARTITION BY coalesce(file_id, image_id) ORDER BY status = 'scored' DESC, image_id
        ) = 1
    ) ORDER BY image_id LIMIT 100000
    """  # noqa: S608
    with local_copies(store, parts) as files, open_connection() as connection:
        chosen_rows = list(select(connection, sql, files))
    schema = schemas.TABLES["screening"].schema
    marks = (pa.field(name, pa.bool_()) for name in ("counts", "is_drawn"))
    fields = [*(schema.field(name) for name in names), *marks]
    rows = pa.Table.from_batches(chosen_rows, pa.schema(fields))
    keys = [sample_key(date_text(date), batch) for date, batch in batches]
    sample = pa.concat_tables(from_parquet(store.read(key)) for key in keys)
    ids = rows.filter(rows["counts"])["image_id"].combine_chunks()
    drawn_rows = sample.filter(pc.is_in(sample["image_id"], ids))
    embeddings = np.array(drawn_rows["embedding"].to_pylist(), dtype=np.float64)
    return DriftSample(rows.drop_columns(["image_id"]), embeddings)
