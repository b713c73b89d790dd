"""How many months have a false alarm of drift although nothing changed.

    python tests/bench/false_alarms.py [--months 30]

A month is 30 nights of one model. Training images and new ones come from one distribution of score,
grey level, sharpness and embedding (8 dimensions), in which the images of a patient are alike, and
the frames of a clip more so; one file in ten is not scored. The nights' rows stand in a store as a
screening writes them and are judged by `night.judge_drift`, as a screening does it: with the
default bounds, one file a patient, and small nights together with those before them. Each month
has a training set of its own. An alarm is any figure past its bound. Small nights are judged again
with each pool, which takes its time: they have fewer months.
"""

import argparse
import hashlib
import io
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from laps import header

from thyro_core.registry.bundle import REFERENCE
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.night import judge_drift
from thyro_core.screening.rules import Night
from thyro_core.screening.store import EMBEDDING_SAMPLE
from thyro_core.store.keys import sample_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table

NIGHTS, TRAINING, UNSCORED = 30, 400, 0.1
PATIENT, CLIP = 0.6, 0.9
"""Correlation of two images of a patient, and of two frames of a clip."""
FIGURES = 11
"""Score, grey level, sharpness and eight dimensions of the embedding."""


@dataclass(frozen=True)
class Case:
    """What a night brings."""

    patients: int
    stills: int
    clips: int = 0
    """Patients who have a clip of eight frames besides."""
    has_pseudonyms: bool = True
    months: int = 30


CASES = {
    "80 patients of a still": Case(80, 1),
    "80 patients of a still, 25 clips": Case(80, 1, clips=25),
    "12 patients of 4 stills": Case(12, 4, months=12),
    "12 patients of 2 stills, 12 clips": Case(12, 2, clips=12, months=12),
    "20 patients of 6 stills, no pseudonyms": Case(20, 6, has_pseudonyms=False),
}


def mixed(rng: np.random.Generator, shared: np.ndarray, likeness: float) -> np.ndarray:
    """Standard normal draws that correlate by `likeness` with those of one `shared` row."""
    return np.sqrt(likeness) * shared + np.sqrt(1 - likeness) * rng.normal(size=shared.shape)


def columns(values: np.ndarray) -> dict[str, list[object]]:
    """Figures of images from standard normal draws, (n, FIGURES)."""
    return {
        "prob_malignant": list(1 / (1 + np.exp(1.5 - 1.5 * values[:, 0]))),
        "mean": list(80 + 15 * values[:, 1]),
        "sharpness": list(np.exp(0.4 * values[:, 2])),
        "embedding": [row.tolist() for row in values[:, 3:]],
    }


def training_set(rng: np.random.Generator) -> pa.Table:
    """Images of 300 patients, three in ten of them unseen by the first network."""
    group = rng.integers(0, 300, TRAINING)
    values = mixed(rng, rng.normal(size=(300, FIGURES))[group], PATIENT)
    rows = columns(values) | {
        "image_id": [f"i{place:04d}" for place in range(TRAINING)],
        "group_id": [f"g{number}" for number in group],
        "held_out": list(group % 10 < 3),
    }
    arrays = [
        pa.array(rows[f.name], f.type) if f.name in rows else pa.nulls(TRAINING, f.type)
        for f in REFERENCE
    ]
    return pa.Table.from_arrays(arrays, schema=REFERENCE)


def night_rows(rng: np.random.Generator, case: Case, name: str) -> list[dict[str, object]]:
    """A row an image: of each patient the stills, of some the frames of a clip besides."""
    own = rng.normal(size=(case.patients, FIGURES))
    frames = 8
    patient = np.r_[
        np.repeat(np.arange(case.patients), case.stills), np.repeat(np.arange(case.clips), frames)
    ]
    clip = np.sqrt(PATIENT / CLIP) * own[: case.clips]
    clip = clip + np.sqrt(1 - PATIENT / CLIP) * rng.normal(size=clip.shape)
    values = np.concatenate(
        [
            mixed(rng, np.repeat(own, case.stills, axis=0), PATIENT),
            mixed(rng, np.repeat(clip, frames, axis=0), CLIP),
        ]
    )
    n_stills = case.patients * case.stills
    file = np.r_[np.arange(n_stills), n_stills + np.repeat(np.arange(case.clips), frames)]
    scored = (rng.random(n_stills + case.clips) >= UNSCORED)[file]
    kinds = columns(values)
    nothing = dict.fromkeys(kinds)
    rows = []
    for place in range(patient.size):
        figures = {key: of[place] for key, of in kinds.items()} if scored[place] else nothing
        rows.append(
            {
                "image_id": digest(f"{name} image {place}"),
                "file_id": digest(f"{name} file {file[place]}"),
                "patient_id": f"{name} {patient[place]}" if case.has_pseudonyms else None,
                "status": "scored" if scored[place] else "rejected",
                **figures,
            }
        )
    return rows


def digest(text: str) -> str:
    """An id as a screening gives it: a hash, whose order says nothing."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_night(store: Store, night: Night, rows: list[dict[str, object]]) -> None:
    """A night's rows as a screening leaves them, and its line in `screening_batches`."""
    place = {"date": night.number, "batch_id": night.batch_id}
    known = schemas.TABLES["screening"].schema
    table = schemas.rows_to_table(
        "screening", [{field: row.get(field) for field in known.names} for row in rows]
    )
    write_table(store, "screening", table, **place)
    sample = sorted((r for r in rows if r["status"] == "scored"), key=lambda r: str(r["image_id"]))
    chosen = [{key: row[key] for key in EMBEDDING_SAMPLE.names} for row in sample[:2000]]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(chosen, EMBEDDING_SAMPLE), buffer)
    store.write(sample_key(night.date, night.batch_id), buffer.getvalue())
    line = dict.fromkeys(schemas.TABLES["screening_batches"].schema.names)
    line |= place | {"model_id": night.model_id, "scored": len(sample)}
    batches = schemas.rows_to_table("screening_batches", [line])
    write_table(store, "screening_batches", batches, date=night.number)


def month(rng: np.random.Generator, case: Case) -> tuple[int, int]:
    """Nights that were judged, and nights with an alarm."""
    judged = alarms = 0
    training = training_set(rng)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        for number in range(NIGHTS):
            day = (date(2026, 1, 1) + timedelta(number)).isoformat()
            night = Night(date=day, batch="b", model_id="m", rules=ScreeningRules())
            write_night(store, night, night_rows(rng, case, day))
            report = judge_drift(store, night, training)
            judged += report.too_few is None
            alarms += bool(report.breaches)
    return judged, alarms


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, default=30, help="the most of a case")
    most = parser.parse_args().months
    kinds = ("a night", "months", "nights judged", "nights with an alarm", "months with an alarm")
    print(header(*kinds))
    for name, case in CASES.items():
        rng, months = np.random.default_rng(0), min(case.months, most)
        judged, alarms = np.array([month(rng, case) for _ in range(months)]).T
        shares = (judged.mean() / NIGHTS, alarms.mean() / NIGHTS, (alarms > 0).mean())
        print(
            f"| {name} | {months} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True
        )


if __name__ == "__main__":
    main()
