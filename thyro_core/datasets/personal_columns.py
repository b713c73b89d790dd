"""Columns of labels.csv whose cells, whatever the column is called, may tell of a person.

The day of an examination leads to whoever was examined on it: of dates only the order is kept. What
is written in sentences may name anybody: it is left out.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from thyro_core.datasets.path_names import UID
from thyro_core.errors import amount

_CLOCK = r"(?:[T ]+(?P<time>\d{1,2}:\d{2}.*))?"
_YEAR_FIRST = re.compile(r"(?P<y>(?:19|20)\d\d)([-/.])(?P<m>\d\d?)\2(?P<d>\d\d?)" + _CLOCK)
_EIGHT_DIGITS = re.compile(r"(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)(?P<time>\d{6})?")
_YEAR_LAST = re.compile(r"(?P<a>\d\d?)([-/.])(?P<b>\d\d?)\2(?P<y>\d{4}|\d\d)" + _CLOCK)

_SENTENCE_WORDS = 8
_MOST_CATEGORIES = 12

_Moment = tuple[date, str]


@dataclass(frozen=True)
class ColumnContents:
    """What is kept of a column.

    Attributes:
        cells: text -> what is kept in its place; nothing is kept of a text that is not there.
        note: what the user must know of the column; empty: nothing.
    """

    cells: dict[str, str]
    note: str = ""


def kept_contents(column: str, texts: Collection[str]) -> ColumnContents:
    """What is kept of a column's cells, and what is said of them.

    Args:
        column: its name.
        texts: the different texts of its filled cells.
    """
    if any(UID.fullmatch(text) for text in texts):
        note = f"column {column} holds UIDs of DICOM, which lead to an exam: it is left out"
        return ColumnContents({}, note)
    ranks = _date_ranks(texts)
    if ranks:
        rest = len(texts) - len(ranks)
        note = f"column {column} holds dates: only their order is kept, 1 to {max(ranks.values())}"
        if rest:
            note += f"; of {amount(rest, 'other text')} in it nothing is kept"
        return ColumnContents({text: str(rank) for text, rank in ranks.items()}, note)
    is_prose = any(len(text.split()) >= _SENTENCE_WORDS for text in texts)
    if is_prose and len(texts) > _MOST_CATEGORIES:
        note = f"column {column} holds sentences, which may name a person: it is left out"
        return ColumnContents({}, note)
    return ColumnContents({text: text for text in texts})


def _date_ranks(texts: Collection[str]) -> dict[str, int]:
    """Date -> its place among the different ones, from 1; empty: fewer than half are dates."""
    day_first, month_first = (
        {text: moment for text in texts if (moment := _moment(text, day_first=day_first))}
        for day_first in (True, False)
    )
    # 13/01/2024 tells how a column is written; where nothing tells, the day stands first.
    moments = month_first if len(month_first) > len(day_first) else day_first
    if 2 * len(moments) < len(texts):
        return {}
    ranks = {moment: rank for rank, moment in enumerate(sorted(set(moments.values())), 1)}
    return {text: ranks[moment] for text, moment in moments.items()}


def _moment(text: str, *, day_first: bool) -> _Moment | None:
    """The date of a text, and the time of day as it is written; None: it is no date."""
    if match := _YEAR_FIRST.fullmatch(text) or _EIGHT_DIGITS.fullmatch(text):
        year, month, day = (int(match[part]) for part in "ymd")
    elif match := _YEAR_LAST.fullmatch(text):
        parts = [int(match["a"]), int(match["b"])]
        day, month = parts if day_first else reversed(parts)
        year = int(match["y"]) + (2000 if len(match["y"]) == 2 else 0)
    else:
        return None
    try:
        return date(year, month, day), match["time"] or ""
    except ValueError:
        return None
