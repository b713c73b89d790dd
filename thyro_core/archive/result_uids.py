"""The UIDs of results: made of what they are of, so that the same result has the same one."""

import hashlib
from typing import Literal, get_args

SeriesKind = Literal["report", "maps"]

_UID_BYTES = 16


def derived_uid(*facts: object) -> str:
    """A UID made of facts alone (PS3.5, B.2): the same facts, the same UID."""
    digest = hashlib.sha256("\n".join(map(repr, ("thyro", *facts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:_UID_BYTES])}"


def series_uid(study: str, kind: SeriesKind) -> str:
    """The series of a study that holds its reports, or its maps, of whatever model and store."""
    return derived_uid("series", study, kind)


def result_series(study: str) -> frozenset[str]:
    """The series of a study that hold results: nothing in them is to be screened."""
    return frozenset(series_uid(study, kind) for kind in get_args(SeriesKind))
