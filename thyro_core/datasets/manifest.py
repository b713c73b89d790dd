"""The manifest: an image set as it was found, judged once, under an id made of its contents.

Every file found, and every file listed but missing, is one row of the `images` table and is either
included or excluded with a reason. An image without a label is included too, but studies split and
train on the labelled ones only.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import fsspec
import numpy as np
import pyarrow as pa

from thyro_core.config import IngestConfig, canonical_json, content_id
from thyro_core.datasets import eligibility, packs
from thyro_core.datasets import masks as mask_packs
from thyro_core.datasets.eligibility import REASONS, Judgement, Measures, SourceFile
from thyro_core.datasets.hidden_paths import (
    HIDDEN_NOTE,
    HidePath,
    hide_paths,
    with_hidden_paths,
)
from thyro_core.datasets.image_notes import image_notes
from thyro_core.datasets.joined_sources import Sources, read_sources, source_filesystem
from thyro_core.datasets.layouts import ImageSet
from thyro_core.datasets.path_names import path_notes
from thyro_core.datasets.source_files import (
    hashed_files,
    masks_by_image,
    unread_notes,
    with_masks,
)
from thyro_core.errors import InputError
from thyro_core.imaging import decode as images
from thyro_core.imaging import quality
from thyro_core.imaging.burned_text import text_boxes
from thyro_core.imaging.dual_view import split_views
from thyro_core.imaging.near_duplicates import fingerprints
from thyro_core.store.keys import manifest_key, mask_key, table_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.types import Grey

__all__ = ["INGEST_VERSION", "REASONS", "Manifest", "ingest", "load_manifest"]

INGEST_VERSION = 4
"""Raised whenever the same files and rules give another table or other packs. 4: near-duplicates
that are turned by quarters, upside down or transposed are found too."""

_FIRST_NOTES = (
    "an earlier version of Thyro ingested these contents: the notes are those of that day, and "
    "those on file names, labels and other files may no longer hold"
)

_PIXELS_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Manifest:
    """An ingested image set.

    Attributes:
        manifest_id: hash of contents, labels, masks, who shares a patient, and the rules. Order
            and place of the files, their dates, their names and the patient ids given do not
            count; a missing file, which has nothing else, counts by its name.
        table: the `images` table, by image_id (missing files last), then uri.
        notes: what the user must know, one sentence each; `ingest` returns those of its own run,
            `load_manifest` those of the first one.
        has_patients: whether patient ids were given.
        layout: how the image set was laid out.
    """

    manifest_id: str
    table: pa.Table
    notes: tuple[str, ...]
    has_patients: bool
    layout: str


def ingest(
    source: str | Sources,
    rules: IngestConfig,
    store: Store,
    sides: Sequence[int] = (224, 299),
    progress: packs.Progress | None = None,
    *,
    hide_path: HidePath | None = None,
) -> Manifest:
    """Read, judge and pack an image set; what is already in the store is not decoded again.

    Files are read twice, first for their hash, then to be decoded, a few at a time: memory does not
    grow with the set but for about 20 KB an image. The resized images wait in the temporary folder.

    Args:
        source: fsspec URL of the image set, or several sets.
        rules: the declared rules.
        store: where packs, masks, table and summary go, in this order: the summary means done.
        sides: side lengths of the packs to make [pixels].
        progress: called after each file decoded, with the number done and the number of all.
        hide_path: what the table says instead of a file's URL, and for good: an earlier ingest's
            URLs are replaced too. None: the URL, unless an earlier ingest has hidden it.

    Returns:
        The manifest. If these contents were ingested before, from wherever, it is that one.

    Raises:
        InputError: the image set cannot be read as a whole, or changes while it is being read.
    """
    ingest_rules = IngestConfig(
        **{name: getattr(rules, name) for name in IngestConfig.model_fields}
    )
    sources = Sources((source,)) if isinstance(source, str) else source
    image_set = read_sources(sources, ingest_rules, name_files=hide_path is None)
    fs, root = source_filesystem(sources)
    files = with_masks(fs, root, hashed_files(fs, root, image_set.entries))
    manifest_id = _manifest_id(files, ingest_rules)
    if _is_done(store, manifest_id):
        if hide_path is not None:
            hide_paths(store, manifest_id, hide_path)
        manifest = _present_notes(store, load_manifest(store, manifest_id), image_set, files)
        uris = {file.image_id: file.entry.uri for file in files if file.image_id is not None}
        packs.ensure_packs(store, manifest.table, ingest_rules, sides, uris)
        if not store.exists(mask_key(manifest_id)):
            mask_packs.pack_masks(
                fs, root, masks_by_image(files), manifest.table, store=store, rules=ingest_rules
            )
        return manifest
    with packs.resized_rows(len(files), sides) as resized_images:

        def decode(places: Sequence[int]) -> list[SourceFile]:
            return _decode_files(
                fs, root, {place: files[place] for place in places}, ingest_rules, resized_images
            )

        places = range(len(files))
        files = packs.map_batches(decode, places, progress, packs.threads_for(fs))
        judgement = eligibility.judge(files, ingest_rules)
        packs.write_packs(store, manifest_id, resized_images, _pack_order(files, judgement))
    table = _table(manifest_id, files, judgement)
    paths = path_notes(entry.name for entry in image_set.entries)
    if hide_path is not None:
        table, paths = with_hidden_paths(table, hide_path), [HIDDEN_NOTE]
    masks, unusable = mask_packs.pack_masks(
        fs, root, masks_by_image(files), table, store=store, rules=ingest_rules
    )
    state_notes = image_notes(table, judgement)
    of_contents = [*state_notes, *unusable]
    unread = unread_notes(files, name_files=hide_path is None)
    notes = (*image_set.notes, *paths, *unread, *of_contents)
    write_table(store, "images", table, manifest_id=manifest_id)
    summary = _summary(table, image_set, notes, ingest_rules) | {
        "sides": list(sides),
        "masks": masks,
        "content_notes": of_contents,
        "near_duplicates": {"same_picture": judgement.copies, "similar": judgement.similar},
    }
    store.write(manifest_key(manifest_id), canonical_json(summary).encode())
    return load_manifest(store, manifest_id)


def _present_notes(
    store: Store, manifest: Manifest, image_set: ImageSet, files: Sequence[SourceFile]
) -> Manifest:
    """A manifest that was ingested before, with the notes of this run.

    Of these the id tells nothing: names, other files, how labels were written, dropped columns.
    What is noted of the contents themselves, as the id's rules judge them, is still true.
    """
    of_contents = json.loads(store.read(manifest_key(manifest.manifest_id))).get("content_notes")
    if of_contents is None:
        return replace(manifest, notes=(_FIRST_NOTES, *manifest.notes))
    is_hidden = HIDDEN_NOTE in manifest.notes
    paths = [HIDDEN_NOTE] if is_hidden else path_notes(entry.name for entry in image_set.entries)
    notes = (*image_set.notes, *paths, *unread_notes(files, name_files=not is_hidden), *of_contents)
    return replace(manifest, notes=notes, layout=image_set.layout)


def load_manifest(store: Store, manifest_id: str) -> Manifest:
    """A manifest that was ingested before.

    Raises:
        InputError: the store does not have it.
    """
    if not _is_done(store, manifest_id):
        msg = f"{store.url}: expected manifest {manifest_id}, found none; ingest its image set"
        raise InputError(msg)
    summary = json.loads(store.read(manifest_key(manifest_id)))
    return Manifest(
        manifest_id=manifest_id,
        table=read_table(store, "images", manifest_id=manifest_id),
        notes=tuple(summary["notes"]),
        has_patients=summary["has_patients"],
        layout=summary["layout"],
    )


def _is_done(store: Store, manifest_id: str) -> bool:
    images_key = table_key("images", manifest_id=manifest_id)
    return store.exists(manifest_key(manifest_id)) and store.exists(images_key)


def _manifest_id(files: Sequence[SourceFile], rules: IngestConfig) -> str:
    patients = eligibility.pseudonyms(files)
    facts = [_facts(file, patient) for file, patient in zip(files, patients, strict=True)]
    value = {
        "version": INGEST_VERSION,
        "rules": rules.model_dump(mode="json"),
        "files": sorted(canonical_json(fact) for fact in facts),
    }
    return content_id("m", value)


def _facts(file: SourceFile, patient: str | None) -> dict[str, object]:
    """All that counts of a file; its name only if there is nothing else."""
    entry = file.entry
    # A mask is named by its path, and paths do not count.
    attributes = {key: text for key, text in entry.attributes.items() if key.lower() != "mask"}
    name = None if file.image_id else hashlib.sha256(entry.name.encode()).hexdigest()
    return {
        "image_id": file.image_id,
        "name": name,
        "present": entry.present,
        "listed": entry.is_listed,
        "conflict": entry.conflict,
        "excluded": entry.exclusion_reason,
        "label": file.label,
        "patient": patient,
        "attributes": attributes,
        # Sets without masks keep the ids that they had before masks were read.
        **({"masks": sorted(file.masks.values())} if file.masks else {}),
    }


def _decode_files(
    fs: fsspec.AbstractFileSystem,
    root: str,
    files: Mapping[int, SourceFile],
    rules: IngestConfig,
    resized_images: Mapping[int, packs.ImageRows],
) -> list[SourceFile]:
    """Files with their measures, by their places in `resized`, which are filled on the way."""
    files_by_place, images_by_place = dict(files), dict[int, images.DecodedImage]()
    for place, file in files.items():
        files_by_place[place], picture = _picture(fs, root, file, rules)
        if picture is not None:
            images_by_place[place] = picture
        if sum(image.grey.size for image in images_by_place.values()) > _PIXELS_AT_ONCE:
            files_by_place |= _measure(files_by_place, images_by_place, resized_images)
            images_by_place.clear()
    return list(
        (files_by_place | _measure(files_by_place, images_by_place, resized_images)).values()
    )


def _picture(
    fs: fsspec.AbstractFileSystem, root: str, file: SourceFile, rules: IngestConfig
) -> tuple[SourceFile, images.DecodedImage | None]:
    """A file and its picture, if it is listed; or with what is wrong with it."""
    entry = file.entry
    if file.image_id is None or not entry.is_listed:
        return file, None
    if entry.size is not None and entry.size > rules.max_bytes:
        failure = f"{entry.size} bytes; at most {rules.max_bytes} are read"
        return replace(file, failure=failure), None
    data = packs.read_verified(fs, f"{root}/{entry.name}", file.image_id)
    try:
        return file, images.decode(data, rules)
    except images.UndecodableError as error:
        return replace(file, failure=error.detail), None


def _measure(
    files: Mapping[int, SourceFile],
    pictures: Mapping[int, images.DecodedImage],
    resized_images: Mapping[int, packs.ImageRows],
) -> dict[int, SourceFile]:
    greys = {place: picture.grey for place, picture in pictures.items()}
    for side, rows in resized_images.items():
        for place, grey in greys.items():
            rows[place] = images.resize(grey, side)
    sharpness = [quality.sharpness(grey) for grey in greys.values()]
    prints = fingerprints(list(greys.values()))
    files_by_place = {}
    for (place, grey), focus, fingerprint in zip(greys.items(), sharpness, prints, strict=True):
        mean, sd = quality.grey_statistics(grey)
        measures = Measures(
            width=grey.shape[1],
            height=grey.shape[0],
            pixel_hash=_pixel_hash(grey),
            sharpness=focus,
            overlay_share=pictures[place].overlay_share,
            mean=mean,
            sd=sd,
            fingerprint=fingerprint,
            text_boxes=tuple(side for box in text_boxes(grey) for side in box),
            views=max(1, len(split_views(grey))),
        )
        files_by_place[place] = replace(files[place], measures=measures)
    return files_by_place


def _pixel_hash(grey: Grey) -> str:
    pixel_hash = hashlib.sha256(f"{grey.shape[1]}x{grey.shape[0]}/".encode())
    pixel_hash.update(np.ascontiguousarray(grey).data)
    return pixel_hash.hexdigest()


def _pack_order(files: Sequence[SourceFile], judgement: Judgement) -> list[int]:
    """Positions of the included images, by ascending image_id."""
    included_places = [i for i, fault in enumerate(judgement.faults) if fault is None]
    return sorted(included_places, key=lambda i: files[i].image_id or "")


def _table(manifest_id: str, files: Sequence[SourceFile], judgement: Judgement) -> pa.Table:
    rows = [
        {"manifest_id": manifest_id, "patient_id": patient, "group_id": group}
        | _source_columns(file)
        | {"included": fault is None}
        | dict(zip(("reason", "detail"), fault or (None, None), strict=True))
        for file, fault, patient, group in zip(
            files, judgement.faults, judgement.patient_ids, judgement.group_ids, strict=True
        )
    ]
    rows.sort(key=lambda row: (row["image_id"] is None, row["image_id"], row["uri"]))
    return schemas.rows_to_table("images", rows)


def _source_columns(file: SourceFile) -> dict[str, object]:
    measures = file.measures
    names = (
        "width", "height", "pixel_hash", "sharpness", "overlay_share", "mean", "sd", "text_boxes",
        "views",
    )  # fmt: skip
    return {
        "image_id": file.image_id,
        "uri": file.entry.uri,
        "label": file.label,
        "phash": measures and measures.fingerprint.phash,
        "attributes": canonical_json(file.entry.attributes),
    } | {name: measures and getattr(measures, name) for name in names}


def _summary(
    table: pa.Table, image_set: ImageSet, notes: Sequence[str], rules: IngestConfig
) -> dict[str, object]:
    rows = table.select(["label", "included", "reason"]).to_pylist()
    labels = Counter(row["label"] for row in rows if row["included"])
    return {
        "manifest_id": table["manifest_id"][0].as_py(),
        "layout": image_set.layout,
        "has_patients": image_set.has_patients,
        "notes": list(notes),
        "images": len(rows),
        "included": {"benign": labels[0], "malignant": labels[1], "unlabelled": labels[None]},
        "excluded": dict(Counter(row["reason"] for row in rows if not row["included"])),
        "rules": rules.model_dump(mode="json"),
    }
