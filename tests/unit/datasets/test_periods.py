"""Temporal validation: what is tested when, and what is refused."""

import json
from collections import Counter

import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.support.builders import images_table
from thyro_core.config import StudyConfig
from thyro_core.datasets.leakage import check_leakage
from thyro_core.datasets.periods import check_sources, image_times
from thyro_core.datasets.splits import make_splits, split_coverage, split_notes
from thyro_core.errors import InputError, LeakageError

CONFIG = StudyConfig(scheme="temporal", splits=2, test_fraction=0.5)


def of_times(times: list[str | None], labels: list[int] | None = None, **columns: list) -> pa.Table:
    labels = [i % 2 for i in range(len(times))] if labels is None else labels
    table = images_table(labels, **columns)
    cells = [json.dumps({"Date": text} if text else {"device": "d"}) for text in times]
    place = table.schema.get_field_index("attributes")
    return table.set_column(place, "attributes", pa.array(cells, pa.string()))


def roles_of(images: pa.Table, config: StudyConfig = CONFIG) -> list[list[str]]:
    """Roles of the images in their order, for each split."""
    splits = make_splits("s", images, config)
    check_leakage(splits, images)
    place = {image: i for i, image in enumerate(images["image_id"].to_pylist())}
    roles = [[""] * images.num_rows for _ in range(config.splits)]
    for row in splits.to_pylist():
        roles[row["split"]][place[row["image_id"]]] = row["role"]
    return roles


def test_each_period_is_tested_by_networks_of_all_that_came_before() -> None:
    roles = roles_of(of_times([str(i) for i in range(1, 17)]))
    assert roles[0] == ["train"] * 8 + ["test"] * 4 + ["unused"] * 4
    assert roles[1] == ["train"] * 12 + ["test"] * 4


def test_the_order_is_that_of_numbers_whatever_that_of_rows() -> None:
    times = ["10", "9", "2", "1", "12", "11", "4", "3"] * 2
    labels = [0] * 8 + [1] * 8
    (first, second) = roles_of(of_times(times, labels))
    for time, one, other in zip(times, first, second, strict=True):
        expected = ("train", "train") if int(time) < 9 else ("test", "train")
        expected = ("unused", "test") if int(time) > 10 else expected
        assert (one, other) == expected


def test_images_of_one_time_stay_in_one_period() -> None:
    years = ["2019"] * 6 + ["2020"] * 7 + ["2021"] * 3
    (first, second) = roles_of(of_times(years))
    assert first == ["train"] * 6 + ["test"] * 7 + ["unused"] * 3
    assert second == ["train"] * 13 + ["test"] * 3


def test_a_time_is_left_for_each_period() -> None:
    """However many images the latest times have."""
    years = [str(year) for year, n in enumerate([2, 6, 6, 6], 2020) for _ in range(n)]
    config = CONFIG.model_copy(update={"test_fraction": 0.3})
    (first, second) = roles_of(of_times(years), config)
    assert first == ["train"] * 8 + ["test"] * 6 + ["unused"] * 6
    assert second == ["train"] * 14 + ["test"] * 6
    notes = split_notes(make_splits("s", of_times(years), config), config)
    assert "hold 60% of the images instead of 30%, because images of one time" in notes[1]


def test_times_of_several_sets_are_not_compared() -> None:
    check_sources(CONFIG, 1)
    check_sources(StudyConfig(), 3)
    with pytest.raises(InputError, match="found 2: each set keeps only the order"):
        check_sources(CONFIG, 2)


def test_months_are_in_order() -> None:
    times = image_times(of_times(["2020-02", "2019-12", "2020-01", "2020-10"]), "date")
    assert sorted(times.values()) == [
        times[image] for image in of_times([""] * 4)["image_id"].take([1, 2, 0, 3]).to_pylist()
    ]


def test_who_was_trained_on_is_not_tested_later() -> None:
    """A patient who comes back: the later image is in no part of the split that it falls into."""
    groups = ["back", *[f"g{i}" for i in range(1, 9)], "back", *[f"g{i}" for i in range(10, 16)]]
    images = of_times([str(i) for i in range(1, 17)], groups=groups)
    (first, second) = roles_of(images)
    assert (first[0], first[9]) == ("train", "unused")
    assert (second[0], second[9]) == ("train", "train")
    splits = make_splits("s", images, CONFIG)
    assert Counter(splits["times_tested"].to_pylist()) == {0: 18, 1: 14}
    notes = split_notes(splits, CONFIG)
    assert "the 8 earliest of 16 images only train" in notes[0]
    assert notes[1] == ("a period tests 3 to 4 images; all periods together hold 50% of the images")
    assert notes[2].startswith("1 later image of patients or groups with earlier images")
    assert notes[3].startswith("training parts grow from 8 to 12 images")
    assert split_coverage(splits).most == 1


def test_no_note_speaks_of_who_came_back_where_nobody_did() -> None:
    notes = split_notes(make_splits("s", of_times([str(i) for i in range(16)]), CONFIG), CONFIG)
    assert len(notes) == 3
    assert not any("random" in note or "never tested" in note for note in notes)


def test_the_gate_still_sees_a_leak_between_the_parts() -> None:
    images = of_times([str(i) for i in range(1, 17)])
    splits = make_splits("s", images, CONFIG)
    groups = images["group_id"].to_pylist()
    groups[10] = groups[0]  # tested and trained on in split 0
    place = images.schema.get_field_index("group_id")
    with pytest.raises(LeakageError, match="split 0"):
        check_leakage(splits, images.set_column(place, "group_id", pa.array(groups, pa.string())))


@pytest.mark.parametrize(
    ("times", "labels", "words"),
    [
        ([None] * 8, None, "expected a kept column date .* kept are device"),
        (["1", None] * 4, None, "found none in the column date for 4 of 8 images"),
        (["spring", "1"] * 4, None, "something else in 4 cells of 8"),
        (["nan", "1"] * 4, None, "something else in 4 cells of 8"),
        (["1", "2"] * 4, None, "at least 3 different times .* found 2 in the column date"),
        (
            [str(i) for i in range(8)],
            [0, 1, 0, 1, 0, 0, 1, 1],
            "period 1 has 2 benign and 0 malignant images, beside 0 images",
        ),
        ([str(i) for i in range(8)], [0, 0, 0, 0, 0, 1, 0, 1], "training part of period 1 has 4"),
    ],
)
def test_what_cannot_be_is_refused_with_the_cure(times, labels, words) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make_splits("s", of_times(times, labels), CONFIG)
    assert any(cure in str(caught.value) for cure in ("date_column", "splits", "fill", "correct"))


def test_there_is_no_validation_part() -> None:
    with pytest.raises(ValidationError, match="val_fraction is 0"):
        StudyConfig(scheme="temporal", val_fraction=0.1)
