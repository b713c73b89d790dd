"""`thyro report`, and the flow's report: written, shown, and never a reason to lose a study."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from jinja2 import UndefinedError

from flows.cli import report
from flows.cli.study_display import StudyDisplay
from flows.observer import Observer, observer
from tests.e2e.test_study_cli import environment
from tests.support.report_store import fabricated
from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import IncompleteStudyError, InputError
from thyro_core.reporting import report as report_module
from thyro_core.reporting.report import render_report
from thyro_core.store.keys import report_key, table_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StudyPlan]:
    return fabricated(tmp_path_factory.mktemp("made"), architectures=("resnet18",), splits=2)


def thyro(home: Path, *arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("thyro"))
    return subprocess.run(
        [program, *arguments],
        env=environment(home, THYRO_SCRATCH=str(home / "scratch"), **extra),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_writes_the_report_prints_its_url_and_opens_it(made, tmp_path) -> None:
    store, plan = made
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n')
    browser.chmod(0o755)
    arguments = ("report", plan.study_id, "--store", store.root)
    done = thyro(tmp_path, *arguments, "--open", BROWSER=f"{browser} %s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{store.url}/studies/{plan.study_id}/report.html"
    html = store.read(report_key(plan.study_id)).decode()
    assert "</html>" in html
    address = seen.read_text().strip()
    assert address.startswith("file:///")
    assert Path(address.removeprefix("file://")).read_text(encoding="utf-8") == html


def test_an_unknown_study_is_one_sentence_and_exit_2(made, tmp_path) -> None:
    store, plan = made
    done = thyro(tmp_path, "report", "s0", "--store", store.root)
    assert done.returncode == 2
    assert f"expected a study s0, found {plan.study_id}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_an_unfinished_study_is_one_sentence_and_exit_1(made, tmp_path) -> None:
    store, plan = made
    shutil.copytree(store.root, tmp_path / "store")
    key = {"study_id": plan.study_id, "split": 1, "architecture": "resnet18"}
    open_store(str(tmp_path / "store")).delete(table_key("predictions", **key))
    done = thyro(tmp_path, "report", plan.study_id, "--store", "store")
    assert done.returncode == 1
    assert "1 runs to go (split 1 resnet18)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_browser_it_says_where_the_copy_is(made, tmp_path, monkeypatch, capsys) -> None:
    store, plan = made
    store.write(report_key(plan.study_id), b"<p>page</p>")
    monkeypatch.setattr(report.webbrowser, "open", lambda _: False)
    report._open_copy(store, plan.study_id, tmp_path)
    copy = tmp_path / "reports" / f"{plan.study_id}.html"
    assert copy.read_bytes() == b"<p>page</p>"
    assert str(copy) in capsys.readouterr().err.replace("\n", "")


@pytest.mark.slow
def test_a_report_in_a_bucket_is_the_same_page(
    made, s3_server: S3Server, tmp_path, monkeypatch
) -> None:
    store, plan = made
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    bucket = open_store(f"s3://{BUCKET}/report-test")
    for key in store.keys(""):
        bucket.write(key, store.read(key))
    url = report_module.write_report(bucket, plan.study_id, tmp_path / "scratch")
    assert url == f"s3://{BUCKET}/report-test/studies/{plan.study_id}/report.html"
    written = bucket.read(report_key(plan.study_id)).decode()
    assert written == render_report(store, plan.study_id, tmp_path)[0]
    assert s3_server.secret not in written
    forget_clients()


class Ear(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[str | None, str | None]] = []

    def on_report(self, url: str | None, error: str | None) -> None:
        self.heard.append((url, error))


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch):
    """The flow's module without a server: what it would log and link to is kept."""
    from flows import study

    said: list[str] = []
    links: list[tuple[str, str]] = []

    class Log:
        def error(self, text: str, *parts: object) -> None:
            said.append(text % parts)

    monkeypatch.setattr(study, "get_run_logger", Log)
    monkeypatch.setattr(
        study, "create_link_artifact", lambda link, key, **_: links.append((link, key))
    )
    ear = Ear()
    token = observer.set(ear)
    yield study, said, links, ear
    observer.reset(token)


def test_the_flow_links_to_the_report(flow, made, tmp_path) -> None:
    study, said, links, ear = flow
    store, plan = made
    study._report(store, plan, tmp_path)
    url = f"{store.url}/studies/{plan.study_id}/report.html"
    assert links == [(url, f"report-{plan.study_id}")]
    assert ear.heard == [(url, None)]
    assert said == []


@pytest.mark.parametrize(
    "error",
    [
        InputError("gone"), IncompleteStudyError("not yet"), OSError("full"), KeyError("x"),
        ValueError("odd"), TypeError("kind"), IndexError("0"), ZeroDivisionError("0"),
        RuntimeError("font"), MemoryError("much"), UndefinedError("name"), duckdb.Error("sql"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_report_that_cannot_be_drawn_is_said_and_loses_nothing(
    flow, made, tmp_path, monkeypatch, error
) -> None:
    study, said, links, ear = flow

    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(report_module, "write_report", fail)
    study._report(*made, tmp_path)
    assert links == []
    ((url, told),) = ear.heard
    assert url is None
    assert type(error).__name__ in told
    assert f"thyro report {made[1].study_id}" in told
    assert "could not be drawn" in said[0]


def test_a_stop_while_drawing_is_a_stop(flow, made, tmp_path, monkeypatch) -> None:
    study, *_ = flow

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(report_module, "write_report", stop)
    with pytest.raises(KeyboardInterrupt):
        study._report(*made, tmp_path)


def test_the_terminal_says_only_what_went_wrong(capsys) -> None:
    from rich.console import Console

    display = StudyDisplay(Console(stderr=True))
    display.on_report("file:///report.html", None)
    assert capsys.readouterr().err == ""
    display.on_report(None, "ValueError: [odd]")
    assert "The report could not be drawn: ValueError: [odd]" in capsys.readouterr().err
