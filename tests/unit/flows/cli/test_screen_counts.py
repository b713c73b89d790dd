"""What `thyro screen` prints of a night: sums that add up, and what is not scored by reason."""

import json
from pathlib import Path

import pytest

from flows.cli.screen import _print_counts
from tests.support.worklists import DATE, ROWS, batch_row, fill
from thyro_core.store.store import Store, open_store
from thyro_core.tables.io import write_table

COUNTS = {"scored": 6, "rejected": 1, "failed": 1, "copies": 0, "refer": 3, "review": 1,
          "routine": 2}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def printed(store: Store, capsys: pytest.CaptureFixture[str], **more: object) -> str:
    row = batch_row(**COUNTS, **more)
    write_table(store, "screening_batches", fill(store, ROWS, row), date=row["date"])
    _print_counts(store, f"{DATE}/n1", as_json=False)
    return " ".join(capsys.readouterr().out.split())


def test_what_is_not_scored_is_counted_by_its_reason(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(store, capsys)
    assert "8 received = 6 scored + 1 rejected + 1 failed + 0 copies" in text
    assert "not scored: 1 crashed decoder, 1 doppler colour; the worklist says what" in text
    assert "set aside" not in text, "an older row does not count it"
    _print_counts(store, f"{DATE}/n1", as_json=True)
    assert json.loads(capsys.readouterr().out)["reasons"] == {
        "crashed_decoder": 1, "doppler_colour": 1
    }  # fmt: skip


def test_what_is_set_aside_is_said_with_its_reasons(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(store, capsys, aside=3, aside_reasons="3 hidden")
    assert "16 listed = 13 files + 3 set aside: 3 hidden" in text
