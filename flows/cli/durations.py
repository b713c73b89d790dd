"""Seconds as a person reads them."""


def clock(seconds: float | None) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on; None: what nothing tells is not invented."""
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
