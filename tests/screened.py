"""A promoted model and batches of images for the tests of screening."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.finished import finished_study
from thyro_core.bundle_making import Order, make_bundle
from thyro_core.bundles import Bundle
from thyro_core.registry import crown
from thyro_core.storage import Store


def promoted(folder: Path, store: str | None = None) -> tuple[Store, Bundle]:
    """A small study's models as the champion of a store."""
    opened, plan = finished_study(folder, store, splits=2, epochs=1)
    bundle = make_bundle(opened, Order(plan, "resnet18", 0.9), folder / "scratch")
    crown(opened, bundle.model_id, "promoted", "for the tests", lambda _: "not asked")
    return opened, bundle


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Bundle]:
    """One promoted model for the whole session; copy its store before writing to it."""
    return promoted(tmp_path_factory.mktemp("promoted"))


def speckle(seed: int, size: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Grey tissue with speckle and a darker blob: passes the quality rules."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    blob = np.exp(-(((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * rng.uniform(6, 14) ** 2)))
    tissue = 110 - 60 * blob + rng.normal(0, 28, (height, width))
    return np.clip(tissue, 0, 255).astype(np.uint8)


def write_image(path: Path, seed: int, **options: tuple[int, int]) -> Path:
    """One grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(speckle(seed, **options)).save(path)
    return path


def write_colour(path: Path, seed: int) -> Path:
    """A PNG with a patch of Doppler."""
    pixels = np.repeat(speckle(seed)[:, :, None], 3, axis=2)
    pixels[20:50, 30:60] = (220, 30, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
