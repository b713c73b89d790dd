"""What a reader of the results must know of an image set, one sentence each."""

from collections import Counter

import pyarrow as pa

from thyro_core.datasets.eligibility import REASONS, Judgement


def image_notes(table: pa.Table, judgement: Judgement) -> list[str]:
    """What the judgement found that a reader of the results must know."""
    reasons = Counter(table["reason"].drop_null().to_pylist())
    notes = [f"{reasons[reason]} files excluded: {reason}" for reason in REASONS if reasons[reason]]
    near = judgement.near_duplicates
    if near:
        notes.append(
            f"{len(near)} groups of near-duplicates, {sum(near)} images: kept together "
            f"({judgement.copies} pairs show the same picture, {judgement.similar} similar ones)"
        )
    return notes + _copy_notes(table) + _picture_notes(table)


def _copy_notes(table: pa.Table) -> list[str]:
    frame = table.select(["pixel_hash", "patient_id", "included", "reason"]).to_pandas()
    notes = []
    shared = int((frame.groupby("pixel_hash")["patient_id"].nunique() > 1).sum())
    if shared:
        notes.append(f"{shared} images are listed under several patients: these are one group")
    excluded_hashes = frame.loc[frame["reason"] == "excluded_by_specialist", "pixel_hash"].dropna()
    n_copies = int(frame.loc[frame["included"], "pixel_hash"].isin(excluded_hashes).sum())
    if n_copies:
        notes.append(f"{n_copies} included images are exact copies of ones the specialist excluded")
    return notes


def _picture_notes(table: pa.Table) -> list[str]:
    """What else the pictures that take part show than one view of tissue."""
    included = table.filter(table["included"])
    with_text = sum(bool(boxes) for boxes in included["text_boxes"].to_pylist())
    n_dual = sum((views or 1) > 1 for views in included["views"].to_pylist())
    notes = []
    if with_text:
        notes.append(
            f"text is burned into {with_text} included images or more: lines that were found are "
            "painted over where images are shown, and the networks see them"
        )
    if n_dual:
        notes.append(
            f"{n_dual} included images show two windows side by side, under one label: "
            "dual_views = exclude leaves them out (a screening scores each window)"
        )
    return notes
