"""`thyro export` as its user meets it."""

import builtins
import sys

from typer.testing import CliRunner

from flows.cli.main import app
from tests.support.cards import put_card
from thyro_core.store.store import open_store


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


def test_the_packages_of_onnx_are_named_with_the_cure(monkeypatch, tmp_path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "onnx":
            raise ModuleNotFoundError(name="onnx")
        return real(name, *rest)

    for name in [each for each in sys.modules if each.startswith("thyro_core.registry.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    done = CliRunner().invoke(app, ["export", "champion", "--store", str(tmp_path)])
    assert done.exit_code != 0
    assert 'pip install "thyro[export]"' in str(done.exception)


def test_a_model_that_is_not_there_is_said_with_those_that_are(tmp_path) -> None:
    store = open_store(str(tmp_path / "store"))
    ids = [put_card(store, number) for number in (1, 2)]
    for name, words in (("b9", "expected a promoted model b9"), ("b0", "give more of it")):
        done = CliRunner().invoke(app, ["export", name, "--store", store.url])
        assert done.exit_code != 0
        for each in (words, *ids):
            assert each in str(done.exception)
