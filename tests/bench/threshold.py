"""The share of studies whose threshold misses more malignant patients than was declared.

    python tests/bench/threshold.py [--studies 500]

A study has ten hold-outs of 93 malignant and 415 benign patients; a network's log odds are a
patient's own, a shift of the network, and noise. The ensemble in use averages all ten networks; its
true sensitivity is taken over many new patients. Three ways to choose the threshold: sensitivity
seen on single networks' held-out scores (as it was), that seen on out-of-fold ensemble scores, and
its lower bound on these. A bound of 95 % confidence should fail in at most 5 % of studies.
"""

import argparse

import numpy as np

from thyro_core.evaluation.out_of_fold import ensemble_margin
from thyro_core.evaluation.threshold import bounded_threshold

NETWORKS, MALIGNANT, BENIGN, TRUTH = 10, 93, 415, 4000
CASES = {  # separation, noise of a network, shift of a network, images a patient
    "one image a patient": (2.0, 1.0, 0.3, 1),
    "noisy networks": (2.0, 2.0, 0.5, 1),
    "steady networks": (2.0, 0.2, 0.0, 1),
    "three images a patient": (2.0, 1.0, 0.3, 3),
}


def scores(rng, patients, centre, case):
    """(images, networks): log odds; images of a patient share nine tenths of their own part."""
    _, noise, _, images = CASES[case]
    own = np.repeat(rng.normal(0, 1, patients), images) * np.sqrt(0.9 if images > 1 else 1.0)
    own = own + (rng.normal(0, np.sqrt(0.1), own.size) if images > 1 else 0)
    return centre + own[:, None] + rng.normal(0, noise, (own.size, NETWORKS))


def study(rng, case, level):
    """True sensitivity and specificity of each way's threshold."""
    separation, _, spread, images = CASES[case]
    shift = rng.normal(0, spread, NETWORKS)
    own = scores(rng, MALIGNANT, separation, case) + shift
    test = np.zeros((MALIGNANT, NETWORKS), bool)
    for k in range(NETWORKS):
        test[rng.permutation(MALIGNANT)[: int(0.3 * MALIGNANT)], k] = True
    test = np.repeat(test, images, axis=0)
    unit = np.repeat(np.arange(MALIGNANT), images).astype(object)
    there = test.any(axis=1)
    ensemble = np.array(
        [ensemble_margin(m[t]) for m, t in zip(own[there], test[there], strict=True)]
    )
    singles = np.sort(own[test])[::-1]
    seen = np.sort(ensemble)[::-1]
    label = np.ones(ensemble.size, np.int64)
    ways = {
        "seen on single networks": singles[int(np.ceil(level * singles.size)) - 1],
        "seen on the ensemble": seen[int(np.ceil(level * seen.size)) - 1],
        "lower bound on the ensemble": bounded_threshold(
            label, ensemble, unit[there], level
        ).threshold,
    }
    new = ensemble_margin(scores(rng, TRUTH // images, separation, case) + shift)
    benign = ensemble_margin(scores(rng, TRUTH // images, 0.0, case) + shift)
    return {n: ((new >= t).mean(), (benign < t).mean()) for n, t in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--level", type=float, default=0.95)
    options = parser.parse_args()
    print("| case | threshold by | studies below the declared | sensitivity | specificity |")
    print("|---|---|---|---|---|")
    for case in CASES:
        rng = np.random.default_rng(0)
        found = [study(rng, case, options.level) for _ in range(options.studies)]
        for way in found[0]:
            true = np.array([each[way] for each in found])
            below = (true[:, 0] < options.level).mean()
            rates = " | ".join(f"{rate:.3f}" for rate in true.mean(axis=0))
            print(f"| {case} | {way} | {below:.3f} | {rates} |")


if __name__ == "__main__":
    main()
