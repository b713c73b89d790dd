"""Kept columns of labels.csv as a manifest carries them."""

import json

import pyarrow as pa

from tests.support.report_store import images
from thyro_core.datasets.attributes import column_values, image_nodules, kept_columns


def with_attributes(*cells: dict[str, str]) -> pa.Table:
    """Two included images and one excluded one, with these attributes."""
    table = images(2, 1)
    texts = pa.array([json.dumps(each) for each in cells[:3]], pa.string())
    place = table.column_names.index("attributes")
    return table.slice(0, 3).set_column(place, table.schema.field(place), texts)


TABLE = with_attributes(
    {"Device": "A", "nodule_id": "2", "mask": "m.png"}, {"device": "B"}, {"Size (mm)": "12"}
)
FIRST, SECOND, _ = TABLE["image_id"].to_pylist()


def test_a_column_is_found_whatever_its_spelling_and_excluded_images_take_no_part() -> None:
    assert column_values(TABLE, "DEVICE") == {FIRST: "A", SECOND: "B"}
    assert column_values(TABLE, "size mm") == {}
    assert kept_columns(TABLE) == ("Device", "device", "nodule_id")


def test_nodules_are_those_of_their_column() -> None:
    assert image_nodules(TABLE) == {FIRST: "2"}
    assert image_nodules(images()) == {}
