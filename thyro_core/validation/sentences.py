"""What an evaluation shows, in sentences: each holds for the row that it is made of."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from thyro_core.errors import amount
from thyro_core.evaluation.evidence import CHANCE_AUC, Evidence, class_evidence
from thyro_core.evaluation.subgroups import LEAST_UNITS
from thyro_core.validation.config import EvaluationRecord
from thyro_core.validation.evaluate import SCORED_COUNT
from thyro_core.validation.overlap import OVERLAP_REASONS
from thyro_core.validation.promise import promise_sentences
from thyro_core.validation.wording import estimate, p_text

FigureRows = Mapping[tuple[str, str], Mapping[str, Any]]
"""(adaptation, metric) -> row of `evaluation_metrics`, by image."""

P_BOUND = 0.05
"""P below which a difference is called one."""

_SHIFT_BOUND = 0.25
_SHIFT_WORDS = {
    "psi_mean": "mean grey level",
    "psi_sd": "grey contrast",
    "psi_sharpness": "sharpness",
    "psi_overlay_share": "coloured share",
}


def evaluation_evidence(figures: FigureRows) -> Evidence:
    """Whether the model is shown to tell the classes apart on these images."""
    auc = figures["none", "auc"]
    return class_evidence(auc["ci_low"], auc["ci_high"])


def summary_sentences(record: EvaluationRecord, figures: FigureRows) -> list[str]:
    """All that a reader must know first, one sentence or two each.

    Args:
        record: the evaluation.
        figures: its figures by image, see `evaluate.evaluation_figures`.
    """
    return [
        sample_sentence(record, figures),
        auc_sentence(figures),
        difference_sentence(figures),
        threshold_sentence(figures),
        *promise_sentences(figures),
        calibration_sentence(figures),
        *adaptation_sentences(figures),
        drift_sentence(figures),
    ]


def sample_sentence(record: EvaluationRecord, figures: FigureRows) -> str:
    """How many images were scored, and how many were left out and why."""
    auc = figures["none", "auc"]
    reasons = [
        f"{record.counts[reason]} {why}"
        for reason, why in OVERLAP_REASONS.items()
        if record.counts.get(reason)
    ]
    left_out = f"; left out: {'; '.join(reasons)}" if reasons else "; none was left out"
    return (
        f"{amount(record.counts[SCORED_COUNT], 'image')} of {auc['n_units']} patients (groups "
        f"of near-duplicates where none is known), {auc['n_positive']} malignant, were "
        f"scored{left_out}."
    )


def auc_sentence(figures: FigureRows) -> str:
    """Whether the model tells malignant from benign on these images."""
    auc = figures["none", "auc"]
    text = f"AUC {estimate(auc)}"
    kind = evaluation_evidence(figures)
    if kind == "apart":
        return f"{text}: the interval lies above {CHANCE_AUC:g}, the level of chance."
    if kind == "none":
        return (
            f"{text}: the interval holds {CHANCE_AUC:g}, so that there is no evidence that the "
            "model tells malignant from benign on these images."
        )
    if kind == "reversed":
        return (
            f"{text}: the interval lies below {CHANCE_AUC:g}: the model ranks benign images "
            "above malignant ones here; are the labels exchanged?"
        )
    return f"{text}: without an interval it is no evidence of anything."


def difference_sentence(figures: FigureRows) -> str:
    """How far the AUC lies from the model's own, and whether that is more than chance."""
    auc = figures["none", "auc"]
    inside = f"{auc['internal']:.3f} on its own images"
    if auc["method"] is None:
        return (
            f"It is not tested against the AUC of {inside}: a test takes {LEAST_UNITS} patients "
            "of each class, and some spread, on both sides."
        )
    size, low, high = abs(auc["difference"]), auc["difference_low"], auc["difference_high"]
    ends = f"{low:+.3f} to {high:+.3f}"
    if auc["p"] < P_BOUND:
        word = "lower" if auc["difference"] < 0 else "higher"
        return f"That is {word} by {size:.3f} than {inside} ({ends}, P {p_text(auc['p'])})."
    return (
        f"The difference of {auc['difference']:+.3f} from {inside} is not significant ({ends}, "
        f"P {p_text(auc['p'])}): the interval does not exclude a fall of {max(-low, 0.0):.3f}."
    )


def threshold_sentence(figures: FigureRows) -> str:
    """What the locked threshold does here and on the model's own images."""
    parts = [
        f"{words} {estimate(figures['none', name])}, on its own images "
        f"{figures['none', name]['internal']:.3f}"
        for name, words in (("recall", "sensitivity"), ("specificity", "specificity"))
    ]
    return f"At the model's threshold, unchanged: {'; '.join(parts)}."


def calibration_sentence(figures: FigureRows) -> str:
    """Whether the calibrated probabilities fit here."""
    ratio, slope = (figures.get(("none", name)) for name in ("observed_expected", "slope"))
    if ratio is None or slope is None:
        return "How well the probabilities fit is not defined here."
    level = fit_verdict(
        ratio, "too high on average", "too low on average", "not shown to be off on average"
    )
    spread = fit_verdict(
        slope, "too extreme", "not extreme enough", "not shown to be off in spread"
    )
    return (
        f"The calibrated probabilities are {level} (malignant, observed over expected: "
        f"{estimate(ratio, 2)}) and {spread} (calibration slope: {estimate(slope, 2)})."
    )


def fit_verdict(row: Mapping[str, Any], below: str, above: str, neither: str) -> str:
    """What an interval says of a figure that fits at 1."""
    low, high = row["ci_low"], row["ci_high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return "of undefined fit"
    return below if high < 1 else above if low > 1 else neither


def adaptation_sentences(figures: FigureRows) -> Iterator[str]:
    """What local fits would have given; nothing where there are none."""
    slope = figures.get(("recalibration", "observed_expected"))
    if slope is not None:
        fit = (figures["recalibration", name]["value"] for name in ("fit_slope", "fit_intercept"))
        yield (
            "ADAPTED to these images, each by fits on other patients: recalibrated by "
            "log odds x {:.2f} {:+.2f}, observed over expected would be ".format(*fit)
            + f"{estimate(slope, 2)}."
        )
    recall = figures.get(("threshold", "recall"))
    if recall is not None:
        specificity = figures["threshold", "specificity"]
        yield (
            "ADAPTED to these images: a threshold chosen on other patients of the set would give "
            f"a sensitivity of {estimate(recall)} and a specificity of {estimate(specificity)}."
        )


def drift_sentence(figures: FigureRows) -> str:
    """Which figures of the images lie far from the training set's."""
    chance = figures["none", "psi_chance"]["value"]
    bound = max(_SHIFT_BOUND, chance)
    past = [
        f"{words} ({figures['none', name]['value']:.2f})"
        for name, words in _SHIFT_WORDS.items()
        if figures["none", name]["value"] > bound
    ]
    if not past:
        return (
            "Grey level, contrast, sharpness and coloured share are not shown to differ from the "
            f"training set's (stability index at most {bound:.2f})."
        )
    return (
        f"Other images than those of the training set, by their {', '.join(past)}: stability "
        f"index above {bound:.2f}."
    )
