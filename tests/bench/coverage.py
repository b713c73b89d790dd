"""How often the 95 % intervals hold the true AUC, near the edges, with and without clusters.

    python -m tests.bench.coverage [repeats]

508 images (90 malignant), binormal scores of a known AUC, ten stratified 70/30 splits by patient;
with clusters a patient has four images that correlate at 0.6. The mean over splits is
`uncertainty.mean_interval`, that of one test part `delong.auc_interval`; `raw` is the symmetric
interval with the same variance. `test` is the share of DeLong tests of two equal classifiers with
P < 0.05.
"""

import sys

import numpy as np
from scipy import stats

from thyro_core.evaluation.delong import auc_interval, auc_variance, delong
from thyro_core.evaluation.metrics import metrics
from thyro_core.evaluation.uncertainty import mean_interval, nadeau_bengio
from thyro_core.types import AnyFloatArray, AnyIntArray, BoolArray

AUCS = (0.85, 0.96, 0.99, 0.998)
SIZES = {1: 90, 0: 418}
SPLITS, TEST, IMAGES, LIKENESS = 10, 0.3, 4, 0.6
_Case = tuple[AnyIntArray, AnyFloatArray, AnyIntArray]


def draw(generator: np.random.Generator, auc: float, images: int) -> _Case:
    """Labels, two classifiers' probabilities (2, n) and patients of one image set."""
    label = np.repeat(list(SIZES), list(SIZES.values()))
    place = np.r_[np.arange(SIZES[1]), np.arange(SIZES[0])] // images
    patient = np.where(label == 1, place, place + SIZES[1])
    own = generator.normal(size=(3, patient.max() + 1))[:, patient]
    noise = generator.normal(size=(3, label.size))
    likeness = LIKENESS if images > 1 else 0.0
    parts = np.sqrt(likeness) * own + np.sqrt(1 - likeness) * noise
    score = np.sqrt(2) * stats.norm.ppf(auc) * label + (parts[:1] + parts[1:]) / np.sqrt(2)
    return label, stats.norm.cdf(score / 4), patient


def test_rows(generator: np.random.Generator, case: _Case) -> BoolArray:
    """A test part: the floor of 30 % of the patients of each class."""
    label, _, patient = case
    drawn = [
        generator.permutation(group)[: int(TEST * group.size)]
        for group in (np.unique(patient[label == value]) for value in (0, 1))
    ]
    return np.isin(patient, np.concatenate(drawn))


def rates(auc: float, images: int, repeats: int) -> dict[str, float]:
    """Coverage of each interval and level of the test."""
    hits: dict[str, list[bool]] = {"mean": [], "mean raw": [], "part": [], "part raw": []}
    rejections: list[bool] = []
    for seed in range(repeats):
        generator = np.random.default_rng([seed, images])
        case = draw(generator, auc, images)
        label, (first, second), patient = case
        parts = [test_rows(generator, case) for _ in range(SPLITS)]
        aucs = [metrics(label[rows], first[rows], 0.5)["auc"] for rows in parts]
        ratio = float(np.mean([rows.sum() / (~rows).sum() for rows in parts]))
        sizes = tuple(np.unique(patient[label == value]).size for value in (1, 0))
        mean = mean_interval(aucs, ratio, patients=(sizes[0], sizes[1]))
        raw = nadeau_bengio(aucs, ratio)
        rows = parts[0]
        part = auc_interval(label[rows], first[rows], patient[rows])
        half = 1.96 * np.sqrt(auc_variance(label[rows], first[rows], patient[rows]))
        ends = {
            "mean": (mean.low, mean.high),
            "mean raw": (raw.ci_low, raw.ci_high),
            "part": part,
            "part raw": (aucs[0] - half, aucs[0] + half),
        }
        for name, (low, high) in ends.items():
            hits[name].append(bool(low <= auc <= high))
        rejections.append(delong(label, first, second, patient).p < 0.05)
    return {name: float(np.mean(each)) for name, each in hits.items()} | {
        "test": float(np.mean(rejections))
    }


def main() -> None:
    """Print the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{repeats} image sets each; coverage of 95 % intervals, level of a test at 0.05")
    for images in (1, IMAGES):
        for auc in AUCS:
            found = rates(auc, images, repeats)
            cells = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
            print(f"AUC {auc:<5}  {images} images a patient  {cells}", flush=True)


if __name__ == "__main__":
    main()
