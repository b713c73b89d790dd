"""What the analysis of the maps costs a job, against the forward passes it needs anyway.

    python tests/bench/cam_analysis.py [--architecture resnet18] [--images 151] [--trust-images 4]

Times, in one thread and on random pixels, the forward pass of all test images and the analysis of
their maps, as a whole and by part: features of all shares, where energy lies, nodules and their
baselines, the network's checks.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.explain import analysis
from thyro_core.explain.gradcam import predict_with_cams
from thyro_core.training.batches import Examples
from thyro_core.training.inference import predict
from thyro_core.training.models import build

PARTS = ("feature_rows", "map_checks", "nodule_checks", "network_checks")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--images", type=int, default=151)
    parser.add_argument("--trust-images", type=int, default=4)
    return parser.parse_args()


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """CPU seconds of each part while the block lasts."""
    spent = dict.fromkeys(PARTS, 0.0)
    real = {name: getattr(analysis, name) for name in PARTS}

    def timed(name: str) -> Callable[..., object]:
        def call(*values: object, **named: object) -> object:
            start = time.process_time()
            try:
                return real[name](*values, **named)
            finally:
                spent[name] += time.process_time() - start

        return call

    for name in PARTS:
        setattr(analysis, name, timed(name))
    yield spent
    for name in PARTS:
        setattr(analysis, name, real[name])


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    name, n, cpu = options.architecture, options.images, torch.device("cpu")
    side = StudyConfig().side(name)
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(n, side, side)), (0, 1, 1))
    pixels = np.clip(noise * 60 + 90, 0, 255).astype(np.uint8)
    labels = torch.arange(n) % 6 // 5
    examples = Examples(pixels, np.arange(n), labels)
    model = build(name, side, seed=1).eval().to(memory_format=torch.channels_last)
    start = time.process_time()
    predict(model, examples, cpu)
    forward = time.process_time() - start
    _, maps = predict_with_cams(model, name, examples, cpu)
    ids = [f"{i:064x}" for i in range(n)]
    keys = {"study_id": "s0", "split": 0, "architecture": name}
    masks = [gaussian_filter(rng.normal(size=(side, side)), side / 8) > 0 for _ in range(n)]
    network = analysis.TrainedNetwork(model, name, cpu, examples, ids, masks, ids, [0.63] * n)
    config = StudyConfig(trust_images=options.trust_images)
    with watched() as spent:
        start = time.process_time()
        analysis.explanation_tables(keys, network, maps, config, seed=0)
        whole = time.process_time() - start
    print(f"{name}, {n} images, {options.trust_images} of them checked with the network, CPU s")
    for part, seconds in {"forward pass": forward, "analysis": whole, **spent}.items():
        print(
            f"{part:<16}{seconds:8.2f}{1000 * seconds / n:8.1f} ms/image{seconds / forward:8.2f} x"
        )


if __name__ == "__main__":
    main()
