"""The reporting checklists: an item is answered by a section that is there, or by the authors."""

import csv
import io

from thyro_core.reporting.checklist import checklist, checklist_csv
from thyro_core.reporting.report import CONTENTS

ANCHORS = {"top", *(anchor for anchor, _ in CONTENTS)}
AUTHORS = {
    "TRIPOD+AI": {"2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6c", "8a", "8b", "8c", "10", "17",
                  "18a", "18b", "18c", "18d", "18e", "19", "27a", "27b", "27c"},
    "CLAIM 2024": {"2", "3", "4", "5", "6", "7", "11", "13", "14", "15", "16", "17", "18", "21",
                   "34", "41", "42", "44"},
}  # fmt: skip


TRIPOD = (
    "1 title|2 abstract|3a context|3b population|3c inequalities|4 objectives|5a sources|5b dates|"
    "6a setting|6b eligibility|6c treatments|7 preparation|8a outcome|8b outcome: who|"
    "8c blinding|9a choice of predictors|9b predictors: definition|9c predictors: who|"
    "10 sample size|11 missing|12a divided|12b handling of predictors|12c type of model|"
    "12d heterogeneity|12e measures|12f updating|12g predictions|13 imbalance|14 fairness|"
    "15 output|16 differences|17 ethics|18a funding|18b conflicts|18c protocol|18d registration|"
    "18e data sharing|18f code sharing|19 public involvement|20a flow|20b characteristics|"
    "20c development against|21 by analysis|22 full model|23a performance|23b heterogeneity|"
    "24 updating|25 interpretation|26 limitations|27a poor quality|27b users|27c next steps"
)
"""Items of Collins et al. 2024, BMJ 385:e078378, table 2, and what each is about."""
CLAIM = (
    "1 title|2 abstract|3 background|4 aims|5 prospective|6 goal|7 sources|8 inclusion|"
    "9 preprocessing|10 subsets|11 de-identification|12 missing|13 acquisition|14 definition|"
    "15 rationale|16 who annotated|17 test set|18 variability|19 assigned|20 disjoint|"
    "21 sample size|22 the model|23 software|24 starting weights|25 training|26 final model|"
    "27 ensembles|28 metrics|29 significance|30 robustness|31 explainability|32 internal|"
    "33 external|34 registration|35 excluded|36 characteristics|37 performance|"
    "38 diagnostic performance|39 failures|40 limitations|41 practice|42 protocol|"
    "43 availability|44 funding"
)
"""Items of Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300, and their topics."""


def test_both_standards_are_whole_in_order_and_about_what_they_are_about() -> None:
    items = checklist(ANCHORS)
    for standard, published in (("TRIPOD+AI", TRIPOD), ("CLAIM 2024", CLAIM)):
        expected = [text.split(" ", 1) for text in published.split("|")]
        own = [item for item in items if item.standard == standard]
        assert [item.item for item in own] == [number for number, _ in expected]
        for item, (_, topic) in zip(own, expected, strict=True):
            assert topic in item.topic.lower(), item
    assert len(items) == 52 + 44


def test_groups_of_a_column_answer_for_clusters_in_part() -> None:
    for sections, status in (
        (ANCHORS, "report and authors"),
        (ANCHORS - {"subgroups"}, "not done"),
    ):
        found = {
            item.item: item.status for item in checklist(sections) if item.item in {"12d", "23b"}
        }
        assert found == {"12d": status, "23b": status}


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


def test_items_that_ask_for_patients_are_answered_by_them_where_they_are_known() -> None:
    by_images, by_patients = (
        {(item.standard, item.item): item for item in checklist(ANCHORS, has_patients=known)}
        for known in (False, True)
    )
    changed = {key for key, item in by_images.items() if by_patients[key] != item}
    assert changed == {
        ("TRIPOD+AI", "20a"), ("TRIPOD+AI", "21"), ("CLAIM 2024", "35"), ("CLAIM 2024", "36"),
    }  # fmt: skip
    for key in changed:
        assert "patients" not in by_images[key].remark.partition("the authors add")[0]
        assert "patients" in by_patients[key].remark.partition("the authors add")[0]
    assert by_images["TRIPOD+AI", "21"].status == "report and authors"
    assert by_patients["TRIPOD+AI", "21"].status == "report"


def test_the_csv_says_the_same() -> None:
    items = checklist(ANCHORS)
    rows = list(csv.DictReader(io.StringIO(checklist_csv(items).decode())))
    assert [(row["standard"], row["item"], row["status"], row["remark"]) for row in rows] == [
        (item.standard, item.item, item.status, item.remark) for item in items
    ]
    for row, item in zip(rows, items, strict=True):
        assert row["section"] == (f"report.html#{item.section}" if item.section else "")
