"""Fine-tune one network on one split: the loss, a step, an epoch, and the whole run.

Needs torch and nothing of Ray or Prefect. What it computes depends on the config, the data, the
seed, the device and the number of threads, and on nothing else: an interrupted run that goes on
from its checkpoint ends with the same weights, bit for bit.

Several workers may train one network together (`thyro_core.training.distributed`): all make the
same draws, each takes its share of every batch, and the sums that one process would make are made
over all of them.
So the result is the same up to the order of sums in float32.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from math import cos, isfinite, pi
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from thyro_core.config import StudyConfig
from thyro_core.training.batches import Examples, batch_bounds, draw_epoch, stream_seed
from thyro_core.training.distributed import SINGLE_WORKER, WorkerGroup
from thyro_core.training.inference import predict
from thyro_core.training.steps import (
    LEAST_STEPS,
    CudaRecorder,
    EagerSteps,
    RecordedSteps,
    Steps,
)
from thyro_core.training.sync_layers import GlobalBatch, sync_layers

AUX_WEIGHT = 0.4
"""Weight of Inception_v3's auxiliary loss, as in torchvision's recipe."""

_DROPOUT_STREAM = 0xD509


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training did."""

    epoch: int
    loss: float
    val_loss: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclass
class Run:
    """A network in training, resumable between epochs."""

    model: nn.Module
    optimiser: torch.optim.Adam
    history: list[Epoch]

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on: tensors and plain numbers only."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes: weights, statistics and the optimiser's averages."""
        moments = [
            value
            for state in self.optimiser.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return [*self.model.parameters(), *self.model.buffers(), *moments]

    def release(self) -> None:
        """Drop what only further training needs: gradients and the optimiser's averages.

        They take three times the memory of the network.
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.optimiser.state.clear()


@dataclass(frozen=True)
class Recipe:
    """How a run trains: the config, and what was decided for this run from its data."""

    config: StudyConfig
    seed: int
    alpha: float
    precision: Literal["fp32", "bf16"]
    device: torch.device
    workers: WorkerGroup = SINGLE_WORKER
    graphs: bool | None = None
    """Whether steps are replayed as CUDA graphs; None: where that pays (`choose_steps`)."""

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which a training forward pass runs."""
        is_bf16 = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_bf16)


def balanced_alpha(labels: Tensor) -> float:
    """The focal loss weight of malignant with which both classes weigh the same.

    It is the share of benign images: 0.82 where malignant are 18 %. RetinaNet's 0.25 (Lin et al.
    2017) weights the positive class down, which is backwards when it is the rare one.
    """
    return float((labels == 0).double().mean())


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Mean focal loss, -a_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5).

    Args:
        logits: b x 2, any float type; the loss is computed in float32.
        labels: int64, shape (b,).
        alpha: a_t of malignant; benign has 1 - alpha.
        gamma: focusing exponent; 0 gives weighted cross-entropy.

    Returns:
        A float32 scalar.
    """
    return focal_losses(logits, labels, alpha, gamma).mean()


def focal_losses(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Each image's focal loss, float32, shape (b,); see `focal_loss`."""
    log_p = functional.log_softmax(logits.float(), dim=1)
    # While a CUDA graph is recorded nothing can be copied to the device, as `gather` does in its
    # deterministic backward pass, and `where` with two numbers.
    is_malignant = labels == 1
    log_pt = torch.where(is_malignant, log_p[:, 1], log_p[:, 0])
    weight = torch.full_like(log_pt, 1 - alpha).masked_fill(is_malignant, alpha)
    return weight * (1 - log_pt.exp()) ** gamma * -log_pt


def learning_rate(config: StudyConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + cos(pi * epoch / config.epochs))


def start_run(model: nn.Module, recipe: Recipe) -> Run:
    """Move a network to the device and give it its optimiser."""
    model = model.to(recipe.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Fused: one pass over the parameters; elsewhere Adam is a good part of a small batch's time.
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.config.learning_rate, fused=True)
    return Run(model, optimiser, [])


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float, device: torch.device) -> None:
    """Set the learning rate of the next steps.

    On a GPU it is a tensor there, which keeps its place: a recorded step reads it anew.
    """
    for group in optimiser.param_groups:
        present = group["lr"]
        if device.type == "cpu":
            group["lr"] = rate
        elif isinstance(present, Tensor) and present.device.type == device.type:
            present.fill_(rate)
        else:
            group["lr"] = torch.tensor(rate, device=device)


def choose_steps(run: Run, examples: Examples, recipe: Recipe) -> Steps:
    """How the steps that a run has left are taken: from Python, or as CUDA graphs.

    Graphs where a single worker trains on a GPU and enough steps are left, unless the recipe says
    otherwise. They end with the same bits, so that nothing of a result depends on the choice.
    """
    update = partial(_update, run, recipe)
    graphs = recipe.graphs
    if graphs is None:
        batches = len(batch_bounds(len(examples), recipe.config.batch_size))
        graphs = batches * (recipe.config.epochs - len(run.history)) >= LEAST_STEPS
    if not graphs or recipe.device.type != "cuda" or recipe.workers.size > 1:
        return EagerSteps(examples, update, recipe.device, recipe.workers)
    recorder = CudaRecorder(run.optimiser, recipe.device)
    return RecordedSteps(examples, update, run.tensors, recorder)


def _update(run: Run, recipe: Recipe, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    return train_step(run, images, labels, batch_size, recipe)


def train(
    run: Run,
    train_set: Examples,
    val_set: Examples | None,
    recipe: Recipe,
    after_epoch: Callable[[Run], None],
    after_batch: Callable[[int, float], None],
) -> None:
    """Train a run to its last epoch, from wherever it stands.

    Args:
        run: changed in place; one `Epoch` is appended to its history per epoch.
        train_set: the training part.
        val_set: the validation part, for its loss only; it decides nothing.
        recipe: how to train.
        after_epoch: called when an epoch is over, e.g. to keep a checkpoint.
        after_batch: called with the images done in this epoch and the seconds they took.

    Raises:
        FloatingPointError: the loss is no longer finite.
        PeerLostError: another worker is gone.
        RuntimeError: the workers stand at different epochs.
    """
    workers = recipe.workers
    workers.check_equal(len(run.history), "epochs done", recipe.device)
    bounds = batch_bounds(len(train_set), recipe.config.batch_size)
    # torch's own mixes up types where a worker has no image and the network computes in bf16.
    everyone = min(stop - start for start, stop in bounds) >= workers.size
    is_fused = recipe.device.type == "cuda" and everyone
    with sync_layers(run.model, workers, is_fused=is_fused) as batch:
        steps = choose_steps(run, train_set, recipe)
        for epoch in range(len(run.history), recipe.config.epochs):
            rate = learning_rate(recipe.config, epoch)
            set_learning_rate(run.optimiser, rate, recipe.device)
            start_time = time.perf_counter()
            start_epoch(run, steps, len(train_set), recipe, epoch=epoch)
            loss = _train_epoch(steps, len(train_set), recipe, batch=batch, after_batch=after_batch)
            if not isfinite(loss):
                msg = (
                    f"epoch {epoch + 1}: the training loss is {loss}; lower learning_rate "
                    f"(now {recipe.config.learning_rate}) or set precision=fp32"
                )
                raise FloatingPointError(msg)
            seconds = time.perf_counter() - start_time
            val_loss = None if val_set is None else _mean_loss(run.model, val_set, recipe)
            run.history.append(
                Epoch(epoch + 1, loss, val_loss, rate, seconds, len(train_set) / seconds)
            )
            after_epoch(run)


def start_epoch(run: Run, steps: Steps, n: int, recipe: Recipe, *, epoch: int) -> None:
    """Make all draws of an epoch, and ready the network for its steps.

    Args:
        run: the network, put in training mode.
        steps: takes the epoch's steps.
        n: number of training images.
        recipe: how to train.
        epoch: from 0.
    """
    steps.start_epoch(draw_epoch(n, epoch, recipe.seed, recipe.config))
    # Dropout draws from torch's global generators: seeded anew, an epoch needs no past.
    torch.manual_seed(stream_seed(recipe.seed, _DROPOUT_STREAM, epoch))
    run.model.train()


def _train_epoch(
    steps: Steps,
    n: int,
    recipe: Recipe,
    *,
    batch: GlobalBatch,
    after_batch: Callable[[int, float], None],
) -> float:
    start_time = time.perf_counter()
    total = torch.zeros((), dtype=torch.float64, device=recipe.device)
    for start, stop in batch_bounds(n, recipe.config.batch_size):
        batch.size = stop - start
        total += steps.take(start, stop).double() * batch.size
        after_batch(stop, time.perf_counter() - start_time)
    return float(recipe.workers.all_reduce(total)) / n


def train_step(run: Run, images: Tensor, labels: Tensor, batch_size: int, recipe: Recipe) -> Tensor:
    """One optimiser step.

    Args:
        run: the network (in training mode) and its optimiser, changed in place.
        images: this worker's share of the batch: float32, b x 3 x side x side, on the device.
        labels: int64, shape (b,), on the device.
        batch_size: images of all shares; b if one process trains alone.
        recipe: loss and precision.

    Returns:
        The share's part of the batch's mean loss before the step; the parts of all workers add up
        to it. Detached float32 scalar on the device.
    """
    alpha, gamma = recipe.alpha, recipe.config.focal_gamma
    with recipe.autocast():
        output = run.model(images)
    if isinstance(output, tuple):
        loss = focal_losses(output[0], labels, alpha, gamma).sum() / batch_size
        aux = focal_losses(output[1], labels, alpha, gamma).sum() / batch_size
        loss = loss + AUX_WEIGHT * aux
    else:
        loss = focal_losses(output, labels, alpha, gamma).sum() / batch_size
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    recipe.workers.all_reduce_gradients(run.model.parameters())
    run.optimiser.step()
    return loss.detach()


def _mean_loss(model: nn.Module, examples: Examples, recipe: Recipe) -> float:
    logits = predict(model, examples, recipe.device)
    loss = focal_loss(
        logits.to(recipe.device), examples.labels, recipe.alpha, recipe.config.focal_gamma
    )
    return float(loss)
