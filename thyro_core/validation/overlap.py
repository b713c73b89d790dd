"""What of an image set a model was trained on: found by content, and left out by name."""

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

OVERLAP_REASONS: Mapping[str, str] = {
    "same_file": "the very files of images of the model's study",
    "same_picture": "with the picture of an image of that study, or one as like as a copy",
    "same_patient": "of a patient, or a group of near-duplicates, with such an image",
    "unlabelled": "without a label",
}
"""Why images are left out of an evaluation: of an image the first that holds."""

UNCHECKED_NOTE = (
    "copies of training images in other files could not be looked for: the model's bundle has no "
    "fingerprints, as an earlier version of the program promoted it, and its image set is gone; "
    "only the very same files are left out"
)


class Exclusion(NamedTuple):
    """Why an image is left out, and the training image that it shows."""

    reason: str
    """A key of `OVERLAP_REASONS`."""
    training_image: str | None
    """Its image_id; null where it is not the image itself that was trained on."""


def exclusions(
    images: pa.Table, study_images: frozenset[str], same_pictures: Mapping[str, str]
) -> dict[str, Exclusion]:
    """The images that take no part, by image_id.

    Args:
        images: table `images` of the image set; only its included rows count.
        study_images: image_id of all images of the model's study. A member tests some of them and
            did not train on those; the threshold and the calibration were fitted on them all.
        same_pictures: images that show what one of those shows -> that one.
    """
    rows = [row for row in images.to_pylist() if row["included"]]
    left_out: dict[str, Exclusion] = {}
    for row in rows:
        image_id = row["image_id"]
        if image_id in study_images:
            left_out[image_id] = Exclusion("same_file", image_id)
        elif image_id in same_pictures:
            left_out[image_id] = Exclusion("same_picture", same_pictures[image_id])
    links = {
        (name, row[name])
        for row in rows
        if row["image_id"] in left_out
        for name in ("patient_id", "group_id")
        if row[name] is not None
    }
    for row in rows:
        own = {(name, row[name]) for name in ("patient_id", "group_id")}
        if row["image_id"] not in left_out and own & links:
            left_out[row["image_id"]] = Exclusion("same_patient", None)
        elif row["image_id"] not in left_out and row["label"] is None:
            left_out[row["image_id"]] = Exclusion("unlabelled", None)
    return left_out
