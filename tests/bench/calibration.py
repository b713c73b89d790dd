"""How well probabilities fit on new patients when few of an ensemble's networks were counted.

    python tests/bench/calibration.py [--studies 40]

Ten (or five) networks share a part of an image's log odds, and each adds an error of its own. Out
of fold three in ten networks score an image; in use all do. Figures of 20,000 new images scored by
all networks, so of the truth but for chance, as means over studies with the SD over studies in
brackets: Brier score, calibration slope (1 fits), intercept at that slope fixed to 1 (0 fits) and
malignant images over the sum of probabilities (1 fits). Ways: `raw`, the networks' own
probabilities; `few as all`, a calibration fitted on the scores of the few as they are; `fitted`,
what a study does (`fit_ensemble`); `best`, fitted on the new images themselves.
"""

import argparse

import numpy as np
from laps import header

from thyro_core.evaluation.calibration import calibration_quality, fit_calibration, fit_ensemble
from thyro_core.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    ensemble_margin,
    out_of_fold_ensemble,
    sigmoid,
)

TESTED, NEW = 0.3, 20_000
CASES = {  # images, networks, share malignant, separation, spread of the shared part, of the error
    "600 images, steady networks": (600, 10, 0.25, 2.0, 1.5, 1.0),
    "600 images, unsteady networks": (600, 10, 0.25, 3.0, 2.0, 3.0),
    "300 images, five networks": (300, 5, 0.25, 2.0, 1.5, 2.0),
    "150 images, unsteady networks": (150, 10, 0.3, 3.0, 2.0, 3.0),
    "600 images, well separated": (600, 10, 0.2, 4.0, 1.5, 1.0),
}


def scores(rng, images, case):
    """Labels, and log odds of each network."""
    _, networks, share, separation, shared, error = case
    label = (rng.random(images) < share).astype(np.int64)
    own = separation * (label - 0.5) + 0.5 + rng.normal(0, shared, images)
    return label, own[:, None] + rng.normal(0, error, (images, networks))


def study(rng, case):
    """Brier score, slope, intercept and observed over expected in use, by way."""
    label, margins = scores(rng, case[0], case)
    image, network = np.nonzero(rng.random(margins.shape) < TESTED)
    names = np.array([f"i{i:06d}" for i in image], object)
    few = out_of_fold_ensemble(
        OutOfFoldPredictions(network, names, names, names, label[image], margins[image, network])
    )
    new, in_use = scores(rng, NEW, case)
    margin = ensemble_margin(in_use)
    ways = {
        "raw": sigmoid(margin),
        "few as all": fit_calibration(few.label, few.margin).probability(margin),
        "fitted": fit_ensemble(few).calibration.probability(margin),
        "best": fit_calibration(new, margin).probability(margin),
    }
    unit, reference = np.arange(NEW), np.full(NEW, new.mean())
    found = {}
    for way, probability in ways.items():
        fit = calibration_quality(new, probability, reference, unit)
        kinds = (fit.brier, fit.slope, fit.intercept, fit.observed_expected)
        found[way] = [kind.value for kind in kinds]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=40)
    studies = parser.parse_args().studies
    print(header("case", "probabilities", "Brier", "slope", "intercept", "observed / expected"))
    for name, case in CASES.items():
        rng = np.random.default_rng(0)
        found = [study(rng, case) for _ in range(studies)]
        for way in found[0]:
            values = np.array([each[way] for each in found])
            cells = zip(values.mean(axis=0), values.std(axis=0), strict=True)
            print(f"| {name} | {way} | {' | '.join(f'{m:.3f} ({sd:.3f})' for m, sd in cells)} |")


if __name__ == "__main__":
    main()
