"""How much room the maps of the paper's study take: four networks, ten splits, both classes."""

from pathlib import Path

import numpy as np
import pytest

from thyro_core.explain.maps import cams_table
from thyro_core.store.store import open_store
from thyro_core.tables.io import write_table
from thyro_core.training.models import LAST_CONV

SIDES = {"resnet18": 7, "alexnet": 6, "vgg16": 7, "inception_v3": 8}
"""Sides of the maps at 224 pixels (299 for Inception_v3) [cells]."""

SPLITS, TEST_IMAGES, LIMIT = 10, 151, 60 * 2**20


def test_the_maps_of_the_papers_study_stay_small(tmp_path: Path) -> None:
    """Random cells, no map empty: nothing that a compression could take hold of."""
    store = open_store(str(tmp_path))
    rng = np.random.default_rng(0)
    ids = [rng.bytes(32).hex() for _ in range(TEST_IMAGES)]
    for split in range(SPLITS):
        for architecture, side in SIDES.items():
            maps = rng.random((TEST_IMAGES, 2, side, side), dtype=np.float32)
            keys = {"study_id": "s0", "split": split, "architecture": architecture}
            table = cams_table(keys, ids, LAST_CONV[architecture], maps)
            write_table(store, "cams", table, **keys)
    sizes = [store.fs.size(store.path(key)) for key in store.keys("tables/cams")]
    assert len(sizes) == SPLITS * len(SIDES)
    cells = 2 * SPLITS * TEST_IMAGES * sum(side**2 for side in SIDES.values())
    assert 2 * 0.8 * cells < sum(sizes) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "side"), SIDES.items())
def test_the_sides_are_the_networks_own(architecture: str, side: int) -> None:
    import torch

    from thyro_core.explain.gradcam import grad_cams
    from thyro_core.training.models import build

    pixels = 299 if architecture == "inception_v3" else 224
    _, maps = grad_cams(
        build(architecture, pixels, 0), architecture, torch.rand(1, 3, pixels, pixels)
    )
    assert maps.shape == (1, 2, side, side)
