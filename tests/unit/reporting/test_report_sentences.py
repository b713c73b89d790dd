"""Sentences of the report in the cases that would make them false."""

from importlib import metadata

import pyarrow.compute as pc
import pytest

from tests.support.html_page import Element, read_page
from tests.support.report_checks import check_traces
from tests.support.report_store import fabricated, images
from thyro_core.reporting.cells import simulation
from thyro_core.reporting.report import render_report
from thyro_core.reporting.sections.gallery import EACH
from thyro_core.reporting.simulated import (
    SIMULATED_SPLITS,
    SIMULATION_FIGURES,
    nearest_simulated,
)
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.provenance import git_commit
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

SMALL = {"architectures": ("resnet18",), "splits": 2}


@pytest.fixture(scope="module")
def without_patients(tmp_path_factory) -> tuple[Store, StudyPlan, Element]:
    """Groups of three images, of which one in nine is excluded for its label, and no patients."""
    folder = tmp_path_factory.mktemp("without")
    rows = images(patients=False).to_pylist()
    for i, row in enumerate(rows):
        row["group_id"] = f"g{i // 3}"
        if not row["included"]:
            row["reason"] = "near_duplicate_conflict"
    store, plan = fabricated(folder, schemas.rows_to_table("images", rows), **SMALL)
    page = read_page(render_report(store, plan.study_id, folder)[0])
    check_traces(page, store, plan)
    return store, plan, page


@pytest.fixture(scope="module")
def with_patients(tmp_path_factory) -> Element:
    folder = tmp_path_factory.mktemp("with")
    store, plan = fabricated(folder, **SMALL)
    return read_page(render_report(store, plan.study_id, folder)[0])


def heads(page: Element, section: str) -> list[str]:
    return [each.text for each in page.by_id(section).find("th")]


def test_images_never_tested_stand_in_plain_sight(without_patients) -> None:
    store, plan, page = without_patients
    splits = read_table(store, "splits", study_id=plan.study_id)
    never = splits.filter(pc.equal(splits["times_tested"], 0))
    n = len(pc.unique(never["image_id"]))
    assert n > 0
    (line,) = [e for e in page.by_id("brief").walk() if "data-never" in e.attributes]
    assert line.text.startswith(f"{n} of 60 images")
    assert not any(parent.tag == "details" for parent in ancestors(line))
    assert f"{n} of 60 images" in page.by_id("cohort").text
    assert "they only ever train, so that" in page.by_id("cohort").text
    (title,) = [e.text for e in page.by_id("brief").find("summary")]
    assert "images never tested" in title
    assert "another size" not in title


def ancestors(element: Element) -> list[Element]:
    found = []
    parent = element.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


def test_what_is_not_known_is_not_called_checked(without_patients, with_patients) -> None:
    _, _, page = without_patients
    assert shared(page) == ["0", "0", "not known", "0"]
    assert "Patients are not known" in page.by_id("leakage").text
    assert "No image or group of near-duplicates that was found stands" in page.by_id("brief").text
    assert shared(with_patients) == ["0", "0", "0", "0"]
    assert "No image, patient or group" in with_patients.by_id("brief").text
    for each in (page, with_patients):
        assert "it looks at no pixels" in each.by_id("leakage").text
        assert "from the images, what belongs together" not in each.text


def shared(page: Element) -> list[str]:
    (table,) = page.by_id("leakage").find("table")
    return [row.find("td")[-1].text for row in table.find("tbody")[0].find("tr")]


def test_groups_are_not_called_patients(without_patients, with_patients) -> None:
    _, _, page = without_patients
    assert "Groups" in heads(page, "trust")
    assert "Patients" not in heads(page, "trust")
    assert "Patients" in heads(with_patients, "trust")
    assert "Groups" not in heads(with_patients, "trust")
    limits = page.by_id("limits").text
    assert "take images for independent" not in limits
    assert "groups of near-duplicates for independent" in limits
    units = "n counts groups of near-duplicates."
    assert units in page.by_id("features").text
    assert "n counts patients." in with_patients.by_id("features").text


def test_a_reason_comes_with_its_meaning(without_patients) -> None:
    _, _, page = without_patients
    (row,) = [r for r in page.by_id("cohort").find("tr") if "near_duplicate_conflict" in r.text]
    assert "another image shows the same picture under the other label" in row.text


def test_facts_that_tell_the_classes_apart_and_the_lead_over_them_are_said_in_brief(
    tmp_path,
) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    study = {"study_id": plan.study_id}
    (row,) = read_table(store, "shortcuts", **study).to_pylist()
    over_seen, over_all = "leads over what it sees of them by", "leads over all of them by"
    not_seen, not_all = (f"is not shown to rank better than they do {how}"
                         for how in ("as far as it sees them", "all together"))  # fmt: skip
    cases = (
        # Lower end and P of the facts that a network sees, then of all facts.
        (0.6, 0.01, 0.7, 0.01, (over_seen, over_all)),
        (0.6, 0.01, 0.7, 0.5, (over_seen, not_all)),
        (0.6, 0.5, 0.7, 0.5, (not_seen, not_all)),
        (0.4, 0.01, 0.7, 0.01, ("are not shown to tell the classes apart", over_seen)),
        (0.4, 0.5, 0.4, 0.5, ("are not shown to tell the classes apart", not_seen)),
        (0.4, 0.01, 0.4, 0.01, ()),
    )
    for seen_low, seen_p, low, p, texts in cases:
        forged = row | {"auc": 0.9, "n": 2}
        for prefix, end, chance in (("seen_", seen_low, seen_p), ("", low, p)):
            values = {"ci_low": end, "ci_high": 0.9, "lead": 0.1, "lead_low": 0.01,
                      "lead_high": 0.2, "p": chance, "p_adjusted": chance}  # fmt: skip
            forged |= {f"{prefix}{name}": value for name, value in values.items()}
        write_table(store, "shortcuts", schemas.rows_to_table("shortcuts", [forged]), **study)
        page = read_page(render_report(store, plan.study_id, tmp_path)[0])
        lines = [e.text for e in page.by_id("brief").walk() if "data-shortcut" in e.attributes]
        assert len(lines) == bool(texts)
        for line in lines:
            assert all(text in " ".join(line.split()) for text in texts)
            assert "with the picture’s size, which it is not given" in line
            first = line.partition("which need no outline")[0]
            assert "ize" not in first, "what a network sees has no size"


def test_a_map_is_of_a_split_that_made_the_call_and_a_group_is_shown_once(
    without_patients,
) -> None:
    store, plan, page = without_patients
    predictions = read_table(store, "predictions", study_id=plan.study_id).to_pandas()
    groups = read_table(store, "images", manifest_id=plan.manifest_id).to_pandas()
    group = groups.set_index("image_id")["group_id"]
    mean = predictions.groupby("image_id")["prob_malignant"].mean()
    calls = predictions["prob_malignant"] >= plan.config.threshold
    opposite = calls != (predictions["image_id"].map(mean) >= plan.config.threshold)
    assert opposite.any(), "no split makes another call than the mean: the case is not there"
    gallery = page.by_id("gallery")
    kinds = [e for e in gallery.find("div") if e.attributes.get("class") == "gallery"]
    assert len(kinds) == 4
    for kind in kinds:
        cases = [e for e in kind.find("figure") if e.attributes.get("class") == "case"]
        names = [case.find("code")[0].text for case in cases]
        ids = [next(i for i in group.index if i.startswith(name)) for name in names]
        assert len({group[i] for i in ids}) == len(ids) <= 2 * EACH
        for image_id, case in zip(ids, cases, strict=True):
            shown = [float(e.attributes["value"]) for e in case.find("data")]
            called = mean[image_id] >= plan.config.threshold
            assert (shown[-1] >= plan.config.threshold) == called


def test_levels_stand_side_by_side(with_patients) -> None:
    (table,) = [t for t in with_patients.by_id("performance").find("table")
                if "by what counts as one" in t.find("caption")[0].text]  # fmt: skip
    head = [th.text for th in table.find("thead")[0].find("th")]
    assert head[:2] == ["Metric", "By image"]
    assert 3 <= len(head) <= 4


def test_images_without_a_correlation_are_counted(with_patients, tmp_path) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    study = {"study_id": plan.study_id}
    own = study | {"split": 0, "architecture": "resnet18"}
    rows = read_table(store, "cam_trust", **own).to_pylist()
    sampled = [row for row in rows if row["cascade_4"] is not None and not row["is_empty"]]
    others = read_table(store, "cam_trust", **study).to_pylist()
    names = {row["image_id"] for row in others if row["split"] == 1 and row["cascade_4"]}
    lost = [row["image_id"] for row in sampled if row["image_id"] not in names]
    assert lost
    for row in rows:
        if row["image_id"] in lost:
            row["cascade_4"] = float("nan")
    before = without(with_patients)
    write_table(store, "cam_trust", schemas.rows_to_table("cam_trust", rows), **own)
    page = read_page(render_report(store, plan.study_id, tmp_path)[0])
    after = without(page)
    assert after[3] == before[3] + len(lost)
    assert after[:3] == before[:3]


def without(page: Element) -> list[int]:
    (table,) = [t for t in page.by_id("trust").find("table")
                if "Weight randomisation" in t.find("caption")[0].text]  # fmt: skip
    return [int(row.find("td")[2].text) for row in table.find("tbody")[0].find("tr")]


def test_energy_on_marks_is_on_a_scale_that_can_be_read(with_patients) -> None:
    rows = [r for r in with_patients.by_id("trust").find("tr") if "burned-in marks" in r.text]
    assert rows
    for row in rows:
        forms = {e.attributes["data-form"] for e in row.find("data")}
        assert "permille" in forms
        assert "three" not in forms


def test_percentages_of_simulations_are_not_called_definitions(with_patients) -> None:
    for section in ("operating", "performance", "curves"):
        found = [e for e in with_patients.by_id(section).find("data")
                 if e.attributes.get("data-source") == "simulation"]  # fmt: skip
        assert found, section
    text = with_patients.by_id("limits").text
    assert "nothing was tuned" not in text
    assert "every group of images has the same chance" not in with_patients.text


def test_where_the_precision_has_no_band_is_said(with_patients, tmp_path) -> None:
    few, _ = fabricated(tmp_path, images(60, 12), **SMALL)
    store, plan = few, _
    pages = (with_patients, read_page(render_report(store, plan.study_id, tmp_path)[0]))
    kinds = set()
    for page in pages:
        text = " ".join(page.by_id("curves").text.split())
        cells = [e for e in page.by_id("curves").find("data")
                 if "avg(m)" in e.attributes.get("data-sql", "")]  # fmt: skip
        kinds.add(bool(cells))
        if cells:
            assert f"Below a recall of {cells[0].text} the precision has no band" in text
            assert 0 < float(cells[0].attributes["value"]) <= 1
        else:
            assert "The precision has no band at any recall" in text
    assert kinds == {True, False}


@pytest.mark.parametrize(("splits", "simulated"), [(2, 5), (5, 5), (7, 5), (8, 10), (12, 10)])
def test_coverage_is_quoted_of_the_nearest_number_of_splits(splits, simulated) -> None:
    assert nearest_simulated(splits) == simulated
    own = simulation("mean_least", splits=splits)
    assert own.value == SIMULATED_SPLITS[simulated]["mean_least"]
    assert simulation("malignant", splits=splits).value == SIMULATION_FIGURES["malignant"]


def test_the_primary_interval_has_its_coverage_and_what_it_is_not_of(with_patients) -> None:
    (line,) = [e for e in with_patients.by_id("performance").walk()
               if "data-coverage" in e.attributes]  # fmt: skip
    text = " ".join(line.text.split())
    own = SIMULATED_SPLITS[5]
    assert f"true AUC in {own['mean_least']} to {own['mean_most']} of a hundred" in text
    assert "This study has 2 splits, which was not simulated: 5 is the nearest" in text
    assert "no network was trained" in text


def test_a_study_of_a_simulated_kind_claims_no_other_and_another_scheme_is_named(tmp_path) -> None:
    cases = (({"splits": 5}, False), ({"splits": 5, "scheme": "kfold"}, True))
    for number, (config, is_other) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        store, plan = fabricated(folder, architectures=("resnet18",), trust_images=0, **config)
        page = read_page(render_report(store, plan.study_id, folder)[0])
        (line,) = [e for e in page.by_id("performance").walk() if "data-coverage" in e.attributes]
        assert "which was not simulated" not in line.text
        assert ("Only hold-outs were simulated" in line.text) == is_other
        assert ("kfold" in line.text) == is_other


def test_one_ppv_has_one_figure_and_one_interval(with_patients) -> None:
    """The tile, the table of metrics and the row for the set's own prevalence."""
    (tile,) = [e for e in with_patients.by_id("brief").find("div")
               if e.attributes.get("class") == "tile" and e.text.startswith("PPV")]  # fmt: skip
    row = next(r for r in with_patients.by_id("performance").find("tr")
               if r.text.startswith("Precision (PPV)"))  # fmt: skip
    figures = [e.attributes["value"] for e in tile.find("data")]
    assert [e.attributes["value"] for e in row.find("data")][: len(figures)] == figures
    own = [r for r in with_patients.by_id("ppv").find("tr")
           if r.find("th")[0].find("data")
           and r.find("th")[0].find("data")[0].attributes.get("data-sql")]  # fmt: skip
    assert len(own) == 1
    assert [e.attributes["value"] for e in own[0].find("data")][1 : 1 + len(figures)] == figures


def test_a_map_that_changes_with_the_weights_is_not_said_to_follow_what_was_learned(
    with_patients,
) -> None:
    text = " ".join(with_patients.by_id("trust").text.split())
    assert "follows what was learned" not in text
    assert "is no proof that it shows what the network uses" in text


def test_frames_that_the_search_cannot_see_stand_in_the_brief(
    without_patients, with_patients
) -> None:
    for page, words in ((without_patients[2], "may stand on both sides unseen"),
                        (with_patients, "by the patient id alone")):  # fmt: skip
        (line,) = [e for e in page.by_id("brief").walk() if "data-unseen" in e.attributes]
        assert "Doppler box or callipers" in line.text
        assert words in line.text


def test_the_ppv_stands_beside_what_calling_all_malignant_reaches(with_patients) -> None:
    text = " ".join(with_patients.by_id("brief").text.split())
    assert "whoever calls every image malignant reaches about that" in text


def test_the_page_names_the_program_that_made_it(with_patients) -> None:
    codes = with_patients.by_id("provenance").find("code")
    found = {name: e.text for e in codes for name in e.attributes if "data-page" in name}
    assert found["data-page-version"] == f"Thyro {metadata.version('thyro')}"
    assert found.get("data-page-commit") == git_commit()


def test_the_paper_s_specificity_is_used_and_shown(with_patients) -> None:
    (row,) = [r for r in with_patients.by_id("performance").find("tr")
              if r.text.startswith("Specificity") and "derived" in r.text]  # fmt: skip
    assert "0.985" in row.text
    assert round(1222 / 1240, 3) == 0.985
    # From sensitivity and accuracy, as the page says; from sensitivity and precision it is another.
    positives, negatives, sensitivity, accuracy, precision = 27, 124, 0.978, 0.984, 0.939
    right = accuracy * (positives + negatives) - sensitivity * positives
    assert round(right / negatives, 3) == 0.985
    false_alarms = sensitivity * positives * (1 / precision - 1)
    assert round(1 - false_alarms / negatives, 3) == 0.986
    assert "follows from its sensitivity, its accuracy" in with_patients.by_id("performance").text
