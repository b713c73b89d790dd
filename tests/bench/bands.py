"""How often the 95 % bands of ROC and precision-recall curves hold the true curve, place by place.

    python tests/bench/bands.py [--repeats 200]

Image sets and scores are those of `coverage.py`, with ten splits or five. At each place of the
axis: the share of image sets whose band (`curves.roc_band`, `curves.pr_band`) holds the true value
there: the true sensitivity at a false positive rate, the true precision at a recall where as many
images are malignant as in the test parts. A row gives the least, the mean and the largest of these
shares over the places of a range.
"""

import argparse

import numpy as np
from coverage import IMAGES, SIZES, draw, separation, test_rows
from laps import header
from scipy import stats

from thyro_core.evaluation.curves import POINTS, pr_band, roc_band

AUCS = (0.7, 0.85, 0.96, 0.99)
SPLITS = (10, 5)
RANGES = {"sensitivity": (0.02, 0.9), "precision, recall to 0.1": (0.05, 0.1),
          "precision, recall above": (0.2, 0.9)}  # fmt: skip


def holds(auc: float, images: int, splits: int, seed: int) -> dict[str, np.ndarray]:
    """Of one image set: whether each band holds the truth at the places of each range."""
    generator = np.random.default_rng([seed, images])
    case = draw(generator, auc, images)
    label, (probability, _), patient = case
    tests = [test_rows(generator, case) for _ in range(splits)]
    parts = [(label[rows], probability[rows]) for rows in tests]
    ratio = float(np.mean([rows.sum() / (~rows).sum() for rows in tests]))
    malignant = int(np.unique(patient[label == 1]).size)
    x = np.arange(POINTS) / (POINTS - 1)
    share = float(np.mean([of.mean() for of, _ in parts]))
    inner = np.clip(x, 1e-12, 1 - 1e-12)
    sensitivity = stats.norm.sf(stats.norm.isf(inner) - separation(auc))
    alarms = stats.norm.sf(stats.norm.isf(inner) + separation(auc))
    precision = inner * share / (inner * share + alarms * (1 - share))
    found = {}
    for name, (start, end) in RANGES.items():
        is_roc = name == "sensitivity"
        band = (roc_band if is_roc else pr_band)(parts, ratio, POINTS, malignant)
        true = sensitivity if is_roc else precision
        there = (x >= start - 1e-9) & (x <= end + 1e-9)
        found[name] = ((band.low <= true) & (true <= band.high))[there]
    return found


def main() -> None:
    """Print a row a case and range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print(f"{repeats} image sets each, {SIZES[1]} malignant and {SIZES[0]} benign images\n")
    print(
        header(
            "splits", "AUC", "images a patient", "band of", "from", "to", "least", "mean", "largest"
        )
    )
    cases = [(s, auc, images) for s in SPLITS for images in (1, IMAGES) for auc in AUCS]
    for splits, auc, images in cases:
        each = [holds(auc, images, splits, seed) for seed in range(repeats)]
        for name, (start, end) in RANGES.items():
            rates = np.mean([of[name] for of in each], axis=0)
            shares = " | ".join(f"{v:.3f}" for v in (rates.min(), rates.mean(), rates.max()))
            kind = name.partition(",")[0]
            place = f"{splits} | {auc} | {images} | {kind} | {start} | {end}"
            print(f"| {place} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
