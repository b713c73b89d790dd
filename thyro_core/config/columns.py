"""How a config names columns of labels.csv: with cuts, or with the category of a reading."""

import math
import re
from itertools import pairwise
from typing import NamedTuple


class ColumnSpec(NamedTuple):
    """A column of labels.csv, and where its numbers are cut; without cuts each text is a group."""

    name: str
    cuts: tuple[float, ...]


class ReaderSpec(NamedTuple):
    """A column of labels.csv with a reading of each image, and from which one on it is positive."""

    name: str
    cut: str | None


_CUT = re.compile(r"-?\d+(\.\d+)?")


def column_spec(text: str) -> ColumnSpec:
    """A column and its cuts, as `subgroups` names them.

    Raises:
        ValueError: the text is of another form.
    """
    name, colon, rest = (part.strip() for part in text.partition(":"))
    try:
        cuts = tuple(float(cut) for cut in rest.split(",")) if colon else ()
    except ValueError:
        cuts = (math.nan,)
    rising = all(low < high for low, high in pairwise(cuts))
    if not name or not rising or not all(map(math.isfinite, cuts)):
        msg = f"expected a column, or column:cut,cut with rising numbers, found {text!r}"
        raise ValueError(msg)
    return ColumnSpec(name, cuts)


def reader_spec(text: str) -> ReaderSpec:
    """A column and its category, as `readers` names them.

    Raises:
        ValueError: the text is of another form.
    """
    name, colon, cut = (part.strip() for part in text.partition(":"))
    if not name or (colon and not any(character.isdigit() for character in cut)):
        msg = f"expected a column, or column:category such as tirads:4a, found {text!r}"
        raise ValueError(msg)
    return ReaderSpec(name, cut or None)


def joined_columns(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Columns whose cuts were parted: `--set subgroups=age:40,60` is parted at every comma.

    Raises:
        ValueError: a column has another form, or is named twice.
    """
    columns: list[str] = []
    for text in texts:
        if columns and ":" in columns[-1] and _CUT.fullmatch(text.strip()):
            columns[-1] += f",{text.strip()}"
        else:
            columns.append(text)
    check_unique([column_spec(text).name for text in columns])
    return tuple(columns)


def check_unique(names: list[str]) -> None:
    """Refuse a column that is named twice.

    Raises:
        ValueError: names all of them.
    """
    if len(set(names)) != len(names):
        msg = f"a column is named twice: {', '.join(names)}"
        raise ValueError(msg)
