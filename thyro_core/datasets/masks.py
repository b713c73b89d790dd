"""Nodule masks of a manifest's images, decoded once and packed beside the images' packs.

The pack is a NumPy file of one uint8 array of shape (n, MASK_SIDE, MASK_SIDE), its rows those of
the images' packs: 1 inside a nodule, 0 outside; a row without any 1 is of an image without a mask.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from PIL import Image

from thyro_core.config import IngestConfig
from thyro_core.datasets import packs
from thyro_core.datasets.eligibility import SourceFile
from thyro_core.datasets.nodule_boxes import (
    NO_NODULE,
    NO_STILL,
    box_of_cells,
    box_of_mask,
    joint_box,
)
from thyro_core.errors import StoreError
from thyro_core.imaging import decode as pictures
from thyro_core.imaging.pictures import Picture
from thyro_core.imaging.tissue import Box
from thyro_core.imaging.view import row_box
from thyro_core.store.keys import mask_key
from thyro_core.store.store import Store
from thyro_core.types import BoolArray, Grey

MASK_SIDE = 224
"""Side of the packed masks [pixels], whatever the networks' inputs."""

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between a mask's ratio of width to height and its image's."""

_NAMED_IMAGES = 5

Digests = Mapping[str, str]
"""SHA-256 of each mask by its path below the source."""


def mask_digests(fs: fsspec.AbstractFileSystem, root: str, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the masks that can be read, by their paths below the source."""

    def digest(name: str) -> str | None:
        def read() -> str:
            with fs.open(f"{root}/{name}", "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        try:
            return packs.read_with_retries(read, name)
        except (OSError, StoreError) as error:
            # It raises where the whole store does not answer.
            packs.unread_detail(fs, f"{root}/{name}", error)
            return None

    digests = packs.map_threads(digest, names, threads=packs.threads_for(fs))
    return {name: sha256 for name, sha256 in zip(names, digests, strict=True) if sha256 is not None}


def pack_masks(
    fs: fsspec.AbstractFileSystem,
    root: str,
    masks: Mapping[str, Digests],
    images: pa.Table,
    *,
    store: Store,
    rules: IngestConfig,
) -> tuple[int, list[str]]:
    """Decode and pack the masks of a manifest's included images; without any, nothing is written.

    An image one of whose masks cannot be used gets none: a part of a nodule would count the rest
    as background. Several masks of an image are joined.

    Args:
        fs: the source's file system.
        root: the source on it.
        masks: the masks of each image_id; none: it has no mask.
        images: the `images` table.
        store: where the pack goes.
        rules: bounds within which masks are decoded.

    Returns:
        How many images have a mask, and notes on those whose masks were set aside, by image_id.

    Raises:
        InputError: a mask changed while it was being read.
    """
    columns = ["image_id", "width", "height", "view_box"]
    rows = images.filter(images["included"]).select(columns).to_pylist()
    rows.sort(key=lambda row: row["image_id"])
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    with packs.resized_rows(len(rows), (MASK_SIDE,)) as resized_masks:
        pack_rows = resized_masks[MASK_SIDE]

        def join(place: int) -> str | None:
            row = rows[place]
            for name, sha256 in masks.get(row["image_id"], {}).items():
                data = packs.read_verified(fs, f"{root}/{name}", sha256)
                mask, fault = _decode_masks(data, row, rules)
                if fault is not None:
                    pack_rows[place] = 0
                    return fault
                pack_rows[place] = pack_rows[place] | mask
            return None

        masked_rows = [i for i, row in enumerate(rows) if masks.get(row["image_id"])]
        faults = packs.map_threads(join, masked_rows, threads=packs.threads_for(fs))
        n_masked = faults.count(None)
        if n_masked:
            key = mask_key(manifest_id)
            packs.write_array(store, key, MASK_SIDE, pack_rows, len(rows))
    culprits = [rows[place]["image_id"] for place in masked_rows]
    return n_masked, _mask_notes(dict(zip(culprits, faults, strict=True)))


def _decode_masks(
    data: bytes, row: Mapping[str, Any], rules: IngestConfig
) -> tuple[Grey, str | None]:
    """A mask's square of 0 and 1, seen as its image is, and why it cannot be used."""
    nothing = np.zeros((MASK_SIDE, MASK_SIDE), dtype=np.uint8)
    size = row["width"], row["height"]
    try:
        grey = _decode_mask(data, size, rules)
    except ValueError as error:
        return nothing, str(error)
    box = row_box(row)
    if box is not None:
        across, down = grey.shape[1] / size[0], grey.shape[0] / size[1]
        left, top, right, bottom = (
            round(side * factor) for side, factor in zip(box, (across, down) * 2, strict=True)
        )
        # The peak is the whole mask's: within a box that holds none of it nothing is inside.
        grey = np.where(inside_mask(grey), np.uint8(255), np.uint8(0))
        grey = grey[top : max(top + 1, bottom), left : max(left + 1, right)]
    mask = mask_square(grey, pad=rules.is_padded)
    return (mask, None) if mask.any() else (nothing, "show no nodule")


def _decode_mask(data: bytes, size: tuple[int, int], rules: IngestConfig) -> Grey:
    """A mask as it came, in the proportions of its image.

    Raises:
        ValueError: it cannot be used; its text goes on from "masks that".
    """
    try:
        grey = pictures.decode(data, rules).grey
    except pictures.UndecodableError as error:
        msg = "cannot be decoded"
        raise ValueError(msg) from error
    height, width = grey.shape
    if abs(width * size[1] / (height * size[0]) - 1) > ASPECT_TOLERANCE:
        msg = "have another aspect ratio than the image"
        raise ValueError(msg)
    return grey


def nodule_box(
    fs: fsspec.AbstractFileSystem,
    root: str,
    file: SourceFile,
    picture: Picture,
    rules: IngestConfig,
) -> tuple[Box | None, str | None]:
    """The box of a picture's nodules: that of its table's columns, else that around its masks.

    Args:
        fs: the source's file system.
        root: the source on it.
        file: with its masks and boxes.
        picture: of the file.
        rules: bounds within which masks are decoded.

    Returns:
        The box and None; or None and why it is not known.

    Raises:
        InputError: a mask changed while it was being read.
    """
    grey, cells, names = picture.grey, file.entry.boxes, file.entry.masks
    if not cells and not names:
        return None, NO_NODULE
    if grey is None or not picture.is_whole:
        return None, NO_STILL
    size = grey.shape[1], grey.shape[0]
    try:
        if cells:
            return box_of_cells(cells, size), None
        if file.masks.keys() != set(names):
            return None, "its mask cannot be read"
        boxes = []
        for name in names:
            data = packs.read_verified(fs, f"{root}/{name}", file.masks[name])
            boxes.append(box_of_mask(inside_mask(_decode_mask(data, size, rules)), size))
    except ValueError as error:
        return None, f"its masks {error}" if not cells else str(error)
    return joint_box(boxes), None


def inside_mask(grey: Grey) -> BoolArray:
    """What is inside a mask: all that reaches half of its own peak.

    Masks come as 0 and 255, as 0 and 1, and as JPEG with grey seams.

    Args:
        grey: uint8 (height, width).
    """
    return np.asarray(grey >= max(1, (int(grey.max()) + 1) // 2))


def mask_square(grey: Grey, *, pad: bool = False) -> Grey:
    """A mask as a square of `MASK_SIDE` pixels: 1 where at least half of the area is inside.

    Args:
        grey: uint8 (height, width).
        pad: whether it keeps its proportions, in the middle of what is outside.

    Returns:
        uint8 (MASK_SIDE, MASK_SIDE), 0 or 1.
    """
    whole = (0, 0, MASK_SIDE, MASK_SIDE)
    height, width = grey.shape
    left, top, right, bottom = pictures.content_box(width, height, MASK_SIDE) if pad else whole
    inside = Image.fromarray(inside_mask(grey).astype(np.float32))
    area = inside.resize((right - left, bottom - top), Image.Resampling.BOX)
    square = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    square[top:bottom, left:right] = np.asarray(area) >= 0.5
    return square


def _mask_notes(faults: Mapping[str, str | None]) -> list[str]:
    notes = []
    for fault in sorted({fault for fault in faults.values() if fault is not None}):
        images = sorted(image[:12] for image, image_fault in faults.items() if image_fault == fault)
        more = f" and {len(images) - _NAMED_IMAGES} more" if len(images) > _NAMED_IMAGES else ""
        listing = ", ".join(images[:_NAMED_IMAGES]) + more
        notes.append(f"masks set aside that {fault}: of image {listing}")
    return notes


def open_masks(store: Store, manifest_id: str, scratch: Path, n: int) -> Grey | None:
    """The masks as a read-only memory map, fetched once per node; None: the set has no masks.

    Args:
        store: where the pack lies.
        manifest_id: its manifest.
        scratch: node-local folder for packs of a remote store.
        n: number of included images.

    Returns:
        uint8, shape (n, MASK_SIDE, MASK_SIDE): 0 or 1.

    Raises:
        InputError: the pack is damaged.
    """
    key = mask_key(manifest_id)
    if not store.exists(key):
        return None
    return packs.open_array(store, key, (n, MASK_SIDE, MASK_SIDE), scratch)


def mask_of(mask_pack: Grey | None, row: int) -> BoolArray | None:
    """One image's mask, bool (MASK_SIDE, MASK_SIDE); None: it has none."""
    if mask_pack is None or not mask_pack[row].any():
        return None
    return np.asarray(mask_pack[row] > 0)
