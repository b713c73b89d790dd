"""How much of the spread of an AUC over splits is the images, how much the chance of a training.

    python tests/bench/seeds.py [SOURCE] [--splits 6] [--seeds 3] [--epochs 4] [--side 64]
                                [--images 200]

Trains ResNet18 on each split of an image set (without SOURCE: phantoms) several times, with seeds
of their own for head, order and augmentation. A study trains each split once, so that its spread
holds both. With y = mean + split + seed, one-way analysis of variance gives the parts: that of the
seeds is the mean variance within a split, that of the splits the variance of the splits' means less
the seeds' over their number, at least 0 (Searle, Casella and McCulloch, "Variance Components",
1992, chapter 3).
"""

import argparse
import tempfile

import numpy as np
from laps import header, row
from precision import aucs

from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.store.store import open_store


def components(values: np.ndarray) -> tuple[float, float]:
    """Variance of the splits and of the seeds; values (seeds, splits)."""
    seeds = float(values.var(axis=0, ddof=1).mean())
    return max(float(values.mean(axis=0).var(ddof=1)) - seeds / len(values), 0.0), seeds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or f"{folder}/phantoms"
        if not options.source:
            write_phantoms(source, images=options.images, malignant=options.images * 2 // 5)
        store = open_store(f"{folder}/store")
        values = np.array(
            [aucs(source, store, "fp32", seed, options) for seed in range(options.seeds)]
        )
    splits, seeds = components(values)
    what = f"{options.architecture} {options.side}, {options.epochs} epochs"
    print(header(what, "splits", "seeds", "AUC, mean", "SD of splits", "SD of seeds",
                 "seeds' share of the variance"))  # fmt: skip
    figures = (values.mean(), splits**0.5, seeds**0.5, seeds / (splits + seeds))
    name = "phantoms" if options.source is None else "image set"
    print(row(name, options.splits, options.seeds, *(f"{figure:.3f}" for figure in figures)))


if __name__ == "__main__":
    main()
