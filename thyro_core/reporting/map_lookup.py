"""One image's Grad-CAM map out of a store, with its pixels and its prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import Architecture
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.explain.maps import stored_maps
from thyro_core.imaging.burned_text import without_text
from thyro_core.imaging.view import in_proportion, map_over_view, view_size
from thyro_core.store.store import Store
from thyro_core.study.job import hive_keys, is_finished
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.tables.io import read_table
from thyro_core.types import Float32Array

_ID_DIGITS = 12
_EXAMPLES = 3


@dataclass(frozen=True)
class MapRequest:
    """Which map, of which image."""

    study_id: str
    image: str
    """The image's id, or the beginning of it that no other image shares."""
    target: int
    """Class that the map explains: 0 benign, 1 malignant."""
    architecture: str | None = None
    """Default: the study's first."""
    split: int | None = None
    """Default: the first finished one that tested the image."""


@dataclass(frozen=True)
class ExplainedImage:
    """A test image, a network's prediction for it, and the Grad-CAM map of that."""

    image_id: str
    architecture: str
    split: int
    target: int
    label: int | None
    prob_malignant: float
    grey: npt.NDArray[np.uint8]
    """What the network saw, in no proportions of its own; but text in it is painted over."""
    width: int
    """Width of what the network saw of the image file [pixels]."""
    height: int
    """Height of what the network saw of the image file [pixels]."""
    cam: Float32Array
    """(h, w), the raw map over it, at least 0."""


def explained_image(store: Store, request: MapRequest, scratch: Path) -> ExplainedImage:
    """The requested map, and its image.

    Args:
        store: a store with the study's `splits`, `predictions`, `cams`, `images` and packs.
        request: study, image and class; the rest has defaults.
        scratch: node-local folder for the pack of a remote store.

    Raises:
        InputError: there is no such study, architecture or image, several images begin so, or
            the image was not tested (in that split, or in one that is finished).
    """
    plan = load_plan(store, request.study_id)
    architecture = _study_architecture(plan, request.architecture)
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    image_id = _whole_id(request.image.strip().lower(), images, plan)
    split = _split(store, plan, architecture, image_id, request.split)
    keys = hive_keys(plan.study_id, split, architecture)
    prediction = _rows_of_image(read_table(store, "predictions", **keys), image_id).to_pylist()[0]
    cams = _rows_of_image(read_table(store, "cams", **keys), image_id)
    cams = cams.filter(pc.field("target_class") == request.target)
    if cams.num_rows != 1:
        msg = (
            f"{store.url}: expected one map of image {image_id[:_ID_DIGITS]} in table cams, split "
            f"{split}, {architecture}, found {cams.num_rows}; `thyro verify` says what is damaged"
        )
        raise InputError(msg)
    index = pack_index(images)
    pack = open_pack(store, plan.manifest_id, plan.config.side(architecture), scratch, len(index))
    row = _rows_of_image(images, image_id).to_pylist()[0]
    pad = plan.config.is_padded
    width, height = view_size(row) or pack.shape[1:]
    seen_grey = without_text(np.array(pack[index[image_id]]), row, pad=pad)
    if pad:
        seen_grey = in_proportion(seen_grey, (width, height), pad=pad)
    return ExplainedImage(
        image_id=image_id,
        architecture=architecture,
        split=split,
        target=request.target,
        label=prediction["label"],
        prob_malignant=prediction["prob_malignant"],
        grey=seen_grey,
        width=width,
        height=height,
        cam=map_over_view(stored_maps(cams)[0], (width, height), pad=pad),
    )


def _rows_of_image(table: pa.Table, image_id: str) -> pa.Table:
    return table.filter(pc.field("image_id") == image_id)


def _study_architecture(plan: StudyPlan, name: str | None) -> Architecture:
    for architecture in plan.config.architectures:
        if name in (architecture, None):
            return architecture
    names = ", ".join(plan.config.architectures)
    msg = f"study {plan.study_id}: expected one of its architectures ({names}), found {name}"
    raise InputError(msg)


def _whole_id(prefix: str, images: pa.Table, plan: StudyPlan) -> str:
    """The one included image whose id begins so."""
    image_ids = images.filter(images["included"])["image_id"].to_pylist()
    matches = sorted(image_id for image_id in image_ids if image_id.startswith(prefix))
    if len(matches) == 1:
        return str(matches[0])
    where = f"image {prefix or '(empty)'}: expected the beginning of one image_id of study"
    if matches:
        msg = (
            f"{where} {plan.study_id}, found {len(matches)} that begin so "
            f"({_example_ids(matches)}); give more digits"
        )
    else:
        msg = f"{where} {plan.study_id}, found none; {_nearest_images(prefix, images, image_ids)}"
    raise InputError(msg)


def _nearest_images(prefix: str, images: pa.Table, image_ids: Sequence[str]) -> str:
    """A hint: an excluded image with this prefix, or images with similar ids."""
    rows = images.filter(pc.invert(images["included"])).select(["image_id", "reason"]).to_pylist()
    for row in rows:
        if row["image_id"] is not None and row["image_id"].startswith(prefix):
            return f"the image that begins so is excluded: {row['reason']}"
    # Of several that begin alike, the first in order.
    beginnings = {image_id[: len(prefix)]: image_id for image_id in sorted(image_ids, reverse=True)}
    near = get_close_matches(prefix, beginnings, n=_EXAMPLES)
    if near:
        return f"the nearest: {_example_ids([beginnings[name] for name in near])}"
    return f"there are {len(image_ids)}, from {_example_ids(sorted(image_ids))}"


def _example_ids(image_ids: Sequence[str]) -> str:
    more = ", ..." if len(image_ids) > _EXAMPLES else ""
    return ", ".join(image_id[:_ID_DIGITS] for image_id in image_ids[:_EXAMPLES]) + more


def _split(
    store: Store, plan: StudyPlan, architecture: str, image_id: str, split: int | None
) -> int:
    """The requested split, or the first finished one, in which the image was tested."""
    rows = _rows_of_image(read_table(store, "splits", study_id=plan.study_id), image_id)
    test_splits = sorted(rows.filter(pc.field("role") == "test")["split"].to_pylist())
    names = ", ".join(map(str, test_splits)) or "none"
    image = f"image {image_id[:_ID_DIGITS]}"
    if not test_splits or (split is not None and split not in test_splits):
        what = "a split" if split is None else f"split {split}"
        msg = f"{image}: expected {what} with it in the test part, found splits with it: {names}"
        raise InputError(msg)
    for number in test_splits if split is None else [split]:
        if is_finished(store, plan.study_id, number, architecture):
            return int(number)
    msg = (
        f"{image}: expected a finished split of {architecture} that tested it (of {names}), found "
        "none; start the study's command again"
    )
    raise InputError(msg)
