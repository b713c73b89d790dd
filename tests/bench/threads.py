"""Two jobs with one thread each, or one after the other with two threads: which trains more?

    python tests/bench/threads.py [--architecture resnet18] [--side 224] [--batch 32] [--laps 3]

Trains in processes of their own, as Ray does: as many at once as the machine has cores, one thread
each; and one with all cores as threads. In turn within each lap; images/s of the whole machine.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from laps import header, measure, ratios, row, spread

from thyro_core.config import ARCHITECTURES, Architecture

Step = Callable[[], None]
_steps: dict[int, Step] = {}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--laps", type=int, default=3)
    return parser.parse_args()


def make_step(architecture: Architecture, side: int, batch: int) -> Step:
    """One optimiser step at each call, on one batch of noise."""
    import torch

    from thyro_core.config import StudyConfig
    from thyro_core.training.batches import normalise
    from thyro_core.training.device import choose_precision
    from thyro_core.training.loop import Recipe, start_run, train_step
    from thyro_core.training.models import build

    cpu, config = torch.device("cpu"), StudyConfig(image_size=side, batch_size=batch)
    recipe = Recipe(config, 0, 0.8, choose_precision("auto", cpu), cpu)
    side = config.side(architecture)
    run = start_run(build(architecture, side, seed=1), recipe)
    run.model.train()
    images, labels = normalise(torch.rand(batch, 1, side, side)), torch.arange(batch) % 2
    return lambda: train_step(run, images, labels, batch, recipe)


def steps(architecture: Architecture, side: int, batch: int, threads: int, count: int) -> None:
    """So many steps in this process, with so many threads."""
    from thyro_core.training.device import prepare_torch

    prepare_torch(threads, deterministic=True)
    step = _steps.setdefault(threads, make_step(architecture, side, batch))
    for _ in range(count):
        step()


def main() -> None:
    options = arguments()
    cores = os.cpu_count() or 1
    work = (options.architecture, options.side, options.batch)
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context) for _ in range(cores)]

    def side_by_side() -> None:
        for future in [pool.submit(steps, *work, 1, 2) for pool in pools]:
            future.result()

    def in_turn() -> None:
        pools[0].submit(steps, *work, cores, 2 * cores).result()

    ways = {f"{cores} jobs, a thread each": side_by_side, f"a job, {cores} threads": in_turn}
    seconds = measure(ways, options.laps)
    images = 2 * cores * options.batch
    print(header(f"{options.architecture} {options.side}", "images/s", "of the first"))
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        rates = [images / value for value in values]
        print(row(name, spread(rates), spread(ratios(first, values), 2)))


if __name__ == "__main__":
    main()
