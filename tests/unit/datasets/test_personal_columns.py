"""Dates and sentences of labels.csv: only the order of the first, nothing of the second."""

import pytest

from thyro_core.config import IngestConfig
from thyro_core.datasets.labels import read_labels
from thyro_core.datasets.layouts import read_image_set
from thyro_core.datasets.personal_columns import kept_contents


@pytest.mark.parametrize(
    ("texts", "ranks"),
    [
        (["2024-03-01", "2023-12-31", "2024-03-02"], ["2", "1", "3"]),
        (["2024-3-1 08:10", "2024-03-01 08:09:59", "2024/03/01"], ["3", "2", "1"]),
        (["20240301", "20231231"], ["2", "1"]),
        (["20240301081000", "20240301"], ["2", "1"]),
        (["1.3.2024", "31.12.23"], ["2", "1"]),
        (["31 Jan 2024", "1-Feb-2024", "Jan 2024", "Feb 2, 2024"], ["2", "3", "1", "4"]),
        (["202401311230", "20240131 101500", "20240131101500.000"], ["2", "1", "1"]),
        (["20240131.0", "2024-01-30Z"], ["2", "1"]),
        (["2024-01-31 9:05", "2024-01-31 10:00", "2024-01-31 9:05 PM"], ["1", "2", "3"]),
        (["13.3.99", "1.3.2001"], ["1", "2"]),
        (["45322", "45321.5", "2024-01-30"], ["3", "2", "1"]),
        # A 13th month does: the month stands first.
        (["02/01/2024", "01/13/2024"], ["2", "1"]),
        # Two spellings of one day are one day.
        (["2024-03-01", "2024-3-1"], ["1", "1"]),
    ],
)
def test_of_dates_the_order_is_kept(texts, ranks) -> None:
    contents = kept_contents("exam", set(texts))
    assert [contents.cells[text] for text in texts] == ranks
    assert contents.note == (
        f"column exam holds dates: only their order is kept, 1 to {max(map(int, ranks))}"
    )


def test_days_that_may_be_months_are_said_to_be_so() -> None:
    contents = kept_contents("exam", {"02/01/2024", "01/02/2024"})
    assert contents.cells == {"02/01/2024": "1", "01/02/2024": "2"}
    assert contents.note.endswith(
        "; nothing in it tells day from month: the day is taken to stand first"
    )


@pytest.mark.parametrize("text", ["2024-03-01 08:10 h", "came on 1.3.2024", "2024-03-01 (early)"])
def test_a_column_with_dates_in_other_text_is_left_out(text: str) -> None:
    contents = kept_contents("stage", {text, "T1"})
    assert contents.cells == {}
    assert contents.note == "column stage holds dates in other text: it is left out"


def test_one_date_among_many_other_texts_is_not_kept() -> None:
    contents = kept_contents("stage", {"2024-03-01", "T1", "T2", "T3", "T4"})
    assert contents.cells == {"2024-03-01": "1"}


@pytest.mark.parametrize(
    ("others", "words"),
    [({"spring 24"}, "1 other text"), ({"spring 24", "unknown"}, "2 other texts")],
)
def test_what_is_no_date_among_dates_is_not_kept(others, words) -> None:
    contents = kept_contents("exam", {"2024-03-01", "2024-03-02"} | others)
    assert contents.cells == {"2024-03-01": "1", "2024-03-02": "2"}
    assert contents.note.endswith(f"; of {words} in it nothing is kept")


@pytest.mark.parametrize(
    "texts",
    [
        {"2019", "2020"},
        {"201911", "201912"},
        {"12x8x7", "9x8x7"},
        {"1.5", "10.25"},
        {"20241399", "20240230"},
        {"4a", "4b"},
        {"GE Logiq E9 with the linear probe ML6", "Philips"},
        {"45", "1961"},
        {"45322", "45321"},
        {"20240131", "12345678", "87654321"},
        {"Nova 2000", "Aplio 2010"},
        set(),
    ],
)
def test_years_sizes_categories_and_devices_stay(texts) -> None:
    assert kept_contents("c", texts).cells == {text: text for text in texts}
    assert kept_contents("c", texts).note == ""


def test_sentences_are_left_out_where_they_are_no_categories() -> None:
    prose = {f"seen by Dr Roe on the {i}. of May, solid, hypoechoic nodule" for i in range(13)}
    contents = kept_contents("remark", prose | {"none"})
    assert contents.cells == {}
    assert "may name a person" in contents.note
    few = set(sorted(prose)[:12])
    assert kept_contents("kind", few).cells.keys() == few


def test_neither_reaches_the_rows_nor_the_notes(tmp_path) -> None:
    lines = [
        f"{i}.png,{i % 2},E9,2024-01-{30 - i:02},Mrs Roe came on the {i}. of May with a lump of it"
        for i in range(14)
    ]
    text = "\n".join(["image,label,device,visit,remark", *lines])
    table = read_labels("labels.csv", text.encode(), IngestConfig())
    assert [row.attributes for row in table.rows] == [
        {"device": "E9", "visit": str(14 - i)} for i in range(14)
    ]
    (tmp_path / "labels.csv").write_text(text)
    for i in range(14):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    notes = " ".join(read_image_set(str(tmp_path), IngestConfig()).notes)
    assert "column visit holds dates: only their order is kept, 1 to 14" in notes
    assert "column remark holds sentences" in notes
    assert "Roe" not in notes
    assert "2024" not in notes
