"""The report's sections on operating points, subgroups, readers and shortcuts."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.html_page import Element, read_page
from tests.support.report_checks import check_traces, untraced
from tests.support.report_store import fabricated, images
from thyro_core.evaluation.tables import image_level
from thyro_core.reporting.report import render_report, write_report
from thyro_core.reporting.sections.review import FactSet
from thyro_core.store.keys import report_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory) -> tuple[Store, StudyPlan, Element]:
    """A study with subgroups and a reader, two images a patient, and its page."""
    folder = tmp_path_factory.mktemp("review")
    store, plan = fabricated(
        folder,
        images(160, 64, attributes=True),
        splits=2,
        test_fraction=0.45,
        architectures=("resnet18",),
        subgroups=("device", "age:45"),
        readers=("tirads:4a", "cytology"),
        trust_images=0,
    )
    write_report(store, plan.study_id, folder)
    return store, plan, read_page(store.read(report_key(plan.study_id)).decode())


def test_every_number_has_its_origin(reviewed) -> None:
    store, plan, page = reviewed
    assert check_traces(page, store, plan)["sql"] > 400
    assert list(untraced(page.find("body")[0])) == []


def test_groups_of_few_patients_have_their_number_and_no_figure(reviewed) -> None:
    store, plan, page = reviewed
    rows = read_table(store, "subgroups", study_id=plan.study_id).to_pylist()
    small = [row for row in rows if min(row["units_benign"], row["units_malignant"]) < 10]
    assert {row["value"] for row in small} >= {"Rare <$1> device"}
    assert all(row["estimate"] != row["estimate"] for row in small)
    assert all(row["estimate"] == row["estimate"] for row in rows if row not in small)
    text = page.by_id("subgroups").text
    assert "Rare <$1> device" in text
    assert text.count("too few") == len(small)


def test_a_column_that_the_labels_follow_is_named_where_they_are_believed(reviewed) -> None:
    """The reader `cytology` never errs; `tirads` does."""
    page = reviewed[2]
    sentence = "Each text of the column cytology stands beside one class alone"
    assert sentence in page.by_id("cohort").text
    (bullet,) = [e for e in page.by_id("brief").walk() if "data-label-column" in e.attributes]
    assert bullet.text.startswith("Labels may follow from the column cytology")
    assert "tirads stands" not in page.by_id("cohort").text


def test_facts_that_are_the_same_in_every_image_clear_nothing(reviewed) -> None:
    text = reviewed[2].by_id("shortcuts").text
    assert "Of these number of windows is the same in every image here" in text
    assert "number of windows" not in reviewed[2].by_id("brief").text


def test_what_calling_all_malignant_reaches_stands_beside_the_figures(reviewed) -> None:
    store, plan, page = reviewed
    splits = read_table(store, "splits", study_id=plan.study_id).to_pandas()
    test = splits[splits["role"] == "test"]
    share = test.groupby("split")["label"].mean()
    text = page.by_id("performance").text
    assert f"an accuracy and a precision of {share.mean():.3f} and an F1 of" in text
    assert f"F1 of {(2 * share / (1 + share)).mean():.3f} here" in text
    metrics = read_table(store, "metrics", study_id=plan.study_id).to_pandas()
    first = metrics[(metrics["architecture"] == plan.config.architectures[0])
                    & (metrics["level"] == "image") & metrics["split"].isna()]  # fmt: skip
    own = first.set_index("metric")["value"]
    reached = {"malignant": {"accuracy": share.mean(), "f1": (2 * share / (1 + share)).mean()},
               "benign": {"accuracy": (1 - share).mean()}}  # fmt: skip
    brief = {each.attributes["data-one-class"]: each.text for each in page.by_id("brief").walk()
             if "data-one-class" in each.attributes}  # fmt: skip
    for name, figures in reached.items():
        better = {metric: value for metric, value in figures.items() if value > own[metric]}
        assert (name in brief) == bool(better)
        for metric, value in better.items():
            assert f"{value:.3f} against {own[metric]:.3f} of ResNet18" in brief[name]
    benign, malignant = (test[test["label"] == n]["patient_id"].nunique() for n in (0, 1))
    assert f"are of {benign} benign and {malignant} malignant patients" in text


def test_the_levels_stand_side_by_side(reviewed) -> None:
    assert "By image and by patient" in reviewed[2].by_id("performance").text


def test_the_reader_stands_with_its_cut(reviewed) -> None:
    store, plan, page = reviewed
    row, _ = read_table(store, "readers", study_id=plan.study_id).to_pylist()
    assert row["cut"] == "4a"
    assert math.isfinite(row["difference"])
    assert "tirads from 4a on" in " ".join(page.by_id("readers").text.split())
    (line,) = [e for e in page.by_id("readers").find("tr") if "tirads from 4a on" in e.text]
    ends = [1000 * row[f"difference_{end}"] * (1 - row["n_positive"] / row["n"])
            for end in ("low", "high")]  # fmt: skip
    shown = [float(e.attributes["value"]) for e in line.find("data")
             if "1000 *" in e.attributes["data-sql"]]  # fmt: skip
    assert shown == pytest.approx(ends)
    assert ends[0] <= row["avoided"] <= ends[1]


def test_a_column_that_the_labels_follow_from_is_not_compared(reviewed) -> None:
    store, plan, page = reviewed
    _, row = read_table(store, "readers", study_id=plan.study_id).to_pylist()
    assert (row["reader"], row["sensitivity"], row["specificity"]) == ("cytology", 1.0, 1.0)
    figures = ("network_specificity", "difference", "p", "p_adjusted", "avoided")
    assert all(math.isnan(row[name]) for name in figures)
    assert page.by_id("readers").text.count("Not compared") == 1
    # Of the labels against themselves: no figure of a reader.
    (line,) = [e for e in page.by_id("readers").find("tr") if "Not compared" in e.text]
    shown = {e.attributes["data-sql"].split()[1] for e in line.find("data")}
    assert shown == {"n", "n_positive", "n_unread"}


def test_groups_that_are_all_too_small_answer_no_item_of_a_checklist(tmp_path) -> None:
    store, plan = fabricated(
        tmp_path, images(24, 9, attributes=True), splits=2, architectures=("resnet18",),
        subgroups=("device",), trust_images=0,
    )  # fmt: skip
    page = read_page(render_report(store, plan.study_id, tmp_path)[0])
    assert "too few" in page.by_id("subgroups").text
    items = {row.find("th")[0].text: row.text for row in page.by_id("checklist").find("tr")
             if row.find("th")}  # fmt: skip
    assert "for the authors" in items["14"]
    assert "here in part" not in items["12d"]


def test_the_specificity_at_a_declared_sensitivity_has_its_interval(reviewed) -> None:
    store, plan, page = reviewed
    rows = read_table(store, "operating_points", study_id=plan.study_id).to_pylist()
    text = page.by_id("operating").text
    assert rows
    for row in rows:
        assert row["apparent_low"] <= row["apparent_specificity"] <= row["apparent_high"]
        assert f"{row['apparent_low']:.3f}" in text
    assert "a bootstrap of patients that chooses the threshold anew" in text


def test_an_interval_that_an_earlier_version_did_not_make_is_not_described(
    reviewed, tmp_path
) -> None:
    store, plan, _ = reviewed
    rows = read_table(store, "operating_points", study_id=plan.study_id)
    page = store.read(report_key(plan.study_id))
    nulls = pa.nulls(rows.num_rows, pa.float64())
    older = rows
    for name in ("apparent_low", "apparent_high"):
        older = older.set_column(older.column_names.index(name), name, nulls)
    try:
        write_table(store, "operating_points", older, study_id=plan.study_id)
        write_report(store, plan.study_id, tmp_path)
        drawn = read_page(store.read(report_key(plan.study_id)).decode())
    finally:
        write_table(store, "operating_points", rows, study_id=plan.study_id)
        store.write(report_key(plan.study_id), page)
    text = drawn.by_id("operating").text
    assert "an earlier version of the program made these figures" in text
    assert "a bootstrap of patients that chooses the threshold anew" not in text


def test_a_lead_over_the_files_facts_is_said_only_where_its_corrected_test_says_so(
    reviewed,
) -> None:
    store, plan, page = reviewed
    (row,) = read_table(store, "shortcuts", study_id=plan.study_id).to_pylist()
    cells = [each for each in page.by_id("shortcuts").walk() if "data-lead" in each.attributes]
    texts = {each.attributes["data-lead"]: each.text for each in cells}
    assert set(texts) == {"resnet18", "resnet18-size"}
    for prefix, key, verb in (("seen_", "resnet18", "see"), ("", "resnet18-size", "tell")):
        what = "all of them" if key.endswith("size") else "these facts tell"
        if math.isnan(row[f"{prefix}p_adjusted"]):
            expected = "no test: nothing is shown"
        elif row[f"{prefix}p_adjusted"] >= 0.05:
            expected = f"not shown to {verb} more than {what}"
        elif row[f"{prefix}lead"] > 0:
            expected = f"{verb}s more than {what}"
        else:
            expected = "does worse than these facts"
        assert texts[key] == expected


def test_facts_of_an_earlier_version_are_said_to_hold_the_size(reviewed, tmp_path) -> None:
    store, plan, _ = reviewed
    rows = read_table(store, "shortcuts", study_id=plan.study_id)
    page = store.read(report_key(plan.study_id))
    older = rows.to_pylist()
    for row in older:
        row.update({name: None for name in row if name.startswith("seen_")})
    try:
        table = schemas.rows_to_table("shortcuts", older)
        write_table(store, "shortcuts", table, study_id=plan.study_id)
        write_report(store, plan.study_id, tmp_path)
        drawn = read_page(store.read(report_key(plan.study_id)).decode())
    finally:
        write_table(store, "shortcuts", rows, study_id=plan.study_id)
        store.write(report_key(plan.study_id), page)
    text = " ".join(drawn.by_id("shortcuts").text.split())
    assert "compares a network with size and proportions too, which it does not see" in text
    cells = [each for each in drawn.by_id("shortcuts").walk() if "data-lead" in each.attributes]
    assert [each.attributes["data-lead"] for each in cells] == ["resnet18-size"]


@pytest.mark.parametrize(
    ("p", "shown"), [(0.049, 0.1), (0.05, 0.0), (0.075, 0.0), (math.nan, None), (None, None)]
)
def test_an_interval_above_zero_is_no_lead_where_the_corrected_p_is_not_small(p, shown) -> None:
    row = {"lead": 0.1, "lead_low": 0.008, "lead_high": 0.2, "p": 0.038, "p_adjusted": p}
    facts = FactSet("", ("size",), has_size=True, tell=True, lead_over_best={})
    assert facts.shown_lead(row) == shown
    seen = FactSet("seen_", (), has_size=False, tell=True, lead_over_best={})
    assert seen.shown_lead({f"seen_{name}": value for name, value in row.items()}) == shown


def test_what_is_not_looked_at_is_said(full) -> None:
    store, plan = full
    page = read_page(store.read(report_key(plan.study_id)).decode())
    assert "None is looked at" in page.by_id("subgroups").text
    assert "Not compared" in page.by_id("readers").text


def test_what_cannot_be_told_apart_or_is_not_scored_is_said(reviewed) -> None:
    text = reviewed[2].by_id("performance").text
    assert "the study cannot tell what share belongs to either" in " ".join(text.split())


def test_optimism_is_the_training_part_less_the_test_part_and_old_studies_say_it_is_missing(
    reviewed, tmp_path
) -> None:
    store, plan, page = reviewed
    text = " ".join(page.by_id("performance").text.split())
    assert "not recorded" not in text
    metrics = read_table(store, "metrics", study_id=plan.study_id)
    rows = {(r["split"], r["metric"]): r for r in image_level(metrics).to_pylist()}
    leads = [1 - 0.001 * split - rows[split, "auc"]["value"] for split in (0, 1)]
    assert rows[0, "train_auc"]["value"] == 1
    assert rows[None, "optimism"]["value"] == pytest.approx(np.mean(leads))
    assert f"{np.mean(leads):.3f}" in text
    # On one scale: means over splits; a symmetric interval would contradict that of the test part.
    (table,) = [e for e in page.by_id("performance").find("table") if "trained on" in e.text]
    columns = [[d.attributes["data-sql"].split()[1] for d in cell.find("data")]
               for cell in table.find("tbody")[0].find("td")]  # fmt: skip
    assert columns == [["value"], ["value", "ci_low", "ci_high"], ["value", "sd"]]
    assert "of single networks, the scale of the primary endpoint" in text
    older = metrics.filter(~pc.field("metric").isin(["train_auc", "optimism"]))
    write_table(store, "metrics", older, study_id=plan.study_id)
    write_report(store, plan.study_id, tmp_path)
    write_table(store, "metrics", metrics, study_id=plan.study_id)
    again = read_page(store.read(report_key(plan.study_id)).decode())
    assert "AUC on the training parts is not recorded" in again.by_id("performance").text
