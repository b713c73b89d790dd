"""What an ingest shows: states, notes, and the excluded images by the start of their hash."""

import json

import pyarrow as pa
import pytest

from flows import artifacts, ingest
from flows.artifacts import ProgressBar, run_of, show_table
from flows.ingest import CURES, manifest_page
from tests.support.builders import images_table
from thyro_core import NOTICE
from thyro_core.datasets.manifest import REASONS, Manifest
from thyro_core.errors import InputError


def manifest(excluded: int, reason: str = "blurred", notes: tuple[str, ...] = ()) -> Manifest:
    total = excluded + 2
    table = images_table([0] * total, included=[i >= excluded for i in range(total)])
    reasons = pa.array([reason if i < excluded else None for i in range(total)], pa.string())
    at = table.schema.get_field_index("reason")
    return Manifest("m0", table.set_column(at, table.schema.field(at), reasons), notes, True, "csv")


def test_there_is_a_cure_for_each_reason() -> None:
    assert CURES.keys() == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_an_excluded_image_is_named_with_reason_and_cure(reason) -> None:
    page = manifest_page(manifest(1, reason))
    assert f"| {0:012x} | {reason} | {CURES[reason]} |" in page
    assert NOTICE in page


def test_no_more_than_fifty_are_named_and_the_rest_is_counted() -> None:
    assert manifest_page(manifest(50)).count("| blurred |") == 50
    page = manifest_page(manifest(53))
    assert page.count("| blurred |") == 50
    assert "And 3 more" in page
    assert "more:" not in manifest_page(manifest(50))


def test_a_file_that_is_missing_has_no_hash() -> None:
    found = manifest(1, "missing")
    at = found.table.schema.get_field_index("image_id")
    ids = pa.array([None, *found.table["image_id"].to_pylist()[1:]], pa.string())
    table = found.table.set_column(at, found.table.schema.field(at), ids)
    page = manifest_page(Manifest("m0", table, (), True, "csv"))
    assert "| no file | missing |" in page


def test_neither_place_nor_patient_nor_whole_hash_is_shown() -> None:
    page = manifest_page(manifest(3, notes=("a note",)))
    assert "- a note" in page
    assert "memory://" not in page
    assert f"{1:064x}" not in page


def test_nothing_excluded_makes_no_table() -> None:
    assert "excluded" not in manifest_page(manifest(0))


class Shown:
    """Catches what would be sent to Prefect."""

    def __init__(self, monkeypatch) -> None:
        self.calls: list[tuple[str, object]] = []
        for kind in ("markdown", "table", "progress"):
            name = f"create_{kind}_artifact"
            monkeypatch.setattr(artifacts, name, self._catch(kind))
        monkeypatch.setattr(artifacts, "update_progress_artifact", self._catch("update"))

    def _catch(self, kind: str):
        def catch(*values, **options) -> str:
            self.calls.append((kind, values[-1]))
            return "id"

        return catch


def test_the_table_of_states(monkeypatch) -> None:
    shown = Shown(monkeypatch)
    ingest.show_manifest(manifest(3))
    (table,) = [value for kind, value in shown.calls if kind == "table"]
    assert {"state": "excluded, blurred", "images": "3"} in table
    assert json.dumps(table)
    assert [kind for kind, _ in shown.calls] == ["table", "markdown"]


def test_a_row_that_does_not_fit_its_header_is_a_bug() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        show_table("k", [["a", "b"], ["1"]], "d")


def test_a_bar_is_not_moved_at_every_image_but_always_to_its_end(monkeypatch) -> None:
    shown = Shown(monkeypatch)
    bar = ProgressBar("images")
    for done in range(1, 1001):
        bar.count(done, 1000)
    bar.show(100.0)
    assert shown.calls == [("progress", 0.1), ("update", 100.0)] or len(shown.calls) < 10
    assert shown.calls[-1] == ("update", 100.0)


def test_a_failure_is_explained_and_goes_on(monkeypatch) -> None:
    shown = Shown(monkeypatch)
    with pytest.raises(InputError), run_of("ingest"):
        raise InputError("no such folder; check it")
    ((_, page),) = shown.calls
    assert "no such folder; check it" in page
    assert "goes on where this one stopped" in page
    assert NOTICE in page


def test_a_store_that_is_gone_is_explained_too(monkeypatch) -> None:
    shown = Shown(monkeypatch)
    with pytest.raises(ConnectionError), run_of("study"):
        raise ConnectionResetError("gone")
    ((_, page),) = shown.calls
    assert "the store or the source: gone; what is finished is kept; check the path" in page


def test_a_bug_is_left_to_its_traceback(monkeypatch) -> None:
    shown = Shown(monkeypatch)
    with pytest.raises(ZeroDivisionError), run_of("study"):
        _ = 1 / 0
    assert shown.calls == []
