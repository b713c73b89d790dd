"""What a reader of the results must know of an image set, one sentence each."""

from collections import Counter

import pyarrow as pa

from thyro_core.datasets.eligibility import REASONS, Judgement
from thyro_core.errors import amount


def image_notes(table: pa.Table, judgement: Judgement) -> list[str]:
    """What the judgement found that a reader of the results must know."""
    reasons = Counter(table["reason"].drop_null().to_pylist())
    notes = [
        f"{amount(reasons[reason], 'file')} excluded: {reason}"
        for reason in REASONS
        if reasons[reason]
    ]
    near = judgement.near_duplicates
    if near:
        notes.append(
            f"{amount(len(near), 'group')} of near-duplicates, {sum(near)} included images: "
            f"kept together (the same picture: {amount(judgement.copies, 'pair')}, "
            f"similar ones: {judgement.similar})"
        )
    return notes + _copy_notes(table) + _picture_notes(table)


def _copy_notes(table: pa.Table) -> list[str]:
    frame = table.select(["pixel_hash", "patient_id", "included", "reason"]).to_pandas()
    notes = []
    n_shared = int((frame.groupby("pixel_hash")["patient_id"].nunique() > 1).sum())
    if n_shared:
        notes.append(
            f"{amount(n_shared, 'image')} listed under several patients: these are one group"
        )
    excluded_hashes = frame.loc[frame["reason"] == "excluded_by_specialist", "pixel_hash"].dropna()
    n_copies = int(frame.loc[frame["included"], "pixel_hash"].isin(excluded_hashes).sum())
    if n_copies:
        notes.append(
            f"{amount(n_copies, 'included image')} with an exact copy that the specialist excluded"
        )
    return notes


def _picture_notes(table: pa.Table) -> list[str]:
    """What else the pictures that take part show than one view of tissue."""
    included_images = table.filter(table["included"])
    rows = included_images.select(["text_boxes", "views", "view", "burned_in"]).to_pylist()
    with_text = sum(bool(row["text_boxes"]) and not row["burned_in"] for row in rows)
    n_hidden = sum(bool(row["burned_in"]) for row in rows)
    n_parted = sum(row["view"] is not None for row in rows)
    n_dual = sum((row["views"] or 1) > 1 for row in rows) - n_parted
    notes = []
    if n_hidden:
        notes.append(
            f"{amount(n_hidden, 'included image')} of files that say that text is burned in: "
            "nothing of them is shown; the networks see them as they are"
        )
    if n_parted:
        notes.append(
            f"{amount(n_parted, 'included image')}, each a window of a DICOM picture of several, "
            "under that picture's one label: dual_views = exclude leaves them out"
        )
    if with_text:
        notes.append(
            f"lines that look like text were found in {amount(with_text, 'included image')}: those "
            "are painted over where images are shown; text that was not found, of which the number "
            "is not known, is shown; the networks see all of it, and the store's packs hold it"
        )
    if n_dual:
        notes.append(
            f"{amount(n_dual, 'included image')} with what looks like two windows in it, under "
            "one label: dual_views = exclude leaves them out (a screening scores each window). "
            "They are found by the seam or gutter between the windows; a picture of two in which "
            "none is found counts as one view, and how many of those there are is not known"
        )
    return notes
