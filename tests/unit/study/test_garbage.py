"""What can go goes, when asked; everything else stays, byte for byte."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.units import size
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.study.test_progress import a_plan
from tests.unit.study.test_status import position, record
from thyro_core.store.keys import (
    checkpoint_key,
    evaluation_chunk_key,
    evaluation_key,
    evaluation_page_key,
    model_key,
    pack_key,
    progress_key,
    run_key,
    table_key,
    weights_key,
)
from thyro_core.store.store import Store, open_store
from thyro_core.study.garbage import STALE_SECONDS, Garbage, find_garbage, remove
from thyro_core.study.plan import StudyPlan, save_plan

DONE_EVALUATION, OPEN_EVALUATION = "e00000000000done", "e00000000000open"
DONE = StudyPlan("s00000000000done", a_plan("resnet18").config, "m0", "fp32", {}, ())
OPEN = StudyPlan("s00000000000open", a_plan("resnet18", "vgg16").config, "m1", "fp32", {}, ())
NOW = 2e9


def finish(store: Store, plan: StudyPlan, split: int, architecture: str) -> None:
    keys = {"study_id": plan.study_id, "split": split, "architecture": architecture}
    store.write(table_key("predictions", **keys), b"predictions")
    store.write(run_key(**keys), json.dumps(record()).encode())
    store.write(model_key(**keys), b"model")


def fill(store: Store) -> Store:
    """A concluded study with leftovers, and one that is being trained."""
    for plan in (DONE, OPEN):
        save_plan(store, plan)
        plain = json.dumps(position(0, architecture="resnet18").__dict__).encode()
        store.write(progress_key(plan.study_id, 0), plain)
        store.write(pack_key(plan.manifest_id, 224), b"x" * 1000)
    for split in range(3):
        finish(store, DONE, split, "resnet18")
    store.write(checkpoint_key(DONE.study_id, 1, "resnet18"), b"x" * 300)
    store.write(table_key("metrics", study_id=DONE.study_id), b"metrics")
    finish(store, OPEN, 0, "vgg16")
    store.write(checkpoint_key(OPEN.study_id, 0, "vgg16"), b"x" * 70)
    store.write(checkpoint_key(OPEN.study_id, 0, "resnet18"), b"x" * 70)
    store.write("registry/models/m1/model.safetensors", b"champion")
    store.write("registry/champion.json", b"{}")
    for evaluation_id in (DONE_EVALUATION, OPEN_EVALUATION):
        store.write(evaluation_chunk_key(evaluation_id, 0), b"x" * 90)
    store.write(evaluation_key(DONE_EVALUATION), b"{}")
    store.write(evaluation_page_key(DONE_EVALUATION), b"page")
    store.write(weights_key("vgg16", "ab" * 32), b"weights")
    store.write("manifests/m0.json", b"{}")
    store.write("somebody/elses.file", b"?")
    return store


LEFTOVERS = {
    ("checkpoint", checkpoint_key(DONE.study_id, 1, "resnet18"), 300),
    ("checkpoint", checkpoint_key(OPEN.study_id, 0, "vgg16"), 70),
    ("evaluation progress", evaluation_chunk_key(DONE_EVALUATION, 0), 90),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(open_store(str(tmp_path / "store")))


@pytest.fixture
def remote(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield fill(open_store(f"s3://{BUCKET}/gc"))
    forget_clients()


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.keys("")}


def check(store: Store, scratch: Path) -> None:
    before = contents(store)
    found = find_garbage(store, scratch, NOW)
    progress = progress_key(DONE.study_id, 0)
    wanted = LEFTOVERS | {("progress", progress, len(before[progress]))}
    assert {(each.kind, each.place, each.size) for each in found} == wanted
    assert contents(store) == before, "looking removes nothing"
    assert remove(store, found) == sum(each.size for each in found)
    gone = {place for _, place, _ in wanted}
    assert contents(store) == {key: data for key, data in before.items() if key not in gone}
    assert find_garbage(store, scratch, NOW) == []


def test_what_can_go_goes_and_nothing_else(store: Store, tmp_path: Path) -> None:
    check(store, tmp_path / "scratch")


def test_the_same_on_s3(remote: Store, tmp_path: Path) -> None:
    check(remote, tmp_path / "scratch")


def test_a_study_without_its_metrics_keeps_its_positions(store: Store, tmp_path: Path) -> None:
    store.delete(table_key("metrics", study_id=DONE.study_id))
    kinds = [each.kind for each in find_garbage(store, tmp_path, NOW)]
    assert kinds == ["checkpoint", "checkpoint", "evaluation progress"]


def test_a_study_that_lost_its_predictions_keeps_what_it_has(store: Store, tmp_path: Path) -> None:
    """Metrics alone conclude nothing: the run is trained again, from its checkpoint."""
    keys = {"study_id": DONE.study_id, "split": 1, "architecture": "resnet18"}
    store.delete(table_key("predictions", **keys))
    items = find_garbage(store, tmp_path, NOW)
    places = {each.place for each in items if each.kind == "checkpoint"}
    assert places == {checkpoint_key(OPEN.study_id, 0, "vgg16")}


@pytest.mark.parametrize(("age", "goes"), [(STALE_SECONDS - 1, False), (STALE_SECONDS + 1, True)])
def test_only_an_old_temporary_file_goes(
    store: Store, tmp_path: Path, age: float, goes: bool
) -> None:
    file = Path(store.path(".tmp/0123.tmp"))
    file.write_bytes(b"half")
    os.utime(file, (NOW - age, NOW - age))
    found = [each for each in find_garbage(store, tmp_path, NOW) if each.kind == "temporary file"]
    assert found == ([Garbage("temporary file", ".tmp/0123.tmp", 4)] if goes else [])
    remove(store, found)
    assert file.exists() != goes


def test_copies_of_packs_go_unless_an_open_study_needs_them(remote: Store, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    copies = {m: remote.local(pack_key(m, 224), scratch) for m in ("m0", "m1")}
    weights = remote.local(weights_key("vgg16", "ab" * 32), scratch)
    strangers = scratch / "0123456789abcdef" / "224.npy"
    strangers.parent.mkdir()
    strangers.write_bytes(b"of another store")
    found = [each for each in find_garbage(remote, scratch, NOW) if each.kind == "scratch copy"]
    assert found == [Garbage("scratch copy", str(copies["m0"]), 1000)]
    remove(remote, found)
    assert not copies["m0"].exists()
    assert copies["m1"].exists()
    assert weights.exists()
    assert strangers.exists()
    assert remote.exists(pack_key("m0", 224)), "the pack itself stays"
    assert remote.local(pack_key("m0", 224), scratch).stat().st_size == 1000


def test_a_local_stores_own_packs_are_no_copies(store: Store, tmp_path: Path) -> None:
    found = find_garbage(store, tmp_path / "scratch", NOW)
    assert not any(each.kind == "scratch copy" for each in found)


def test_what_is_gone_already_is_no_error(store: Store, tmp_path: Path) -> None:
    found = find_garbage(store, tmp_path, NOW)
    remove(store, found)
    remove(store, found)
    missing = Garbage("scratch copy", str(tmp_path / "none"), 1)
    assert remove(store, [missing]) == 1


def test_an_empty_store_holds_no_garbage(tmp_path: Path) -> None:
    assert find_garbage(open_store(str(tmp_path / "none")), tmp_path, NOW) == []


def said(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["gc", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.splitlines()


def test_the_command_lists_first_and_removes_when_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    before = contents(store)
    *lines, last = said("--store", store.root)
    checkpoint = checkpoint_key(DONE.study_id, 1, "resnet18")
    assert ["300", "B", "checkpoint", checkpoint] in [line.split() for line in lines]
    assert "could be freed: 2 x checkpoint, 1 x evaluation progress, 1 x progress; nothing" in last
    assert contents(store) == before
    *_, last = said("--store", store.root, "--delete")
    assert last.startswith("freed ")
    assert last.endswith("2 x checkpoint, 1 x evaluation progress, 1 x progress")
    assert len(contents(store)) == len(before) - 4
    assert said("--store", store.root) == [
        (
            f"study {OPEN.study_id} seems abandoned (interrupted, no sign of life): "
            f"`thyro rm {OPEN.study_id}` removes it"
        ),
        "0 B could be freed: nothing; nothing was removed (--delete does)",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5e7, "50.0 MB"), (2e12, "2000.0 GB")],
)
def test_sizes_are_for_people(number: int, text: str) -> None:
    assert size(number) == text
