"""Training images a second of one network: steps from Python, as graphs, compiled; the roofline.

    python tests/bench/gpu_ways.py --architecture=resnet18
    python tests/bench/gpu_ways.py --compiled

The steps are the product's, augmentation and optimiser included, in full batches. The roofline is a
plain product of two square matrices in the training's arithmetic; a training image counts three
forward passes. `--compiled` compiles one network after the other, while there is time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from gpu_setting import (
    Job,
    Setting,
    free_memory,
    network,
    parser_of,
    prepare,
    rate_of,
    setting_of,
    synchronise,
    warm_up,
)
from laps import header, row, spread
from torch import nn
from training import TYPES, multiplications

from thyro_core.config import Architecture
from thyro_core.training.device import choose_precision

LAPS = 3


@cache
def roofline(setting: Setting) -> float:
    """Speed of a plain matrix product [GFLOP/s]."""
    kind = TYPES[choose_precision("auto", setting.device)]
    shape = (setting.matrix, setting.matrix)
    one, other = (torch.rand(shape, device=setting.device).to(kind) for _ in range(2))
    times = []
    for _ in range(8):
        synchronise(setting.device)
        started = time.perf_counter()
        torch.mm(one, other)
        synchronise(setting.device)
        times.append(time.perf_counter() - started)
    return 2 * setting.matrix**3 / statistics.median(times[3:]) / 1e9


def compiled(setting: Setting, model: nn.Module) -> None:
    """Have torch compile a network in place; on a CPU only the part that needs no compiler."""
    model.compile(backend="inductor" if setting.device.type == "cuda" else "eager", dynamic=False)


def measured(
    setting: Setting, architecture: Architecture, name: str, ready: Callable[[], Job]
) -> str:
    """One way's row."""
    started = time.perf_counter()
    job = ready()
    warm_up(job)
    seconds = time.perf_counter() - started
    rates = [rate_of(job.train_epoch, setting) for _ in range(LAPS)]
    side = setting.config().side(architecture)
    work = multiplications(network(architecture, side), side, torch.device("cpu"))
    share = statistics.median(rates) * work / roofline(setting)
    note = "" if "graphs" not in name or job.is_replayed else " (not replayed: see its log)"
    shown = (architecture, side, job.recipe.precision, name + note, f"{seconds:.1f}")
    return row(*shown, spread(rates, 0), f"{share:.3f}")


def show(setting: Setting, architecture: Architecture, name: str, ready: Callable[[], Job]) -> None:
    free_memory(setting.device)
    try:
        print(measured(setting, architecture, name, ready), flush=True)
    except Exception as error:  # noqa: BLE001 - one way's row; the others are measured
        first = str(error).splitlines()[0][:200] if str(error) else ""
        text = f"**raised {type(error).__name__}**: {first}".replace("|", "/")
        print(row(architecture, "", "", name, "", text, ""), flush=True)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(parents=[parser_of()], allow_abbrev=False)
    parser.add_argument("--architecture", default="")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args(words)
    setting = setting_of(words)
    images = setting.images if setting.is_tiny else setting.batch * 10
    setting = replace(setting, images=images, seconds=setting.seconds / 2)
    prepare(setting)
    print(f"\nA plain product reaches {roofline(setting) / 1000:.3g} TFLOP/s.\n")
    print(header("network", "side", "precision", "way", "ready after s", "images/s", "roofline"))
    if options.compiled:
        for name in setting.architectures:
            change = partial(compiled, setting)
            for way, graphs in (("compiled, graphs", True), ("compiled", False)):
                make = partial(Job, setting, name, graphs=graphs, change=change)
                show(setting, name, way, make)
        return
    name = options.architecture if not setting.is_tiny else setting.architectures[0]
    show(setting, name, "eager", partial(Job, setting, name, graphs=False))
    show(setting, name, "graphs", partial(Job, setting, name, graphs=True))
    prepare(setting, deterministic=False)
    show(setting, name, "graphs, determinism off", partial(Job, setting, name, graphs=True))


if __name__ == "__main__":
    main(sys.argv[1:])
