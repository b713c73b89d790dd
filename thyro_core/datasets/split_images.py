"""The images of one split as training and inference take them: by role, out of the packs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from thyro_core.config import ViewConfig
from thyro_core.datasets.masks import mask_of, open_masks
from thyro_core.datasets.packs import image_proportions, open_pack, pack_index
from thyro_core.datasets.splits import ROLES
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table
from thyro_core.training.batches import Examples
from thyro_core.types import BoolArray, Grey


@dataclass(frozen=True)
class SplitImages:
    """Which images a split trains on and tests, and where their pixels and masks lie.

    Attributes:
        store: The store that holds the packs.
        manifest_id: The manifest of the images.
        scratch: Node-local folder for the packs of a remote store.
        roles: Rows of `splits` by role (train, val, test), each by ascending image_id.
        pack_rows: The row of each image in the packs.
        masks: Nodule masks, rows as in the packs; None: the image set has none.
        proportions: Height over width of what each image's square shows.
    """

    store: Store
    manifest_id: str
    scratch: Path
    roles: Mapping[str, pa.Table]
    pack_rows: Mapping[str, int]
    masks: Grey | None
    proportions: Mapping[str, float]

    def examples(self, side: int, device: torch.device) -> dict[str, Examples]:
        """The images of each role at one side length [pixels], on a device.

        Raises:
            InputError: the pack of this side length is absent or damaged.
        """
        pack = open_pack(self.store, self.manifest_id, side, self.scratch, len(self.pack_rows))
        pixels: Grey | Tensor = pack
        if device.type == "cuda":
            pixels = torch.from_numpy(np.array(pack)).to(device)
        examples = {}
        for role, table in self.roles.items():
            rows = [self.pack_rows[image_id] for image_id in table["image_id"].to_pylist()]
            labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
            examples[role] = Examples(pixels, np.array(rows, dtype=np.int64), labels.to(device))
        return examples

    def nodule_masks(self, image_ids: Sequence[str]) -> list[BoolArray | None]:
        """The mask of each image; None where it has none."""
        return [mask_of(self.masks, self.pack_rows[image_id]) for image_id in image_ids]

    def height_to_width(self, image_ids: Sequence[str]) -> list[float]:
        """Height over width of what each image's square shows; 1 where it is not squashed."""
        return [self.proportions[image_id] for image_id in image_ids]


def open_split_images(
    store: Store,
    study_id: str,
    split: int,
    manifest_id: str,
    *,
    view: ViewConfig,
    scratch: Path,
) -> SplitImages:
    """The images of one split.

    Args:
        store: holds the study's `splits`, and the `images`, packs and masks of its manifest.
        study_id: the study.
        split: which of its splits.
        manifest_id: the study's manifest.
        view: what its networks see.
        scratch: node-local folder for the packs of a remote store.

    Raises:
        InputError: the pack of masks is damaged.
    """
    splits = read_table(store, "splits", study_id=study_id)
    rows = splits.filter(pc.equal(splits["split"], split)).sort_by("image_id")
    roles = {role: rows.filter(pc.equal(rows["role"], role)) for role in ROLES}
    images = read_table(store, "images", manifest_id=manifest_id)
    pack_rows = pack_index(images)
    masks = open_masks(store, manifest_id, scratch, len(pack_rows))
    return SplitImages(
        store, manifest_id, scratch, roles, pack_rows, masks, image_proportions(images, view)
    )
