"""`thyro deployments` writes what the repository has, and replaces nothing that was edited."""

from pathlib import Path

from typer.testing import CliRunner

from flows.cli.main import app
from tests.support.places import REPOSITORY
from thyro_core.errors import InputError


def test_it_writes_each_file_of_the_repository_as_it_is(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["deployments", "--to", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    ours = {path.name: path.read_bytes() for path in (REPOSITORY / "deployments").glob("*.[yji]*")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == ours
    assert {
        "demo.yaml",
        "prefect.yaml",
        "prefect-kubernetes.yaml",
        "quickstart.ipynb",
    } < ours.keys()


def test_a_file_that_somebody_edited_stays_until_told(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("epochs: 9")
    again = CliRunner().invoke(app, ["deployments", "--to", str(tmp_path)])
    assert isinstance(again.exception, InputError)
    assert "found demo.yaml; write to another folder" in str(again.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.yaml"], "nothing is written in part"
    done = CliRunner().invoke(app, ["deployments", "--to", str(tmp_path), "--overwrite"])
    assert done.exit_code == 0
    assert "epochs: 9" not in (tmp_path / "demo.yaml").read_text()
