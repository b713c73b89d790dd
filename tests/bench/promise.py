"""Whether the promise of conformal bands holds, and what would become of it by other rules.

    python tests/bench/promise.py [--studies 500]

A study has ten hold-outs of 93 malignant and 415 benign patients; a network's log odds are a
patient's own, a shift of the network, and noise. An image is scored out of fold by the networks
that tested it, about three, and in use by all ten. Promised: of patients with malignant
images at most 5 % have a malignant image called routine, of patients with benign images at most
10 % a benign one called refer. The shares are of new
patients, by networks like those of the calibration ("alike", for which the promise is exact) and by
all ("in use"); at most the declared share is right. "by image" is the rule that was not taken: each
image of the calibration counts as a patient of its own.
"""

import argparse

import numpy as np

from thyro_core.evaluation.conformal import band_cuts, score_bands

NETWORKS, TRUTH, ROUTINE, REFER = 10, 1000, 0.05, 0.1
SIZES = {1: 93, 0: 415}
CASES = {  # separation, noise of a network, shift of a network, images a patient at most
    "one image a patient": (2.0, 1.0, 0.3, 1),
    "noisy networks": (2.0, 2.0, 0.5, 1),
    "steady networks": (2.0, 0.2, 0.0, 1),
    "well apart": (5.0, 1.0, 0.3, 1),
    "one to five images": (2.0, 1.0, 0.3, 5),
}


def scores(rng, patients, centre, case):
    """(images, networks) log odds, and each image's patient; alike within one."""
    _, noise, _, most = CASES[case]
    number = rng.integers(1, most + 1, patients)
    unit = np.repeat(np.arange(patients), number)
    own = rng.normal(0, np.sqrt(0.9), patients)[unit] + rng.normal(0, np.sqrt(0.1), unit.size)
    return centre + own[:, None] + rng.normal(0, noise, (unit.size, NETWORKS)), unit


def tested(rng, patients):
    """(patients, networks): which networks' splits tested them."""
    test = np.zeros((patients, NETWORKS), bool)
    for k in range(NETWORKS):
        test[rng.permutation(patients)[: int(0.3 * patients)], k] = True
    return test


def part_margin(margins, test):
    """The ensemble of the networks that tested each image; NaN: none did."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (test / (1 + np.exp(-margins))).sum(axis=1) / test.sum(axis=1)
        return np.log(mean / (1 - mean))


def share(is_called, unit):
    """Of patients, those with such an image."""
    return len(set(unit[is_called])) / len(set(unit))


def study(rng, case):
    """Shares of new patients by rule, scoring and band, and the share that is for review."""
    separation, _, spread, _ = CASES[case]
    shift = rng.normal(0, spread, NETWORKS)
    parts = []
    for label, n in SIZES.items():
        margins, unit = scores(rng, n, separation * label, case)
        margin = part_margin(margins + shift, tested(rng, n)[unit])
        there = np.isfinite(margin)
        parts.append((np.full(there.sum(), label), margin[there], unit[there] + label * 10_000))
    label, margin, unit = (np.concatenate(each) for each in zip(*parts, strict=True))
    rules = {"by patient": unit, "by image": np.arange(unit.size)}
    new = {}
    for value in SIZES:
        margins, patients = scores(rng, TRUTH, separation * value, case)
        margins = margins + shift
        test = tested(rng, TRUTH)[patients]
        alike = part_margin(margins, test)
        there = np.isfinite(alike)
        in_use = part_margin(margins, np.ones_like(test))
        new[value] = {"alike": (alike[there], patients[there]), "in use": (in_use, patients)}
    found = {}
    for rule, units in rules.items():
        cuts = band_cuts(label, margin, units, routine_share=ROUTINE, refer_share=REFER)
        for scoring in ("alike", "in use"):
            (ill, ill_unit), (well, well_unit) = new[1][scoring], new[0][scoring]
            ill_bands, well_bands = score_bands(ill, cuts), score_bands(well, cuts)
            found[rule, scoring] = (
                share(ill_bands == "routine", ill_unit),
                share(well_bands == "refer", well_unit),
                float((well_bands == "routine").mean()),
                float((np.concatenate([ill_bands, well_bands]) == "review").mean()),
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500)
    options = parser.parse_args()
    print(
        f"| case | rule | scored | malignant patients routine (<= {ROUTINE}) | benign patients "
        f"refer (<= {REFER}) | benign images routine | images for review |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        rng = np.random.default_rng(0)
        studies = [study(rng, case) for _ in range(options.studies)]
        for key in studies[0]:
            values = np.array([each[key] for each in studies]).mean(axis=0)
            print(f"| {case} | {' | '.join(key)} | {' | '.join(f'{v:.3f}' for v in values)} |")


if __name__ == "__main__":
    main()
