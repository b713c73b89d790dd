"""What readers say: each thing once, of rows that are there, summed up with denominators."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.worklists import DATE, NUMBER, ROWS, batch_row, fill
from thyro_core.errors import InputError
from thyro_core.screening.feedback import (
    FeedbackEvent,
    add_feedback,
    agreement,
    agreement_sentence,
    candidate_labels,
    parse_feedback,
    read_feedback,
)
from thyro_core.store.store import Store, open_store
from thyro_core.tables.io import read_table

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "store"))
    fill(opened, ROWS, batch_row())
    return opened


def event(number: int, what: str, minute: int = 0, who: str = "AB", **more: Any) -> FeedbackEvent:
    said = {"said_at": NOON + timedelta(minutes=minute), "who": who, "what": what, "batch_id": "n1",
            "image_id": f"{number:064x}", "model_id": "b1"}  # fmt: skip
    return FeedbackEvent.model_validate(said | more)


def test_what_is_said_is_kept_once_and_never_changed(store: Store) -> None:
    first = [event(4, "seen"), event(4, "agree", 1), event(3, "comment", comment="cyst?")]
    assert add_feedback(store, DATE, first) == 3
    parts = {key: store.read(key) for key in store.keys("tables/feedback")}
    assert add_feedback(store, DATE, first) == 0, "the same file again"
    assert add_feedback(store, DATE, [*first, event(4, "disagree", 2)]) == 1
    assert all(store.read(key) == data for key, data in parts.items())
    rows = read_table(store, "feedback").to_pylist()
    assert len(rows) == 4
    assert {(row["date"], row["batch_id"], row["who"]) for row in rows} == {(NUMBER, "n1", "AB")}
    assert {row["what"]: row["band"] for row in rows} == {
        "seen": "refer", "agree": "refer", "disagree": "refer", "comment": "not scored",
    }  # fmt: skip
    assert [row["what"] for row in read_feedback(store, DATE)][-1] == "disagree"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (event(99, "seen"), "expected a row of the night"),
        (event(4, "seen", batch_id="n2"), "expected a row of the night"),
        (event(4, "seen", model_id="b2"), "expected a row of the night"),
        (event(3, "agree"), "no score to judge"),
        (event(4, "comment", comment=" "), "expected a comment's words"),
    ],
)
def test_what_cannot_be_said_is_refused_whole(store: Store, said, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        add_feedback(store, DATE, [event(4, "agree"), said])
    assert store.keys("tables/feedback") == []


def test_agreement_has_its_denominators_and_the_last_word_counts(store: Store) -> None:
    assert agreement(store) == []
    said = [
        event(4, "disagree"), event(4, "agree", 1),
        event(4, "disagree", who="CD"),
        event(6, "agree"), event(6, "withdraw", 1),
        event(2, "agree"), event(2, "agree", 1, who="ab"),
        event(1, "agree"), event(1, "seen", 1),
    ]  # fmt: skip
    add_feedback(store, DATE, said)
    rows = agreement(store)
    assert [agreement_sentence(row) for row in rows] == [
        "refer: 2 of 3 verdicts agree, on 2 of 3 images, by 2 readers",
        "routine: 1 of 1 verdict agree, on 1 of 2 images, by 1 reader",
    ]


def test_candidates_are_of_united_readers_and_of_bands_that_name_a_class(store: Store) -> None:
    said = [
        event(4, "agree"), event(6, "disagree"), event(1, "agree"), event(8, "disagree"),
        event(5, "agree"),
        event(2, "agree"), event(2, "disagree", who="CD"),
    ]  # fmt: skip
    add_feedback(store, DATE, said)
    table, n_split = candidate_labels(store)
    rows = {int(row["file_id"], 16): row for row in table.to_pylist()}
    assert {number: row["label"] for number, row in rows.items()} == {
        4: "malignant", 6: "benign", 1: "benign", 8: "malignant",
    }  # fmt: skip
    assert n_split == 1
    assert all("incorporation bias" in row["notice"] for row in rows.values())


def saved(kind: str, **more: Any) -> bytes:
    row = {"said_at": "2026-11-26T12:00:00Z", "who": "AB", "what": "agree", "comment": None,
           "batch_id": "n1", "image_id": f"{4:064x}", "model_id": "b1"} | more  # fmt: skip
    if kind == "json":
        return json.dumps({"thyro_feedback": 1, "date": DATE, "events": [row]}).encode()
    names = ["date", *row]
    cells = [DATE, *("" if value is None else str(value) for value in row.values())]
    quoted = [f"'{cell}" if cell[:1] in "=+-@'" and cell else cell for cell in cells]
    return "\n".join(
        ",".join('"' + text.replace('"', '""') + '"' for text in line) for line in (names, quoted)
    ).encode()


@pytest.mark.parametrize("words", [None, "=1+1", "'quoted", 'a "b", c', "- so", "plain"])
def test_both_kinds_of_file_say_the_same(words: str | None) -> None:
    files = [parse_feedback(saved(kind, comment=words), "f") for kind in ("json", "csv")]
    assert files[0] == files[1]
    assert files[0][0] == DATE
    assert files[0][1][0].comment == words


NOT_FEEDBACK: list[tuple[bytes, str]] = [
    (b"", "a table without the columns date, who and what"),
    (b"\xff\xfe", "bytes that are no text in UTF-8"),
    (b"{", "JSON that breaks off or is damaged in line 1"),
    (b"[1]", "a table without"),
    (b'{"date": 1}', "JSON or a table of another form"),
    (b"{}", "JSON or a table of another form"),
    (b"a,b\n1,2", "a table without"),
    (b"[" * 100_000, "a table without"),
    (b'{"date": "2026-11-25", "events": 3}', "JSON or a table of another form"),
    (b"x" * 20_000_001, "20000001 bytes, more than 20000000"),
    (saved("json", what="delete"), "1 fault in an entry's what"),
    (saved("json", who=""), "1 fault in an entry's who"),
    (saved("json", image_id="../../x"), "1 fault in an entry's image_id"),
    (saved("json", comment="x" * 501), "1 fault in an entry's comment"),
    (saved("json", said_at="2026-11-26T12:00:00"), "1 fault in an entry's said_at"),
    (saved("json", **{"Jane Doe": 1}), "1 fault in an entry;"),
    (saved("csv", what="drop").replace(b"2026-11-25", b"yesterday"), "in an entry's what"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), NOT_FEEDBACK)
def test_a_file_that_is_none_is_refused_without_repeating_it(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match="expected feedback as a worklist's page saves it") as info:
        parse_feedback(data, "f")
    assert words in str(info.value)
    assert not any(word in str(info.value) for word in ("AB", "Jane", "Error", "yesterday"))


def test_the_command_takes_in_sums_up_and_writes_labels_only_when_asked(
    store: Store, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from flows.cli.main import app

    file, labels = tmp_path / "f.json", tmp_path / "labels.csv"
    file.write_bytes(saved("json"))
    run = CliRunner()
    done = run.invoke(app, ["feedback", str(file), "--store", store.url])
    assert done.exit_code == 0, done.output
    assert "1 entry, 1 new, 0 already there" in done.output
    assert "refer: 1 of 1 verdict agree, on 1 of 3 images, by 1 reader" in done.output
    assert "it is not with the truth" in done.output
    assert "incorporation" not in done.output
    assert list(tmp_path.glob("*.csv")) == []
    done = run.invoke(app, ["feedback", "--labels", str(labels), "--store", store.url])
    assert "1 candidate label" in done.output
    assert "incorporation bias" in done.output
    assert "1 row without a path" in done.output
    with labels.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["image"], row["label"], row["readers"]) == ("", "malignant", "1")
