"""Checks of bytes against their records: image files, packs, weights and kept models.

Each function returns the faults, one short sentence each.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import IO, TypeVar

import numpy as np
import pyarrow as pa
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from thyro_core.config import IngestConfig, ViewConfig
from thyro_core.datasets.file_pictures import FileReader
from thyro_core.datasets.hidden_paths import is_location
from thyro_core.datasets.masks import MASK_SIDE
from thyro_core.datasets.packs import map_threads, pack_index
from thyro_core.errors import InputError
from thyro_core.imaging.view import row_box, square_view
from thyro_core.store.keys import manifest_key, mask_key, pack_key
from thyro_core.store.store import Store, filesystem
from thyro_core.types import Grey

DECODED_IMAGES = 20
"""Most images whose pack rows are compared with a fresh decode."""

_HEADER = 4096  # bytes; a pack's header takes 128
# An object store without credentials or network raises botocore's own, which are no OSErrors.
_UNREACHABLE_ERRORS = (OSError, InputError, BotoCoreError)

_FileValue = TypeVar("_FileValue")


def changed_images(images: pa.Table) -> tuple[list[str], int]:
    """Files of images that no longer have the recorded SHA-256.

    Args:
        images: an `images` table; rows without image_id (listed but missing) are passed over.

    Returns:
        The faults, and how many files cannot be reached any more, which is no fault.
    """
    table = images.select(["image_id", "file_id", "uri"])
    rows = [row for row in table.to_pylist() if row["image_id"] is not None]
    digests = map_threads(lambda row: _read_file(row["uri"], _sha256_of), rows)
    faults = [
        f"image {row['image_id'][:12]} has other bytes now"
        for row, digest in zip(rows, digests, strict=True)
        if digest not in {None, row["file_id"] or row["image_id"]}
    ]
    return faults, digests.count(None)


def reach_summary(images: pa.Table, unreachable: int) -> str:
    """How many files were compared with an `images` table, and why the rest was not."""
    if not any(map(is_location, images["uri"].to_pylist())):
        return f"{images.num_rows} files, whose paths are not recorded (THYRO_KEEP_NAMES=false)"
    n_unchanged = images.num_rows - images["image_id"].null_count - unreachable
    return f"{n_unchanged} files have the recorded bytes, {unreachable} cannot be reached any more"


def changed_objects(store: Store, hashes: Mapping[str, str | None]) -> list[str]:
    """Objects that are gone or have another SHA-256 than the recorded one, by key."""
    uris = [str(store.fs.unstrip_protocol(store.path(key))) for key in hashes]
    digests = map_threads(lambda uri: _read_file(uri, _sha256_of), uris)
    return [
        f"{key}: expected SHA-256 {str(sha256)[:12]}, found {digest[:12] if digest else 'no file'}"
        for (key, sha256), digest in zip(hashes.items(), digests, strict=True)
        if digest is None or digest != sha256
    ]


def sample_images(images: pa.Table, rules: IngestConfig) -> dict[int, Grey]:
    """A few included images decoded again, where their files are unchanged.

    Args:
        images: an `images` table.
        rules: the rules of its ingest.

    Returns:
        Pack row -> uint8 (height, width), at most `DECODED_IMAGES`, spread evenly over the pack.
    """
    columns = ["image_id", "file_id", "uri"]
    included_rows = images.filter(images["included"]).select(columns).to_pylist()
    rows = sorted(included_rows, key=lambda row: row["image_id"])
    places = np.unique(np.linspace(0, len(rows) - 1, DECODED_IMAGES).round().astype(int)).tolist()

    with closing(FileReader(rules)) as reader:

        def decode_again(place: int) -> Grey | None:
            row = rows[place]
            data = _read_file(row["uri"], lambda file: file.read())
            file_id = row["file_id"] or row["image_id"]
            if data is None or hashlib.sha256(data).hexdigest() != file_id:
                return None
            return reader.grey(data, row["image_id"])

        greys = map_threads(decode_again, places if rows else [])
    return {place: grey for place, grey in zip(places, greys, strict=False) if grey is not None}


def pack_faults(
    store: Store,
    images: pa.Table,
    sides: Sequence[int],
    sample: Mapping[int, Grey],
    *,
    view: ViewConfig,
) -> Iterator[str]:
    """Packs that are absent, not whole, or not of these images.

    Only the header, the size and the sampled rows are read.

    Args:
        store: where the packs lie.
        images: the `images` table of one manifest.
        sides: side lengths [pixels] of the expected packs.
        sample: what `sample_images` returns.
        view: what the study's networks see.
    """
    order = list(pack_index(images))
    boxes = {row["image_id"]: row_box(row) for row in images.to_pylist() if row["included"]}
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    for side in sides:
        key = pack_key(manifest_id, side)
        start, fault = _array_fault(store, key, (len(order), side, side))
        if fault is not None:
            yield fault
            continue
        for row, grey in sample.items():
            first = start + row * side**2
            data = store.fs.cat_file(store.path(key), start=first, end=first + side**2)
            if data != square_view(grey, side, view, boxes[order[row]]).tobytes():
                yield f"{key}: row {row} is not image {order[row][:12]} as it is decoded here"


def mask_faults(store: Store, images: pa.Table) -> list[str]:
    """A pack of masks that is absent though the ingest reports masks, or is not whole.

    Args:
        store: where it lies.
        images: the `images` table of one manifest.
    """
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    summary = manifest_key(manifest_id)
    # Without its summary a manifest fails a check of its own.
    if not store.exists(summary) or not json.loads(store.read(summary)).get("masks"):
        return []
    shape = (len(pack_index(images)), MASK_SIDE, MASK_SIDE)
    _, fault = _array_fault(store, mask_key(manifest_id), shape)
    return [] if fault is None else [fault]


def _array_fault(store: Store, key: str, shape: tuple[int, int, int]) -> tuple[int, str | None]:
    """Where an array's pixels start [bytes], and why it is not whole."""
    if not store.exists(key):
        return 0, f"{key} is not there"
    path = store.path(key)
    start, content = _header(store.fs.cat_file(path, start=0, end=_HEADER))
    expected_size, size = start + math.prod(shape), store.fs.size(path)
    if content == f"uint8 {shape}" and size == expected_size:
        return start, None
    return 0, f"{key}: expected uint8 {shape} in {expected_size} bytes, found {content} in {size}"


def _header(head: bytes) -> tuple[int, str]:
    """Where a pack's pixels start [bytes], and their type and shape."""
    file = io.BytesIO(head)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return 0, "no array"
    return file.tell(), f"{dtype} {shape}"


def _read_file(uri: str | None, use: Callable[[IO[bytes]], _FileValue]) -> _FileValue | None:
    """What `use` returns for a file; None: it cannot be reached."""
    # A pseudonym would be taken for a file of the working folder.
    if uri is None or not is_location(uri):
        return None
    try:
        fs, path = filesystem(uri)
        with fs.open(path, "rb") as file:
            return use(file)
    except _UNREACHABLE_ERRORS:
        return None


def _sha256_of(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
