"""`thyro plan`, and `thyro study --dry-run`, which says the same and trains nothing."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from thyro_core.store.store import open_store
from thyro_core.tables.io import read_table


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("set")
    done = CliRunner().invoke(app, ["phantom", str(folder), "--images", "16", "--malignant", "6"])
    assert done.exit_code == 0, done.output
    return str(folder)


def test_a_dry_run_says_what_plan_says_and_leaves_no_study(source, tmp_path) -> None:
    keys = ["--set", "architectures=resnet18", "--set", "splits=3", "--set", "image_size=64"]
    place = ["--store", str(tmp_path / "store")]
    plan = CliRunner().invoke(app, ["plan", source, *keys, *place])
    dry = CliRunner().invoke(app, ["study", source, "--dry-run", *keys, *place])
    assert (plan.exit_code, dry.exit_code) == (0, 0), dry.output
    assert dry.stdout == plan.stdout
    assert "models in the store    0.13 GB" in dry.stdout
    assert not (tmp_path / "store" / "studies").exists()


@pytest.mark.parametrize("command", ["plan", "ingest"])
@pytest.mark.parametrize("keep", ["true", "false"])
def test_names_of_files_are_kept_only_where_the_setting_lets_them(
    source, tmp_path, monkeypatch, command, keep
) -> None:
    monkeypatch.setenv("THYRO_KEEP_NAMES", keep)
    place = ["--store", str(tmp_path / "store"), "--set", "image_size=64"]
    done = CliRunner().invoke(app, [command, source, "--set", "architectures=resnet18", *place])
    assert done.exit_code == 0, done.output
    uris = read_table(open_store(str(tmp_path / "store")), "images")["uri"].to_pylist()
    assert any(source in (uri or "") for uri in uris) == (keep == "true")


def test_several_sets_are_ingested_as_one(source, tmp_path) -> None:
    other = tmp_path / "other"
    drawn = ["phantom", str(other), "--images", "8", "--malignant", "3", "--seed", "3"]
    assert CliRunner().invoke(app, drawn).exit_code == 0
    place = ["--store", str(tmp_path / "store"), "--set", "image_size=64", "--json"]
    keys = ["--set", "architectures=resnet18"]
    done = CliRunner().invoke(app, ["ingest", source, str(other), *keys, *place])
    assert done.exit_code == 0, done.output
    assert sum(json.loads(done.stdout)["counts"].values()) == 24
