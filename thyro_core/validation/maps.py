"""Where a model's maps lie on external images: on the nodule, at the border, on marks.

A map is the mean of the members' raw Grad-CAM maps of malignant. Deletion, insertion and drawing
weights anew say how maps follow a network, which its study has shown; they are not made again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from thyro_core.datasets.masks import mask_of, open_masks
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.registry.bundle import Bundle
from thyro_core.store.store import Store
from thyro_core.types import BoolArray, Float32Array, Grey
from thyro_core.validation.config import EvaluationConfig

MAP_MEASURES = ("nodule_energy", "nodule_hit", "nodule_iou", "border_energy", "mark_energy")
"""The checks that need a map and an image, and no network."""


def map_rows(
    store: Store,
    bundle: Bundle,
    images: pa.Table,
    image_ids: Sequence[str],
    *,
    config: EvaluationConfig,
    scratch: Path,
) -> list[dict[str, Any]]:
    """Rows of `evaluation_maps` without their ids; none, if no image is requested.

    Args:
        store: holds the model and the manifest's packs.
        bundle: the model.
        images: the manifest's table `images`.
        image_ids: the scored images, in order of image_id.
        config: how many of them get a map, drawn at random by its seed.
        scratch: node-local folder.

    Raises:
        InputError: a pack or a member's weights are gone or damaged.
        CamError: a map is not finite.
    """
    from thyro_core.explain.trust import trust_tests

    count = min(config.map_images, len(image_ids))
    if not count:
        return []
    draw = np.random.default_rng(config.seed).choice(len(image_ids), count, replace=False)
    chosen_ids = [image_ids[place] for place in sorted(draw.tolist())]
    facts = {row["image_id"]: row for row in images.to_pylist() if row["included"]}
    patients = {name: facts[name]["patient_id"] or facts[name]["group_id"] for name in chosen_ids}
    labels = {name: facts[name]["label"] for name in chosen_ids}
    trust = _trust_table(store, bundle, images, labels, patients=patients, scratch=scratch)
    return [
        {name: value for name, value in row.items() if name not in {"study_id", "architecture"}}
        for row in trust_tests(trust, patients)
        if row["measure"] in {*MAP_MEASURES, "is_empty"}
    ]


def _trust_table(
    store: Store,
    bundle: Bundle,
    images: pa.Table,
    labels: dict[str, int],
    *,
    patients: dict[str, str],
    scratch: Path,
) -> pa.Table:
    """As `cam_trust`, of one split: the images that have a label here."""
    from thyro_core.explain.analysis import map_checks
    from thyro_core.explain.faithfulness import cell_cover
    from thyro_core.explain.localisation import mark_checks, nodule_checks
    from thyro_core.explain.regions import DEFAULT_SHARE
    from thyro_core.imaging.annotations import annotation_mask
    from thyro_core.tables.schemas import TABLES, rows_to_table

    (manifest_id,) = set(images["manifest_id"].to_pylist())
    index = pack_index(images)
    pixels = open_pack(store, manifest_id, bundle.side, scratch, len(index))
    packed_masks = open_masks(store, manifest_id, scratch, len(index))
    places = [index[image_id] for image_id in labels]
    maps = _ensemble_maps(store, bundle, pixels, places, scratch=scratch)
    masks: list[BoolArray | None] = [mask_of(packed_masks, place) for place in places]
    groups = list(patients.values())
    marks = [annotation_mask(pixels[place]) for place in places]
    covers = np.concatenate([cell_cover(each[None], *maps.shape[1:]) for each in marks])
    rows = [
        {
            "study_id": bundle.card["study_id"],
            "split": 0,
            "architecture": bundle.architecture,
            "image_id": name,
            "label": label,
            **map_checks(cam, mark),
            **nodule,
            **by_marks,
        }
        for (name, label), cam, mark, nodule, by_marks in zip(
            labels.items(),
            maps,
            marks,
            nodule_checks(maps, masks, groups, DEFAULT_SHARE),
            mark_checks(maps, covers, groups),
            strict=True,
        )
    ]
    columns = TABLES["cam_trust"].schema.names
    return rows_to_table("cam_trust", [dict.fromkeys(columns) | row for row in rows])


def _ensemble_maps(
    store: Store, bundle: Bundle, pixels: Grey, places: list[int], *, scratch: Path
) -> Float32Array:
    """(n, h, w), the members' mean maps of malignant."""
    import torch

    from thyro_core.registry.ensemble import load_members, mean_maps
    from thyro_core.training.batches import Examples
    from thyro_core.training.device import job_device
    from thyro_core.training.inference import image_batches

    device = job_device(1)
    members = [member.to(device) for member in load_members(bundle, store, scratch)]
    rows = np.array(places, dtype=np.int64)
    examples = Examples(pixels, rows, torch.zeros(len(rows), dtype=torch.int64))
    return np.concatenate(
        [
            mean_maps(members, bundle.architecture, batch)[:, 1]
            for batch in image_batches(examples, device)
        ]
    )
