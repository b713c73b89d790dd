"""`thyro export` as its user meets it."""

import builtins

from typer.testing import CliRunner

from flows.cli.main import app


def test_a_study_is_exported_and_the_way_to_its_readme_named(full, tmp_path) -> None:
    store, plan = full
    folder = tmp_path / "paper"
    done = CliRunner().invoke(app, ["export", "--store", store.url, "--to", str(folder)])
    assert done.exit_code == 0, done.output
    assert f"{folder}/README.md" in done.output.replace("\n", "")
    assert plan.study_id in (folder / "README.md").read_text()


def test_packages_that_are_not_there_are_named_with_the_cure(monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("thyro_core.reporting.manuscript"):
            raise ModuleNotFoundError(name="svglib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    done = CliRunner().invoke(app, ["export"])
    assert done.exit_code != 0
    assert 'pip install "thyro[paper]"' in str(done.exception)
