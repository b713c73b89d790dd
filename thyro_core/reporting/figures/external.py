"""Plots of a model on its own and on external images, each as one inline `<svg>`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from thyro_core.evaluation.curves import Calibration
from thyro_core.reporting.figures.style import (
    LEAST_BENEFIT,
    LEGEND_LINE,
    REFERENCE,
    WIDTH,
    Estimate,
    Line,
    Look,
    legend,
    plot_axes,
    unit_axes,
)
from thyro_core.reporting.figures.svg import SERIES, AltText, as_svg, drawing
from thyro_core.types import FloatArray, IntArray

INSIDE, OUTSIDE = "its own images", "these images"
"""The two samples, as plots and pages call them."""

_DASHES: Line = (0, (5, 1.6))
SAMPLE_LOOKS: Mapping[str, Look] = MappingProxyType(
    {INSIDE: Look(SERIES[0], _DASHES, "o"), OUTSIDE: Look(SERIES[1], "-", "s")}
)
"""How each sample looks, in every plot."""


class Benefit(NamedTuple):
    """Net benefit of a sample by threshold probability; all of one shape."""

    threshold: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    prevalence: float


def samples_roc_plot(
    name: str, scores: Mapping[str, tuple[IntArray, FloatArray]], auc: Mapping[str, Estimate]
) -> str:
    """ROC curves of both samples, each image once.

    Args:
        name: the figure's own on its page.
        scores: sample -> labels (n,) and scores (n,); both classes.
        auc: sample -> its AUC.
    """
    with drawing(name, WIDTH, 400 + LEGEND_LINE * 3) as figure:
        axes = unit_axes(figure, "false positive rate (1 - specificity)", "sensitivity (recall)")
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), label="chance 0.500", **REFERENCE)
        for sample, (label, score) in scores.items():
            false_rate, true_rate, _ = roc_curve(label, score)
            look = SAMPLE_LOOKS[sample]
            axes.plot(
                false_rate, true_rate, color=look.colour, linestyle=look.line,
                label=f"{sample} {auc[sample]}", gid=f"series-{sample.replace(' ', '-')}",
            )  # fmt: skip
        legend(figure)
        text = "; ".join(f"{sample}: AUC {auc[sample]}" for sample in scores)
        return as_svg(figure, name, AltText("ROC curves", f"{text}; chance is 0.5."))


def samples_calibration_plot(name: str, lines: Mapping[str, Calibration]) -> str:
    """Share of malignant images by calibrated probability, of both samples."""
    with drawing(name, WIDTH, 400 + LEGEND_LINE * 3) as figure:
        axes = unit_axes(figure, "mean calibrated probability", "share malignant")
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), label="perfectly calibrated", **REFERENCE)
        texts = []
        for sample, line in lines.items():
            look = SAMPLE_LOOKS[sample]
            axes.vlines(line.probability, line.low, line.high, color=look.colour, linewidth=1.1)
            axes.plot(
                line.probability, line.share, color=look.colour, linestyle=look.line,
                marker=look.marker, linewidth=1.2, label=sample,
                gid=f"series-{sample.replace(' ', '-')}",
            )  # fmt: skip
            points = ", ".join(
                f"{share:.2f} at {probability:.2f}"
                for probability, share in zip(line.probability, line.share, strict=True)
            )
            texts.append(f"{sample}: share malignant {points}")
        legend(figure)
        return as_svg(figure, name, AltText("Calibration", ". ".join(texts) + "."))


def samples_benefit_plot(name: str, curves: Mapping[str, Benefit]) -> str:
    """Net benefit by threshold probability, of both samples, beside calling all malignant."""
    with drawing(name, WIDTH, 400 + LEGEND_LINE * 3) as figure:
        axes = plot_axes(figure, "threshold probability", "net benefit per image")
        axes.axhline(0.0, label="treat none", **REFERENCE)
        best, texts = LEAST_BENEFIT, []
        for sample, line in curves.items():
            look, x = SAMPLE_LOOKS[sample], line.threshold
            everyone = line.prevalence - (1 - line.prevalence) * x / (1 - x)
            axes.plot(x, line.value, color=look.colour, linestyle=look.line, label=sample)
            axes.fill_between(x, line.low, line.high, color=look.colour, alpha=0.14, linewidth=0)
            axes.plot(
                x, everyone, color=look.colour, linewidth=0.9, linestyle=(0, (1, 2)),
                label=f"treat all, {sample}",
            )  # fmt: skip
            best = max(best, float(np.max(line.value)), float(np.max(everyone)))
            gain = x[line.value > np.maximum(everyone, 0.0) + 1e-12]
            span = f"from {gain.min():.2f} to {gain.max():.2f}" if gain.size else "nowhere"
            texts.append(f"{sample}: above treating all and none {span}")
        axes.set(xlim=(0, 1), ylim=(-0.3 * best, 1.15 * best))
        legend(figure)
        text = "; ".join(texts) + ", by these means and without a test."
        return as_svg(figure, name, AltText("Decision curves", text))
