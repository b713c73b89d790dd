"""`export_study`: what is in the folder, Table 1 by hand, and the methods against the config."""

import json
import re

import pyarrow as pa
import pytest

from tests.support.report_store import MANIFEST, fabricated
from thyro_core.errors import IncompleteStudyError, InputError
from thyro_core.reporting.manuscript.characteristics import characteristics
from thyro_core.reporting.manuscript.export import export_study
from thyro_core.reporting.manuscript.methods import methods
from thyro_core.reporting.queries import Tables
from thyro_core.store.keys import table_key
from thyro_core.store.store import open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table
from thyro_core.tables.query import connect


def table_one(tmp_path, rows: list[dict[str, object]]) -> dict[str, tuple[str, ...]]:
    empty = dict.fromkeys(schemas.TABLES["images"].schema.names)
    filled = [empty | {"manifest_id": MANIFEST, "included": True} | row for row in rows]
    store = open_store(str(tmp_path / "store"))
    table = pa.Table.from_pylist(filled, schemas.TABLES["images"].schema)
    write_table(store, "images", table, manifest_id=MANIFEST)
    results = connect(store)
    try:
        with results.store_errors():
            found = characteristics(Tables(results.connection, "s0", MANIFEST))
    finally:
        results.connection.close()
    return {row[0].strip(): row[1:] for row in found.body} | {"caption": (found.caption,)}


def row(number: int, label: int, patient: str | None, **attributes: object) -> dict[str, object]:
    return {
        "image_id": f"{number:064x}",
        "label": label,
        "patient_id": patient,
        "width": 100 + number,
        "height": 50,
        "attributes": json.dumps(attributes),
    }


def test_what_is_of_a_patient_is_counted_by_patient(tmp_path) -> None:
    ages = [30, 30, 41, 52, 63, 74, 85]
    patients = ["a", "a", "b", "c", "d", "e", "f"]
    found = table_one(
        tmp_path,
        [
            row(i, int(i > 3), patient, sex="F" if i < 4 else "M", age=str(age), device=f"d{i % 2}")
            for i, (patient, age) in enumerate(zip(patients, ages, strict=True))
        ],
    )
    assert found["Images, n"] == ("4", "3", "7")
    assert found["Patients, n"] == ("3", "3", "6")
    # Two images of one patient count once: 30, 41, 52 and 63, 74, 85.
    assert found["age (by patient)"] == (
        "41 (35.5 to 46.5)", "74 (68.5 to 79.5)", "57.5 (43.8 to 71.2)",
    )  # fmt: skip
    assert found["F"] == ("3 (100.0 %)", "0 (0.0 %)", "3 (50.0 %)")
    # The devices of a patient's images differ, so that images are counted.
    assert found["device"] == ("", "", "")
    assert found["d0"] == ("2 (50.0 %)", "2 (66.7 %)", "4 (57.1 %)")
    assert found["width [pixels]"] == (
        "101.5 (100.8 to 102.2)",
        "105 (104.5 to 105.5)",
        "103 (101.5 to 104.5)",
    )


def test_a_patient_of_both_classes_counts_in_each_and_once_in_all(tmp_path) -> None:
    found = table_one(tmp_path, [row(0, 0, "a"), row(1, 1, "a"), row(2, 1, "b")])
    assert found["Patients, n"] == ("1", "2", "2")


def test_what_is_not_given_is_counted_and_shares_are_of_the_rest(tmp_path) -> None:
    found = table_one(
        tmp_path, [row(0, 0, None, sex="F"), row(1, 0, None, sex=""), row(2, 1, None, sex="M")]
    )
    assert "Patients, n" not in found
    assert found["F"] == ("1 (100.0 %)", "0 (0.0 %)", "1 (50.0 %)")
    assert found["not given"] == ("1", "0", "1")
    assert "all rows count images" in found["caption"][0]


def test_free_text_is_named_and_not_shown(tmp_path) -> None:
    found = table_one(tmp_path, [row(i, i % 2, None, remark=f"text {i}") for i in range(14)])
    assert not any("text" in name for name in found)
    assert "more than 12 different texts: remark" in found["caption"][0]


def test_the_methods_follow_the_config(tmp_path) -> None:
    store, plan = fabricated(
        tmp_path, architectures=("alexnet", "resnet18"), scheme="repeated_kfold", splits=4,
        folds=2, epochs=7, focal_alpha=0.75, flip_vertical=0.25, trust_images=0,
    )  # fmt: skip
    results = connect(store)
    try:
        with results.store_errors():
            text = methods(Tables(results.connection, plan.study_id, plan.manifest_id), plan)
    finally:
        results.connection.close()
    assert "2-fold cross-validation, stratified by class and repeated 2 times" in text
    assert "for 7 epochs" in text
    assert "a weight of 0.75 for the malignant class" in text
    assert "upside down with probability 0.25" in text
    assert "The primary endpoint is the AUC of AlexNet" in text
    assert "AlexNet [@krizhevsky2014], ResNet18 [@he2016]" in text
    assert "hold-out" not in text
    assert "randomising weights" not in text
    # Four splits: no test over them is made, and none is claimed.
    assert "without a test, which needs 5 splits" in text
    assert "resampled t test" not in text
    assert "&#" not in text
    # A heading stands alone, whatever was left out before it.
    assert all(
        f"\n\n{heading}\n\n" in text for heading in re.findall(r"^## .*$", text, re.MULTILINE)
    )


def test_a_folder_holds_everything_and_is_made_whole_or_not(full, tmp_path) -> None:
    store, plan = full
    folder = tmp_path / "paper"
    written = export_study(store, plan.study_id, folder, scratch=tmp_path, width=85)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "methods.md", "references.bib", "checklist.csv", "report.html"} <= names
    assert {f"figures/roc.{kind}" for kind in ("svg", "pdf", "png")} <= names
    assert {f"figures/gallery.{kind}" for kind in ("svg", "pdf", "png")} <= names
    assert len([name for name in names if name.endswith(".tex")]) == written.tables
    assert len([name for name in names if name.endswith(".pdf")]) == written.figures
    readme = (folder / "README.md").read_text()
    assert all(f"`{name[7:-4]}`" in readme for name in names if name.endswith(".tex"))
    (metrics,) = folder.glob("tables/*-performance-metrics.csv")
    assert metrics.read_text().startswith("Metric,")
    assert "85 mm wide, the gallery 174" in readme
    methods_text = (folder / "methods.md").read_text()
    assert "by the corrected resampled t test" in methods_text, "of six splits"
    keys = set(re.findall(r"@([a-z0-9]+)\]", methods_text))
    assert keys <= set(re.findall(r"@misc\{(\w+),", (folder / "references.bib").read_text()))
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(InputError, match="expected a new or empty folder, found files in it"):
        export_study(store, plan.study_id, folder, scratch=tmp_path, width=85)


def test_an_unfinished_study_leaves_no_folder(tmp_path) -> None:
    store, plan = fabricated(tmp_path / "made", splits=2)
    store.delete(table_key("metrics", study_id=plan.study_id))
    with pytest.raises(IncompleteStudyError):
        export_study(store, plan.study_id, tmp_path / "paper", scratch=tmp_path, width=85)
    assert not (tmp_path / "paper").exists()
