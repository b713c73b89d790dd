"""Ten splits of one network trained by one process: graphs on streams of their own, or stacked.

Interleaved: each split is a job with steps of its own, recorded on a stream of its own; one process
starts them in turn, and the GPU runs them side by side. Every job draws dropout from numbers of its
own, so that it trains as it would alone.

Stacked: the splits' weights lie in one tensor each, and one step trains them all: torch's vmap
makes one grouped operation of ten. Dropout differs from a split's own; batch norm and loss do not.
"""

import copy
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from gpu_setting import (
    Job,
    Setting,
    examples_of,
    free_memory,
    joined,
    network,
    pack,
    prepare,
    rate_of,
    recipe_of,
    recorder_of,
    recording_epochs,
    setting_of,
    synchronise,
    warm_up,
)
from laps import header, row
from torch import Tensor

from thyro_core.config import Architecture
from thyro_core.training.batches import Examples, batch_bounds, draw_epoch
from thyro_core.training.loop import AUX_WEIGHT, focal_losses, learning_rate, set_learning_rate
from thyro_core.training.steps import RecordedSteps

FIGURE = "figure: "


class Lane:
    """A stream and random numbers of one job; on a CPU nothing of its own."""

    def __init__(self, device: torch.device) -> None:
        self._generator = self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream()
            self._generator = torch.cuda.default_generators[torch.cuda.current_device()]
            self._numbers = self._generator.clone_state()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have what follows run on the stream and draw from the numbers."""
        if self._stream is None or self._generator is None:
            yield
            return
        before = self._generator.graphsafe_get_state()
        self._generator.graphsafe_set_state(self._numbers)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._generator.graphsafe_set_state(before)


class Interleaved:
    """Jobs of one network, each on its own stream."""

    def __init__(self, setting: Setting, architecture: Architecture, count: int) -> None:
        self.jobs = [Job(setting, architecture, split, graphs=True) for split in range(count)]
        self._lanes = [Lane(setting.device) for _ in self.jobs]
        synchronise(setting.device)
        for lane, job in zip(self._lanes, self.jobs, strict=True):
            with lane.entered():
                warm_up(job)

    def train_epoch(self) -> int:
        """One more epoch of all jobs, step by step in turn; returns their images."""
        pairs = list(zip(self._lanes, self.jobs, strict=True))
        for lane, job in pairs:
            with lane.entered():
                job.start_epoch()
        for bounds in self.jobs[0].bounds:
            for lane, job in pairs:
                with lane.entered():
                    job.take(*bounds)
        return sum(len(job.examples) for job in self.jobs)

    @property
    def is_replayed(self) -> bool:
        """Whether all steps are graphs."""
        return all(job.is_replayed for job in self.jobs)


class Stacked:
    """Splits of one network whose weights lie in one tensor each."""

    def __init__(self, setting: Setting, architecture: Architecture, count: int) -> None:
        self._recipe = recipe_of(setting)
        self._n = setting.images
        side = setting.config().side(architecture)
        models = [copy.deepcopy(network(architecture, side)).train() for _ in range(count)]
        models = [model.to(setting.device) for model in models]
        self.parameters, self.buffers = torch.func.stack_module_state(models)
        self._base = models[0]
        rate = self._recipe.config.learning_rate
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=rate, fused=True)
        splits = [examples_of(setting, architecture, split) for split in range(count)]
        rows = torch.cat([torch.from_numpy(split.rows) for split in splits]).numpy()
        labels = torch.cat([split.labels for split in splits])
        pixels = pack(side, setting.images, setting.device)
        self._count = count
        recorder = recorder_of(self.optimiser, setting.device)
        examples = Examples(pixels, rows, labels)
        self._steps = RecordedSteps(examples, self._update, self._state, recorder)
        self._bounds = batch_bounds(setting.images, setting.batch)
        self._epoch = 0
        self.losses: list[Tensor] = []
        for _ in range(recording_epochs(self._bounds)):
            self.train_epoch()

    def _state(self) -> list[Tensor]:
        moments = [value for state in self.optimiser.state.values() for value in state.values()]
        return [*self.parameters.values(), *self.buffers.values(), *moments]

    def _loss(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        output = torch.func.functional_call(self._base, (parameters, buffers), (images,))
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        alpha, gamma = self._recipe.alpha, self._recipe.config.focal_gamma
        loss = focal_losses(logits, labels, alpha, gamma).mean()
        for extra in auxiliary:
            loss = loss + AUX_WEIGHT * focal_losses(extra, labels, alpha, gamma).mean()
        return loss

    def _update(self, images: Tensor, labels: Tensor, size: int) -> Tensor:
        own = size // self._count
        images = images.view(self._count, own, *images.shape[1:])
        each = torch.vmap(self._loss, randomness="different")
        with self._recipe.autocast():
            losses = each(self.parameters, self.buffers, images, labels.view(self._count, own))
        self.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimiser.step()
        return losses.detach()

    def train_epoch(self) -> int:
        """One more epoch of all splits; returns their images."""
        config, epoch = self._recipe.config, self._epoch % self._recipe.config.epochs
        set_learning_rate(self.optimiser, learning_rate(config, epoch), self._recipe.device)
        draws = [draw_epoch(self._n, epoch, split, config) for split in range(self._count)]
        self._steps.start_epoch(joined(draws, self._bounds, self._n))
        torch.manual_seed(epoch)
        self.losses = [
            self._steps.take(self._count * start, self._count * stop).clone()
            for start, stop in self._bounds
        ]
        self._epoch += 1
        return self._count * self._n

    @property
    def is_replayed(self) -> bool:
        """Whether the steps are graphs."""
        return len(self._steps.replayed_sizes) == len({b - a for a, b in self._bounds})


WAYS = {"interleaved": Interleaved, "stacked": Stacked}


def main(words: Sequence[str]) -> None:
    setting = setting_of(words)
    prepare(setting)
    first, *others = setting.architectures
    print(header("network", "way", "splits", "images/s, all together"))
    cases = [(first, way) for way in WAYS] + [(name, "interleaved") for name in others]
    for name, way in [*cases, *[(name, "stacked") for name in others]]:
        free_memory(setting.device)
        try:
            together = WAYS[way](setting, name, setting.splits)
            rate = rate_of(together.train_epoch, setting)
        except Exception as error:  # noqa: BLE001 - one way's row; the others are measured
            text = str(error).splitlines()[0][:200] if str(error) else ""
            text = f"**raised {type(error).__name__}**: {text}".replace("|", "/")
            print(row(name, way, setting.splits, text), flush=True)
            continue
        note = "" if together.is_replayed else " (not replayed: see its log)"
        print(row(name, way + note, setting.splits, f"{rate:.0f}"), flush=True)
        if name == first:
            figure = {"way": way, "count": setting.splits, "mps": False, "rate": rate}
            print(FIGURE + json.dumps(figure), flush=True)
        del together


if __name__ == "__main__":
    main(sys.argv[1:])
