"""What a reader would say of a phantom's nodule, and how often each sign goes with each class."""

from dataclasses import dataclass

import numpy as np

ANECHOIC_DB = -25.0
"""Echo level of fluid against parenchyma [dB]: haze, not nothing."""

# Points: ACR TI-RADS, Tessler et al., J Am Coll Radiol 2017; 14:587. Chances (benign, malignant)
# are ours: the signs follow the lexicon and overlap so that no reader could reach an AUC of 1.
_LEXICON: dict[str, dict[str, tuple[int, float, float]]] = {
    "composition": {
        "cystic": (0, 0.05, 0.00),
        "spongiform": (0, 0.08, 0.01),
        "mixed": (1, 0.17, 0.07),
        "solid": (2, 0.70, 0.92),
    },
    "echogenicity": {
        "hyperechoic": (1, 0.28, 0.02),
        "isoechoic": (1, 0.45, 0.10),
        "hypoechoic": (2, 0.23, 0.53),
        "very hypoechoic": (3, 0.04, 0.35),
        "anechoic": (0, 0.00, 0.00),
    },
    "shape": {"wider": (0, 0.93, 0.46), "taller": (3, 0.07, 0.54)},
    "margin": {
        "smooth": (0, 0.66, 0.18),
        "ill-defined": (0, 0.20, 0.16),
        "lobulated": (2, 0.09, 0.31),
        "irregular": (2, 0.05, 0.35),
    },
    "foci": {
        "none": (0, 0.72, 0.43),
        "comet-tail": (0, 0.09, 0.01),
        "macrocalcification": (1, 0.10, 0.12),
        "rim": (2, 0.03, 0.04),
        "punctate": (3, 0.06, 0.40),
    },
}
_ECHO_DB = {
    "anechoic": ANECHOIC_DB,
    "hyperechoic": 5.0,
    "isoechoic": 0.0,
    "hypoechoic": -10.0,
    "very hypoechoic": -16.0,
}


@dataclass(frozen=True)
class Features:
    """A nodule as a reader describes it, in the terms of ACR TI-RADS.

    `echo_db` is the echo level of its solid part against the parenchyma [dB]; `elongation` is
    height over width, above 1 where it is taller than wide.
    """

    composition: str
    echogenicity: str
    shape: str
    margin: str
    foci: str
    halo: bool
    echo_db: float
    elongation: float


def draw_features(seed: int, index: int, malignant: bool) -> Features:
    """The nodule of one phantom; cheap, because nothing is rendered.

    Cystic and spongiform nodules keep to benign signs, as the lexicon has it.
    """
    rng = np.random.default_rng([seed, index, 0, int(malignant)])
    signs = {name: _choose(rng, name, malignant) for name in _LEXICON}
    halo = bool(rng.random() < (0.10 if malignant else 0.45))
    stretch, jitter = rng.random(), rng.normal(0.0, 1.3)
    if signs["composition"] in {"cystic", "spongiform"}:
        cystic = signs["composition"] == "cystic"
        foci = "comet-tail" if signs["foci"] == "comet-tail" else "none"
        echo = "anechoic" if cystic else "isoechoic"
        signs |= {"shape": "wider", "margin": "smooth", "foci": foci, "echogenicity": echo}
    halo = halo and signs["margin"] != "ill-defined"
    tall = signs["shape"] == "taller"
    elongation = 1.10 + 0.35 * stretch if tall else 0.60 + 0.35 * stretch
    echo_db = float(_ECHO_DB[signs["echogenicity"]] + jitter)
    return Features(**signs, halo=halo, echo_db=echo_db, elongation=float(elongation))


def _choose(rng: np.random.Generator, name: str, malignant: bool) -> str:
    options = _LEXICON[name]
    chances = [entry[2 if malignant else 1] for entry in options.values()]
    return str(rng.choice(list(options), p=chances))


def tirads_points(features: Features) -> int:
    """Sum of the ACR TI-RADS points (0 to 13); a spongiform nodule scores 0 whatever else it shows.

    Source: Tessler et al., J Am Coll Radiol 2017; 14:587.
    """
    if features.composition == "spongiform":
        return 0
    return sum(options[getattr(features, name)][0] for name, options in _LEXICON.items())
