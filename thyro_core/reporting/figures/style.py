"""The plots' common style: looks of the architectures, figures as text, axes and legends."""

from collections.abc import Mapping
from math import isnan
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thyro_core.config import ARCHITECTURES
from thyro_core.config.networks import NETWORKS
from thyro_core.evaluation.curves import Band
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.reporting.figures.svg import INK, PAPER, SERIES
from thyro_core.types import AnyFloatArray as FloatArray
from thyro_core.types import AnyIntArray as IntArray

WIDTH = 420.0
"""Natural width of a plot [CSS pixels]; it is still readable at 340."""

LEGEND_LINE = 16.0
"""Height of a line of the legend [CSS pixels]."""


LEAST_BENEFIT = 0.01
"""Net benefit per image that the axis of a decision curve reaches at least."""

REFERENCE: dict[str, Any] = {"color": INK, "linewidth": 1.0}
"""Look of a line that results are compared with."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval; NaN or None: there is none."""

    value: float
    low: float | None = None
    high: float | None = None

    def interval(self) -> tuple[float, float] | None:
        """The interval cut to 0..1, where every metric lives; None: there is none."""
        if self.low is None or self.high is None or isnan(self.low) or isnan(self.high):
            return None
        return max(self.low, 0.0), min(self.high, 1.0)

    def __str__(self) -> str:
        if isnan(self.value):
            return "undefined"
        ends = self.interval()
        return f"{self.value:.3f}" + (f" ({ends[0]:.2f}-{ends[1]:.2f})" if ends else "")


Line = str | tuple[int, tuple[float, ...]]
"""A line style of matplotlib's."""


class Look(NamedTuple):
    """How a series is drawn: its colour is never the only difference."""

    colour: str
    line: Line
    marker: str


_FEW = 8
_ROUNDING = 1e-12
_LINE_TYPES: tuple[Line, ...] = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.3, 1.3)))
_OTHER_LINES: tuple[Line, ...] = (
    *_LINE_TYPES, (0, (8, 2)), (0, (8, 2, 1.2, 2)), (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2)),
)  # fmt: skip
_OTHER_MARKERS = "v<>8p*hHdPX"
_FAMILY_COLOURS: Mapping[str, int] = MappingProxyType(
    {
        "densenet": 1, "efficientnet_b": 2, "efficientnet_v2": 3, "convnext": 3, "mobilenet": 2,
        "swin": 3, "vit": 1, "regnet": 1, "squeezenet": 1, "vgg": 2, "googlenet": 3, "maxvit": 2,
        "mnasnet": 1, "shufflenet": 3,
    }
)  # fmt: skip


def _look(architecture: str, place: int) -> Look:
    """Colour by family; no two have the same line and marker."""
    colours = (c for family, c in _FAMILY_COLOURS.items() if architecture.startswith(family))
    marker, line = divmod(place, len(_OTHER_LINES))
    return Look(SERIES[next(colours, 0)], _OTHER_LINES[line], _OTHER_MARKERS[marker])


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        str(architecture): Look(colour, line, marker)
        for architecture, colour, line, marker in zip(
            ARCHITECTURES, SERIES, _LINE_TYPES, "osD^", strict=True
        )
    }
    | {str(name): _look(name, i) for i, name in enumerate(NETWORKS[len(ARCHITECTURES) :])}
)
"""How each architecture looks, in every plot; no two look the same."""


def plot_axes(figure: Figure, x: str, y: str) -> Axes:
    """The figure's one pair of axes."""
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    return axes


def unit_axes(figure: Figure, x: str, y: str) -> Axes:
    """Axes from 0 to 1 both ways, with room for what lies on their edges."""
    axes = plot_axes(figure, x, y)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return axes


def curve(
    axes: Axes, architecture: str, x: FloatArray | IntArray, y: FloatArray, label: str
) -> None:
    """A line of an architecture, with markers here and there; on each point where they are few."""
    look = LOOKS[architecture]
    apart = (0.04 + 0.05 * (list(LOOKS).index(architecture) % len(_LINE_TYPES)), 0.2)
    axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markevery=apart if np.isfinite(y).sum() > _FEW else None,
        label=label,
        gid=f"series-{architecture}",
    )


def hollow(is_filled: bool, colour: str) -> dict[str, Any]:
    """Marker arguments: filled, or only its outline."""
    face = colour if is_filled else PAPER
    return {"markerfacecolor": face, "markeredgecolor": colour, "markeredgewidth": 1.3}


def legend(figure: Figure, columns: int = 1) -> None:
    """The legend, beneath the axes: nothing drawn can hide behind it."""
    figure.legend(loc="outside lower center", ncols=columns)


def as_text(values: Mapping[str, object]) -> str:
    """Named values as a part of a sentence; networks by the names that people write."""
    return "; ".join(
        f"{ARCHITECTURE_NAMES.get(name, name)} {value}" for name, value in values.items()
    )


def better_than(model: Band, reference: Band) -> str:
    """Every stretch of the axis on which one curve lies above another.

    A difference in the last bits of a sum is none, and a stretch of one place is named by it.
    """
    is_better = model.mean - reference.mean > _ROUNDING
    ends = np.flatnonzero(np.diff(np.concatenate(([False], is_better, [False]))))
    stretches = [
        f"at {model.x[low]:.2f}"
        if low == high
        else f"from {model.x[low]:.2f} to {model.x[high]:.2f}"
        for low, high in zip(ends[::2], ends[1::2] - 1, strict=True)
    ]
    return ", ".join(stretches) or "at no threshold"
