"""What a model's training set is recognised by: hashes and local features, no pixels.

They are made of the pack that the networks see, so that those of any other image set, made of its
pack of that size, can be compared with them, and no file has to be read again.
"""

from collections.abc import Set
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thyro_core.datasets.packs import map_threads, open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.host import cores
from thyro_core.imaging.alignment import align
from thyro_core.imaging.candidates import candidates
from thyro_core.imaging.local_features import PATTERN, LocalFeatures, local_features, scale_down
from thyro_core.imaging.view import in_proportion, view_size
from thyro_core.registry.bundle import Bundle, read_bundle_file, reference
from thyro_core.registry.unseen import SAME_PICTURE_BITS, image_table
from thyro_core.store.store import Store
from thyro_core.tables.io import from_parquet
from thyro_core.types import Grey

FINGERPRINT_FILE = "fingerprints.parquet"
"""Name of the fingerprints within a bundle."""

LEAST_SHARED = 12
"""Local features that lie over each other in two images which are taken for one picture. Without
pixels there is no correlation to confirm it: of 113 pairs that show one picture on two public sets
110 share as many, of 89 other candidates 9 do, most of one scanner. Those are lost without need."""

_PRINT_COLUMNS = (
    ("image_id", pa.string(), "SHA-256 of the file's bytes, hexadecimal."),
    ("pixel_hash", pa.string(), "SHA-256 of size and grey pixels; null: unknown."),
    ("phash", pa.string(), "Perceptual hash (64 bit DCT), hexadecimal; null: unknown."),
    ("size", pa.list_(pa.int16()), "Width and height that the places are of [pixels]."),
    ("places", pa.list_(pa.int16()), "Local features: x, y and size of each, in sixteenths."),
    ("patterns", pa.list_(pa.int8()), "Local features: the waves that describe each."),
)

FINGERPRINTS = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _PRINT_COLUMNS],
    metadata={"row": "image that took part in the study", "schema_version": "1"},
)
"""Fingerprints of an image set."""


def make_fingerprints(images: pa.Table, pack: Grey, image_ids: Set[str], *, pad: bool) -> pa.Table:
    """The fingerprints of some images of a manifest, by image_id.

    Args:
        images: the manifest's table `images`.
        pack: uint8 (n, side, side), its included images, as `open_pack` gives them.
        image_ids: image_id of those to take; all are included.
        pad: whether the pack's images stand in the middle of black, in their proportions.

    Returns:
        Schema `FINGERPRINTS`.
    """
    index = pack_index(images)
    rows_by_image = {row["image_id"]: row for row in images.to_pylist() if row["included"]}

    def describe(image_id: str) -> dict[str, object]:
        row = rows_by_image[image_id]
        grey = in_proportion(np.asarray(pack[index[image_id]]), view_size(row), pad=pad)
        features = local_features(scale_down(grey))
        return {
            "image_id": image_id,
            "pixel_hash": row["pixel_hash"],
            "phash": row["phash"],
            "size": [features.width, features.height],
            "places": features.places.ravel(),
            "patterns": features.patterns.ravel(),
        }

    rows = map_threads(describe, sorted(image_ids), threads=cores())
    return pa.Table.from_pylist(rows, schema=FINGERPRINTS)


def training_fingerprints(store: Store, bundle: Bundle, scratch: Path) -> pa.Table | None:
    """The fingerprints of a model's training set.

    A bundle of before there were any has them made of its manifest's table and pack.

    Args:
        store: holds the model.
        bundle: the model.
        scratch: node-local folder.

    Returns:
        Schema `FINGERPRINTS`; None: the bundle has none, and its manifest or pack is gone.

    Raises:
        InputError: the file is gone or not the one on the model's card.
    """
    if FINGERPRINT_FILE in bundle.card["files"]:
        return from_parquet(read_bundle_file(store, bundle, FINGERPRINT_FILE)).cast(FINGERPRINTS)
    manifest_id = bundle.card["data"]["manifest_id"]
    images = image_table(store, manifest_id)
    if images is None:
        return None
    try:
        pack = open_pack(store, manifest_id, bundle.side, scratch, len(pack_index(images)))
    except InputError:
        return None
    image_ids = set(reference(store, bundle.model_id)["image_id"].to_pylist())
    return make_fingerprints(images, pack, image_ids, pad=bundle.view.is_padded)


def same_picture_of(images: pa.Table, training: pa.Table) -> dict[str, str]:
    """Images that show what an image of a training set shows, whatever the bytes of their files.

    By the hash of their grey pixels, by perceptual hashes that differ in at most
    `SAME_PICTURE_BITS`, or by local features that lie over each other, so that crops, mirrored and
    turned copies are found too.

    Args:
        images: fingerprints of an image set.
        training: fingerprints of the training set.

    Returns:
        image_id -> that of the training image, the first one by its id.
    """
    matches: dict[str, str] = {}
    own, theirs = images.to_pylist(), sorted(training.to_pylist(), key=lambda row: row["image_id"])
    matches |= _by_hashes(own, theirs)
    for row, other in _by_features(own, theirs):
        matches.setdefault(own[row]["image_id"], theirs[other]["image_id"])
    return matches


def _by_hashes(own: list[dict[str, str]], theirs: list[dict[str, str]]) -> dict[str, str]:
    pixels = {row["pixel_hash"]: row["image_id"] for row in reversed(theirs) if row["pixel_hash"]}
    hash_rows = [row for row in theirs if row["phash"]]
    hashes = np.array([int(row["phash"], 16) for row in hash_rows], dtype=np.uint64)
    matches = {}
    for row in own:
        if row["pixel_hash"] in pixels:
            matches[row["image_id"]] = pixels[row["pixel_hash"]]
        elif row["phash"] and len(hashes):
            distance = np.bitwise_count(hashes ^ np.uint64(int(row["phash"], 16)))
            if distance.min() <= SAME_PICTURE_BITS:
                matches[row["image_id"]] = hash_rows[int(distance.argmin())]["image_id"]
    return matches


def _by_features(
    own: list[dict[str, object]], theirs: list[dict[str, object]]
) -> list[tuple[int, int]]:
    """Places of images and of training images that share enough features."""
    features = [_features(row) for row in (*own, *theirs)]
    pairs = []
    for first, second, symmetry in candidates(features).tolist():
        if first < len(own) <= second:
            alignment = align(features[first], features[second], LEAST_SHARED, symmetry=symmetry)
            if alignment.n_shared >= LEAST_SHARED:
                pairs.append((first, second - len(own)))
    return pairs


def _features(row: dict[str, object]) -> LocalFeatures:
    (width, height) = np.asarray(row["size"]).tolist()
    places: npt.NDArray[np.int16] = np.asarray(row["places"], np.int16).reshape(-1, 3)
    patterns: npt.NDArray[np.int8] = np.asarray(row["patterns"], np.int8).reshape(-1, PATTERN)
    return LocalFeatures(width, height, places, patterns)
