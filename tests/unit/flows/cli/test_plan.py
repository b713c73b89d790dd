"""`thyro plan`, and `thyro study --dry-run`, which says the same and trains nothing."""

import pytest
from typer.testing import CliRunner

from flows.cli.main import app


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
