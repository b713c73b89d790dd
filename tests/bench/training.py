"""Training throughput of a split job against a bare torch loop, for each architecture.

    python tests/bench/training.py [--architectures resnet18 vgg16] [--side 224] [--batch 32]
                                   [--batches 1] [--laps 3] [--precision auto] [--device cpu]

A job's own code (`training.train` on a memory-mapped pack: gather, augment, normalise, step) and a
bare loop that does nothing but steps, on the same augmented batches held ready in memory, with the
same network, loss, optimiser, precision and memory layout. One thread, in turn within each lap:
what the job adds to the arithmetic is the ratio. The roofline is a plain product of two square
matrices in the same precision on the same threads or device: the job's share of it counts three
times the multiplications of a forward pass. One Markdown row an architecture.
"""

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from laps import header, measure, ratios, row, spread

from thyro_core.config import ARCHITECTURES, Architecture, StudyConfig
from thyro_core.training.batches import Examples, augment, batch_bounds, draw_epoch, normalise
from thyro_core.training.device import choose_precision, device_name, prepare_torch
from thyro_core.training.loop import AUX_WEIGHT, Recipe, focal_loss, start_run, train
from thyro_core.training.models import build

MATRIX = 4096
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=1, help="batches a lap")
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def pack(folder: str, n: int, side: int, device: torch.device) -> Examples:
    """Noise, held as a job's pack is; what is on the images does not change their time."""
    generator = np.random.default_rng(0)
    path = Path(folder) / f"{side}.npy"
    np.save(path, generator.integers(0, 256, (n, side, side), dtype=np.uint8))
    labels = torch.from_numpy(generator.integers(0, 2, n))
    pixels = np.load(path, mmap_mode="r")
    if device.type == "cuda":
        pixels = torch.from_numpy(np.array(pixels)).to(device)
    return Examples(pixels, generator.permutation(n), labels.to(device))


def ready_batches(examples: Examples, recipe: Recipe) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a job's first epoch, augmented and normalised."""
    draws = draw_epoch(len(examples), 0, recipe.seed, recipe.config)
    found = []
    for start, stop in batch_bounds(len(examples), recipe.config.batch_size):
        chosen = draws.order[start:stop]
        grey = examples.grey(chosen).to(recipe.device)
        turn, mirror = (d[start:stop].to(recipe.device) for d in (draws.angle, draws.mirror))
        found.append((normalise(augment(grey, turn, mirror)), examples.labels[chosen]))
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


def finished(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A call that returns when the device has done what it was told."""

    def call() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def multiplications(model: torch.nn.Module, side: int, device: torch.device) -> float:
    """Floating-point operations of one training image [GFLOP]: a forward pass and two backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval()(torch.zeros(1, 3, side, side, device=device))
    return 3 * counter.get_total_flops() / 1e9


def roofline(recipe: Recipe, laps: int) -> float:
    """Speed of a plain matrix product [GFLOP/s]."""
    shape = (MATRIX, MATRIX)
    one, other = (torch.ones(shape, dtype=TYPES[recipe.precision], device=recipe.device),) * 2
    times = measure({"product": finished(lambda: torch.mm(one, other), recipe.device)}, laps)
    return 2 * MATRIX**3 / statistics.median(times["product"]) / 1e9


def compare(architecture: Architecture, options: argparse.Namespace, folder: str) -> str:
    """One architecture's row."""
    config = StudyConfig(image_size=options.side, batch_size=options.batch, schedule="constant")
    side, n = config.side(architecture), options.batch * options.batches
    device = torch.device(options.device)
    recipe = Recipe(config, 0, 0.8, choose_precision(options.precision, device), device)
    examples = pack(folder, n, side, device)
    model = build(architecture, side, seed=1).to(device)
    twin = copy.deepcopy(model)
    ways = {"job": job(model, examples, recipe), "bare": bare(twin, examples, recipe)}
    ways = {name: finished(way, device) for name, way in ways.items()}
    rates = {
        way: [n / seconds for seconds in laps] for way, laps in measure(ways, options.laps).items()
    }
    share = ratios(rates["job"], rates["bare"])
    of_roof = statistics.median(rates["job"]) * multiplications(model, side, device)
    of_roof /= roofline(recipe, options.laps)
    shown = (spread(rates["job"]), spread(rates["bare"]), spread(share, 3), f"{of_roof:.2f}")
    return row(architecture, side, recipe.precision, options.batch, *shown)


def main() -> None:
    options = arguments()
    prepare_torch(options.threads, deterministic=True)
    where = device_name(torch.device(options.device))
    head = (f"training on {where}", "side", "precision", "batch", "job images/s", "bare images/s")
    print(header(*head, "ratio", "share of roofline"))
    with tempfile.TemporaryDirectory() as folder:
        for architecture in options.architectures:
            print(compare(architecture, options, folder), flush=True)


if __name__ == "__main__":
    main()
