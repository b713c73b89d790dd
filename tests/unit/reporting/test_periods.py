"""The report on temporal validation says what was tested, and by whom."""

import json

import pyarrow as pa
import pytest

from tests.support.html_page import Element, read_page
from tests.support.report_checks import check_traces, untraced
from tests.support.report_store import fabricated, images
from thyro_core.reporting.report import write_report
from thyro_core.store.keys import report_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table


def of_periods() -> pa.Table:
    """Patients of two images each, both of one day."""
    table = images(240, 96, attributes=True)
    cells = [json.dumps({"date": str(i // 2 * 37 % 120)}) for i in range(table.num_rows)]
    place = table.schema.get_field_index("attributes")
    return table.set_column(place, "attributes", pa.array(cells, pa.string()))


@pytest.fixture(scope="module")
def temporal(tmp_path_factory) -> tuple[Store, StudyPlan, Element]:
    folder = tmp_path_factory.mktemp("periods")
    store, plan = fabricated(
        folder, of_periods(), scheme="temporal", splits=3, test_fraction=0.5,
        architectures=("resnet18",), trust_images=0,
    )  # fmt: skip
    write_report(store, plan.study_id, folder)
    return store, plan, read_page(store.read(report_key(plan.study_id)).decode())


def test_every_number_has_its_origin(temporal) -> None:
    store, plan, page = temporal
    assert check_traces(page, store, plan)["sql"] > 200
    assert list(untraced(page.find("body")[0])) == []


def test_the_page_says_that_time_parts_the_images(temporal) -> None:
    _, _, page = temporal
    text = " ".join(page.text.split())
    assert "each split tests one period of time by networks of all earlier images" in text
    assert "split at random" not in text
    assert "Each image is tested once" not in text
    assert "Nothing here is external validation at another place" in text


def test_each_period_has_its_sizes(temporal) -> None:
    store, plan, page = temporal
    splits = read_table(store, "splits", study_id=plan.study_id).to_pandas()
    (table,) = [
        part for part in page.find("table")
        if "Training images" in part.text and "AUC of each split" in part.text
    ]  # fmt: skip
    rows = [[cell.text for cell in row.find("td")] for row in table.find("tr")]
    rows = [row for row in rows if row]
    assert len(rows) == 3
    for split, row in enumerate(rows):
        part = splits[splits["split"] == split]
        tested = part[part["role"] == "test"]
        expected = [(part["role"] == "train").sum(), len(tested), tested["label"].sum()]
        assert row[:3] == [str(number) for number in expected]
