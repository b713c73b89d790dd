"""What readers say of a worklist's rows: taken in, never changed, and summed up by band.

It is an opinion, given with the score in sight: no function here turns it into a label unasked.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from thyro_core.config import canonical_json
from thyro_core.errors import InputError, amount
from thyro_core.screening.rules import BANDS, date_number
from thyro_core.store.keys import feedback_key, table_key, table_prefix
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, to_parquet
from thyro_core.tables.query import run_query

OPINION = (
    "Agreement is with the opinion of readers who saw the score, on the images that they chose to "
    "judge: it is not with the truth, and no measure of accuracy."
)
"""What an agreement is not."""

CANDIDATES = (
    "Candidate labels of readers who saw the score: they lean towards it (incorporation bias), and "
    "are of images that it ranked (verification bias). Check each against cytology or histology "
    "before a study trains on it, and never test a model on them."
)
"""What a label out of feedback is not."""

_LARGEST_FILE = 20_000_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")

_VERDICTS = """
WITH verdicts AS (
    SELECT * FROM feedback WHERE what IN ('agree', 'disagree', 'withdraw')
    QUALIFY row_number() OVER (
        PARTITION BY date, batch_id, image_id, lower(who) ORDER BY said_at DESC, feedback_id DESC
    ) = 1
), standing AS (SELECT * FROM verdicts WHERE what != 'withdraw')
"""
_AGREEMENT = f"""
{_VERDICTS}, judged AS (
    SELECT model_id, band, count(DISTINCT image_id) AS judged, count(*) AS verdicts,
        count(*) FILTER (what = 'agree') AS agree, count(DISTINCT lower(who)) AS readers
    FROM standing GROUP BY model_id, band
), ranked AS (
    SELECT model_id, band, count(*) AS images FROM screening
    WHERE status = 'scored' GROUP BY model_id, band
)
SELECT model_id, band, coalesce(images, 0) AS images, judged, verdicts, agree, readers
FROM judged LEFT JOIN ranked USING (model_id, band)
"""  # noqa: S608
_CANDIDATE_ROWS = f"""
{_VERDICTS}
SELECT any_value(s.name) AS image,
    min(CASE WHEN (f.band = 'refer') = (f.what = 'agree') THEN 'malignant' ELSE 'benign' END)
        AS label,
    max(CASE WHEN (f.band = 'refer') = (f.what = 'agree') THEN 'malignant' ELSE 'benign' END)
        AS other,
    any_value(s.patient_id) AS patient_id, any_value(s.file_id) AS file_id,
    any_value(s.frame) AS frame, any_value(s.batch) AS batch, f.date, f.model_id,
    count(*) AS readers
FROM standing f JOIN screening s USING (date, batch_id, image_id)
WHERE f.band IN ('refer', 'routine')
GROUP BY f.date, f.batch_id, f.image_id, f.model_id ORDER BY f.date, f.image_id
"""  # noqa: S608


class FeedbackEvent(BaseModel):
    """One thing that one reader says of one row."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    said_at: AwareDatetime
    who: Annotated[str, Field(min_length=1, max_length=40)]
    what: Literal["seen", "unseen", "agree", "disagree", "withdraw", "comment"]
    comment: Annotated[str, Field(max_length=500)] | None = None
    batch_id: Annotated[str, Field(pattern=r"^n[0-9a-f]{1,32}$")]
    image_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model_id: Annotated[str, Field(pattern=r"^[0-9a-z]{1,40}$")]

    @property
    def feedback_id(self) -> str:
        """A hash of all of it: the same file taken in twice adds nothing."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:32]


def add_feedback(store: Store, date: str, events: Sequence[FeedbackEvent]) -> int:
    """Add readers' verdicts on a date's rows; those there already stay as they are.

    Args:
        store: holds the night.
        date: ISO 8601.
        events: each of a row of the night.

    Returns:
        How many were new.

    Raises:
        InputError: the night has no such row, or a verdict is of a row without a score.
    """
    number = date_number(date)
    present = set(read_table(store, "feedback", date=number)["feedback_id"].to_pylist())
    fresh = {each.feedback_id: each for each in events if each.feedback_id not in present}
    bands = {batch: _bands(store, number, batch) for batch in {e.batch_id for e in events}}
    rows: list[dict[str, object]] = []
    for feedback_id, event in fresh.items():
        band = bands[event.batch_id].get((event.image_id, event.model_id))
        _check_event(event, band, date)
        row = event.model_dump(exclude={"comment"}) | {"said_at": event.said_at.astimezone(UTC)}
        comment = event.comment or None
        rows.append(
            {"date": number, "feedback_id": feedback_id, "band": band, "comment": comment, **row}
        )
    if rows:
        table = schemas.conform("feedback", schemas.rows_to_table("feedback", rows))
        name = hashlib.sha256("".join(sorted(fresh)).encode()).hexdigest()[:32]
        store.write(feedback_key(number, name), to_parquet(table))
    return len(rows)


def _check_event(event: FeedbackEvent, band: str | None, date: str) -> None:
    if band is None:
        msg = (
            f"feedback on {event.image_id[:16]}: expected a row of the night {date}, batch "
            f"{event.batch_id}, model {event.model_id}, found none; check --store and the date"
        )
        raise InputError(msg)
    if event.what in {"agree", "disagree"} and band not in {"refer", "review", "routine"}:
        msg = (
            f"feedback on {event.image_id[:16]}: expected a comment or a mark, found {event.what} "
            f"on a row that is {band}: there is no score to judge"
        )
        raise InputError(msg)
    if event.what == "comment" and not event.comment:
        msg = f"feedback on {event.image_id[:16]}: expected a comment's words, found none"
        raise InputError(msg)


def _bands(store: Store, number: int, batch_id: str) -> dict[tuple[str, str], str]:
    """Bands of a batch's rows, by image and model."""
    key = table_key("screening", date=number, batch_id=batch_id)
    if not store.exists(key):
        return {}
    with store.fs.open(store.path(key), "rb") as file:
        table = pq.ParquetFile(file).read(columns=["image_id", "model_id", "band"])
    columns = [table[name].to_pylist() for name in ("image_id", "model_id", "band")]
    return {(image, model): band for image, model, band in zip(*columns, strict=True)}


def read_feedback(store: Store, date: str) -> list[dict[str, Any]]:
    """Readers' verdicts on a date's rows, oldest first, as a page takes them."""
    table = read_table(store, "feedback", date=date_number(date)).sort_by("said_at")
    names = ("said_at", "who", "what", "comment", "batch_id", "image_id", "model_id")
    rows = table.select(names).to_pylist()
    return [row | {"said_at": row["said_at"].isoformat()} for row in rows]


def parse_feedback(data: bytes, name: str) -> tuple[str, list[FeedbackEvent]]:
    """The date and the events of a file that a worklist's page has saved, JSON or CSV.

    Raises:
        InputError: it is none.
    """
    try:
        if len(data) > _LARGEST_FILE:
            msg = f"{len(data)} bytes, more than {_LARGEST_FILE}"
            raise _NoFeedbackError(msg)
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            value = json.loads(text)
            date, items = str(value["date"]), list(value["events"])
        else:
            reader = csv.DictReader(io.StringIO(text))
            if not {"date", "who", "what"} <= set(reader.fieldnames or ()):
                msg = "a table without the columns date, who and what"
                raise _NoFeedbackError(msg)
            lines = [_plain_cells(row) for row in reader]
            dates = {str(row.pop("date")) for row in lines}
            if len(dates) > 1:
                msg = f"{len(dates)} different dates in one table"
                raise _NoFeedbackError(msg)
            date, items = dates.pop() if dates else "", lines
        events = [FeedbackEvent.model_validate_json(json.dumps(item)) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        msg = (
            f"{name}: expected feedback as a worklist's page saves it (JSON or CSV), found "
            f"{_fault_in_words(error)}; save it from the page again"
        )
        raise InputError(msg) from error
    if events:
        date_number(date)
    return date, events


class _NoFeedbackError(ValueError):
    """The reason why a file is no feedback, in words of ours."""


def _fault_in_words(error: Exception) -> str:
    """What is wrong with a file; what stands in it may be a name, and is not repeated."""
    if isinstance(error, _NoFeedbackError):
        return str(error)
    if isinstance(error, ValidationError):
        places = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        fields = sorted(places & FeedbackEvent.model_fields.keys())
        where = f" in an entry's {', '.join(fields)}" if fields else " in an entry"
        return amount(error.error_count(), "fault") + where
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"JSON that breaks off or is damaged in line {error.lineno}"
    return "JSON or a table of another form"


def _plain_cells(row: Mapping[str, str]) -> dict[str, str | None]:
    """Cells without the mark that keeps a spreadsheet from taking them for formulas."""
    return {
        name: (cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell) or None
        for name, cell in row.items()
    }


def agreement(store: Store) -> list[dict[str, Any]]:
    """Readers' verdicts by model and band: each reader's last one of an image counts.

    Args:
        store: holds the nights.

    Returns:
        Rows of model_id, band, images (scored, of the band, judged or not), judged (images),
        verdicts, agree, readers; in the order of the bands; none without a verdict.
    """
    if not store.keys(table_prefix("feedback")):
        return []
    rows = run_query(store.url, _AGREEMENT).to_pylist()
    return sorted(rows, key=lambda row: (row["model_id"], BANDS.index(row["band"])))


def agreement_sentence(row: Mapping[str, Any]) -> str:
    """A row of `agreement` in words, with its denominators."""
    return (
        f"{row['band']}: {row['agree']} of {amount(row['verdicts'], 'verdict')} agree, on "
        f"{row['judged']} of {amount(row['images'], 'image')}, by "
        f"{amount(row['readers'], 'reader')}"
    )


def candidate_labels(store: Store) -> tuple[pa.Table, int]:
    """Verdicts as candidates for labels: refer and agree is malignant, and so on.

    Rows for review are left out: who agrees that an image is uncertain names no class.

    Returns:
        A row an image whose readers agree with each other, with `CANDIDATES` in each; and how many
        images are left out because they do not.
    """
    if not store.keys(table_prefix("feedback")):
        return pa.table({}), 0
    rows = run_query(store.url, _CANDIDATE_ROWS).to_pylist()
    agreed_rows = [row for row in rows if row["label"] == row["other"]]
    for row in agreed_rows:
        del row["other"]
        row["notice"] = CANDIDATES
    return pa.Table.from_pylist(agreed_rows), len(rows) - len(agreed_rows)
