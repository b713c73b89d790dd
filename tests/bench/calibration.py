"""How well probabilities fit on new patients when few of an ensemble's networks were counted.

    python tests/bench/calibration.py [--studies 40]

Ten (or five) networks share a part of an image's log odds, and each adds an error of its own. Out
of fold three in ten networks score an image; in use all do. Mean over studies of the Brier score
of 20,000 new images scored by all networks: with the calibration fitted on the scores of the few
as they are, with `fit_ensemble`, with one fitted on the new images themselves (the best there is),
and uncalibrated; and expected over observed malignant images of the second.
"""

import argparse

import numpy as np

from thyro_core.evaluation.calibration import fit_calibration, fit_ensemble
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
    """Brier scores of four ways in use, and expected over observed of `fit_ensemble`."""
    label, margins = scores(rng, case[0], case)
    image, network = np.nonzero(rng.random(margins.shape) < TESTED)
    names = np.array([f"i{i:06d}" for i in image], object)
    few = out_of_fold_ensemble(
        OutOfFoldPredictions(network, names, names, names, label[image], margins[image, network])
    )
    new, in_use = scores(rng, NEW, case)
    margin = ensemble_margin(in_use)
    fits = (
        fit_calibration(few.label, few.margin),
        fit_ensemble(few).calibration,
        fit_calibration(new, margin),
    )
    probabilities = [fit.probability(margin) for fit in fits] + [sigmoid(margin)]
    brier = [float(((p - new) ** 2).mean()) for p in probabilities]
    return [*brier, float(probabilities[1].mean() / new.mean())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40)
    arguments = parser.parse_args()
    print(f"{'':32} few as all   corrected   best   raw   E/O corrected")
    for name, case in CASES.items():
        rng = np.random.default_rng(0)
        means = np.mean([study(rng, case) for _ in range(arguments.studies)], axis=0)
        print(f"{name:32}", *(f"{value:9.4f}" for value in means))
