"""Figures with intervals as rows of dots: metrics, comparisons and the effects of CAM features.

Each function returns one inline `<svg>`, see `svg`; `name` is the figure's own on its page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES, METRIC_NAMES
from thyro_core.evaluation.metrics import PAPER
from thyro_core.explain.statistics import SIGNIFICANT
from thyro_core.reporting.figures.style import (
    LEGEND_LINE,
    LOOKS,
    REFERENCE,
    WIDTH,
    Estimate,
    Look,
    as_text,
    hollow,
    legend,
    plot_axes,
)
from thyro_core.reporting.figures.svg import GRID, INK, SERIES, AltText, as_svg, drawing

PUBLISHED_LABEL = "published, ResNet18"
"""Label of the paper's values."""

FAMILIES: Mapping[str, Look] = dict(
    zip(
        ("shape", "intensity", "texture"),
        (Look(colour, "-", marker) for colour, marker in zip(SERIES, "osD", strict=False)),
        strict=True,
    )
)
"""How each family of CAM features looks."""

_ROW_LINE = 13.0
_ROW_GAP = 0.8
_AROUND = 70.0
_LONGEST_NAME = 28


def metrics_plot(
    name: str,
    values: Mapping[str, Mapping[str, Estimate]],
) -> str:
    """Each metric's mean over splits and 95 % interval by architecture, beside published values.

    Args:
        name: the figure's own on its page.
        values: architecture -> metric -> figure; the metrics of the first one are the rows.
    """
    metrics = list(next(iter(values.values())))
    with drawing(name, WIDTH, _height(len(metrics), len(values), 3)) as figure:
        names = [METRIC_NAMES.get(metric, metric) for metric in metrics]
        axes = _row_axes(figure, "mean over splits, 95 % interval", names)
        for place, (architecture, estimates) in enumerate(values.items()):
            offset = _offset(place, len(values))
            axes.plot(
                [],
                [],
                **_marker(LOOKS[architecture], is_filled=True),
                label=ARCHITECTURE_NAMES[architecture],
            )
            for row, metric in enumerate(metrics):
                ends = estimates[metric].interval()
                _dot(
                    axes,
                    row + offset,
                    estimates[metric].value,
                    ends,
                    LOOKS[architecture],
                    is_filled=True,
                )
        marks = {row: PAPER[m] for row, m in enumerate(metrics) if m in PAPER}
        for row, value in marks.items():
            span = [row - 0.4, row + 0.4]
            axes.plot([value] * 2, span, color=INK, linewidth=1.4, gid=f"series-published-{row}")
        if marks:
            axes.plot([], [], color=INK, linewidth=1.4, label=PUBLISHED_LABEL)
        legend(figure, columns=2)
        best = {
            a: ", ".join(f"{title} {estimates[m]}" for m, title in zip(metrics, names, strict=True))
            for a, estimates in values.items()
        }
        text = f"Mean over splits with 95 % intervals. {as_text(best)}."
        return as_svg(figure, name, AltText("Metrics by architecture", text))


def forest_plot(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Differences between the first architecture and its baselines, with 95 % intervals.

    Args:
        name: the figure's own on its page.
        rows: rows of the table `comparisons` over splits (Nadeau-Bengio), of the metrics to show.
    """
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    baselines = list(dict.fromkeys(row["baseline"] for row in rows))
    first = ARCHITECTURE_NAMES[rows[0]["architecture"]] if rows else "architecture"
    with drawing(name, WIDTH, _height(len(metrics), len(baselines), 3)) as figure:
        axes = _row_axes(figure, f"{first} minus baseline, 95 % interval", metrics)
        axes.axvline(0, color=INK, linewidth=1.0)
        for baseline in baselines:
            axes.plot(
                [],
                [],
                **_marker(LOOKS[baseline], is_filled=True),
                label=f"against {ARCHITECTURE_NAMES[baseline]}",
            )
        for row in rows:
            y = metrics.index(row["metric"]) + _offset(
                baselines.index(row["baseline"]), len(baselines)
            )
            ends = (row["ci_low"], row["ci_high"])
            _dot(axes, y, row["difference"], ends, LOOKS[row["baseline"]], _significant(row))
        _explain_filling(axes)
        legend(figure, columns=2)
        hits = {
            f"{row['metric']} against {ARCHITECTURE_NAMES[row['baseline']]}": (
                f"{row['difference']:+.3f}"
            )
            for row in rows
            if _significant(row)
        }
        text = (
            f"{first} minus each baseline, mean over splits with 95 % intervals; filled where "
            f"Holm's P is below {SIGNIFICANT}: {as_text(hits) or 'nowhere'}."
        )
        return as_svg(figure, name, AltText("Comparisons", text))


def effect_plot(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rank-biserial effect of each CAM feature, one look a family, significant ones filled.

    Args:
        name: the figure's own on its page.
        rows: rows of the table `cam_tests`, of one architecture and share.
    """
    features = [row["feature"] for row in rows]
    with drawing(name, WIDTH, _height(len(features), 1, 3)) as figure:
        axes = _row_axes(figure, "rank-biserial effect: larger in malignant to the right", features)
        axes.axvline(0, color=INK, linewidth=1.0)
        for place, row in enumerate(rows):
            look = FAMILIES[row["family"]]
            axes.hlines(place, 0, row["effect_size"], color=look.colour, linewidth=1.2)
            _dot(axes, place, row["effect_size"], None, look, _significant(row))
        for family, look in FAMILIES.items():
            axes.plot([], [], **_marker(look, is_filled=True), label=family)
        _explain_filling(axes)
        axes.set_xlim(-1.04, 1.04)
        legend(figure, columns=2)
        hits = {row["feature"]: f"{row['effect_size']:+.2f}" for row in rows if _significant(row)}
        text = (
            "Rank-biserial effect of each feature, above 0 where it is larger in malignant; filled "
            f"where Holm's P is below {SIGNIFICANT}: {as_text(hits) or 'nowhere'}."
        )
        return as_svg(figure, name, AltText("Effects of Grad-CAM features", text))


def subgroup_plot(name: str, rows: Sequence[Mapping[str, Any]], overall: float | None) -> str:
    """AUC of an ensemble in each group of the images, with 95 % intervals.

    Args:
        name: the figure's own on its page.
        rows: rows of the table `subgroups` with an AUC, of one architecture.
        overall: AUC of all images; None: not known.
    """
    names = [_shorten_label(f"{row['subgroup']}: {row['value']}") for row in rows]
    with drawing(name, WIDTH, _height(len(rows), 1, 1)) as figure:
        axes = _row_axes(figure, "AUC of the ensemble, 95 % interval", names)
        if overall is not None:
            axes.axvline(overall, linestyle=(0, (4, 3)), label="all images", **REFERENCE)
        for place, row in enumerate(rows):
            estimate = Estimate(row["estimate"], row["ci_low"], row["ci_high"])
            look = LOOKS[row["architecture"]]
            _dot(axes, place, estimate.value, estimate.interval(), look, is_filled=True)
        legend(figure)
        values = {
            label: str(Estimate(row["estimate"], row["ci_low"], row["ci_high"]))
            for label, row in zip(names, rows, strict=True)
        }
        text = f"AUC in each group with 95 % intervals by patient. {as_text(values)}."
        return as_svg(figure, name, AltText("AUC in subgroups", text))


def _shorten_label(text: str) -> str:
    return (
        text
        if len(text) <= _LONGEST_NAME
        else f"{text[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def _height(rows: int, series: int, legend_lines: int) -> float:
    return rows * (series * _ROW_LINE + _ROW_LINE * _ROW_GAP) + legend_lines * LEGEND_LINE + _AROUND


def _row_axes(figure: Figure, x: str, names: Sequence[str]) -> Axes:
    """Axes with a named row for each, from the top down."""
    axes = plot_axes(figure, x, "")
    axes.set(ylim=(max(len(names), 1) - 0.5, -0.5))
    # Names may come from the image set: a dollar sign in them starts no formula.
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.7)
    return axes


def _offset(place: int, series: int) -> float:
    """Where a series lies in its row, from above to below the middle."""
    return (place - (series - 1) / 2) / (series + _ROW_GAP)


def _marker(look: Look, is_filled: bool) -> dict[str, Any]:
    return {"marker": look.marker, "linestyle": "none", **hollow(is_filled, look.colour)}


def _dot(
    axes: Axes,
    y: float,
    value: float,
    ends: tuple[float, float] | None,
    look: Look,
    is_filled: bool,
) -> None:
    if ends is not None:
        axes.hlines(y, *ends, color=look.colour, linewidth=1.3)
    axes.plot([value], [y], **_marker(look, is_filled))


def _explain_filling(axes: Axes) -> None:
    for is_filled, label in ((True, f"Holm's P < {SIGNIFICANT}"), (False, "not significant")):
        axes.plot([], [], marker="o", linestyle="none", label=label, **hollow(is_filled, INK))


def _significant(row: Mapping[str, Any]) -> bool:
    return bool(row["p_adjusted"] < SIGNIFICANT)
