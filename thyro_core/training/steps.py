"""The steps of an epoch: each started from Python, or recorded once and replayed.

On a GPU a step of a small batch is hundreds of short kernels, and Python starts them more slowly
than the GPU computes them. A CUDA graph holds a whole step, augmentation and optimiser included:
one call starts all of it, with the same kernels, the same addresses and so the same numbers.

`EagerSteps` is what every device can do, and the only way on a CPU. `RecordedSteps` needs a
`Recorder`: the GPU's, or its eager twin, with which the same code runs on a CPU and gives the same
bits as `EagerSteps`. Before a recorded step is used it has to show, on a batch of the run itself,
that it ends with the same bits as the eager one; where it does not, the run goes on without it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from thyro_core.training.batches import EpochDraws, Examples, as_grey, augment, normalise
from thyro_core.training.distributed import WorkerGroup

_LOG = logging.getLogger(__name__)

_WARM_UP = 3
"""Eager steps of a batch size before it is recorded: libraries choose kernels and take memory."""

LEAST_STEPS = 100
"""Steps of a run below which recording does not pay: it takes as long as some ten of them."""

Update = Callable[[Tensor, Tensor, int], Tensor]
"""One optimiser step on augmented images, their labels and the batch's size; gives the loss."""


class Steps(Protocol):
    """Takes the steps of a run, epoch by epoch."""

    def start_epoch(self, draws: EpochDraws) -> None:
        """Take an epoch's order, rotations and flips."""

    def take(self, start: int, stop: int) -> Tensor:
        """One step on the images of these places of the epoch's order.

        Returns:
            The batch's loss before the step: a scalar on the device, valid until the next step.
        """


class EagerSteps:
    """Starts each operation of a step from Python; workers take their share of every batch."""

    def __init__(
        self, examples: Examples, update: Update, device: torch.device, workers: WorkerGroup
    ) -> None:
        self._examples = examples
        self._update = update
        self._device = device
        self._workers = workers

    def start_epoch(self, draws: EpochDraws) -> None:
        """See `Steps`."""
        self._draws = draws

    def take(self, start: int, stop: int) -> Tensor:
        """See `Steps`."""
        first, last = self._workers.shard(stop - start)
        own = slice(start + first, start + last)
        positions = self._draws.order[own]
        grey = self._examples.grey(positions).to(self._device)
        angle, mirror = (
            part[own].to(self._device) for part in (self._draws.angle, self._draws.mirror)
        )
        images = normalise(augment(grey, angle, mirror))
        labels = self._examples.labels[positions.to(self._device)]
        return self._update(images, labels, stop - start)


class Recorder(Protocol):
    """Records a step and replays it."""

    def run(self, step: Callable[[], Tensor]) -> Tensor:
        """Run a step once from Python, where it will be recorded."""

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record a step without running it.

        Returns:
            Runs the step on what its tensors then hold.

        Raises:
            RuntimeError: the step cannot be recorded.
        """


class EagerRecorder:
    """The twin of `CudaRecorder` on any device: it replays a step by running it."""

    def run(self, step: Callable[[], Tensor]) -> Tensor:
        """See `Recorder`."""
        return step()

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See `Recorder`."""
        return step


class CudaRecorder:
    """Records steps as CUDA graphs; those of one run share their memory."""

    def __init__(self, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
        self._optimiser = optimiser
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, step: Callable[[], Tensor]) -> Tensor:
        """See `Recorder`. On the stream of the recording, whose libraries are ready then."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = step()
        current.wait_stream(self._stream)
        return loss

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See `Recorder`."""
        # Gradients of earlier steps would be added to, and their memory is needed.
        self._optimiser.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        try:
            with (
                _capturable(self._optimiser),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                loss = step()
        finally:
            # A recording that fails leaves its own stream behind.
            torch.cuda.set_stream(current)

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay


@contextmanager
def _capturable(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Torch's optimisers must be told that they are recorded; a fused one computes the same."""
    for group in optimiser.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimiser.param_groups:
            group["capturable"] = False


@dataclass(frozen=True)
class _Batch:
    """The tensors from which a recorded step of one batch size reads its images."""

    rows: Tensor
    labels: Tensor
    angle: Tensor
    mirror: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        return self.rows, self.labels, self.angle, self.mirror

    def of(self, own: slice) -> "_Batch":
        return _Batch(*(part[own] for part in self.parts()))


class RecordedSteps:
    """Replays steps that were recorded once for each batch size; a single worker's."""

    def __init__(
        self,
        examples: Examples,
        update: Update,
        state: Callable[[], list[Tensor]],
        recorder: Recorder,
    ) -> None:
        """Record nothing yet.

        Args:
            examples: their pixels are a tensor on the device.
            update: the optimiser step.
            state: all tensors that a step changes.
            recorder: of the device.
        """
        if not isinstance(examples.pixels, Tensor):
            msg = f"recorded steps: expected pixels as a tensor, found {type(examples.pixels)}"
            raise TypeError(msg)
        self._examples = examples
        self._pixels = examples.pixels
        self._update = update
        self._state = state
        self._recorder = recorder
        self._batches: dict[int, _Batch] = {}
        self._replays: dict[int, Callable[[], Tensor]] = {}
        self._eager_steps: Counter[int] = Counter()
        self._is_recording = True

    @property
    def replayed_sizes(self) -> frozenset[int]:
        """Sizes of batches whose recorded step has shown the eager one's bits."""
        return frozenset(self._replays)

    def start_epoch(self, draws: EpochDraws) -> None:
        """See `Steps`. All draws go to the device at once."""
        device = self._pixels.device
        rows = torch.from_numpy(self._examples.rows)[draws.order].to(device)
        labels = self._examples.labels[draws.order.to(device)]
        self._epoch = _Batch(rows, labels, draws.angle.to(device), draws.mirror.to(device))

    def take(self, start: int, stop: int) -> Tensor:
        """See `Steps`."""
        size = stop - start
        current = self._epoch.of(slice(start, stop))
        if size not in self._batches:
            self._batches[size] = _Batch(*(part.clone() for part in current.parts()))
        batch = self._batches[size]
        for place, part in zip(batch.parts(), current.parts(), strict=True):
            place.copy_(part)
        if size in self._replays:
            return self._replays[size]()
        step = partial(self._step, batch)
        if self._is_recording and self._eager_steps[size] >= _WARM_UP:
            return self._record(size, step)
        self._eager_steps[size] += 1
        return self._recorder.run(step)

    def _step(self, batch: _Batch) -> Tensor:
        grey = as_grey(self._pixels[batch.rows])
        images = normalise(augment(grey, batch.angle, batch.mirror))
        return self._update(images, batch.labels, len(batch.rows))

    def _record(self, size: int, step: Callable[[], Tensor]) -> Tensor:
        """Take a step both ways; the recorded one is kept if both end with the same bits."""
        other = _Snapshot(self._state(), self._pixels.device)
        loss = self._recorder.run(step).clone()
        other.swap(self._state())
        try:
            replay = self._recorder.record(step)
            replayed_loss = replay()
            # Without determinism two eager steps differ as well.
            if not torch.are_deterministic_algorithms_enabled() or (
                torch.equal(replayed_loss, loss) and other.equals(self._state())
            ):
                self._replays[size] = replay
                return replayed_loss
            reason = "its result differs from the eager one's"
        except RuntimeError as error:
            reason = f"it cannot be recorded ({error})"
        _LOG.warning("a step of %d images is not replayed: %s; training goes on", size, reason)
        self._is_recording = False
        other.swap(self._state())
        return loss


class _Snapshot:
    """A second state of a run and of the device's random numbers, to change places with."""

    def __init__(self, tensors: list[Tensor], device: torch.device) -> None:
        self._tensors = [tensor.clone() for tensor in tensors]
        self._generator = _generator(device)
        self._numbers = self._generator.get_state()

    @torch.no_grad()
    def swap(self, tensors: list[Tensor]) -> None:
        for tensor, value in zip(tensors, self._tensors, strict=True):
            present = tensor.clone()
            tensor.copy_(value)
            value.copy_(present)
        present_numbers = self._generator.get_state()
        self._generator.set_state(self._numbers)
        self._numbers = present_numbers

    def equals(self, tensors: list[Tensor]) -> bool:
        """Whether the state is this one, and the next random numbers will be, too."""
        return torch.equal(self._generator.get_state(), self._numbers) and all(
            map(torch.equal, tensors, self._tensors)
        )


def _generator(device: torch.device) -> torch.Generator:
    """The generator that dropout draws from."""
    if device.type == "cpu":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
