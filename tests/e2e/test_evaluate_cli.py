"""`thyro evaluate` as its user runs it, without a server of Prefect's."""

import json
import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import evaluate as flow_module
from flows.cli.main import app
from tests.support.finished_study import copy_of
from tests.support.imagesets import write_image_set
from thyro_core import NOTICE
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The flow as plain functions; the pages that it would show in Prefect's UI."""
    shown: list[str] = []
    monkeypatch.setattr(flow_module, "evaluate", flow_module.evaluate.fn)
    for name in ("_find", "_read_set", "_evaluate"):
        monkeypatch.setattr(flow_module, name, getattr(flow_module, name).fn)
    monkeypatch.setattr(flow_module, "run_of", lambda _: nullcontext())
    monkeypatch.setattr("flows.serving.command_server.prefect_server", nullcontext)
    monkeypatch.setattr(flow_module, "get_run_logger", lambda: logging.getLogger("thyro.test"))
    monkeypatch.setattr(flow_module.ProgressBar, "show", lambda *_: None)
    monkeypatch.setattr(flow_module, "best_effort", lambda *_, **__: None)
    monkeypatch.setattr(flow_module, "show_table", lambda *_: None)
    monkeypatch.setattr("flows.ingest.show_manifest", lambda _: None)
    monkeypatch.setattr(flow_module, "show_page", lambda _key, page, _said: shown.append(page))
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    return shown


def test_a_study_is_evaluated_on_images_of_elsewhere(
    finished: tuple[Store, StudyPlan], tmp_path: Path, pages: list[str]
) -> None:
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    source = write_image_set(tmp_path / "elsewhere", benign=11, malignant=12, seed=8)
    arguments = ["evaluate", plan.study_id, str(source), "--store", store.url]
    arguments += ["--set", "blur_bound=0", "--set", "resamples=100"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    words = " ".join(done.output.split())
    assert "23 images of 23 patients" in words
    assert NOTICE in words
    assert NOTICE in pages[-1]
    report = done.output.split("report", 1)[1].split()[0]
    assert Path(report).read_text().lstrip().startswith("<!DOCTYPE html>")
    again = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    plain = json.loads(again.output.splitlines()[-1])
    assert plain["counts"] == {"scored": 23}
    assert plain["config"] == {"resamples": 100, "seed": 0, "map_images": 200}
    assert any(sentence in words for sentence in plain["sentences"])
    listed = CliRunner().invoke(app, ["models", "--store", store.url], catch_exceptions=False)
    assert f"(evaluation {plain['evaluation_id']})" in " ".join(listed.output.split())


@pytest.mark.parametrize(
    ("model", "words"),
    [("champion", "promote"), ("b" + "0" * 16, "promoted model"), ("s12", "expected a study s12")],
)  # fmt: skip
def test_what_is_no_model_is_said(tmp_path: Path, pages: list[str], model: str, words: str) -> None:
    source = write_image_set(tmp_path / "elsewhere", benign=2, malignant=2)
    arguments = ["evaluate", model, str(source), "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, arguments)
    assert words in str(done.exception)
    assert pages == []


def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "champion", str(tmp_path), "--architecture", "x"])
    assert "architecture" in str(done.exception)


@pytest.mark.slow
def test_importing_the_flow_loads_no_torch() -> None:
    script = (
        "import sys, flows.evaluate, flows.promote\n"
        "assert not {'torch', 'torchvision', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
