"""How a figure of an evaluation is put in a sentence."""

import math
from collections.abc import Mapping
from typing import Any


def estimate(row: Mapping[str, Any], digits: int = 3) -> str:
    """A figure with its 95 % interval."""
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if math.isnan(value):
        return "undefined"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{value:.{digits}f} (no interval)"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def p_text(p: float) -> str:
    """A P value as a page shows it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
