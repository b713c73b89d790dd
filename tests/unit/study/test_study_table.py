"""The table `studies`: written at the start, updated at the end, the same after a resumption."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from flows.cli.config_input import read_config
from tests.unit.study.test_progress import a_plan
from thyro_core.config import StudyConfig
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan, save_plan
from thyro_core.study.study_table import (
    check_row,
    note_end,
    note_start,
    study_command,
    study_row,
)
from thyro_core.tables.io import read_table

PLAN = StudyPlan("s0123456789abcdef", a_plan("resnet18").config, "m0", "fp32", {}, ())
KEY = table_key("studies", study_id=PLAN.study_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    save_plan(store, PLAN)
    return store


def row(store: Store) -> dict[str, object]:
    row = study_row(store, PLAN.study_id)
    assert row is not None
    return row


def test_a_start_and_an_end(store: Store, tmp_path: Path) -> None:
    assert study_row(store, PLAN.study_id) is None
    note_start(store, PLAN, (str(tmp_path / "images"),))
    begun = row(store)
    assert (begun["state"], begun["finished"], begun["manifest_id"]) == ("running", None, "m0")
    assert begun["source"] == f"file://{tmp_path}/images"
    assert "torch" in json.loads(str(begun["versions"]))
    note_end(store, PLAN, "interrupted")
    assert row(store) == begun | {"state": "interrupted"}
    note_start(store, PLAN, (str(tmp_path / "images"),))
    assert row(store) == begun, "a resumption keeps the first start"
    note_end(store, PLAN, "finished")
    done = row(store)
    assert done["finished"] >= done["started"]  # type: ignore[operator]
    assert done["state"] == "finished"
    table = read_table(store, "studies", study_id=PLAN.study_id)
    assert check_row(table, PLAN) == ([], "manifest and config are the plan's")
    faults, _ = check_row(table, dataclasses.replace(PLAN, manifest_id="m9"))
    assert faults == ["manifest_id is m0, expected m9"]
    assert check_row(table.slice(1), PLAN)[1].startswith("not there: an earlier version")


def test_a_finished_study_that_is_started_again_keeps_its_bytes(store: Store) -> None:
    note_start(store, PLAN, ("memory://images",))
    note_end(store, PLAN, "finished")
    for split in range(PLAN.config.splits):
        keys = {"study_id": PLAN.study_id, "split": split, "architecture": "resnet18"}
        store.write(table_key("predictions", **keys), b"")
    before = store.read(KEY)
    note_start(store, PLAN, ("memory://elsewhere",))
    note_end(store, PLAN, "failed")
    assert store.read(KEY) == before
    keys = {"study_id": PLAN.study_id, "split": 0, "architecture": "resnet18"}
    store.delete(table_key("predictions", **keys))
    note_start(store, PLAN, ("memory://images",))
    assert row(store)["state"] == "running", "something is to be done again"


def test_names_that_are_not_kept_stand_nowhere_in_it(store: Store) -> None:
    note_start(store, PLAN, ())
    assert row(store)["source"] is None
    assert str(row(store)["command"]).startswith("thyro study SOURCE ")


def test_an_end_without_a_start_writes_nothing(store: Store) -> None:
    note_end(store, PLAN, "failed")
    assert not store.exists(KEY)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"architectures": ["resnet18", "alexnet"], "splits": 2, "learning_rate": 1e-5},
        {"subgroups": ["device", "age:40,60"], "weights": "none", "deterministic": False},
        {"readers": ['tirads:"4a"'], "weights": "s3://a b/'c", "permute_labels": True},
    ],
)
def test_the_command_gives_the_config_again(changed: dict[str, object]) -> None:
    config = StudyConfig.model_validate(changed)
    words = shlex.split(study_command(("a folder",), config))
    assert words[:3] == ["thyro", "study", "a folder"]
    assert words[3::2] == ["--set"] * len(words[4::2])
    assert read_config(None, words[4::2]) == config
