"""Plots of an ensemble's probabilities, raw and calibrated, beside the prevalence model."""

from collections.abc import Mapping

from thyro_core.evaluation.curves import Band, Calibration
from thyro_core.reporting.figures.style import (
    LEAST_BENEFIT,
    LEGEND_LINE,
    REFERENCE,
    WIDTH,
    as_text,
    better_than,
    legend,
    plot_axes,
    unit_axes,
)
from thyro_core.reporting.figures.svg import INK, SERIES, AltText, as_svg, drawing


def calibration_plot(name: str, curves: Mapping[str, Calibration], prevalence: float) -> str:
    """Share malignant by raw and calibrated probability of an ensemble, each image once.

    Args:
        name: the figure's own on its page.
        curves: raw and calibrated.
        prevalence: share of malignant images; the model that sees no image is one point.
    """
    with drawing(name, WIDTH, 400 + LEGEND_LINE * (len(curves) + 2)) as figure:
        axes = unit_axes(figure, "mean predicted probability", "share malignant")
        axes.plot([0, 1], [0, 1], linestyle=(0, (1, 3)), label="perfectly calibrated", **REFERENCE)
        for line, look, (kind, of_bins) in zip(":-", (0, 1), curves.items(), strict=True):
            colour = SERIES[look]
            axes.vlines(of_bins.probability, of_bins.low, of_bins.high, color=colour, linewidth=1.1)
            axes.plot(
                of_bins.probability,
                of_bins.share,
                color=colour,
                linestyle=line,
                linewidth=1.2,
                marker="os"[look],
                label=kind,
                gid=f"series-{kind}",
            )
        axes.plot(
            [prevalence],
            [prevalence],
            color=INK,
            linestyle="none",
            marker="X",
            label=f"prevalence model: {prevalence:.3f} for every image",
            gid="series-prevalence",
        )
        legend(figure)
        ranges = {
            kind: f"from {of_bins.probability.min():.2f} to {of_bins.probability.max():.2f}"
            for kind, of_bins in curves.items()
        }
        text = (
            "Share of malignant images in ten bins of the ensemble's probability, each image once, "
            "with 95 % intervals by patient or group. Mean probabilities of the bins: "
            f"{as_text(ranges)}; prevalence {prevalence:.3f}."
        )
        return as_svg(figure, name, AltText("Calibration of the ensemble", text))


def benefit_plot(name: str, bands: Mapping[str, Band]) -> str:
    """Net benefit of an ensemble by threshold probability, against the prevalence model.

    Args:
        name: the figure's own on its page.
        bands: raw, calibrated and prevalence.
    """
    with drawing(name, WIDTH, 400) as figure:
        axes = plot_axes(figure, "threshold probability", "net benefit per image")
        reference = bands["prevalence"]
        axes.plot(
            reference.x,
            reference.mean,
            linestyle=(0, (4, 3)),
            label="prevalence model: treat all below it, none above",
            gid="series-prevalence",
            **REFERENCE,
        )
        kinds = [kind for kind in bands if kind != "prevalence"]
        for line, place, kind in zip(":-", (0, 1), kinds, strict=True):
            band, colour = bands[kind], SERIES[place]
            axes.fill_between(
                band.x, band.low, band.high, color=colour, alpha=0.14, linewidth=0,
                gid=f"series-{kind}-band",
            )  # fmt: skip
            axes.plot(
                band.x, band.mean, color=colour, linestyle=line, label=kind, gid=f"series-{kind}"
            )
        top = max(*(float(band.mean.max()) for band in bands.values()), LEAST_BENEFIT)
        axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.15 * top))
        legend(figure)
        gains = {kind: better_than(bands[kind], reference) for kind in kinds}
        text = (
            "Net benefit of the ensemble, each image once, with 95 % bands by patient or group. "
            f"Above the prevalence model, by these means and without a test: {as_text(gains)}."
        )
        return as_svg(figure, name, AltText("Decision curves of the ensemble", text))
