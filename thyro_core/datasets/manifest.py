"""The manifest: an image set as it was found, judged once, under an id made of its contents.

Every file found, and every file listed but missing, is one row of the `images` table and is either
included or excluded with a reason. An image without a label is included too, but studies split and
train on the labelled ones only.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from thyro_core.config import IngestConfig, ViewConfig, canonical_json, content_id, view_of
from thyro_core.datasets import eligibility, packs
from thyro_core.datasets import masks as mask_packs
from thyro_core.datasets.decoded_files import decode_files
from thyro_core.datasets.eligibility import REASONS, Judgement, SourceFile
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
from thyro_core.store.keys import manifest_key, mask_key, table_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

__all__ = ["INGEST_VERSION", "REASONS", "Manifest", "ingest", "load_manifest"]

INGEST_VERSION = 4
"""Raised whenever the same files and rules give another table or other packs. 4: near-duplicates
that are turned by quarters, upside down or transposed are found too."""

_FIRST_NOTES = (
    "an earlier version of Thyro ingested these contents: the notes are those of that day, and "
    "those on file names, labels and other files may no longer hold"
)


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
        view: what its packs show of a picture.
    """

    manifest_id: str
    table: pa.Table
    notes: tuple[str, ...]
    has_patients: bool
    layout: str
    view: ViewConfig = field(default_factory=ViewConfig)


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

    Files are read twice (DICOM objects once more, for their headers), first for their hash, then to
    be decoded, a few at a time: memory does not
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
        placed_files = decode_files(
            fs, root, files, rules=ingest_rules, resized_images=resized_images, progress=progress
        )
        files = [file for file, _ in placed_files]
        judgement = eligibility.judge(files, ingest_rules)
        order = [placed_files[i][1] for i in _pack_order(files, judgement)]
        packs.write_packs(store, manifest_id, resized_images, order)
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
        view=view_of(summary["rules"]),
    )


def _is_done(store: Store, manifest_id: str) -> bool:
    images_key = table_key("images", manifest_id=manifest_id)
    return store.exists(manifest_key(manifest_id)) and store.exists(images_key)


def _manifest_id(files: Sequence[SourceFile], rules: IngestConfig) -> str:
    people = zip(eligibility.pseudonyms(files), eligibility.exams(files), strict=True)
    facts = [
        _facts(file, *ids)
        # The attributes hold the cells of one row alone.
        | ({"boxes": file.entry.boxes} if rules.region == "nodule" and file.entry.boxes else {})
        for file, ids in zip(files, people, strict=True)
    ]
    value = {
        "version": INGEST_VERSION,
        "rules": rules.model_dump(mode="json"),
        "files": sorted(canonical_json(fact) for fact in facts),
    }
    return content_id("m", value)


def _facts(file: SourceFile, patient: str | None, exam: str | None) -> dict[str, object]:
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
        **({"exam": exam} if exam else {}),
    }


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
        "views", "view_box", "view_mean", "view_sd", "view_sharpness",
    )  # fmt: skip
    return {
        "image_id": file.image_id,
        "uri": file.entry.uri,
        "label": file.label,
        "phash": measures and measures.fingerprint.phash,
        "attributes": canonical_json(file.entry.attributes),
        "file_id": file.file_id or file.image_id,
        "frame": file.frame,
        "view": file.view,
        "burned_in": file.burned_in,
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
