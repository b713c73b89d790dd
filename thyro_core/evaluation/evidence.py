"""Whether a study shows that a network tells the classes apart; every finding depends on it."""

import math
from collections.abc import Mapping
from typing import Literal

from thyro_core.config import Architecture
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES

Evidence = Literal["apart", "none", "reversed", "undefined"]
"""apart: the AUC's interval lies above chance; none: it holds chance; reversed: it lies below;
undefined: there is no interval."""

CHANCE_AUC = 0.5
"""The AUC of a classifier that does not look at the image."""


def class_evidence(low: float | None, high: float | None) -> Evidence:
    """What the ends of an AUC's interval say; an end at chance itself is no evidence.

    Args:
        low: lower end; None or NaN: undefined.
        high: upper end; the same.
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "undefined"
    if low > CHANCE_AUC:
        return "apart"
    return "reversed" if high < CHANCE_AUC else "none"


def evidence_notes(evidence: Mapping[Architecture, Evidence]) -> tuple[str, ...]:
    """One sentence for each network that is not shown to tell the classes apart."""
    reasons = {
        "none": f"the interval of its mean AUC holds {CHANCE_AUC:g}, the level of chance",
        "reversed": f"its mean AUC lies below {CHANCE_AUC:g}: are the labels exchanged?",
        "undefined": "its mean AUC has no interval",
    }
    return tuple(
        f"no evidence that {ARCHITECTURE_NAMES[name]} tells malignant from benign nodules: "
        f"{reasons[kind]}"
        for name, kind in evidence.items()
        if kind in reasons
    )
