"""From a block of images to a finished chunk in the store: scores, bands, maps, small pictures.

Runs in a worker, without Ray. The chunk's rows are written last: they are there, so the block is
done.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thyro_core.errors import beyond
from thyro_core.explain.maps import cams_table
from thyro_core.explain.overlay import overlay_map
from thyro_core.imaging.view import map_over_picture
from thyro_core.screening.decode import DecodedBlock, ScreeningJob, displays_of, pixels_of
from thyro_core.screening.model import BlockScores, ScreeningModel
from thyro_core.screening.pictures import jpeg_bytes
from thyro_core.screening.rules import (
    BandLimits,
    Counts,
    ReadingBand,
    ScreeningRow,
    band_of,
    is_unlike,
    rank_key,
    unscored_columns,
)
from thyro_core.screening.store import EXTRAS, write_chunk
from thyro_core.store.store import open_store
from thyro_core.tables import schemas
from thyro_core.types import Grey

WITH_PICTURE: frozenset[ReadingBand] = frozenset({"refer", "review", "not scored"})
"""Bands whose images are shown: what a reader is to look at, with or without a score."""


class BlockScorer:
    """Scores blocks of images with one promoted model, which it keeps in memory."""

    def __init__(self, job: ScreeningJob) -> None:
        self._job = job
        self._store = open_store(job.store)
        self._model = ScreeningModel(
            self._store, job.night.model_id, Path(job.scratch), threads=job.threads, gpus=job.gpus
        )
        self._limits = self._model.limits(job.night.rules)

    def __call__(self, block: DecodedBlock) -> Counts:
        """Score a block and write its chunk; a block without images leaves none."""
        if not block.table.num_rows:
            return block.counts
        pixels = pixels_of(block.table, self._job.side)
        rows = block.table.drop_columns(["pixels", "display", "text"]).to_pylist()
        open_rows = [row for row in rows if row["status"] is None]
        scores = self._model.score(pixels) if len(pixels) else None
        if scores is not None:
            for i, row in enumerate(open_rows):
                note = row["detail"]
                row.update(verdict(scores, i, self._limits))
                row["detail"] = "; ".join(filter(None, {row["detail"]: 0, note: 0})) or None
        positions = [i for i, row in enumerate(open_rows) if row["band"] == "refer"]
        maps = self._model.maps(scores, positions) if scores and positions else None
        displays = displays_of(block.table)
        self._write(rows, open_rows, scores, positions=positions, displays=displays, maps=maps)
        n_scored = sum(row["status"] == "scored" for row in rows)
        return block.counts + Counts(scored=n_scored)

    def _write(
        self,
        rows: list[ScreeningRow],
        open_rows: list[ScreeningRow],
        scores: BlockScores | None,
        *,
        positions: list[int],
        displays: Mapping[str, Grey],
        maps: npt.NDArray[np.float32] | None,
    ) -> None:
        night = self._job.night
        ids = "".join(f"{row['image_id']}{row['path_id']}" for row in rows)
        name = hashlib.sha256(ids.encode()).hexdigest()[:32]
        evidence: dict[str, npt.NDArray[np.float32]] = {}
        if maps is not None:
            refer_rows = [open_rows[i] for i in positions]
            cams = screening_cams(refer_rows, self._model.layer, maps)
            write_chunk(self._store, night, "cams", name, cams)
            evidence = {row["image_id"]: maps[k, 1] for k, row in enumerate(refer_rows)}
        pictures = {
            row["image_id"]: picture(
                displays[row["image_id"]],
                evidence.get(row["image_id"]),
                row,
                pad=self._job.view.is_padded,
            )
            for row in rows
            if row["band"] in WITH_PICTURE and row["image_id"] in displays
        }
        if scores is not None or pictures:
            extras = extras_table(rows, open_rows, scores, pictures)
            write_chunk(self._store, night, "extras", name, extras)
        write_chunk(self._store, night, "rows", name, schemas.rows_to_table("screening", rows))


def verdict(scores: BlockScores, i: int, limits: BandLimits) -> ScreeningRow:
    """Columns of `screening` with the ensemble's verdict on image i."""
    distance = float(scores.distance[i])
    if is_unlike(distance, limits):
        detail = f"distance {beyond(distance, limits.outlier, 2)}, at most {limits.outlier:g}"
        return unscored_columns("unlike_training") | {"distance": distance, "detail": detail}
    probability, sd = float(scores.probability[i]), float(scores.sd[i])
    band, reason = band_of(probability, sd, distance, limits)
    return {
        "status": "scored",
        "prob_malignant": probability,
        "prob_raw": float(scores.raw[i]),
        "sd": sd,
        "band": band,
        "reason": reason,
        "rank_key": rank_key(band, probability),
        "distance": distance,
    }


def screening_cams(
    rows: Sequence[Mapping[str, Any]], layer: str, maps: npt.NDArray[np.float32]
) -> pa.Table:
    """The table `screening_cams` of some images.

    Args:
        rows: n rows of `screening`, all of one batch.
        layer: module whose output the maps are made of.
        maps: raw maps, float32, (n, 2, h, w).
    """
    nobody: dict[str, str | int] = {"study_id": "", "split": 0, "architecture": ""}
    table = cams_table(nobody, [row["image_id"] for row in rows], layer, maps)
    table = table.drop_columns(list(nobody))
    for name in ("date", "batch_id", "model_id"):
        value = pa.repeat(pa.scalar(rows[0][name]), table.num_rows)
        table = table.append_column(name, value)
    return schemas.conform("screening_cams", table)


def extras_table(
    rows: Sequence[Mapping[str, Any]],
    open_rows: Sequence[Mapping[str, Any]],
    scores: BlockScores | None,
    pictures: Mapping[str, bytes],
) -> pa.Table:
    """Embeddings of the scored images, and pictures of those that have one.

    Args:
        rows: of the block.
        open_rows: those among them that the model was shown, in the order of `scores`.
        scores: of these; None: there are none.
        pictures: by image.
    """
    embeddings = {
        row["image_id"]: scores.embeddings[i]
        for i, row in enumerate(open_rows)
        if scores is not None and row["status"] == "scored"
    }
    image_ids = [row["image_id"] for row in rows if row["image_id"] in {**embeddings, **pictures}]
    extras = [
        {
            "image_id": image_id,
            "embedding": embeddings.get(image_id),
            "picture": pictures.get(image_id),
        }
        for image_id in image_ids
    ]
    return pa.Table.from_pylist(extras, schema=EXTRAS)


def picture(
    grey: Grey,
    cam: npt.NDArray[np.float32] | None,
    row: Mapping[str, Any],
    *,
    pad: bool,
) -> bytes:
    """A small JPEG of an image; with a map, beside itself with the map over it.

    Args:
        grey: the image as people may see it, uint8 (H, W).
        cam: raw map of the malignant class, (h, w); None: there is none.
        row: the image's `width`, `height` and `view_box`.
        pad: whether what the model saw stood in the middle of black.
    """
    if cam is None:
        return jpeg_bytes(grey)
    whole = map_over_picture(cam, (grey.shape[1], grey.shape[0]), row, pad=pad)
    return jpeg_bytes(grey, overlay_map(grey, whole))
