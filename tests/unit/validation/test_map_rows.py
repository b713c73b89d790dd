"""Rows of an evaluation's maps: what cannot be is found, and empty maps are there to be shown."""

import pytest

from thyro_core.explain.trust import TRUST_CHECKS
from thyro_core.reporting.external_maps import empty_maps
from thyro_core.reporting.queries import TableRow
from thyro_core.validation.maps import MAP_MEASURES
from thyro_core.validation.verify import map_faults

ROWS = [
    {"measure": measure, "baseline": baseline, "n": 5, "value": 0.5, "reference": 0.2, "lead": 0.3}
    for measure, baseline, *_ in TRUST_CHECKS
    if measure in {*MAP_MEASURES, "is_empty"}
]


def test_rows_as_they_are_made_pass() -> None:
    assert map_faults(ROWS, 5) == []
    assert map_faults([], 0) == []


@pytest.mark.parametrize(
    ("rows", "images", "words"),
    [
        ([], 5, "found 0 rows"),
        (ROWS, 0, "each of 0 checks"),
        (ROWS + ROWS[:1], 5, "once, found"),
        ([ROWS[0] | {"n": 6}, *ROWS[1:]], 5, "expected 0 to 5 images, found 6"),
        ([ROWS[0] | {"lead": 0.4}, *ROWS[1:]], 5, "expected a lead of 0.3, found 0.4"),
    ],
)
def test_rows_that_cannot_be_are_found(rows, images, words) -> None:
    assert words in map_faults(rows, images)[0]


def test_the_row_of_empty_maps_is_found() -> None:
    rows = [TableRow("evaluation_maps", {}, row) for row in ROWS]
    row = empty_maps(rows)
    assert row
    assert row["measure"] == "is_empty"
    assert empty_maps([]) is None
