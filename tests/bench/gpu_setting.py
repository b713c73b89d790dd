"""What the GPU benchmarks train: noise for images, the study's networks, and the product's steps.

A `Job` is one split of one architecture, whose steps can be taken one by one, so that jobs can be
timed, interleaved or run side by side. On a CPU recorded steps are replayed by their eager twin.
"""

import argparse
import copy
import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import gpu_pydantic  # noqa: F401 - before the library: it stands in where pydantic is missing
import numpy as np
import torch
from torch import Tensor, nn

from thyro_core.config import ARCHITECTURES, Architecture, StudyConfig
from thyro_core.training.batches import EpochDraws, Examples, batch_bounds
from thyro_core.training.device import choose_precision, prepare_torch
from thyro_core.training.distributed import SINGLE_WORKER
from thyro_core.training.loop import (
    Recipe,
    learning_rate,
    set_learning_rate,
    start_epoch,
    start_run,
    train_step,
)
from thyro_core.training.models import build
from thyro_core.training.steps import (
    CudaRecorder,
    EagerRecorder,
    EagerSteps,
    RecordedSteps,
    Recorder,
    Steps,
)


@dataclass(frozen=True)
class Setting:
    """Sizes of everything that is measured."""

    device: torch.device
    architectures: tuple[Architecture, ...] = ARCHITECTURES
    image_size: int = 224
    images: int = 357
    batch: int = 32
    epochs: int = 30
    splits: int = 10
    jobs: tuple[int, ...] = (1, 2, 4, 8, 10)
    seconds: float = 1.5
    """Of a measurement."""
    matrix: int = 8192

    @property
    def is_tiny(self) -> bool:
        """Whether the figures mean nothing."""
        return self.image_size < 224

    def config(self, **changes: object) -> StudyConfig:
        """The study."""
        values: dict[str, object] = {
            "architectures": self.architectures, "image_size": self.image_size,
            "batch_size": self.batch, "epochs": self.epochs, "splits": self.splits,
        }  # fmt: skip
        return StudyConfig.model_validate(values | changes)


def parser_of() -> argparse.ArgumentParser:
    """Takes the options that all parts have."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--mps-folder", default="")
    return parser


def setting_of(words: Sequence[str]) -> Setting:
    """The setting that options name; those of one part alone are left to it."""
    options, _ = parser_of().parse_known_args(words)
    setting = Setting(torch.device(options.device))
    if not options.tiny:
        return setting
    return replace(
        setting, architectures=("resnet18", "squeezenet1_1"), image_size=64, images=12, batch=4,
        epochs=2, splits=2, jobs=(1, 2), seconds=0.01, matrix=64,
    )  # fmt: skip


def prepare(setting: Setting, *, deterministic: bool = True) -> None:
    """Set torch up as a job of a study does."""
    prepare_torch(1, deterministic=deterministic)
    if setting.device.type == "cuda":
        torch.cuda.set_device(0)


@cache
def pack(side: int, images: int, device: torch.device) -> Tensor:
    """Noise, which lies once in memory however many jobs read it."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels).to(device)


@cache
def network(architecture: Architecture, side: int) -> nn.Module:
    """A network of random weights, to be copied: drawing them takes seconds."""
    return build(architecture, side, seed=1)


def examples_of(setting: Setting, architecture: Architecture, split: int) -> Examples:
    """The images of a split."""
    generator = np.random.default_rng(split)
    labels = torch.from_numpy(generator.integers(0, 2, setting.images))
    pixels = pack(setting.config().side(architecture), setting.images, setting.device)
    return Examples(pixels, generator.permutation(setting.images), labels.to(setting.device))


def recipe_of(setting: Setting, split: int = 0, precision: str = "auto") -> Recipe:
    """How a split is trained."""
    chosen = choose_precision(precision, setting.device)
    return Recipe(setting.config(), split, 0.8, chosen, setting.device)


def recorder_of(optimiser: torch.optim.Optimizer, device: torch.device) -> Recorder:
    """The device's own, or its eager twin."""
    return CudaRecorder(optimiser, device) if device.type == "cuda" else EagerRecorder()


class Job:
    """One split of one architecture in training."""

    def __init__(
        self,
        setting: Setting,
        architecture: Architecture,
        split: int = 0,
        *,
        graphs: bool,
        precision: str = "auto",
        change: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Nothing is trained yet.

        Args:
            setting: the sizes.
            architecture: the network.
            split: which one; it decides images and draws.
            graphs: whether steps are recorded.
            precision: the arithmetic.
            change: of the network before it is trained, such as its compilation.
        """
        self.recipe = recipe_of(setting, split, precision)
        self.examples = examples_of(setting, architecture, split)
        model = copy.deepcopy(network(architecture, setting.config().side(architecture)))
        self.run = start_run(model, self.recipe)
        if change is not None:
            change(self.run.model)
        self.steps: Steps
        if graphs:
            recorder = recorder_of(self.run.optimiser, setting.device)
            self.steps = RecordedSteps(self.examples, self._update, self.run.tensors, recorder)
        else:
            self.steps = EagerSteps(self.examples, self._update, setting.device, SINGLE_WORKER)
        self.bounds = batch_bounds(setting.images, setting.batch)
        self.epoch = 0

    def _update(self, images: Tensor, labels: Tensor, size: int) -> Tensor:
        return train_step(self.run, images, labels, size, self.recipe)

    def start_epoch(self) -> None:
        """Make the next epoch's draws; after the last one the first comes again."""
        epoch = self.epoch % self.recipe.config.epochs
        rate = learning_rate(self.recipe.config, epoch)
        set_learning_rate(self.run.optimiser, rate, self.recipe.device)
        start_epoch(self.run, self.steps, len(self.examples), self.recipe, epoch=epoch)
        self.epoch += 1

    def take(self, start: int, stop: int) -> Tensor:
        """One step."""
        return self.steps.take(start, stop)

    def train_epoch(self) -> int:
        """One more epoch; returns its images."""
        self.start_epoch()
        for start, stop in self.bounds:
            self.take(start, stop)
        return len(self.examples)

    @property
    def is_replayed(self) -> bool:
        """Whether the steps are graphs, and the recorded ones showed the eager one's bits."""
        sizes = {stop - start for start, stop in self.bounds}
        return isinstance(self.steps, RecordedSteps) and self.steps.replayed_sizes == sizes


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def free_memory(device: torch.device) -> None:
    """Give back what deleted jobs held: they and their steps refer to each other."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def rate_of(epoch: Callable[[], int], setting: Setting) -> float:
    """Images a second of epochs that follow one another; those before are ready for it."""
    synchronise(setting.device)
    images, started = 0, time.perf_counter()
    while True:
        images += epoch()
        synchronise(setting.device)
        seconds = time.perf_counter() - started
        if seconds >= setting.seconds:
            return images / seconds


def recording_epochs(bounds: Sequence[tuple[int, int]]) -> int:
    """Epochs until each size of a batch was recorded, at its fourth step, and replayed."""
    counts = Counter(stop - start for start, stop in bounds)
    return -(-5 // min(counts.values()))


def warm_up(job: Job) -> float:
    """Take steps until all sizes of a batch are recorded; returns the seconds."""
    started = time.perf_counter()
    for _ in range(recording_epochs(job.bounds)):
        job.train_epoch()
    synchronise(job.recipe.device)
    return time.perf_counter() - started


def joined(draws: Sequence[EpochDraws], bounds: Sequence[tuple[int, int]], n: int) -> EpochDraws:
    """The draws of several splits as one epoch: of each batch, the splits' parts in a row.

    Args:
        draws: of each split.
        bounds: of a split's batches.
        n: images of a split; those of the next one follow.
    """
    orders = [draw.order + n * split for split, draw in enumerate(draws)]

    def interleave(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part[start:stop] for start, stop in bounds for part in parts])

    return EpochDraws(
        interleave(orders),
        interleave([draw.angle for draw in draws]),
        interleave([draw.mirror for draw in draws]),
    )
