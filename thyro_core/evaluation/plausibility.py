"""Figures that are better than the literature makes plausible, and what to look at first then."""

from dataclasses import dataclass

IMPLAUSIBLE_AUC = 0.97
"""From here on an AUC on a few hundred images asks for an explanation.

Comparable work reaches 0.86 (484 images, 20 resamplings) and 0.931 (TN5000, ResNet18), seven
hospitals together 0.922 (ThyNet, Lancet Digital Health 2021), external validations 0.69 to 0.93.
"""

FEW_IMAGES = 1000
"""Fewer images than this are "a few hundred"."""

ALWAYS_IMPLAUSIBLE_AUC = 0.99
"""From here on an AUC asks for an explanation however many images there are."""

CHECKS: tuple[str, ...] = (
    "several images of one patient on both sides of a split: are the patient ids complete?",
    "near-duplicates that the search for them missed: frames of one clip, crops, other gains",
    "callipers, text and other burned-in marks that only one of the classes carries",
    "one device, hospital, period or image size for each class: the table of image properties",
    "labels that came from the images themselves (a TI-RADS reading), not from pathology",
    "images that were chosen because they are typical",
)
"""What makes such a figure without any skill of the classifier, the likeliest first."""


@dataclass(frozen=True)
class Suspicion:
    """An architecture whose AUC is too good, and by which bound."""

    architecture: str
    auc: float
    bound: float


def suspicions(aucs: dict[str, float], images: int) -> list[Suspicion]:
    """The architectures whose mean AUC is better than plausible.

    Args:
        aucs: mean AUC over splits by architecture; NaN is never suspicious.
        images: images in the study.
    """
    bound = IMPLAUSIBLE_AUC if images < FEW_IMAGES else ALWAYS_IMPLAUSIBLE_AUC
    return [Suspicion(name, auc, bound) for name, auc in aucs.items() if auc > bound]
