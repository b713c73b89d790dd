"""How often the 95 % intervals hold the truth, near the edges, with and without clusters.

    python tests/bench/coverage.py [--repeats 1000] [--splits 10] [--aucs 0.85,0.99]

508 images (90 malignant), binormal scores of a known AUC, ten stratified 70/30 splits by patient
(another number with `--splits`, which leaves out the table that no split has a part in);
with clusters a patient has four images that correlate at 0.6. The mean over splits is
`uncertainty.mean_interval`, that of one test part `delong.auc_interval`; `raw` is the symmetric
interval with the same variance. `test` is the share of DeLong tests of two equal classifiers with
P < 0.05.

Then `operating.operating_point` at its declared sensitivities: whether its intervals hold the true
sensitivity and specificity of the very thresholds that were chosen, and whether that of the
apparent specificity holds the true specificity at exactly the declared sensitivity, which no
threshold chosen on a sample has. Last PPV and NPV (`operating.predictive_intervals`) from
sensitivity and specificity over splits, at the threshold midway between the classes: they rise with
one ratio at any given prevalence, so that one prevalence stands for all.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from thyro_core.evaluation.bounded import Interval
from thyro_core.evaluation.calibration import FOLDS, group_folds
from thyro_core.evaluation.curves import ppv_npv
from thyro_core.evaluation.delong import auc_interval, delong
from thyro_core.evaluation.metrics import metrics
from thyro_core.evaluation.operating import (
    SENSITIVITIES,
    operating_point,
    predictive_intervals,
    sensitivity_threshold,
)
from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble
from thyro_core.evaluation.uncertainty import mean_interval, nadeau_bengio
from thyro_core.types import AnyFloatArray, AnyIntArray, BoolArray

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.support.auc_variance import auc_variance

AUCS = (0.85, 0.96, 0.99, 0.998)
SIZES = {1: 90, 0: 418}
SPLITS, TEST, IMAGES, LIKENESS = 10, 0.3, 4, 0.6
RESAMPLES = 500
PREVALENCE = 0.05
_Case = tuple[AnyIntArray, AnyFloatArray, AnyIntArray]


def draw(generator: np.random.Generator, auc: float, images: int) -> _Case:
    """Labels, two classifiers' probabilities (2, n) and patients of one image set.

    A probability is that of a score over 4; scores have unit variance in each class.
    """
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


def rates(auc: float, images: int, repeats: int, splits: int) -> dict[str, float]:
    """Coverage of each interval and level of the test."""
    hits: dict[str, list[bool]] = {"mean": [], "mean raw": [], "part": [], "part raw": []}
    rejections: list[bool] = []
    for seed in range(repeats):
        generator = np.random.default_rng([seed, images])
        case = draw(generator, auc, images)
        label, (first, second), patient = case
        parts = [test_rows(generator, case) for _ in range(splits)]
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


def separation(auc: float) -> float:
    """Means of the classes' scores apart, benign at 0."""
    return float(np.sqrt(2) * stats.norm.ppf(auc))


def declared_rates(auc: float, images: int, repeats: int) -> dict[float, dict[str, float]]:
    """Coverage at each declared sensitivity."""
    hits: dict[float, list[list[bool]]] = {sensitivity: [] for sensitivity in SENSITIVITIES}
    for seed in range(repeats):
        label, (probability, _), patient = draw(np.random.default_rng([seed, images]), auc, images)
        score = 4 * stats.norm.ppf(probability)
        names = patient.astype(str).astype(object)
        ones = np.ones(label.size)
        ensemble = OutOfFoldEnsemble(
            names, names, names, label, score, ones.astype(np.int64), ones, 1
        )
        fold = group_folds(ensemble)
        for sensitivity in SENSITIVITIES:
            point = operating_point(ensemble, sensitivity, resamples=RESAMPLES, seed=seed)
            assert point is not None
            thresholds = np.array(
                [
                    sensitivity_threshold(label[fold != part], score[fold != part], sensitivity)
                    for part in range(FOLDS)
                ]
            )[fold]
            true = stats.norm.sf(thresholds, loc=separation(auc) * label)
            declared = stats.norm.cdf(separation(auc) - stats.norm.ppf(sensitivity))
            hits[sensitivity].append(
                [
                    point.sensitivity_low <= true[label == 1].mean() <= point.sensitivity_high,
                    point.specificity_low <= 1 - true[label == 0].mean() <= point.specificity_high,
                    point.apparent_low <= declared <= point.apparent_high,
                ]
            )
    names_of = ("sensitivity", "specificity", "specificity at the declared sensitivity")
    return {
        sensitivity: dict(zip(names_of, np.mean(each, axis=0).tolist(), strict=True))
        for sensitivity, each in hits.items()
    }


def predictive_rates(auc: float, images: int, repeats: int, splits: int) -> dict[str, float]:
    """Coverage of PPV and NPV, both at the threshold midway between the classes."""
    half = separation(auc) / 2
    share = float(stats.norm.cdf(half))
    truth = [float(value[0]) for value in ppv_npv(share, share, (PREVALENCE,))]
    hits = []
    for seed in range(repeats):
        generator = np.random.default_rng([seed, images])
        case = draw(generator, auc, images)
        label, (probability, _), patient = case
        called = 4 * stats.norm.ppf(probability) >= half
        parts = [test_rows(generator, case) for _ in range(splits)]
        ratio = float(np.mean([rows.sum() / (~rows).sum() for rows in parts]))
        rates_of = []
        for value in (1, 0):
            units = int(np.unique(patient[label == value]).size)
            right = called if value else ~called
            values = [right[rows & (label == value)].mean() for rows in parts]
            mean = mean_interval(values, ratio, patients=units)
            rates_of.append((mean.mean, Interval(mean.low, mean.high)))
        intervals = predictive_intervals(*rates_of, (PREVALENCE,))
        hits.append(
            [ends[0].low <= at <= ends[0].high for ends, at in zip(intervals, truth, strict=True)]
        )
    return dict(zip(("PPV", "NPV"), np.mean(hits, axis=0).tolist(), strict=True))


def print_row(cells: list[object], *, is_head: bool = False) -> None:
    """A Markdown row; a head with its rule."""
    texts = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print(f"| {' | '.join(texts)} |", flush=True)
    if is_head:
        print(f"|{'---|' * len(cells)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--aucs", default=",".join(map(str, AUCS)))
    options = parser.parse_args()
    aucs = [float(auc) for auc in options.aucs.split(",")]
    repeats, splits = options.repeats, options.splits
    print(f"{repeats} image sets each, {splits} splits")
    print("coverage of 95 % intervals, level of a test at 0.05\n")
    cases = [(auc, images) for images in (1, IMAGES) for auc in aucs]
    keys: list[object] = ["AUC", "images a patient"]
    for place, (auc, images) in enumerate(cases):
        found = rates(auc, images, repeats, splits)
        if not place:
            print_row([*keys, *found], is_head=True)
        print_row([str(auc), images, *found.values()])
    print()
    for place, (auc, images) in enumerate(cases if splits == SPLITS else []):
        for declared, rates_of in declared_rates(auc, images, repeats).items():
            if not place and declared == SENSITIVITIES[0]:
                print_row([*keys, "declared", *rates_of], is_head=True)
            print_row([str(auc), images, str(declared), *rates_of.values()])
    print()
    for place, (auc, images) in enumerate(cases):
        predictive = predictive_rates(auc, images, repeats, splits)
        if not place:
            print_row([*keys, *predictive], is_head=True)
        print_row([str(auc), images, *predictive.values()])


if __name__ == "__main__":
    main()
