"""From a block of images to a finished chunk in the store: scores, bands, maps, small pictures.

Runs in a worker, without Ray. The chunk's rows are written last: they are there, so the block is
done.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from thyro_core.explain.maps import cams_table
from thyro_core.explain.overlay import overlay_map
from thyro_core.imaging.burned_text import boxes_of, paint_over
from thyro_core.screening.decode import DecodedBlock, ScreeningJob, pixels_of
from thyro_core.screening.model import BlockScores, ScreeningModel
from thyro_core.screening.rules import (
    BandLimits,
    Counts,
    ScreeningRow,
    band_of,
    is_unlike,
    rank_key,
    unscored,
)
from thyro_core.screening.store import EXTRAS, write_chunk
from thyro_core.store.store import open_store
from thyro_core.tables import schemas
from thyro_core.types import Grey

PICTURE_SIDE = 192
"""Longer side of a picture in the worklist [pixels]."""

_JPEG_QUALITY = 80


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
        rows = block.table.drop_columns(["pixels"]).to_pylist()
        texts = {row["image_id"]: row.pop("text") or [] for row in rows}
        open_rows = [row for row in rows if row["status"] is None]
        scores = self._model.score(pixels) if len(pixels) else None
        if scores is not None:
            for i, row in enumerate(open_rows):
                note = row["detail"]
                row.update(verdict(scores, i, self._limits))
                row["detail"] = "; ".join(filter(None, {row["detail"]: 0, note: 0})) or None
        positions = [i for i, row in enumerate(open_rows) if row["band"] == "refer"]
        maps = self._model.maps(scores, positions) if scores and positions else None
        # A network is shown what is there; people are not shown what may be a name.
        displays = [
            paint_over(pixels[i], boxes_of(texts[row["image_id"]]), (row["width"], row["height"]))
            for i, row in enumerate(open_rows)
        ]
        self._write(rows, open_rows, scores, positions=positions, displays=displays, maps=maps)
        scored = sum(row["status"] == "scored" for row in rows)
        return block.counts + Counts(scored=scored)

    def _write(
        self,
        rows: list[ScreeningRow],
        open_rows: list[ScreeningRow],
        scores: BlockScores | None,
        *,
        positions: list[int],
        displays: Sequence[Grey],
        maps: npt.NDArray[np.float32] | None,
    ) -> None:
        night = self._job.night
        ids = "".join(f"{row['image_id']}{row['path_id']}" for row in rows)
        name = hashlib.sha256(ids.encode()).hexdigest()[:32]
        pictures = {}
        if maps is not None:
            refer_rows = [open_rows[i] for i in positions]
            cams = screening_cams(refer_rows, self._model.layer, maps)
            write_chunk(self._store, night, "cams", name, cams)
            pictures = {
                row["image_id"]: picture(displays[i], maps[k, 1], row)
                for k, (i, row) in enumerate(zip(positions, refer_rows, strict=True))
                if not row["burned_in"]
            }
        if scores is not None:
            extras = extras_table(open_rows, scores, pictures)
            write_chunk(self._store, night, "extras", name, extras)
        write_chunk(self._store, night, "rows", name, schemas.rows_to_table("screening", rows))


def verdict(scores: BlockScores, i: int, limits: BandLimits) -> ScreeningRow:
    """Columns of `screening` with the ensemble's verdict on image i."""
    distance = float(scores.distance[i])
    if is_unlike(distance, limits):
        detail = f"distance {distance:.4g}, expected at most {limits.outlier:.4g}"
        return unscored("unlike_training") | {"distance": distance, "detail": detail}
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
    rows: Sequence[Mapping[str, Any]], scores: BlockScores, pictures: Mapping[str, bytes]
) -> pa.Table:
    """Embeddings of the scored images, and pictures of those that have one."""
    extras = [
        {
            "image_id": row["image_id"],
            "embedding": scores.embeddings[i],
            "picture": pictures.get(row["image_id"]),
        }
        for i, row in enumerate(rows)
        if row["status"] == "scored"
    ]
    return pa.Table.from_pylist(extras, schema=EXTRAS)


def picture(grey: npt.NDArray[np.uint8], cam: npt.NDArray[np.float32], row: ScreeningRow) -> bytes:
    """A small JPEG of an image beside itself with the malignant class's map, in its own shape.

    Args:
        grey: the network's input without text that is found in it, uint8 (side, side).
        cam: raw map of the malignant class, (h, w).
        row: its row, for the shape.
    """
    longer = max(row["width"], row["height"])
    size = (
        max(1, round(PICTURE_SIDE * row["width"] / longer)),
        max(1, round(PICTURE_SIDE * row["height"] / longer)),
    )
    plain = np.repeat(grey[:, :, None], 3, axis=2)
    halves = [Image.fromarray(half).resize(size) for half in (plain, overlay_map(grey, cam))]
    both = Image.new("RGB", (2 * size[0], size[1]))
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (size[0], 0))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
