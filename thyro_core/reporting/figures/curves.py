"""The curves of a study's report as plots: each function returns one inline `<svg>`, see `svg`.

`name` is the figure's own on its page. Architectures are those of `config.ARCHITECTURES`, drawn
in the order given.
"""

from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from thyro_core.evaluation.bounded import Interval
from thyro_core.evaluation.curves import (
    Band,
    Calibration,
    DecisionCurve,
    Histogram,
    LearningCurve,
    ppv_npv,
)
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.operating import predictive_intervals
from thyro_core.explain.overlay import colours
from thyro_core.reporting.figures.style import (
    LEAST_BENEFIT,
    LEGEND_LINE,
    LOOKS,
    REFERENCE,
    WIDTH,
    Estimate,
    as_text,
    better_than,
    curve,
    legend,
    plot_axes,
    unit_axes,
)
from thyro_core.reporting.figures.svg import FONT, INK, SERIES, AltText, as_svg, drawing, inline_svg
from thyro_core.types import AnyFloatArray as FloatArray

LEAST_PREVALENCE = 0.001
"""Where the axis of prevalences begins."""

_BAR, _STOPS = 320, 17
_TEXT_PREVALENCES = (0.05, 0.005)


def roc_plot(name: str, bands: Mapping[str, Band], auc: Mapping[str, Estimate]) -> str:
    """ROC curves averaged over splits, with their bands; the legend gives the AUC."""
    with drawing(name, WIDTH, 400 + LEGEND_LINE * (len(bands) + 1)) as figure:
        axes = unit_axes(figure, "false positive rate (1 - specificity)", "sensitivity (recall)")
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), label="chance 0.500", **REFERENCE)
        for architecture, band in bands.items():
            _fill_band(axes, architecture, band)
            x, y = np.append(0.0, band.x), np.append(0.0, band.mean)
            curve(
                axes, architecture, x, y, f"{ARCHITECTURE_NAMES[architecture]} {auc[architecture]}"
            )
        legend(figure)
        text = f"{_over(bands)} with 95 % bands. AUC: {as_text(auc)}; chance is 0.5."
        return as_svg(figure, name, AltText("ROC curves", f"Mean sensitivity {text}"))


def pr_plot(
    name: str,
    bands: Mapping[str, Band],
    average_precision: Mapping[str, Estimate],
    prevalence: float,
) -> str:
    """Precision-recall curves averaged over splits; the line of no skill is the prevalence."""
    with drawing(name, WIDTH, 400 + LEGEND_LINE * (len(bands) + 1)) as figure:
        axes = unit_axes(figure, "recall (sensitivity)", "precision (PPV)")
        label = f"no skill: prevalence {prevalence:.3f}"
        axes.axhline(prevalence, linestyle=(0, (1, 3)), label=label, **REFERENCE)
        for architecture, band in bands.items():
            _fill_band(axes, architecture, band)
            value = average_precision[architecture]
            curve(
                axes, architecture, band.x, band.mean, f"{ARCHITECTURE_NAMES[architecture]} {value}"
            )
        legend(figure)
        text = (
            f"Mean precision {_over(bands)} with 95 % bands. Average precision: "
            f"{as_text(average_precision)}; without skill it is the prevalence, {prevalence:.3f}."
        )
        return as_svg(figure, name, AltText("Precision-recall curves", text))


def calibration_plot(
    name: str, curves: Mapping[str, Calibration], ece: Mapping[str, Estimate]
) -> str:
    """Share of malignant images by predicted probability; calibrated ones lie on the diagonal."""
    with drawing(name, WIDTH, 400 + LEGEND_LINE * (len(curves) + 1)) as figure:
        axes = unit_axes(figure, "mean predicted probability", "share malignant")
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), label="perfectly calibrated", **REFERENCE)
        for architecture, line in curves.items():
            look = LOOKS[architecture]
            axes.vlines(line.probability, line.low, line.high, color=look.colour, linewidth=1.1)
            axes.plot(
                line.probability,
                line.share,
                color=look.colour,
                linestyle=look.line,
                linewidth=1.2,
                marker=look.marker,
                label=f"{ARCHITECTURE_NAMES[architecture]}, mean ECE {ece[architecture]}",
                gid=f"series-{architecture}",
            )
        legend(figure)
        text = (
            "Share of malignant images in ten bins of predicted probability, with 95 % "
            "intervals by patient or group, all splits' test images together. "
            f"Calibration error, mean over splits: {as_text(ece)}."
        )
        return as_svg(figure, name, AltText("Calibration", text))


def decision_plot(name: str, curves: Mapping[str, DecisionCurve]) -> str:
    """Net benefit by threshold probability, against calling all or none malignant."""
    with drawing(name, WIDTH, 380) as figure:
        axes = plot_axes(figure, "threshold probability", "net benefit per image")
        first = next(iter(curves.values()))
        x = first.model.x
        axes.plot(x, first.treat_all, linestyle=(0, (4, 3)), label="treat all", **REFERENCE)
        axes.plot(x, first.treat_none, linestyle=(0, (1, 3)), label="treat none", **REFERENCE)
        for architecture, line in curves.items():
            _fill_band(axes, architecture, line.model)
            curve(axes, architecture, x, line.model.mean, ARCHITECTURE_NAMES[architecture])
        best = max(first.treat_all.max(), *(c.model.mean.max() for c in curves.values()))
        top = max(float(best), LEAST_BENEFIT)
        axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.15 * top))
        legend(figure, columns=2)
        gains = {architecture: _useful_thresholds(line) for architecture, line in curves.items()}
        text = (
            f"Net benefit {_over({k: c.model for k, c in curves.items()})} with 95 % bands. "
            "Above treating all and treating none, by these means and without a test: "
            f"{as_text(gains)}."
        )
        return as_svg(figure, name, AltText("Decision curves", text))


def ppv_plot(
    name: str, operating: Mapping[str, tuple[Estimate, Estimate]], prevalence: float
) -> str:
    """Positive predictive value where other shares of images are malignant, with 95 % bands.

    Args:
        name: the figure's own on its page.
        operating: recall and specificity of each architecture, with their intervals.
        prevalence: share of malignant images in this study.
    """
    with drawing(name, WIDTH, 380) as figure:
        axes = plot_axes(figure, "prevalence of malignant", "positive predictive value")
        # As far as this study's own prevalence, which may be above one half.
        most = 0.5 if prevalence <= 0.5 else 0.99
        x = np.geomspace(LEAST_PREVALENCE, most, 80)
        label = f"this study: {_percent_text(prevalence)}"
        axes.axvline(prevalence, linestyle=(0, (1, 3)), label=label, **REFERENCE)
        values = {}
        for architecture, (recall, specificity) in operating.items():
            recall_ends, specificity_ends = recall.interval(), specificity.interval()
            if recall_ends is not None and specificity_ends is not None:
                band, _ = predictive_intervals(
                    (recall.value, Interval(*recall_ends)),
                    (specificity.value, Interval(*specificity_ends)),
                    x.tolist(),
                )
                low, high = np.array(band).T
                axes.fill_between(
                    x, low, high, color=LOOKS[architecture].colour, alpha=0.12, linewidth=0,
                    gid=f"series-{architecture}-band",
                )  # fmt: skip
            curve(
                axes,
                architecture,
                x,
                ppv_npv(recall.value, specificity.value, x)[0],
                ARCHITECTURE_NAMES[architecture],
            )
            at = ppv_npv(recall.value, specificity.value, (prevalence, *_TEXT_PREVALENCES))[0]
            values[architecture] = ", ".join(f"{value:.2f}" for value in at)
        axes.set(xscale="log", xlim=(LEAST_PREVALENCE, most), ylim=(-0.02, 1.02))
        axes.set_xticks([0.001, 0.005, 0.02, 0.05, 0.2, *([0.5] if most == 0.5 else [0.5, 0.99])])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent_text(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        legend(figure, columns=2)
        where = ", ".join(_percent_text(share) for share in (prevalence, *_TEXT_PREVALENCES))
        text = (
            "Positive predictive value at this study's sensitivity and specificity, where "
            f"{where} are malignant: {as_text(values)}."
        )
        return as_svg(figure, name, AltText("Predictive value by prevalence", text))


def learning_plot(name: str, curves: Mapping[str, LearningCurve]) -> str:
    """Training loss by epoch, mean and range over splits; validation loss where there is one."""
    with drawing(name, WIDTH, 365) as figure:
        axes = plot_axes(figure, "epoch", "focal loss")
        for architecture, line in curves.items():
            colour = LOOKS[architecture].colour
            axes.fill_between(
                line.epoch, line.low, line.high, color=colour, alpha=0.14, linewidth=0
            )
            curve(axes, architecture, line.epoch, line.loss, ARCHITECTURE_NAMES[architecture])
            if line.val_loss is not None:
                axes.plot(
                    line.epoch,
                    line.val_loss,
                    color=colour,
                    linewidth=0.9,
                    linestyle=LOOKS[architecture].line,
                    gid=f"series-{architecture}-validation",
                )
        if any(line.val_loss is not None for line in curves.values()):
            axes.plot([], [], linewidth=0.9, color=INK, label="thin: validation")
        epochs = np.concatenate([line.epoch for line in curves.values()])
        axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _logarithmic(axes, np.concatenate([line.low for line in curves.values()]))
        legend(figure, columns=2)
        ends = {k: f"{line.loss[0]:.3g} to {line.loss[-1]:.3g}" for k, line in curves.items()}
        text = f"Mean training loss over splits, from first to last epoch: {as_text(ends)}."
        return as_svg(figure, name, AltText("Learning curves", text))


def score_plot(name: str, scores: Histogram, threshold: float, architecture: str) -> str:
    """Distribution of predicted probabilities: malignant images upwards, benign ones downwards."""
    with drawing(name, WIDTH, 330) as figure:
        axes = plot_axes(
            figure,
            f"probability of malignant, {ARCHITECTURE_NAMES[architecture]}",
            "share of the class",
        )
        for sign, shares, label, colour in (
            (1, scores.malignant, "malignant (upwards)", SERIES[1]),
            (-1, scores.benign, "benign (downwards)", SERIES[0]),
        ):
            axes.stairs(
                sign * np.nan_to_num(shares),
                scores.edges,
                fill=True,
                color=colour,
                label=label,
                gid=f"series-{label.split()[0]}",
            )
        axes.axhline(0, **REFERENCE)
        axes.axvline(
            threshold, linestyle=(0, (4, 3)), label=f"threshold {threshold:g}", **REFERENCE
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent_text(abs(value))))
        axes.set_xlim(0, 1)
        legend(figure, columns=2)
        return as_svg(
            figure,
            name,
            AltText("Distribution of probabilities", _score_text(scores, threshold, architecture)),
        )


def colour_bar(name: str, low: str = "none", high: str = "the map's peak") -> str:
    """The colours of a Grad-CAM map, from no evidence to the most; its colours are the data.

    Args:
        name: the figure's own on its page.
        low: what the first colour means.
        high: what the last one means.
    """
    stops = "".join(
        f'<stop offset="{place / (_STOPS - 1):g}" stop-color="#{bytes(colour).hex()}"/>'
        for place, colour in enumerate(colours(_STOPS))
    )
    bar = (
        f'<defs><linearGradient id="{name}-colours">{stops}</linearGradient></defs>'
        f'<rect x="0" y="0" width="{_BAR}" height="12" fill="url(#{name}-colours)"/>'
        f'<g fill="var(--ink)" font-size="{FONT}"><text x="0" y="26">{escape(low)}</text>'
        f'<text x="{_BAR}" y="26" text-anchor="end">{escape(high)}</text></g>'
    )
    alt = AltText("Colours of Grad-CAM maps", f"From dark, {low}, to bright, {high}.")
    return inline_svg(bar, name, alt, (_BAR, 30))


def _fill_band(axes: Axes, architecture: str, band: Band) -> None:
    if np.isfinite(band.low).any():
        axes.fill_between(
            band.x,
            band.low,
            band.high,
            color=LOOKS[architecture].colour,
            alpha=0.14,
            linewidth=0,
            gid=f"series-{architecture}-band",
        )


def _logarithmic(axes: Axes, least: FloatArray) -> None:
    """Make the y axis logarithmic, where all values are above 0, with plainly spelled ticks."""
    if not (least > 0).all():
        return
    axes.set_yscale("log")
    low, high = np.log10(axes.get_ylim())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high - low < 3 else (1.0,)))
    plainly = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plainly)
    axes.yaxis.set_minor_formatter(plainly)
    if high - low >= 1:
        axes.yaxis.set_minor_locator(NullLocator())


def _over(bands: Mapping[str, Band]) -> str:
    """How many splits, and how many of them were left out."""
    n = max((band.n for band in bands.values()), default=0)
    left_out = max((band.left_out for band in bands.values()), default=0)
    extra = f" ({left_out} with one class only left out)" if left_out else ""
    return f"over {n} splits{extra}"


def _useful_thresholds(line: DecisionCurve) -> str:
    """Where the model is of more use than either default."""
    best = np.maximum(line.treat_all, line.treat_none)
    return better_than(line.model, line.model._replace(mean=best))


def _percent_text(share: float) -> str:
    return f"{100 * share:.3g} %"


def _score_text(scores: Histogram, threshold: float, architecture: str) -> str:
    is_positive = scores.edges[:-1] >= threshold
    malignant, benign = (
        float(shares[is_positive].sum()) for shares in (scores.malignant, scores.benign)
    )
    return (
        f"{ARCHITECTURE_NAMES[architecture]}: from the threshold {threshold:g} on lie "
        f"{_percent_text(malignant)} of the malignant and {_percent_text(benign)} of the "
        "benign images of all splits' test parts."
    )
