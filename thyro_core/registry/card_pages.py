"""A model's card for people: its key figures in one Markdown page."""

from collections.abc import Mapping
from typing import Any

from thyro_core import NOTICE

CardValues = Mapping[str, Any]

_METRICS = ("auc", "average_precision", "brier", "ece")
_POINT = {
    "sensitivity": "sensitivity, mean over splits",
    "specificity": "specificity, mean over splits",
    "image_sensitivity": "sensitivity, each image once",
    "image_specificity": "specificity, each image once",
}


def card_rows(card: CardValues) -> list[tuple[str, str]]:
    """The key figures: what it is called, and the figure with its 95 % interval.

    Args:
        card: a bundle's card.
    """
    point, calibration = card["operating_point"], card["calibration"]
    before, after = calibration["cross_fitted_before"], calibration["cross_fitted_after"]
    return [
        ("architecture", f"{card['architecture']}, {len(card['members'])} members"),
        ("study", card["study_id"]),
        ("images", f"{card['data']['images']}, {card['data']['malignant']} malignant"),
        *((f"{name}, mean over splits", cell(card["metrics"][name])) for name in _METRICS),
        ("threshold", f"{point['threshold']:.6g} for sensitivity {point['target_sensitivity']:g}"),
        *((words, cell(point[name])) for name, words in _POINT.items()),
        ("temperature", f"{calibration['temperature']:.3f}"),
        (
            "calibration error",
            f"{_loss_text(before['ece'])} before, {_loss_text(after['ece'])} after",
        ),
        (
            "log-likelihood loss",
            f"{_loss_text(before['nll'])} before, {_loss_text(after['nll'])} after",
        ),
    ]


def card_markdown(card: CardValues, standing: str) -> str:
    """The card's key figures, warnings and purpose as a Markdown page.

    Args:
        card: a bundle's card.
        standing: one sentence on how it came to be, or not to be, the champion.
    """
    lines = [
        f"# Model {card['model_id']}",
        "",
        f"**{NOTICE}**",
        "",
        standing,
        "",
        "| | 95 % interval in brackets |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in card_rows(card)),
        "",
        f"Intended use: {card['intended_use']}",
        "",
        f"Not intended: {card['not_intended']}",
        "",
        f"Licence: {card['licence']}",
        "",
        *(f"- {warning}" for warning in card["warnings"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def cell(figure: Mapping[str, Any]) -> str:
    """A share with its interval, cut to 0 to 1: `0.952 (0.90-0.98)`."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({max(low, 0.0):.2f}-{min(high, 1.0):.2f})"


def _loss_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
