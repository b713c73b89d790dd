"""Durations and sizes as a person reads them."""


def clock(seconds: float | None) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on; None: the time is not known."""
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(number: int) -> str:
    """Bytes in powers of 1000."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def gigabytes(number: float) -> str:
    """Bytes in GB, to compare machines by."""
    return f"{number / 1e9:.1f} GB"
