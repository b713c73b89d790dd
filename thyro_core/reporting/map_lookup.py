"""One image's Grad-CAM map out of a store, with its pixels and what was predicted for it."""

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
from thyro_core.store.store import Store
from thyro_core.study.job import hive_keys, is_finished
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.tables.io import read_table
from thyro_core.types import Float32Array

_SHORT = 12
_NAMED = 3


@dataclass(frozen=True)
class Wanted:
    """Which map is asked for."""

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
    """A test image, what a network said of it, and what that rests on."""

    image_id: str
    architecture: str
    split: int
    target: int
    label: int | None
    prob_malignant: float
    grey: npt.NDArray[np.uint8]
    """(side, side), as the network saw it: squashed to a square."""
    width: int
    """Width of the image file [pixels]."""
    height: int
    """Height of the image file [pixels]."""
    cam: Float32Array
    """(h, w), the raw map, at least 0."""


def explained_image(store: Store, wanted: Wanted, scratch: Path) -> ExplainedImage:
    """The map that is asked for, and its image.

    Args:
        store: a store with the study's `splits`, `predictions`, `cams`, `images` and packs.
        wanted: study, image and class; the rest has defaults.
        scratch: node-local folder for the pack of a remote store.

    Raises:
        InputError: there is no such study, architecture or image, several images begin so, or
            the image was not tested (in that split, or in one that is finished).
    """
    plan = load_plan(store, wanted.study_id)
    architecture = _architecture(plan, wanted.architecture)
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    image_id = _whole_id(wanted.image.strip().lower(), images, plan)
    split = _split(store, plan, architecture, image_id, wanted.split)
    keys = hive_keys(plan.study_id, split, architecture)
    prediction = _of_image(read_table(store, "predictions", **keys), image_id).to_pylist()[0]
    cams = _of_image(read_table(store, "cams", **keys), image_id)
    cams = cams.filter(pc.field("target_class") == wanted.target)
    if cams.num_rows != 1:
        msg = (
            f"{store.url}: expected one map of image {image_id[:_SHORT]} in table cams, split "
            f"{split}, {architecture}, found {cams.num_rows}; `thyro verify` says what is damaged"
        )
        raise InputError(msg)
    index = pack_index(images)
    pack = open_pack(store, plan.manifest_id, plan.config.side(architecture), scratch, len(index))
    row = _of_image(images, image_id).to_pylist()[0]
    return ExplainedImage(
        image_id=image_id,
        architecture=architecture,
        split=split,
        target=wanted.target,
        label=prediction["label"],
        prob_malignant=prediction["prob_malignant"],
        grey=np.array(pack[index[image_id]]),
        width=row["width"],
        height=row["height"],
        cam=stored_maps(cams)[0],
    )


def _of_image(table: pa.Table, image_id: str) -> pa.Table:
    return table.filter(pc.field("image_id") == image_id)


def _architecture(plan: StudyPlan, name: str | None) -> Architecture:
    for known in plan.config.architectures:
        if name in (known, None):
            return known
    known_names = ", ".join(plan.config.architectures)
    msg = f"study {plan.study_id}: expected one of its architectures ({known_names}), found {name}"
    raise InputError(msg)


def _whole_id(prefix: str, images: pa.Table, plan: StudyPlan) -> str:
    """The one included image whose id begins so."""
    included = images.filter(images["included"])["image_id"].to_pylist()
    found = sorted(image_id for image_id in included if image_id.startswith(prefix))
    if len(found) == 1:
        return str(found[0])
    where = f"image {prefix or '(empty)'}: expected the beginning of one image_id of study"
    if found:
        msg = (
            f"{where} {plan.study_id}, found {len(found)} that begin so ({_some(found)}); "
            "give more digits"
        )
    else:
        msg = f"{where} {plan.study_id}, found none; {_hint(prefix, images, included)}"
    raise InputError(msg)


def _hint(prefix: str, images: pa.Table, included: Sequence[str]) -> str:
    """What may have been meant: an image left out of the study, or one with a similar id."""
    rows = images.filter(pc.invert(images["included"])).select(["image_id", "reason"]).to_pylist()
    for row in rows:
        if row["image_id"] is not None and row["image_id"].startswith(prefix):
            return f"the image that begins so is excluded: {row['reason']}"
    # Of several that begin alike, the first in order.
    beginnings = {image_id[: len(prefix)]: image_id for image_id in sorted(included, reverse=True)}
    near = get_close_matches(prefix, beginnings, n=_NAMED)
    if near:
        return f"the nearest: {_some([beginnings[name] for name in near])}"
    return f"there are {len(included)}, from {_some(sorted(included))}"


def _some(image_ids: Sequence[str]) -> str:
    more = ", ..." if len(image_ids) > _NAMED else ""
    return ", ".join(image_id[:_SHORT] for image_id in image_ids[:_NAMED]) + more


def _split(
    store: Store, plan: StudyPlan, architecture: str, image_id: str, wanted: int | None
) -> int:
    """The split asked for, or the first finished one, if the image was tested in it."""
    rows = _of_image(read_table(store, "splits", study_id=plan.study_id), image_id)
    tested = sorted(rows.filter(pc.field("role") == "test")["split"].to_pylist())
    named = ", ".join(map(str, tested)) or "none"
    image = f"image {image_id[:_SHORT]}"
    if not tested or (wanted is not None and wanted not in tested):
        asked = "a split" if wanted is None else f"split {wanted}"
        msg = f"{image}: expected {asked} with it in the test part, found splits with it: {named}"
        raise InputError(msg)
    for split in tested if wanted is None else [wanted]:
        if is_finished(store, plan.study_id, split, architecture):
            return int(split)
    msg = (
        f"{image}: expected a finished split of {architecture} that tested it (of {named}), found "
        "none; start the study's command again"
    )
    raise InputError(msg)
