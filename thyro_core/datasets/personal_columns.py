"""Columns of labels.csv whose cells, whatever the column is called, may tell of a person.

The day of an examination leads to whoever was examined on it: of dates only the order is kept. What
is written in sentences may name anybody: it is left out.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from thyro_core.datasets.path_names import UID
from thyro_core.errors import amount

_ZONE = r"\s*(?:Z|UTC|[+-]\d\d:?\d\d)?"
_CLOCK = (
    r"(?:[T ,]*(?P<h>\d{1,2}):(?P<min>\d\d)(?::(?P<s>\d\d(?:[.,]\d+)?))?"
    rf"\s*(?P<half>[ap]\.?m\.?)?)?{_ZONE}"
)
_YEAR = r"(?P<y>(?:19|20)\d\d)"
_WORD = r"(?P<word>[^\W\d_]{3,})\.?"
# 2024-01-31, with or without a time of day.
_YEAR_FIRST = re.compile(rf"{_YEAR}([-/.])(?P<m>\d\d?)\2(?P<d>\d\d?){_CLOCK}", re.IGNORECASE)
# 20240131, as DICOM and databases write it; a table of numbers adds a zero.
_DIGITS = re.compile(
    rf"{_YEAR}(?P<m>\d\d)(?P<d>\d\d)"
    rf"(?:[T ]?(?P<h>\d\d)(?P<min>\d\d)(?P<s>\d\d(?:\.\d+)?)?)?(?:\.0+)?{_ZONE}",
    re.IGNORECASE,
)
_WORD_FORMS = (
    re.compile(
        rf"(?P<d>\d\d?)(?:st|nd|rd|th)?[-./ ]*{_WORD}[-./, ]*(?P<y>\d{{4}}|\d\d){_CLOCK}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{_WORD}[-./ ]*(?P<d>\d\d?)(?:st|nd|rd|th)?[-., ]+(?P<y>\d{{4}}){_CLOCK}", re.IGNORECASE
    ),
    re.compile(rf"(?P<y>\d{{4}})[-./ ]+{_WORD}[-./ ]*(?P<d>\d\d?){_CLOCK}", re.IGNORECASE),
    re.compile(rf"{_WORD}[-./, ]*(?P<y>(?:19|20)\d\d)", re.IGNORECASE),
)
_YEAR_LAST = re.compile(
    rf"(?P<a>\d\d?)([-/.])(?P<b>\d\d?)\2(?P<y>\d{{4}}|\d\d){_CLOCK}", re.IGNORECASE
)
_SERIAL = re.compile(r"[2-6]\d{4}(?:\.\d+)?")
"""A day as spreadsheets count them, of the years 1954 to 2091."""

_INNER_DATE = re.compile(
    r"(?<![\d.])(?:(?:19|20)\d\d([-/.])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2(?:19|20)\d\d)(?!\d)"
)
"""In other text."""

_FIRST_SERIAL = datetime(1899, 12, 30)  # noqa: DTZ001
_DATE_COLUMN = re.compile(r"(?<![a-z])(date|day|exam|visit|scan|acqui|datum|when|time)(?!s)")
_MONTHS = (
    "january januar janvier enero gennaio stycznia",
    "february februar février febrero febbraio lutego",
    "march märz mars marzo marca",
    "april avril abril aprile kwietnia",
    "may mai mayo maggio maja",
    "june juni juin junio giugno czerwca",
    "july juli juillet julio luglio lipca",
    "august août agosto sierpnia",
    "september septembre septiembre settembre września",
    "october oktober octobre octubre ottobre października",
    "november novembre noviembre listopada",
    "december dezember décembre diciembre dicembre grudnia",
)

_SENTENCE_WORDS = 8
_MOST_CATEGORIES = 12

_Moment = datetime


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
    """What is kept of a column's cells, and a note on what is not.

    Args:
        column: its name.
        texts: the different texts of its filled cells.
    """
    if any(UID.fullmatch(text) for text in texts):
        note = f"column {column} holds UIDs of DICOM, which lead to an exam: it is left out"
        return ColumnContents({}, note)
    ranks, is_unclear = _date_ranks(column, texts)
    if ranks:
        rest = len(texts) - len(ranks)
        note = f"column {column} holds dates: only their order is kept, 1 to {max(ranks.values())}"
        if is_unclear:
            note += "; nothing in it tells day from month: the day is taken to stand first"
        if rest:
            note += f"; of {amount(rest, 'other text')} in it nothing is kept"
        return ColumnContents({text: str(rank) for text, rank in ranks.items()}, note)
    if any(_INNER_DATE.search(text) for text in texts):
        return ColumnContents({}, f"column {column} holds dates in other text: it is left out")
    is_prose = any(len(text.split()) >= _SENTENCE_WORDS for text in texts)
    if is_prose and len(texts) > _MOST_CATEGORIES:
        note = f"column {column} holds sentences, which may name a person: it is left out"
        return ColumnContents({}, note)
    return ColumnContents({text: text for text in texts})


def _date_ranks(column: str, texts: Collection[str]) -> tuple[dict[str, int], bool]:
    """Date -> its place among the different ones, from 1, and whether days may be months.

    No dates: the column has none, or numbers that are dates by chance.
    """
    day_first, month_first = (
        {text: moment for text in texts if (moment := _moment(text, day_first=day_first))}
        for day_first in (True, False)
    )
    # 13/01/2024 tells how a column is written; where nothing tells, the day stands first.
    moments = month_first if len(month_first) > len(day_first) else day_first
    long_numbers = [text for text in texts if re.fullmatch(r"\d{8,}(\.\d*)?", text)]
    if all(_DIGITS.fullmatch(text) for text in moments) and 2 * len(moments) < len(long_numbers):
        moments = {}
    if _DATE_COLUMN.search(column.lower()):
        moments |= {text: _serial_moment(text) for text in texts if _SERIAL.fullmatch(text)}
    ranks = {moment: rank for rank, moment in enumerate(sorted(set(moments.values())), 1)}
    is_unclear = day_first.keys() == month_first.keys() and day_first != month_first
    return {text: ranks[moment] for text, moment in moments.items()}, is_unclear


def _serial_moment(text: str) -> _Moment:
    return _FIRST_SERIAL + timedelta(days=float(text))


def _moment(text: str, *, day_first: bool) -> _Moment | None:
    """The date of a text, with its time of day if it has one; None: it is no date."""
    words = (match for form in _WORD_FORMS if (match := form.fullmatch(text)))
    if match := _YEAR_FIRST.fullmatch(text) or _DIGITS.fullmatch(text):
        month, day = int(match["m"]), int(match["d"])
    elif match := _YEAR_LAST.fullmatch(text):
        parts = [int(match["a"]), int(match["b"])]
        day, month = parts if day_first else reversed(parts)
    elif match := next(words, None):
        month, day = _month(match["word"]), int(match.groupdict().get("d") or 1)
    else:
        return None
    year = int(match["y"])
    if len(match["y"]) == 2:
        year += 1900 if year > date.today().year % 100 else 2000  # noqa: DTZ011
    try:
        return datetime(year, month, day) + _time_of_day(match.groupdict())  # noqa: DTZ001
    except ValueError:
        return None


def _month(word: str) -> int:
    """The number of a month, by its name or the beginning of it; 0: it is none."""
    start = word.casefold()
    names = enumerate(_MONTHS, 1)
    return next((n for n, text in names if any(m.startswith(start) for m in text.split())), 0)


def _time_of_day(parts: dict[str, str | None]) -> timedelta:
    hours, minutes = int(parts.get("h") or 0), int(parts.get("min") or 0)
    half = (parts.get("half") or "").lower()[:1]
    if half:
        hours = hours % 12 + (12 if half == "p" else 0)
    seconds = float((parts.get("s") or "0").replace(",", "."))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
