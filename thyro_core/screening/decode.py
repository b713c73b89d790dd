"""From a block of files to a block of images: read, hash, skip known files, decode, check.

Runs in a worker, without Ray and without torch.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import ViewConfig
from thyro_core.imaging.view import seen_square
from thyro_core.pseudonyms import exam_key, path_hash
from thyro_core.screening.aside import ASIDE
from thyro_core.screening.contents import read_contents
from thyro_core.screening.file_images import FileImages
from thyro_core.screening.files import FoundFile
from thyro_core.screening.known_files import (
    KnownFiles,
    KnownPictures,
    Original,
    digits_of,
    is_other_patient,
)
from thyro_core.screening.pictures import picture_size
from thyro_core.screening.reader import IMAGE_REASONS, ScreeningImage, reading_id
from thyro_core.screening.rules import (
    OTHER_PATIENT,
    TURNED_NOTE,
    Counts,
    Night,
    ScreeningRow,
    rank_key,
    unscored_columns,
)
from thyro_core.settings import Settings
from thyro_core.store.keys import path_salt_key
from thyro_core.store.listing import printable_name
from thyro_core.store.store import filesystem, open_store
from thyro_core.tables import schemas


@dataclass(frozen=True)
class ScreeningJob:
    """A worker's job: keys and small settings, never arrays."""

    store: str
    source: str
    """Address of the batch as it was given, to read from."""
    night: Night
    side: int
    """Side of the network's input [pixels]."""
    known_key: str
    """Key of the files to pass over, see `KnownFiles`."""
    pictures_key: str
    """Key of the pictures that have a row, see `KnownPictures`."""
    scratch: str
    view: ViewConfig = field(default_factory=ViewConfig)
    """What the model learned to see of a picture."""
    keep_names: bool = False
    threads: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class DecodedBlock:
    """A block of images, as a worker passes it on."""

    table: pa.Table
    """Schema `block_schema()`: an image a row; `pixels` is null for what is not to be scored."""
    counts: Counts


def block_schema() -> pa.Schema:
    """`screening`'s columns, the pixels, uint8 (side, side) row by row, and what people see of it.

    That is the picture, uint8 of `picture_size` row by row, and the boxes around text.
    """
    schema = schemas.TABLES["screening"].schema.remove_metadata()
    for name, kind in (("pixels", pa.binary()), ("display", pa.binary())):
        schema = schema.append(pa.field(name, kind))
    return schema.append(pa.field("text", pa.list_(pa.int32())))


class BlockDecoder:
    """Decodes blocks of a batch's files; keeps its decoder process between them."""

    def __init__(self, job: ScreeningJob) -> None:
        self._job = job
        self._fs, self._root = filesystem(job.source)
        store, scratch = open_store(job.store), Path(job.scratch)
        self._known = KnownFiles(store, job.known_key, scratch)
        self._pictures = KnownPictures(store, job.pictures_key, scratch)
        self._salt = store.read(path_salt_key())
        self._reading_id = reading_id(job.night.rules)
        self._images = FileImages(job.night.rules, Settings().pseudonym_key)

    def __call__(self, files: Iterable[FoundFile]) -> DecodedBlock:
        """The images of a block of files that are not known yet."""
        counts, rows = Counts(), []
        originals: dict[str, Original] = {}
        """Of pictures that this block has."""
        for file in files:
            if file.fault in ASIDE:
                counts += Counts(**{str(file.fault): 1})
                continue
            contents = read_contents(self._fs, self._root, file, self._job.night.rules.max_bytes)
            if contents is None:
                counts += Counts(files=1, late=1)
                continue
            path_id = path_hash(self._salt, f"{self._job.night.batch}/{file.name}")
            if contents.file_id is not None and self._known.has(path_id, contents.file_id):
                counts += Counts(files=1, known=1)
                continue
            images = self._images.read(contents, path_id)
            counts += Counts(files=1, fresh=1, images=len(images))
            for image in images:
                row = self._row(file, contents.file_id, path_id, image)
                rows.append(self._as_copy(row, originals) or row)
        return DecodedBlock(pa.Table.from_pylist(rows, schema=block_schema()), counts)

    def close(self) -> None:
        """End the decoder process."""
        self._images.close()

    def _row(
        self, file: FoundFile, file_id: str | None, path_id: str, image: ScreeningImage
    ) -> ScreeningRow:
        night = self._job.night
        # Not asdict: it would copy the pixels.
        row = {
            each.name: getattr(image, each.name)
            for each in fields(image)
            if each.name not in {"grey", "sd", "display"}
        }
        row |= {
            "date": night.number,
            "batch_id": night.batch_id,
            "batch": night.batch,
            "file_id": file_id,
            "path_id": path_id,
            "name": printable_name(file.name) if self._job.keep_names else None,
            "model_id": night.model_id,
            "reading_id": self._reading_id,
            "grey_sd": image.sd,
            "text_lines": None if image.text is None else len(image.text) // 4,
            "exam_id": exam_key(image.exam_id, self._salt, f"{night.batch}/{file.name}"),
            "pixels": None,
            "display": None if image.display is None else image.display.tobytes(),
        }
        if image.grey is None:
            return row | unscored_columns(image.reason or "undecodable")
        square, box = seen_square(image.grey, self._job.side, self._job.view)
        return row | {"pixels": square.tobytes(), "view_box": box}

    def _as_copy(self, row: ScreeningRow, originals: dict[str, Original]) -> ScreeningRow | None:
        """The row as that of a copy, where its picture has a row already; else it is the first.

        Which of two rows of one night's batch is the original is decided where all are put
        together, see `screening.store.gather`; there, too, whether a picture is another one turned
        or mirrored, as the score depends on which of the two stands.
        """
        picture = row["picture_id"]
        if picture is None:
            return None
        here = originals.get(picture)
        original = here or self._pictures.original(picture, row["pattern_id"])
        # Of one picture in colour and in grey, only one may be refused: that is no answer to both.
        is_fit_alone = row["reason"] is None and original and original.reason in IMAGE_REASONS
        if original is None or is_fit_alone:
            patient = row["patient_id"]
            originals[picture] = Original(
                row["image_id"], row["date"], row["reason"], None, patient and digits_of(patient)
            )
            return None
        notes = [
            row["detail"],
            None if here else f"of the night {original.night}, in the band {original.band}",
            TURNED_NOTE if original.is_turned else None,
            OTHER_PATIENT if is_other_patient(row["patient_id"], original) else None,
        ]
        return row | {
            "image_id": copy_id(row["image_id"], row["path_id"]),
            "status": "copy",
            "copy_of": original.image_id,
            "reason": original.reason,
            "detail": "; ".join(filter(None, notes)) or None,
            "band": "copy",
            "rank_key": rank_key("copy", None),
            "pixels": None,
            "display": None,
        }


def copy_id(image_id: str, path_id: str) -> str:
    """The id of a copy's row: the same bytes at another path have the same hash."""
    return hashlib.sha256(f"{image_id}/copy {path_id}".encode()).hexdigest()


def pixels_of(table: pa.Table, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels of a block's images that are to be scored: uint8 (n, side, side)."""
    rows = table.filter(pc.is_valid(table["pixels"]))["pixels"].to_pylist()
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), side, side)


def displays_of(table: pa.Table) -> dict[str, npt.NDArray[np.uint8]]:
    """Pictures of a block's images that people may see: uint8 (h, w), by image."""
    rows = table.filter(pc.is_valid(table["display"])).select(
        ["image_id", "width", "height", "display"]
    )
    return {
        row["image_id"]: np.frombuffer(row["display"], np.uint8).reshape(
            picture_size(row["width"], row["height"])[::-1]
        )
        for row in rows.to_pylist()
    }


def to_bytes(table: pa.Table) -> bytes:
    """A table as one Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """The table in one Arrow stream."""
    return pa.ipc.open_stream(data).read_all()


def names_table(files: Sequence[FoundFile]) -> pa.Table:
    """The files of a block as a table; names as bytes, because they need not be text."""
    columns = {
        "name": [os.fsencode(file.name) for file in files],
        "size": [file.size for file in files],
        "fault": pa.array([file.fault for file in files], pa.string()),
    }
    return pa.table(columns)


def names_of(data: bytes) -> Iterator[FoundFile]:
    """The files of a block that `to_bytes` packed, from `names_table`."""
    for row in from_bytes(data).to_pylist():
        yield FoundFile(os.fsdecode(row["name"]), row["size"], row["fault"])
