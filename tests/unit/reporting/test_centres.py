"""The report on centres, which a network knows or does not."""

import json

import pyarrow as pa
import pytest

from tests.support.html_page import Element, read_page
from tests.support.report_checks import check_traces, untraced
from tests.support.report_store import conclude, fabricated, images, planned, run
from thyro_core.config import StudyConfig
from thyro_core.reporting.report import write_report
from thyro_core.store.keys import report_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.study_table import note_end, note_start
from thyro_core.tables.io import read_table

CENTRES = ("North <1>", "South", "West")


def of_centres() -> pa.Table:
    """Patients of three centres, both classes in each."""
    table = images(240, 96, attributes=True)
    cells = [json.dumps({"centre": CENTRES[i // 2 % 3]}) for i in range(table.num_rows)]
    place = table.schema.get_field_index("attributes")
    return table.set_column(place, "attributes", pa.array(cells, pa.string()))


def page_of(store: Store, plan: StudyPlan, folder) -> Element:
    write_report(store, plan.study_id, folder)
    return read_page(store.read(report_key(plan.study_id)).decode())


@pytest.fixture(scope="module")
def left_out(tmp_path_factory) -> tuple[Store, StudyPlan, Element, Element]:
    """A study that leaves centres out, and its page before and after one that knows them."""
    folder = tmp_path_factory.mktemp("centres")
    options = {"architectures": ("resnet18",), "trust_images": 0}
    store, plan = fabricated(
        folder, of_centres(), scheme="leave_one_centre_out", splits=3, **options
    )
    alone = page_of(store, plan, folder)
    config = StudyConfig.model_validate(
        plan.config.model_dump()
        | {"scheme": "kfold", "splits": 2, "subgroups": ("centre",), "seed": 5}
    )
    known = planned(store, of_centres(), config, ())
    for split in range(2):
        run(store, known, split, "resnet18", 2.5)
    conclude(store, known)
    note_start(store, known, ())
    note_end(store, known, "finished")
    return store, plan, alone, page_of(store, plan, folder)


def test_every_number_has_its_origin(left_out) -> None:
    store, plan, _, page = left_out
    assert check_traces(page, store, plan)["sql"] > 200
    assert list(untraced(page.find("body")[0])) == []


def test_centres_that_the_networks_do_not_know_are_said_to_be_so(left_out) -> None:
    store, plan, alone, _ = left_out
    text = alone.by_id("subgroups").text
    assert "trained on the other centres alone" in text
    assert "has no finished study of the same images" in text
    assert "trained on images of every centre: these" not in text
    (row,) = read_table(store, "centres", study_id=plan.study_id).to_pylist()
    assert row["n_centres"] == 3
    assert f"{row['auc']:.3f}" in text
    assert f"{row['prediction_low']:.3f}" in text
    for name in CENTRES:
        assert f"centre: {name}" in text


def test_a_study_whose_networks_know_the_centres_stands_beside(left_out) -> None:
    store, plan, _, page = left_out
    (known,) = set(read_table(store, "studies")["study_id"].to_pylist())
    assert known != plan.study_id
    text = page.by_id("subgroups").text
    assert known in text
    rows = read_table(store, "subgroups", study_id=known).to_pylist()
    aucs = [row["estimate"] for row in rows if row["metric"] == "auc"]
    assert len(aucs) == 3
    for auc in aucs:
        assert f"{auc:.3f}" in text


def test_a_study_that_mixes_its_centres_says_that_they_are_known(left_out, tmp_path) -> None:
    store, _, _, _ = left_out
    (known,) = set(read_table(store, "studies")["study_id"].to_pylist())
    write_report(store, known, tmp_path)
    text = read_page(store.read(report_key(known)).decode()).by_id("subgroups").text
    assert "say nothing of one that they do not" in text
    assert "trained on the other centres alone" not in text
