"""How often the 95 % bands of curves over splits hold the true curve, place by place.

    python tests/bench/bands.py [--repeats 200]

Image sets and scores are those of `coverage.py`, with ten splits or five. At each place of the
axis: the share of image sets whose band (`curves.roc_band`, `curves.pr_band`,
`curves.decision_curve`) holds the true value there: the true sensitivity at a false positive rate,
and the true precision at a recall, or net benefit at a threshold, where as many images are
malignant as in the test parts. A row gives the least, the mean and the largest of these shares over
the places of a range; of precision from the first recall that has an interval.
"""

import argparse

import numpy as np
from coverage import IMAGES, SIZES, draw, separation, test_rows
from laps import header
from scipy import stats

from thyro_core.evaluation.curves import POINTS, decision_curve, pr_band, roc_band

AUCS = (0.7, 0.85, 0.96, 0.99)
SPLITS = (10, 5)
RANGES = {"sensitivity": (0.02, 0.9), "precision": (0.0, 0.9), "net benefit": (0.35, 0.8)}


def holds(auc: float, images: int, splits: int, seed: int) -> dict[str, np.ndarray]:
    """Of one image set: whether each band holds the truth at the places of its range; NaN: none."""
    generator = np.random.default_rng([seed, images])
    case = draw(generator, auc, images)
    label, (probability, _), patient = case
    tests = [test_rows(generator, case) for _ in range(splits)]
    parts = [(label[rows], probability[rows]) for rows in tests]
    ratio = float(np.mean([rows.sum() / (~rows).sum() for rows in tests]))
    malignant, benign = (int(np.unique(patient[label == value]).size) for value in (1, 0))
    x = np.arange(POINTS) / (POINTS - 1)
    share = float(np.mean([of.mean() for of, _ in parts]))
    inner = np.clip(x, 1e-12, 1 - 1e-12)
    sensitivity = stats.norm.sf(stats.norm.isf(inner) - separation(auc))
    alarms = stats.norm.sf(stats.norm.isf(inner) + separation(auc))
    precision = inner * share / (inner * share + alarms * (1 - share))
    score = 4 * stats.norm.ppf(inner)
    benefit = share * stats.norm.sf(score - separation(auc)) - (1 - share) * stats.norm.sf(
        score
    ) * inner / (1 - inner)
    decision = decision_curve(parts, ratio, patients=(malignant, benign)).model
    bands = {
        "sensitivity": (roc_band(parts, ratio, malignant), sensitivity),
        "precision": (pr_band(parts, ratio, malignant), precision),
        "net benefit": (decision, benefit[1:-1]),
    }
    found = {}
    for name, (band, true) in bands.items():
        start, end = RANGES[name]
        there = (band.x >= start - 1e-9) & (band.x <= end + 1e-9)
        is_held = (band.low <= true) & (true <= band.high)
        found[name] = np.where(np.isfinite(band.low), is_held, np.nan)[there]
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
            of_places = np.array([of[name] for of in each])
            drawn = np.isfinite(of_places).any(axis=0)
            rates = np.nanmean(of_places[:, drawn], axis=0)
            first = start + int(np.argmax(drawn)) / (POINTS - 1)
            shares = " | ".join(f"{v:.3f}" for v in (rates.min(), rates.mean(), rates.max()))
            place = f"{splits} | {auc} | {images} | {name} | {first:g} | {end}"
            print(f"| {place} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
