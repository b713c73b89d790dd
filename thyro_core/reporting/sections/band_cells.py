"""Places of a curve over splits as cells of a table, each with SQL that gives it another way."""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
from markupsafe import Markup

from thyro_core.evaluation.bounded import NORMAL, t_quantile
from thyro_core.evaluation.curves import Band, Part
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.figures import curve_sql
from thyro_core.types import AnyFloatArray


def rate_cell(
    band: Band, x: float, at: Callable[[float], str], *, ratio: float, patients: float
) -> Markup | Cell:
    """A mean sensitivity or precision with its interval.

    Args:
        band: the curve.
        x: the place.
        at: what stands behind FROM for a place: a row a split, with the column `v`.
        ratio: n_test / n_train.
        patients: behind all splits together, of whom the figure at this place is.
    """
    factor = _factor(band.n, ratio)
    ends = []
    for side, own in ((-1, band.low_x), (1, band.high_x)):
        origin = x if own is None else round(float(own[nearest_index(band.x, x)]), 12)
        ends.append(f"{_score_end('v', side, factor, patients)} FROM {at(origin)}")
    return _band_cell(band, x, f"avg(v) FROM {at(x)}", ends)


def benefit_cell(
    band: Band,
    x: float,
    source: str,
    *,
    ratio: float,
    patients: tuple[int, int],
    parts: Sequence[Part],
) -> Markup | Cell:
    """A mean net benefit with its interval.

    Args:
        band: the curve.
        x: the threshold.
        source: the predictions, for the FROM of a SELECT.
        ratio: n_test / n_train.
        patients: malignant and benign ones behind all splits together.
        parts: the splits' test images.
    """
    rows = curve_sql.net_benefit_at(source, x)
    odds = f"{x} / (1 - {x})"
    rates = []
    for name, label, count, weight in (
        ("hits", 1, patients[0], "avg(p)"),
        ("alarms", 0, patients[1], f"(1 - avg(p)) * {odds}"),
    ):
        n = sum(bool((labels == label).any()) for labels, _ in parts)
        ends = {side: _score_end(name, side, _factor(n, ratio), count) for side in (-1, 1)}
        rates.append(
            {side: f"power({weight} * ({end} - avg({name})), 2)" for side, end in ends.items()}
        )
    hits, alarms = rates
    # The lower end of the one rate goes with the upper end of the other.
    low = f"greatest(avg(v) - sqrt({hits[-1]} + {alarms[1]}), (avg(p) - 1) * {odds})"
    high = f"least(avg(v) + sqrt({hits[1]} + {alarms[-1]}), avg(p))"
    return _band_cell(band, x, f"avg(v) FROM {rows}", [f"{end} FROM {rows}" for end in (low, high)])


def nearest_index(x: AnyFloatArray, value: float) -> int:
    """Where on the axis a value stands; the axes hold hundredths."""
    return int(np.abs(x - value).argmin())


def _band_cell(band: Band, x: float, mean: str, ends: Sequence[str]) -> Markup | Cell:
    """A place of a band; of mean and ends what stands behind SELECT."""
    values = [float(of[nearest_index(band.x, x)]) for of in (band.mean, band.low, band.high)]
    cells = [
        Cell(value, "three", ("sql", f"SELECT {sql}"))
        for value, sql in zip(values, (mean, *ends), strict=True)
    ]
    if not np.isfinite(values[1:]).all():
        return cells[0]
    return Markup('{} <span class="ci">({} to {})</span>').format(*cells)


def _factor(n: int, ratio: float) -> float:
    """Half of a t interval of a mean over splits, in SDs (Nadeau and Bengio 2003)."""
    return float(t_quantile(n - 1) * sqrt(1 / max(n, 1) + ratio))


def _score_end(column: str, side: int, factor: float, patients: float) -> str:
    """An end of `uncertainty.mean_interval` over the splits' values in a column, as SQL."""
    m = f"avg({column})"
    spread = f"power({factor:.12g} * stddev_samp({column}), 2) / ({m} * (1 - {m}))"
    is_spread = f"max({column}) - min({column}) > 1e-12"
    # Squared quantile over independent units, see `bounded.score_interval`.
    u = f"(CASE WHEN {is_spread} THEN {spread} ELSE {NORMAL**2 / patients:.12g} END)"
    half = f"sqrt({m} * (1 - {m}) * {u} + {u} * {u} / 4)"
    return f"({m} + {u} / 2 {'-' if side < 0 else '+'} {half}) / (1 + {u})"
