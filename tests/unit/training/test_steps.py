"""Steps that are recorded and replayed give the bits of steps that Python starts."""

import copy
import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thyro_core.config import StudyConfig
from thyro_core.training import batches, loop
from thyro_core.training.batches import Examples, batch_bounds
from thyro_core.training.distributed import SINGLE_WORKER, WorkerGroup
from thyro_core.training.loop import (
    Recipe,
    Run,
    choose_steps,
    learning_rate,
    set_learning_rate,
    start_epoch,
    start_run,
    train,
    train_step,
)
from thyro_core.training.models import build
from thyro_core.training.steps import EagerRecorder, EagerSteps, RecordedSteps

CPU = torch.device("cpu")
SIDE = 32

pytestmark = pytest.mark.usefixtures("one_thread")


class WithAuxiliary(nn.Module):
    """Two heads in training, as Inception_v3 has; batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(1))
        self.head, self.aux = nn.Linear(32, 2), nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.pool(self.body(images))
        return (self.head(features), self.aux(features)) if self.training else self.head(features)


def small() -> nn.Module:
    torch.manual_seed(4)
    return WithAuxiliary()


def examples(side: int = SIDE, n: int = 22) -> Examples:
    rng = np.random.default_rng(3)
    pixels = torch.from_numpy(rng.integers(0, 256, (n + 4, side, side), dtype=np.uint8))
    return Examples(pixels, rng.permutation(n + 4)[:n], torch.from_numpy(rng.integers(0, 2, n)))


def recipe(precision: str = "fp32", **config: object) -> Recipe:
    # 22 images in batches of at most 4: sizes 3 and 4, in turn.
    values = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3} | config
    return Recipe(StudyConfig.model_validate(values), 11, 0.7, precision, CPU)


def eager(run: Run, data: Examples, how: Recipe) -> EagerSteps:
    update = lambda images, labels, size: train_step(run, images, labels, size, how)  # noqa: E731
    return EagerSteps(data, update, CPU, SINGLE_WORKER)


class Recording(EagerRecorder):
    """The eager twin, which counts; what it replays may be made to differ or to fail."""

    def __init__(self, change: Callable[[], object] | None = None, failure: str = "") -> None:
        self.recorded = self.replayed = self.eager = 0
        self._change = change
        self._failure = failure

    def run(self, step: Callable[[], Tensor]) -> Tensor:
        self.eager += 1
        return step()

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self._failure:
            raise RuntimeError(self._failure)
        self.recorded += 1

        def replay() -> Tensor:
            self.replayed += 1
            loss = step()
            if self._change:
                self._change()
            return loss

        return replay


def recorded(run: Run, data: Examples, how: Recipe, recorder: Recording) -> RecordedSteps:
    update = lambda images, labels, size: train_step(run, images, labels, size, how)  # noqa: E731
    return RecordedSteps(data, update, run.tensors, recorder)


def epochs(run: Run, steps: EagerSteps | RecordedSteps, data: Examples, how: Recipe) -> list[float]:
    """The loss of every step."""
    losses = []
    for epoch in range(how.config.epochs):
        set_learning_rate(run.optimiser, learning_rate(how.config, epoch), CPU)
        start_epoch(run, steps, len(data), how, epoch=epoch)
        for start, stop in batch_bounds(len(data), how.config.batch_size):
            losses.append(float(steps.take(start, stop)))
    return losses


def same(one: Run, other: Run) -> bool:
    return all(map(torch.equal, one.tensors(), other.tensors()))


def both_ways(
    network: nn.Module, data: Examples, how: Recipe, recorder: Recording
) -> tuple[bool, RecordedSteps]:
    """Whether the losses of all steps and the state at the end are the same bits."""
    plain = start_run(copy.deepcopy(network), how)
    expected = epochs(plain, eager(plain, data, how), data, how)
    run = start_run(network, how)
    steps = recorded(run, data, how, recorder)
    return epochs(run, steps, data, how) == expected and same(plain, run), steps


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_replayed_steps_give_the_bits_of_eager_ones(schedule: str, deterministic: bool) -> None:
    recorder = Recording()
    torch.use_deterministic_algorithms(deterministic)
    try:
        equal, steps = both_ways(small(), examples(), recipe(schedule=schedule), recorder)
    finally:
        torch.use_deterministic_algorithms(False)
    assert equal
    assert steps.replayed_sizes == {3, 4}
    # 18 steps of two sizes: three of each warm up, one of each is taken both ways.
    assert (recorder.recorded, recorder.eager, recorder.replayed) == (2, 2 * (3 + 1), 18 - 2 * 3)


@pytest.mark.parametrize(
    ("architecture", "side", "images", "precision"),
    [
        ("resnet18", 32, 22, "fp32"),
        ("squeezenet1_1", 64, 22, "fp32"),
        pytest.param("alexnet", 64, 22, "fp32", marks=pytest.mark.slow),
        pytest.param("resnet18", 32, 22, "bf16", marks=pytest.mark.slow),
        pytest.param("vgg16", 32, 22, "fp32", marks=pytest.mark.slow),
        pytest.param("inception_v3", 299, 22, "fp32", marks=pytest.mark.slow),
    ],
)
def test_the_papers_networks_end_with_the_same_bits_both_ways(
    architecture: str, side: int, images: int, precision: str
) -> None:
    how = recipe(precision, epochs=2, learning_rate=1e-4)
    recorder = Recording()
    equal, _ = both_ways(build(architecture, side, seed=5), examples(side, images), how, recorder)
    assert equal
    assert recorder.replayed > 0


def test_the_comparison_tells_another_learning_rate() -> None:
    data = examples()
    plain, run = (start_run(small(), recipe()) for _ in range(2))
    epochs(plain, eager(plain, data, recipe()), data, recipe())
    faster = recipe(learning_rate=1.001e-3)
    epochs(run, recorded(run, data, faster, Recording()), data, faster)
    assert not same(plain, run)


def deterministic_run(
    network: nn.Module, recorder: Recording, caplog: pytest.LogCaptureFixture
) -> tuple[bool, RecordedSteps]:
    torch.use_deterministic_algorithms(True)
    try:
        with caplog.at_level(logging.WARNING):
            return both_ways(network, examples(), recipe(), recorder)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_replay_that_differs_is_not_used_and_the_run_ends_with_the_eager_bits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = small()
    first = next(network.parameters())

    @torch.no_grad()
    def change() -> None:
        first.add_(1e-4)

    recorder = Recording(change)
    equal, steps = deterministic_run(network, recorder, caplog)
    assert equal
    assert not steps.replayed_sizes
    assert recorder.replayed == 1
    assert "differs from the eager one's" in caplog.text


def test_a_replay_that_draws_other_numbers_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    network = small()
    equal, steps = deterministic_run(network, Recording(partial(torch.rand, 1)), caplog)
    # The state of the network is right; the next dropout's would not be.
    assert equal
    assert not steps.replayed_sizes


def test_a_step_that_cannot_be_recorded_stays_eager(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recording(failure="operation not permitted when stream is capturing")
    equal, steps = deterministic_run(small(), recorder, caplog)
    assert equal
    assert not steps.replayed_sizes
    assert recorder.replayed == 0
    assert "cannot be recorded (operation not permitted" in caplog.text


def test_training_on_a_cpu_is_eager_whatever_the_recipe_says() -> None:
    for graphs in (None, True, False):
        how = Recipe(recipe(epochs=300).config, 11, 0.7, "fp32", CPU, graphs=graphs)
        assert isinstance(choose_steps(start_run(small(), how), examples(), how), EagerSteps)


@pytest.mark.parametrize(
    ("graphs", "epochs_left", "workers", "recorded_steps"),
    [(None, 17, 1, True), (None, 16, 1, False), (True, 1, 1, True), (False, 300, 1, False),
     (None, 300, 2, False), (True, 300, 2, False)],
)  # fmt: skip
def test_on_a_gpu_one_worker_replays_where_enough_steps_are_left(
    monkeypatch: pytest.MonkeyPatch,
    graphs: bool | None, epochs_left: int, workers: int, recorded_steps: bool,
) -> None:  # fmt: skip
    """Six batches an epoch, and a hundred steps are enough."""
    monkeypatch.setattr(loop, "CudaRecorder", lambda *_: EagerRecorder())
    how = recipe(epochs=epochs_left)
    run = start_run(small(), how)
    on_gpu = Recipe(
        how.config, 11, 0.7, "fp32", torch.device("cuda"), WorkerGroup(0, workers), graphs
    )
    steps = choose_steps(run, examples(), on_gpu)
    assert isinstance(steps, RecordedSteps) == recorded_steps


def test_a_run_through_recorded_steps_learns_what_a_run_without_them_learns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`train` as a whole, validation and callbacks included."""
    how, data = recipe(), examples()
    plain, run = (start_run(small(), how) for _ in range(2))
    train(plain, data, examples(n=6), how, lambda _: None, lambda *_: None)
    recorder = Recording()
    monkeypatch.setattr(loop, "choose_steps", lambda *_: recorded(run, data, how, recorder))
    train(run, data, examples(n=6), how, lambda _: None, lambda *_: None)
    assert recorder.replayed > 0
    assert same(plain, run)
    kept = [(epoch.loss, epoch.val_loss, epoch.learning_rate) for epoch in run.history]
    assert kept == [(epoch.loss, epoch.val_loss, epoch.learning_rate) for epoch in plain.history]


@pytest.mark.parametrize(("device", "copies"), [("cpu", 4), ("meta", 2)])
def test_the_constants_of_the_images_are_copied_to_a_gpu_once(
    monkeypatch: pytest.MonkeyPatch, device: str, copies: int
) -> None:
    """Nothing can be copied there while a step is recorded; mean and SD are two."""
    made: list[object] = []
    real = batches._channels

    def count(values: tuple[float, ...], where: torch.device) -> Tensor:
        made.append(values)
        return real(values, where)

    monkeypatch.setattr(batches, "_channels", count)
    batches._lasting_channels.cache_clear()
    for _ in range(2):
        batches.normalise(torch.empty(2, 1, 4, 4, device=device))
    assert len(made) == copies


def test_pixels_outside_the_device_cannot_be_read_by_a_recorded_step() -> None:
    data = examples()
    outside = Examples(data.pixels.numpy(), data.rows, data.labels)
    run = start_run(small(), recipe())
    with pytest.raises(TypeError, match="expected pixels as a tensor"):
        recorded(run, outside, recipe(), Recording())


def test_a_learning_rate_on_another_device_keeps_its_place() -> None:
    """On torch's device without data, as no GPU is needed to ask where a tensor lies."""
    meta = torch.device("meta")
    optimiser = torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=0.5)
    set_learning_rate(optimiser, 0.25, meta)
    placed = optimiser.param_groups[0]["lr"]
    assert placed.device == meta
    set_learning_rate(optimiser, 0.125, meta)
    assert optimiser.param_groups[0]["lr"] is placed
    set_learning_rate(optimiser, 0.125, CPU)
    assert optimiser.param_groups[0]["lr"] == 0.125


def test_a_rate_in_a_tensor_trains_as_the_same_number_does() -> None:
    """On a CPU in float64; a GPU reads the tensor in float32."""
    results = []
    for rate in (1e-3, torch.tensor(1e-3, dtype=torch.float64)):
        run, how, data = start_run(small(), recipe()), recipe(), examples()
        run.optimiser.param_groups[0]["lr"] = rate
        steps = eager(run, data, how)
        start_epoch(run, steps, len(data), how, epoch=0)
        steps.take(0, 4)
        results.append(run)
    assert same(*results)
