"""Leave-one-centre-out: who is tested where, and what is refused."""

import json

import pyarrow as pa
import pytest

from tests.support.builders import images_table
from thyro_core.config import StudyConfig
from thyro_core.datasets.centres import centre_notes, with_one_split_a_centre
from thyro_core.datasets.leakage import check_leakage
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError

CONFIG = StudyConfig(scheme="leave_one_centre_out")


def of_centres(centres: list[str | None], labels: list[int], **columns: list) -> pa.Table:
    table = images_table(labels, **columns)
    cells = [json.dumps({"Centre": name} if name else {"device": "d"}) for name in centres]
    place = table.schema.get_field_index("attributes")
    return table.set_column(place, "attributes", pa.array(cells, pa.string()))


def splits_of(images: pa.Table, config: StudyConfig = CONFIG) -> list[dict]:
    return make_splits("s", images, with_one_split_a_centre(config, images)).to_pylist()


def test_each_centre_is_tested_once_by_networks_of_the_others() -> None:
    images = of_centres(["b", "a", "c"] * 8, [i // 3 % 2 for i in range(24)])
    rows = splits_of(images)
    cells = {row["image_id"]: json.loads(row["attributes"]) for row in images.to_pylist()}
    for split, name in enumerate("abc"):
        part = [row for row in rows if row["split"] == split]
        assert len(part) == 24
        tested = {row["image_id"] for row in part if row["role"] == "test"}
        assert tested == {image for image, cell in cells.items() if cell["Centre"] == name}
        assert {row["role"] for row in part if row["image_id"] not in tested} == {"train"}
    assert {row["split"] for row in rows} == {0, 1, 2}
    check_leakage(make_splits("s", images, CONFIG.model_copy(update={"splits": 3})), images)


def test_a_validation_part_is_of_the_other_centres() -> None:
    images = of_centres(["a", "b"] * 20, [i // 2 % 2 for i in range(40)])
    config = CONFIG.model_copy(update={"val_fraction": 0.2})
    for row in splits_of(images, config):
        is_of_tested = int(row["image_id"], 16) % 2 == row["split"]
        assert (row["role"] == "test") == is_of_tested
    assert {row["role"] for row in splits_of(images, config)} == {"train", "val", "test"}


def test_a_patient_of_two_centres_is_tested_with_most_of_their_images() -> None:
    """Else a network would be tested at one centre on who it was trained on at the other."""
    groups = [f"g{i}" for i in range(12)] + ["both"] * 3
    images = of_centres(["a", "b"] * 6 + ["b", "b", "a"], [0, 0, 1, 1] * 3 + [1] * 3, groups=groups)
    rows = [row for row in splits_of(images) if row["group_id"] == "both"]
    assert {row["role"] for row in rows if row["split"] == 0} == {"train"}
    assert {row["role"] for row in rows if row["split"] == 1} == {"test"}
    (note,) = centre_notes(images, CONFIG)
    assert note.startswith("1 group of images")
    assert centre_notes(images.slice(0, 12), CONFIG) == ()
    assert centre_notes(images, StudyConfig()) == ()


@pytest.mark.parametrize(
    ("centres", "labels", "parts"),
    [
        ([None] * 8, [0, 1] * 4, ["kept column centre", "kept are device", "centre_column"]),
        (["a"] * 8, [0, 1] * 4, ["at least 2 centres, found one", ": a;"]),
        (["a", "b", None, "b"] * 2, [0, 1] * 4, ["for 2 of 8 images", "fill its cells"]),
        (["a", "b"] * 4, [0, 1] * 4, ["centre a has 4 benign and 0 malignant"]),
        ([f"c{i}" for i in range(13)] * 2, [0] * 13 + [1] * 13, ["at most 12 centres, found 13"]),
    ],
)
def test_what_cannot_be_is_said_with_its_cure(centres, labels, parts) -> None:
    with pytest.raises(InputError) as caught:
        splits_of(of_centres(centres, labels))
    for part in parts:
        assert part in str(caught.value)


def test_excluded_and_unlabelled_images_need_no_centre() -> None:
    labels: list = [0, 0, 1, 1] * 2 + [None, 1]
    images = of_centres(["a", "b"] * 4 + [None, None], labels, included=[True] * 9 + [False])
    assert with_one_split_a_centre(CONFIG, images).splits == 2


def test_another_scheme_keeps_its_splits() -> None:
    images = of_centres(["a", "b"] * 4, [0, 0, 1, 1] * 2)
    assert with_one_split_a_centre(StudyConfig(), images) == StudyConfig()
