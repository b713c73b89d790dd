"""A promoted model and batches of images for the tests of screening; a night without Ray."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.dicoms import speckle
from tests.support.finished_study import finished_study
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.champion import set_champion
from thyro_core.reporting.worklist import write_worklist_page
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.decode import BlockDecoder
from thyro_core.screening.files import blocks
from thyro_core.screening.night import (
    Means,
    NightResult,
    conclude_night,
    make_job,
    plan_night,
    recover,
)
from thyro_core.screening.reader import ScreeningImage
from thyro_core.screening.rules import Counts
from thyro_core.store.store import Store, open_store

BLOCK = 8
RULES = ScreeningRules(outlier_quantile=1.0)


def tissue(seed: int, *, malignant: bool = False, width: int = 96, height: int = 80) -> np.ndarray:
    """Smooth speckle with a bright or a dark centre; passes the quality rules."""
    pixels = speckle(height, width, seed).astype(float)
    centre = (slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4))
    pixels[centre] *= 0.3 if malignant else 1.6
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_image(path: Path, seed: int, *, malignant: bool = False, **size: int) -> Path:
    """One grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tissue(seed, malignant=malignant, **size)).save(path)
    return path


def write_colour(path: Path, seed: int) -> Path:
    """A PNG with a patch of Doppler."""
    pixels = np.repeat(tissue(seed)[:, :, None], 3, axis=2)
    pixels[20:50, 30:60] = (220, 30, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def training_set(folder: Path) -> None:
    """What the tests' model is trained on: images as `tissue` makes them."""
    rows = []
    for i in range(28):
        name = f"images/{i:03d}.png"
        write_image(folder / name, 1000 + i, malignant=i >= 16)
        rows.append((name, "malignant" if i >= 16 else "benign", f"patient-{i}"))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "patient_id"), *rows])


def promoted(folder: Path, store: str | None = None) -> tuple[Store, Bundle]:
    """A small study's models as the champion of a store."""
    training_set(folder / "set")
    opened, plan = finished_study(folder, store, splits=2, epochs=3)
    bundle = make_bundle(opened, BundleSpec(plan, "resnet18", 0.5), folder / "scratch")
    set_champion(opened, bundle.model_id, "promoted", "for the tests", lambda _: "not asked")
    return opened, bundle


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Bundle]:
    """One promoted model for the whole session; `ward` copies its store before writing to it."""
    return promoted(tmp_path_factory.mktemp("promoted"))


@dataclass
class Ward:
    """A store with a champion, a folder that receives images, and nights screened in here."""

    store: Store
    batch: Path
    means: Means

    def screen(
        self,
        date: str = "2026-11-25",
        *,
        batch: str | None = None,
        place: str | None = None,
        rules: ScreeningRules = RULES,
        after_block: Callable[[int], None] = lambda _: None,
    ) -> NightResult:
        """A night as the flow runs it, the blocks one after the other in this process.

        An archive's files are read from another `place` than the batch is called by.
        """
        from thyro_core.screening.score import BlockScorer

        source = batch or str(self.batch)
        night = plan_night(self.store, source, date, None, rules)
        for recovered in recover(self.store):
            write_worklist_page(self.store, recovered.worklist)
        source = place or source
        job = make_job(self.store, source, night, self.means)
        decode, score, total = BlockDecoder(job), BlockScorer(job), Counts()
        try:
            for number, block in enumerate(blocks(source, BLOCK)):
                total += score(decode(block))
                after_block(number)
        finally:
            decode.close()
        total.check()
        result = conclude_night(self.store, night, total, 1.0)
        write_worklist_page(self.store, result.worklist)
        return result


_LOADED: dict[str, Any] = {}


def _loaded(store: Store, model_id: str, scratch: Path, **_: object) -> Any:
    from thyro_core.screening.model import ScreeningModel

    if model_id not in _LOADED:
        _LOADED[model_id] = ScreeningModel(store, model_id, scratch)
    return _LOADED[model_id]


class DecoderHere:
    """Stands for the decoder process, which takes a second to start."""

    def __init__(self, read: Callable[[bytes], list[ScreeningImage]]) -> None:
        self._read = read

    def __call__(self, data: bytes) -> list[ScreeningImage]:
        return self._read(data)

    def close(self) -> None:
        pass


@pytest.fixture
def ward(model: tuple[Store, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A ward of its own for each test; decodes in this process and loads its model once."""
    from thyro_core.screening import file_images
    from thyro_core.screening import score as screening_score

    monkeypatch.setattr(file_images, "DecoderProcess", DecoderHere)
    monkeypatch.setattr(screening_score, "ScreeningModel", _loaded)
    shutil.copytree(Path(model[0].root) / "registry", tmp_path / "store" / "registry")
    (tmp_path / "batch").mkdir()
    means = Means(scratch=tmp_path / "scratch")
    return Ward(open_store(str(tmp_path / "store")), tmp_path / "batch", means)
