"""A model's card for people: its key figures in one Markdown page."""

from collections.abc import Mapping
from typing import Any

from thyro_core import NOTICE
from thyro_core.config import view_of
from thyro_core.errors import amount
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.threshold import threshold_text
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS
from thyro_core.registry.card_bands import percent, promise_text

CardValues = Mapping[str, Any]

_POINT_VERSION_1 = {
    "sensitivity": "one member: sensitivity, mean over splits",
    "specificity": "one member: specificity, mean over splits",
    "image_sensitivity": "one member: sensitivity, each image once",
    "image_specificity": "one member: specificity, each image once",
}
_METRICS = ("auc", "average_precision", "brier")
_FIT = {
    "brier": "Brier score",
    "skill": "gain over the prevalence in Brier score",
    "slope": "calibration slope (1 fits)",
    "intercept": "calibration intercept (0 fits)",
    "observed_expected": "malignant, observed over expected (1 fits)",
}


def card_rows(card: CardValues) -> list[tuple[str, str]]:
    """The key figures: what it is called, and the figure with its 95 % interval.

    Args:
        card: a bundle's card, of any version.
    """
    if card["card_version"] == 1:
        return _rows_of_version_1(card)
    point, calibration, ensemble = card["operating_point"], card["calibration"], card["ensemble"]
    count = card["candidates"]
    candidates = (
        f"{amount(count['candidates'], 'network')}, finished studies that share half of "
        f"these images or more: {count['studies']}; "
        f"runs of this network with these settings, whatever their seed: {count['reruns']}"
    )
    members = f"{ensemble['members_per_image']:.1f} of {ensemble['members']} members an image"
    verdict = "shown" if point["is_met"] else "NOT SHOWN"
    target = f"calibrated, for sensitivity {point['target_sensitivity']:g}: {verdict}"
    line = f"log odds x {calibration['slope']:.3f} {calibration['intercept']:+.3f}"
    view = view_of(card["study_config"])
    return [
        ("architecture", _network_text(card)),
        *([] if view.is_default_view else [("what it sees of a picture", view.words)]),
        ("study", card["study_id"]),
        ("images", f"{card['data']['images']}, {card['data']['malignant']} malignant"),
        ("what this store could choose from", candidates),
        *(
            (f"procedure: {name}, one network, mean over splits", cell(card["metrics"][name]))
            for name in _METRICS
        ),
        ("ensemble: scored by the members whose split tested it", members),
        ("ensemble: auc", cell(ensemble["auc"])),
        ("threshold", f"{threshold_text(point['threshold'])} ({target})"),
        ("ensemble: APPARENT sensitivity, by patient or group", cell(point["sensitivity"])),
        (
            f"its lower bound (the figure to rely on), {100 * point['confidence']:g} % confidence",
            _number_text(point["sensitivity_bound"]),
        ),
        ("ensemble: specificity, by patient or group", cell(point["specificity"])),
        ("ensemble: images referred", f"{100 * point['referred']:.1f} %"),
        *_band_rows(card),
        ("calibration", f"{line}, at a prevalence of {calibration['prevalence']:.3f}"),
        *(
            (f"{words}, {kind}", _plain_cell(calibration[kind][name]))
            for name, words in _FIT.items()
            for kind in ("raw", "calibrated")
        ),
    ]


def _band_rows(card: CardValues) -> list[tuple[str, str]]:
    """The conformal bands; nothing where the threshold makes them."""
    bands = card.get("bands")
    if bands is None:
        return []
    routine, refer = bands["routine"], bands["refer"]
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in bands["images"].items())
    return [
        (
            "bands: conformal",
            f"malignant implausible below {routine['cut']:.6g}, benign above {refer['cut']:.6g}",
        ),
        (
            "promise: patients with a malignant image called routine",
            f"at most {percent(routine['share'])} of {routine['patients']} with malignant images",
        ),
        (
            "promise: patients with a benign image called refer",
            f"at most {percent(refer['share'])} of {refer['patients']} with benign images",
        ),
        ("held-out images by band", shares),
    ]


def _rows_of_version_1(card: CardValues) -> list[tuple[str, str]]:
    point = card["operating_point"]
    return [
        ("architecture", _network_text(card)),
        ("study", card["study_id"]),
        ("images", f"{card['data']['images']}, {card['data']['malignant']} malignant"),
        *(
            (f"procedure: {name}, one network, mean over splits", cell(card["metrics"][name]))
            for name in _METRICS
        ),
        (
            "threshold",
            f"{threshold_text(point['threshold'])} (one member's, {point['target_sensitivity']:g})",
        ),
        *((words, cell(point[name])) for name, words in _POINT_VERSION_1.items()),
        ("temperature", f"{card['calibration']['temperature']:.3f}"),
        ("ensemble", FIGURES_OF_MEMBERS),
    ]


def _network_text(card: CardValues) -> str:
    return f"{ARCHITECTURE_NAMES[card['architecture']]}, {amount(len(card['members']), 'member')}"


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
        *_ensemble_lines(card),
        f"The threshold: {card['operating_point']['method']}",
        "",
        *_promise_lines(card),
        f"Intended use: {card['intended_use']}",
        "",
        f"Not intended: {card['not_intended']}",
        "",
        f"Licence: {card['licence']}",
        "",
        *(f"- {warning}" for warning in card["warnings"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _ensemble_lines(card: CardValues) -> list[str]:
    if card["card_version"] == 1:
        return []
    return [f"The ensemble's figures: {card['ensemble']['method']}", ""]


def _promise_lines(card: CardValues) -> list[str]:
    promise = promise_text(card)
    if promise is None:
        return []
    return [f"The bands' promise: {promise}", "", f"The bands: {card['bands']['method']}", ""]


def cell(figure: Mapping[str, Any]) -> str:
    """A share with its interval, cut to 0 to 1: `0.952 (0.90-0.98)`."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({max(low, 0.0):.2f}-{min(high, 1.0):.2f})"


def _plain_cell(figure: Mapping[str, Any]) -> str:
    """A figure of any range with its interval: `-0.301 (-0.62 to 0.02)`."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None or low is None or high is None:
        return _number_text(value)
    return f"{value:.3f} ({low:.2f} to {high:.2f})"


def _number_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
