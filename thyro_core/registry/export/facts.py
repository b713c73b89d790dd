"""What has to be known of a model to use its networks, in plain JSON values."""

from typing import Any

from thyro_core import NOTICE
from thyro_core.config import ViewConfig
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS, Bundle
from thyro_core.registry.card_bands import promise_text
from thyro_core.training.recipe import NetworkRecipe

CLEAN_NOTE = (
    "Thyro's own cleaning (thyro_core.imaging.view.picture_view): frame and toolbar are cut off, "
    "text and marks are painted over; no other picture may go in"
)
"""What a file without Thyro cannot do, of a model that was trained on clean pictures."""


def from_picture(view: ViewConfig) -> str:
    """From a picture to the input, in words.

    Args:
        view: what the model learned to see.
    """
    clean = f"; made clean first, by {CLEAN_NOTE}" if view.clean else ""
    return (
        f"grey levels of 8 bits (colour by ITU-R BT.601), {view.words}, bilinear with antialiasing "
        "(Pillow's BILINEAR); then divided by 255, and each of three equal channels less its mean, "
        f"over its sd{clean}"
    )


ENSEMBLE = (
    "softmax of each member's logits in double precision; mean over members of the probability of "
    "malignant; calibrated log odds = intercept + slope x log odds of that mean"
)
"""From logits to the probability."""


def model_facts(bundle: Bundle, recipe: NetworkRecipe) -> dict[str, Any]:
    """The facts of a model.

    Args:
        bundle: the model.
        recipe: how its networks are made.

    Raises:
        InputError: it is of an earlier version, whose figures are single members'.
    """
    calibration = bundle.calibration
    if not isinstance(calibration, LogisticCalibration):
        msg = f"model {bundle.model_id}: expected a model with figures of its own, found that "
        raise InputError(msg + FIGURES_OF_MEMBERS)
    return {
        "notice": NOTICE,
        "model_id": bundle.model_id,
        "study_id": bundle.card["study_id"],
        "architecture": recipe.architecture,
        "options": dict(recipe.options),
        "classes": ["benign", "malignant"],
        "input": {
            "side": bundle.side,
            "channels": 3,
            "layout": "images x channels x height x width, float32",
            "mean": list(recipe.mean),
            "sd": list(recipe.sd),
            "from_picture": from_picture(bundle.view),
            "view": {name: getattr(bundle.view, name) for name in ViewConfig.model_fields},
        },
        "members": [key.rpartition("/")[2] for key in bundle.members],
        "ensemble": ENSEMBLE,
        "calibration": {"slope": calibration.slope, "intercept": calibration.intercept},
        "threshold": bundle.threshold,
        "bands": _band_facts(bundle),
        "licence": bundle.card["licence"],
        "not_intended": bundle.card["not_intended"],
    }


def _band_facts(bundle: Bundle) -> dict[str, Any]:
    cuts = bundle.cuts
    if cuts is None:
        return {"kind": "threshold"}
    return {
        "kind": "conformal",
        "malignant_implausible_below": cuts.routine_below,
        "benign_implausible_above": cuts.refer_above,
        "promise": promise_text(bundle.card),
    }
