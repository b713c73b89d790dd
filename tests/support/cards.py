"""Cards of models that were never trained, for tests of what is done with cards."""

from typing import Any

from thyro_core import NOTICE
from thyro_core.config import StudyConfig
from thyro_core.registry.card import Card, CardVersion1, card_bytes
from thyro_core.store.keys import card_key
from thyro_core.store.store import Store

FIGURE: dict[str, Any] = {"value": 0.9, "low": 0.85, "high": 0.95, "n": 10}
FIT: dict[str, Any] = dict.fromkeys(
    ("brier", "skill", "nll", "slope", "intercept", "observed_expected"), FIGURE
)
CANDIDATES: dict[str, Any] = {
    "studies": 1, "candidates": 1, "reruns": 1, "auc_sd": None, "optimism": None,
}  # fmt: skip
ENSEMBLE: dict[str, Any] = {
    "method": "m", "auc": FIGURE, "images": 20, "patients": 20, "members": 10,
    "members_per_image": 3.0,
}  # fmt: skip
POINT: dict[str, Any] = {
    "method": "m", "target_sensitivity": 0.95, "confidence": 0.95, "threshold": 0.25,
    "is_met": True, "sensitivity": FIGURE, "sensitivity_bound": 0.951, "specificity": FIGURE,
    "referred": 0.5,
}  # fmt: skip
CALIBRATION: dict[str, Any] = {
    "slope": 1.5, "intercept": -0.5, "prevalence": 0.25, "raw": FIT, "calibrated": FIT,
}  # fmt: skip


def a_card(number: int = 0, **changes: Any) -> Card:
    """A whole card; `number` makes its id."""
    values: dict[str, Any] = {
        "card_version": 2, "model_id": f"b{number:016x}", "notice": NOTICE,
        "intended_use": "research", "not_intended": "diagnosis", "licence": "none",
        "warnings": (), "architecture": "resnet18", "side": 64, "members": ("split=0.safetensors",),
        "files": {"split=0.safetensors": "0" * 64}, "study_id": "s" + "1" * 16,
        "study_config": StudyConfig(), "config_sha256": "0" * 64, "precision": "fp32", "recipe": 1,
        "data": {"manifest_id": "m1", "images": 20, "malignant": 5, "patients": 20,
                 "sha256": "0" * 64},
        "starting_weights": {"origin": "none", "sha256": None},
        "metrics": dict.fromkeys(("auc", "average_precision", "brier", "ece"), FIGURE),
        "ensemble": ENSEMBLE, "candidates": CANDIDATES, "calibration": CALIBRATION,
        "operating_point": POINT,
        "embedding": {"layer": "layer4", "neighbours": 5, "held_out": 6, "distances": {"1": 3.0}},
        "versions": {"torch": "2"}, "git_commits": (),
    }  # fmt: skip
    return Card.model_validate(values | changes)


def a_card_of_version_1(number: int = 0, **changes: Any) -> CardVersion1:
    """A whole card as an earlier version of the program wrote it."""
    fit = {"nll": 0.5, "brier": 0.2, "ece": 0.1}
    plain = a_card(number).model_dump(mode="json")
    for name in ("ensemble", "candidates"):
        del plain[name]
    del plain["study_config"]["folds"]
    old: dict[str, Any] = {
        "card_version": 1,
        "calibration": {"temperature": 2.0, "before": fit, "after": fit,
                        "cross_fitted_before": fit, "cross_fitted_after": fit, "cross_fitted_n": 3},
        "operating_point": {"method": "m", "target_sensitivity": 0.95, "threshold": 0.25,
                            "sensitivity": FIGURE, "specificity": FIGURE,
                            "image_sensitivity": FIGURE, "image_specificity": FIGURE},
    }  # fmt: skip
    return CardVersion1.model_validate(plain | old | changes)


def put_card(store: Store, number: int = 0, **changes: Any) -> str:
    """Write a card without any weights; returns the model's id."""
    card = a_card(number, **changes)
    store.write(card_key(card.model_id), card_bytes(card))
    return card.model_id
