"""Drift over nights as a page and as a picture: every figure with its bound, breaches filled."""

import datetime as dt
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thyro_core import NOTICE
from thyro_core.reporting.cells import simulation
from thyro_core.reporting.figures.style import hollow
from thyro_core.reporting.figures.svg import (
    CSS_VARIABLES,
    GRID,
    INK,
    LIGHT,
    PAPER,
    SERIES,
    AltText,
    as_svg,
    drawing,
)
from thyro_core.reporting.html import render_page
from thyro_core.screening.drift import DriftThresholds, breaches_of
from thyro_core.screening.rules import date_text

_FIGURE_WIDTH, _HEIGHT, _PICTURE_DPI = 440.0, 900.0, 144
_MOST_TICKS = 8
_DAYS_WITHOUT_YEAR = 300
_LINE_STYLES = ("-", (0, (5, 1.6)), (0, (1.3, 1.3)))
_MARKERS = "osD"
_FIGURE_NAMES: Mapping[str, str] = {
    "psi_score": "score",
    "psi_mean": "mean grey level",
    "psi_sharpness": "sharpness",
    "ks_score": "score",
    "ks_mean": "mean grey level",
    "ks_sharpness": "sharpness",
    "mmd": "embeddings",
    "share_rejected": "files not scored",
}


@dataclass(frozen=True)
class _Panel:
    label: str
    figures: tuple[str, ...]
    bound: str
    """Field of `DriftThresholds`."""


_PANELS = (
    _Panel("stability index (PSI)", ("psi_score", "psi_mean", "psi_sharpness"), "psi"),
    _Panel("KS distance", ("ks_score", "ks_mean", "ks_sharpness"), "ks"),
    _Panel("squared MMD", ("mmd",), "mmd"),
    _Panel("share", ("share_rejected",), "share_rejected"),
)


def batches_since(batches: pa.Table, since: dt.date) -> pa.Table:
    """The batches of a date and later, by date and batch.

    Args:
        batches: table `screening_batches`.
        since: the first date.
    """
    rows = batches.filter(pc.greater_equal(batches["date"], int(since.strftime("%Y%m%d"))))
    return rows.sort_by([("date", "ascending"), ("batch_id", "ascending")])


def drift_page(batches: pa.Table, thresholds: DriftThresholds) -> str:
    """The batches' drift as one self-contained HTML page, light or dark as its reader has it.

    Args:
        batches: rows of `screening_batches`, by date; at least one.
        thresholds: the bounds to mark.
    """
    with drawing("drift", _FIGURE_WIDTH, _HEIGHT) as figure:
        _draw_panels(figure, batches, thresholds)
        plot = as_svg(figure, "drift", AltText("Drift over nights", drift_text(batches)))
    return render_page(
        "drift.html",
        notice=NOTICE,
        colours=CSS_VARIABLES,
        plot=plot,
        summary=_headline(batches),
        rows=[_table_row(row) for row in batches.to_pylist()],
        columns=[f"{panel.label}: {_FIGURE_NAMES[name]}" for panel, name in _figures()],
        simulation=simulation,
    )


def drift_picture(batches: pa.Table, thresholds: DriftThresholds) -> bytes:
    """The same plot as a PNG in light colours; its text alternative is in the file.

    Args:
        batches: rows of `screening_batches`, by date; at least one.
        thresholds: the bounds to mark.
    """
    buffer = io.BytesIO()
    with drawing("drift", _FIGURE_WIDTH, _HEIGHT) as figure, _in_colour() as colour:
        _draw_panels(figure, batches, thresholds, colour)
        figure.suptitle(f"Drift over nights. {NOTICE}", fontsize=9)
        metadata = {"Title": "Drift over nights", "Description": drift_text(batches)}
        figure.savefig(
            buffer, format="png", dpi=_PICTURE_DPI, metadata=metadata | {"Software": None}
        )
    return buffer.getvalue()


def drift_text(batches: pa.Table) -> str:
    """The plot's text alternative.

    Args:
        batches: rows of `screening_batches`, by date; at least one.
    """
    breaches = "; ".join(
        f"{row['night']}, batch {row['batch']}: {row['breaches']}"
        for row in map(_table_row, batches.to_pylist())
        if row["breaches"]
    )
    return f"{_headline(batches)} {breaches}".strip()


def _headline(batches: pa.Table) -> str:
    rows = batches.to_pylist()
    nights = [_day(row["date"]).isoformat() for row in rows]
    n_judged = sum(row["psi_score"] is not None for row in rows)
    n_past = sum(bool(row["breaches"]) for row in rows)
    n_pooled = sum((row["pooled_batches"] or 1) > 1 for row in rows)
    pooled_note = f" ({n_pooled} of them together with batches before them)" if n_pooled else ""
    models = ", ".join(sorted({row["model_id"] for row in rows}))
    return (
        f"{len(rows)} batches of {len(set(nights))} nights from {nights[0]} to {nights[-1]}, "
        f"scored by {models}; {n_judged} had enough scored images to be judged{pooled_note}, "
        f"{n_past} {'is' if n_past == 1 else 'are'} past a bound."
    )


def _figures() -> Iterator[tuple[_Panel, str]]:
    return ((panel, name) for panel in _PANELS for name in panel.figures)


def _table_row(row: Mapping[str, Any]) -> dict[str, Any]:
    breaches = breaches_of(row)
    cells = [
        "" if row[name] is None else f"{row[name]:.3f}" + "*" * (name in breaches)
        for _, name in _figures()
    ]
    return {
        "night": _day(row["date"]).isoformat(),
        "batch": row["batch_id"],
        "model": row["model_id"],
        "devices": row["devices"] or "",
        "scored": f"{row['scored']} of {row['received']}",
        "pooled": row["pooled_batches"] or 1,
        "cells": cells,
        "breaches": ", ".join(f"{name} {row[name]:.3f}" for name in breaches),
    }


def _day(number: int) -> dt.date:
    return dt.date.fromisoformat(date_text(number))


@contextmanager
def _in_colour() -> Iterator[Mapping[str, str]]:
    """Real colours for the stand-ins that a page would replace."""
    colour = dict(zip((PAPER, INK, GRID, *SERIES), LIGHT.values(), strict=True))
    changes: dict[Any, Any] = {
        name: colour[value]
        for name, value in mpl.rcParams.items()
        if isinstance(value, str) and value in colour
    }
    with mpl.rc_context(changes | {"savefig.facecolor": LIGHT["paper"]}):
        yield colour


def _draw_panels(
    figure: Figure, batches: pa.Table, thresholds: DriftThresholds,
    colour: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    colours = colour or {name: name for name in (PAPER, INK, GRID, *SERIES)}
    panels = figure.subplots(len(_PANELS), 1, sharex=True, height_ratios=(3, 3, 2, 2))
    rows = batches.to_pylist()
    for axes, panel in zip(panels, _PANELS, strict=True):
        bound = getattr(thresholds, panel.bound)
        axes.axhline(
            bound,
            color=colours[INK],
            linewidth=1.0,
            linestyle=(0, (4, 2)),
            label=f"bound {bound:g}",
        )
        for place, name in enumerate(panel.figures):
            _series(axes, rows, name, place, colours)
        axes.set(ylabel=panel.label)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=axes.get_ylim()[1] * 1.05)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    _mark_nights(panels[-1], sorted({_day(row["date"]) for row in rows}))
    panels[-1].set(xlabel="night (filled: past its bound, and not by chance)")


def _mark_nights(axes: Axes, nights: list[dt.date]) -> None:
    """Ticks at nights; of many, at some: never between two of them."""
    n_days = (nights[-1] - nights[0]).days
    if n_days > _MOST_TICKS:
        locator = AutoDateLocator(minticks=2, maxticks=_MOST_TICKS)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        # The date in each label: what is left over stands where the axis has its title.
        pattern = "%d %b" if n_days < _DAYS_WITHOUT_YEAR else "%b %Y"
        axes.xaxis.set_major_formatter(DateFormatter(pattern))  # type: ignore[no-untyped-call]
        return
    days = np.array(nights, "M8[D]")
    axes.set_xticks(days, [f"{night:%d %b}" for night in nights])
    axes.set_xlim(days[0] - np.timedelta64(12, "h"), days[-1] + np.timedelta64(12, "h"))


def _series(
    axes: Axes, rows: list[dict[str, Any]], name: str, place: int, colours: Mapping[str, str]
) -> None:
    """A figure over the nights: hollow where it is within its bound, filled where it is not."""
    colour, days = colours[SERIES[place]], np.array([_day(row["date"]) for row in rows], "M8[D]")
    values = np.array([math.nan if row[name] is None else row[name] for row in rows], float)
    is_past = [name in breaches_of(row) for row in rows]
    axes.plot(days, values, color=colour, linestyle=_LINE_STYLES[place], label=_FIGURE_NAMES[name],
              marker=_MARKERS[place], gid=f"series-{name}",
              **hollow(False, colour) | {"markerfacecolor": colours[PAPER]})  # fmt: skip
    axes.plot(
        days[is_past], values[is_past], color=colour, linestyle="none",
        marker=_MARKERS[place], markersize=8,
    )  # fmt: skip
