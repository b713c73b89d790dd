"""The reporting checklists: an item is answered by a section that is there, or by the authors."""

import csv
import io
from collections import Counter

from thyro_core.reporting.checklist import checklist, checklist_csv
from thyro_core.reporting.report import CONTENTS

ANCHORS = {"top", *(anchor for anchor, _ in CONTENTS)}
AUTHORS = {
    "TRIPOD+AI": {"2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6c", "8a", "8b", "8c", "10", "17",
                  "18a", "18b", "18c", "18d", "18e", "19", "27a", "27b", "27c"},
    "CLAIM 2024": {"2", "3", "4", "5", "6", "7", "11", "13", "14", "15", "16", "17", "18", "21",
                   "34", "41", "42", "44"},
}  # fmt: skip


def test_both_standards_are_whole_and_in_order() -> None:
    items = checklist(ANCHORS)
    claim = [item.item for item in items if item.standard == "CLAIM 2024"]
    assert claim == [str(number) for number in range(1, 45)]
    tripod = [item.item for item in items if item.standard == "TRIPOD+AI"]
    assert list(dict.fromkeys(int(item.rstrip("abcdefg")) for item in tripod)) == [*range(1, 28)]
    letters = Counter(item.rstrip("abcdefg") for item in tripod)
    assert {n: letters[n] for n in ("3", "8", "9", "12", "18", "20", "23", "27")} == {
        "3": 3, "8": 3, "9": 3, "12": 7, "18": 6, "20": 3, "23": 2, "27": 3
    }  # fmt: skip
    assert len(set(tripod)) == len(tripod)


def test_what_the_program_cannot_know_is_for_the_authors() -> None:
    for item in checklist(ANCHORS):
        if item.item in AUTHORS[item.standard]:
            assert item.status == "for the authors", item
            assert not item.section


def test_an_item_is_answered_by_a_section_that_shows_something() -> None:
    for item in checklist(ANCHORS):
        answered = item.status in {"report", "report and authors"}
        assert answered == (item.section in ANCHORS), item
        assert not answered or item.remark
        assert (item.status == "report and authors") == (
            answered and "the authors add: " in item.remark
        ), item


def test_without_its_section_an_item_is_not_claimed() -> None:
    shown = {item.item for item in checklist(ANCHORS) if item.section == "trust"}
    assert shown == {"31"}
    (item,) = (
        each for each in checklist(ANCHORS - {"trust"})
        if (each.standard, each.item) == ("CLAIM 2024", "31")
    )  # fmt: skip
    assert (item.status, item.section) == ("for the authors", "")
    for item in checklist(()):
        assert item.status in {"for the authors", "not done"}
        assert not item.section


def test_the_csv_says_the_same() -> None:
    items = checklist(ANCHORS)
    rows = list(csv.DictReader(io.StringIO(checklist_csv(items).decode())))
    assert [(row["standard"], row["item"], row["status"], row["remark"]) for row in rows] == [
        (item.standard, item.item, item.status, item.remark) for item in items
    ]
    for row, item in zip(rows, items, strict=True):
        assert row["section"] == (f"report.html#{item.section}" if item.section else "")
