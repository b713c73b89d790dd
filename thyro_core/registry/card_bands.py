"""The conformal bands of a card: chosen on out-of-fold scores, and what they promise in words."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from thyro_core.errors import InputError, amount
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.evaluation.conformal import (
    band_cuts,
    least_calibration_patients,
    score_bands,
)
from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble
from thyro_core.registry.card import BandPromise, ConformalBands

BANDS_METHOD = (
    "Class-conditional (Mondrian) conformal prediction on these out-of-fold ensemble scores. The p "
    "value of a class is (1 + calibration patients of the class at least as unlike it) / (patients "
    "+ 1). A patient (or group, where none is known) counts by the one image of the class that is "
    "least like it, so that the promise holds for any image of a new patient. Routine: malignant "
    "is implausible, benign is not; refer: the reverse; review: both are plausible, or neither. "
    "The members whose split tested an image score it here, and all members score an image in use, "
    "whose scores spread less, so that as a rule fewer lie beyond a cut: the promise is exact for "
    "scores made alike, and an approximation in use."
)
"""How the bands are chosen."""

CONDITIONS = (
    "It holds on average over draws of the calibration patients, for new patients who are "
    "exchangeable with them (the same hospital, the same devices, chosen in the same way). A score "
    "of the calibration comes of the few members whose split tested the image, one in use of all "
    "members, so that in use the promise is an approximation. It says nothing of another hospital, "
    "and nothing of one single patient."
)
"""What the promise rests on."""


class BandShares(NamedTuple):
    """The declared shares of conformal bands."""

    routine: float
    """Most patients with malignant images of whom a malignant one is called routine."""
    refer: float
    """Most patients with benign images of whom a benign one is called refer."""


def conformal_bands(
    ensemble: OutOfFoldEnsemble, calibration: LogisticCalibration, shares: BandShares, where: str
) -> ConformalBands:
    """The bands, and what they do on held-out images.

    Args:
        ensemble: out-of-fold scores.
        calibration: the one in use; the cuts are probabilities of its scale.
        shares: the declared ones.
        where: names the study and its network in an error.

    Raises:
        InputError: too few patients of a class for its share.
    """
    patients = [len(set(ensemble.unit[ensemble.label == value])) for value in (1, 0)]
    for share, n, name, key in zip(
        shares, patients, ("malignant", "benign"), ("routine_share", "refer_share"), strict=True
    ):
        _require_patients(share, n, f"{where}: ", name=name, key=key)
    score = calibration.probability(ensemble.margin)
    cuts = band_cuts(
        ensemble.label,
        score,
        ensemble.unit,
        routine_share=shares.routine,
        refer_share=shares.refer,
    )
    bands = score_bands(score, cuts)
    malignant = ensemble.label == 1
    # Ties at the cut may leave fewer beyond it than the share allows.
    is_beyond = malignant & (score < cuts.routine_below), ~malignant & (score > cuts.refer_above)
    routine, refer = (
        BandPromise(share=share, cut=cut, patients=n, beyond=len(set(ensemble.unit[beyond])))
        for share, cut, n, beyond in zip(shares, cuts, patients, is_beyond, strict=True)
    )
    return ConformalBands(
        method=BANDS_METHOD,
        routine=routine,
        refer=refer,
        images={name: float((bands == name).mean()) for name in ("refer", "review", "routine")},
        groups=len(set(ensemble.unit[ensemble.unit == ensemble.group])),
    )


def _require_patients(share: float, n: int, where: str, *, name: str, key: str) -> None:
    least = least_calibration_patients(share)
    if n < least:
        # Rounded up, so that what is offered is enough.
        offer = math.ceil(10_000 / (n + 1)) / 10_000
        cure = f"give a {key} of {offer:g} or more, or " if n else ""
        msg = (
            f"{where}expected at least {least} {name} patients (groups, where no patient is known) "
            f"among the held-out predictions, which {key}={share:g} takes (1 / share - 1), found "
            f"{n}; {cure}study more patients, or promote with bands=threshold"
        )
        raise InputError(msg)


def band_warnings(bands: ConformalBands) -> list[str]:
    """What a reader of the card must not miss of its bands."""
    if bands.images["routine"] > 0:
        return []
    warning = (
        f"no held-out image is called routine at the declared share {bands.routine.share:g}: these "
        "bands save no reading"
    )
    return [warning]


def promise_text(card: Mapping[str, Any]) -> str | None:
    """What the bands of a model promise, with the conditions; None: its bands are a threshold's.

    Args:
        card: a bundle's card, of any version.
    """
    bands = card.get("bands")
    if bands is None:
        return None
    routine, refer = bands["routine"], bands["refer"]
    return (
        f"Of patients with malignant images at most {percent(routine['share'])} have a malignant "
        f"image called routine, of patients with benign images at most {percent(refer['share'])} a "
        f"benign one called refer (chosen on {routine['patients']} and {refer['patients']} "
        f"patients). {CONDITIONS}{_unknown_patients(card)}"
    )


def _unknown_patients(card: Mapping[str, Any]) -> str:
    """What is not promised where groups stand for patients; empty: each patient is known."""
    each = "each stood for one, so that of such patients with several images nothing is promised."
    groups = card["bands"].get("groups")  # None: a card of before they were counted
    number = f"{groups} " if groups else ""
    if not card["data"]["patients"]:
        return f" No patient was known: of the {number}groups of near-duplicates {each}"
    if groups:
        units = amount(groups, "group of near-duplicates", "groups of near-duplicates")
        return f" Of {units} no patient was known: {each}"
    return ""


def percent(share: float) -> str:
    """A declared share as it was declared: `5 %`, `0.5 %`."""
    return f"{100 * share:.6g} %"
