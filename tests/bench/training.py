"""Training throughput of a split job against a bare torch loop, for each architecture.

    python tests/bench/training.py [--architectures resnet18 vgg16] [--side 224] [--batch 32]
                                   [--batches 1] [--laps 3] [--precision auto]

A job's own code (`training.train` on a memory-mapped pack: gather, augment, normalise, step) and a
bare loop that does nothing but steps, on the same augmented batches held ready in memory, with the
same network, loss, optimiser, precision and memory layout. One thread, in turn within each lap:
what the job adds to the arithmetic is the ratio. One Markdown row an architecture.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from laps import header, measure, ratios, row, spread

from thyro_core.batches import Examples, augment, batch_bounds, draw_epoch, normalise
from thyro_core.config import ARCHITECTURES, Architecture, StudyConfig
from thyro_core.hardware import choose_precision, prepare_torch
from thyro_core.models import build
from thyro_core.training import AUX_WEIGHT, Recipe, focal_loss, start_run, train

CPU = torch.device("cpu")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=1, help="batches a lap")
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    return parser.parse_args()


def pack(folder: str, n: int, side: int) -> Examples:
    """Noise, memory-mapped as a job's pack is; what is on the images does not change their time."""
    generator = np.random.default_rng(0)
    path = Path(folder) / f"{side}.npy"
    np.save(path, generator.integers(0, 256, (n, side, side), dtype=np.uint8))
    labels = torch.from_numpy(generator.integers(0, 2, n))
    return Examples(np.load(path, mmap_mode="r"), generator.permutation(n), labels)


def ready_batches(examples: Examples, recipe: Recipe) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a job's first epoch, augmented and normalised."""
    draws = draw_epoch(len(examples), 0, recipe.seed, recipe.config)
    found = []
    for start, stop in batch_bounds(len(examples), recipe.config.batch_size):
        chosen = draws.order[start:stop]
        grey = augment(examples.grey(chosen), draws.angle[start:stop], draws.mirror[start:stop])
        found.append((normalise(grey), examples.labels[chosen]))
    return found


def job(model: torch.nn.Module, examples: Examples, recipe: Recipe) -> Callable[[], None]:
    """One more epoch of a job at each call."""
    run = start_run(model, recipe)

    def epoch() -> None:
        longer = recipe.config.model_copy(update={"epochs": len(run.history) + 1})
        once = replace(recipe, config=longer)
        train(run, examples, None, once, lambda _: None, lambda *_: None)

    return epoch


def bare(model: torch.nn.Module, examples: Examples, recipe: Recipe) -> Callable[[], None]:
    """Steps on the same batches at each call, and nothing else."""
    batches = ready_batches(examples, recipe)
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.config.learning_rate, fused=True)
    alpha, gamma = recipe.alpha, recipe.config.focal_gamma

    def epoch() -> None:
        for images, labels in batches:
            with recipe.autocast():
                output = model(images)
            logits, *auxiliary = output if isinstance(output, tuple) else (output,)
            loss = focal_loss(logits, labels, alpha, gamma)
            for extra in auxiliary:
                loss = loss + AUX_WEIGHT * focal_loss(extra, labels, alpha, gamma)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return epoch


def compare(architecture: Architecture, options: argparse.Namespace, folder: str) -> str:
    """One architecture's row."""
    config = StudyConfig(image_size=options.side, batch_size=options.batch, schedule="constant")
    side, n = config.side(architecture), options.batch * options.batches
    recipe = Recipe(config, 0, 0.8, choose_precision(options.precision, CPU), CPU)
    examples = pack(folder, n, side)
    model = build(architecture, side, seed=1)
    twin = copy.deepcopy(model)
    ways = {"job": job(model, examples, recipe), "bare": bare(twin, examples, recipe)}
    rates = {
        way: [n / seconds for seconds in laps] for way, laps in measure(ways, options.laps).items()
    }
    share = ratios(rates["job"], rates["bare"])
    shown = (spread(rates["job"]), spread(rates["bare"]), spread(share, 3))
    return row(architecture, side, recipe.precision, options.batch, *shown)


def main() -> None:
    options = arguments()
    prepare_torch(options.threads, deterministic=True)
    print(
        header("training", "side", "precision", "batch", "job images/s", "bare images/s", "ratio")
    )
    with tempfile.TemporaryDirectory() as folder:
        for architecture in options.architectures:
            print(compare(architecture, options, folder), flush=True)


if __name__ == "__main__":
    main()
