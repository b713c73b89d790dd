"""`thyro drift`: the nights as a table, a page and a picture; a breach makes itself heard."""

import datetime as dt
import json
import re
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from tests.e2e.test_study_cli import environment
from tests.support.browser import visit
from tests.support.places import REPOSITORY
from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.reporting.drift import (
    _mark_nights,
    batches_since,
    drift_page,
    drift_picture,
    drift_text,
)
from thyro_core.screening.drift import DriftThresholds
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODEL = "b" + "1" * 16
BREACHES = "psi_sharpness 0.612, mmd 0.031"
CALM = {"psi_score": 0.05, "ks_score": 0.06, "ks_score_p": 0.4, "psi_mean": 0.04,
        "psi_sharpness": 0.07, "ks_mean": 0.05, "ks_sharpness": 0.04, "mmd": -0.0002,
        "mmd_p": 0.6}  # fmt: skip
NIGHTS: dict[int, dict[str, object]] = {
    20261030: CALM | {"share_rejected": 0.05},
    20261101: CALM | {"share_rejected": 0.06, "breaches": ""},
    20261102: {"share_rejected": 0.1, "scored": 9, "received": 10},
    20261103: CALM | {"psi_sharpness": 0.612, "mmd": 0.031, "mmd_p": 0.0005,
                      "share_rejected": 0.07, "breaches": "psi_sharpness,mmd"},
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(str(tmp_path_factory.mktemp("drift")))
    blank: dict[str, object] = dict.fromkeys(schemas.TABLES["screening_batches"].schema.names)
    for date, figures in NIGHTS.items():
        constant = {"date": date, "batch_id": f"n{date}", "batch": "s3://clinic/night",
                    "model_id": MODEL, "received": 200, "scored": 190}  # fmt: skip
        row = blank | constant | figures
        table = schemas.rows_to_table("screening_batches", [row])
        write_table(opened, "screening_batches", table, date=date)
    return opened


def said(store: Store, *options: str) -> str:
    done = CliRunner().invoke(
        app, ["drift", "--store", store.url, *options], catch_exceptions=False
    )
    return done.output


def chosen(store: Store):
    from datetime import date

    return batches_since(read_table(store, "screening_batches"), date(2026, 11, 1))


def test_the_nights_since_a_date_in_order(store: Store) -> None:
    assert chosen(store)["date"].to_pylist() == [20261101, 20261102, 20261103]


def test_the_table_marks_what_is_past_its_bound(store: Store) -> None:
    shown = said(store, "--since", "2026-11-01")
    assert "2026-10-30" not in shown
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("2026-11-03")]
    assert "0.612*" in line
    assert "0.031*" in line
    assert line.count("*") == 2
    assert f"drift 2026-11-03 n20261103: {BREACHES}" in shown
    (few,) = [line for line in shown.splitlines() if line.strip().startswith("2026-11-02")]
    assert few.split().count("-") == 5
    assert NOTICE in " ".join(shown.split())


def test_json_is_one_object(store: Store) -> None:
    printed = json.loads(said(store, "--since", "2026-10-01", "--json"))
    assert [row["date"] for row in printed["batches"]] == list(NIGHTS)
    assert printed["batches"][-1]["breaches"] == "psi_sharpness,mmd"
    assert printed["batches"][2]["psi_score"] is None
    assert printed["notice"] == NOTICE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--since", "yesterday"], "--since yesterday: expected a date such as 2026-11-25"),
        (["--since", "2026-11-04"], "expected screened batches since 2026-11-04, found none"),
        (["--since", "2026-11-01", "--output", "x.pdf"], r"ends in \.html or \.png"),
    ],
)
def test_what_makes_no_sense_is_said(store: Store, options: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        said(store, *options)


def test_the_text_alternative_says_what_is_to_be_seen(store: Store) -> None:
    assert drift_text(chosen(store)) == (
        f"3 batches of 3 nights from 2026-11-01 to 2026-11-03, scored by {MODEL}; 2 had enough "
        f"scored images to be judged, 1 is past a bound. 2026-11-03, batch n20261103: {BREACHES}"
    )


def test_the_page_is_whole_and_its_bytes_repeat(store: Store, tmp_path: Path) -> None:
    output = tmp_path / "drift.html"
    assert str(output) in said(store, "--since", "2026-11-01", "--output", str(output))
    page = output.read_text(encoding="utf-8")
    assert page == drift_page(chosen(store), DriftThresholds())
    assert page.count(NOTICE) == 2
    assert "s3://clinic" not in page, "an address may name people"
    assert f"<li><b>2026-11-03</b>, batch n20261103: {BREACHES}</li>" in page
    assert drift_text(chosen(store)) in page
    assert not re.search(r'(src|href)="(?!#)', page)
    for bound in ("bound 0.25", "bound 0.2", "bound 0.01"):
        assert bound in page


def test_the_page_in_a_browser(store: Store, tmp_path: Path, browser: "Browser") -> None:
    output = tmp_path / "drift.html"
    output.write_text(drift_page(chosen(store), DriftThresholds()), encoding="utf-8")
    backgrounds = []
    for width, scheme in ((1400, "dark"), (400, "light")):
        found = visit(browser, output, width, color_scheme=scheme)
        assert found.complaints == []
        assert found.requests == [output.resolve().as_uri()]
        assert not found.overflows()
        plot = found.page.get_by_role("img", name=re.compile("Drift over nights"))
        assert plot.count() == 1
        for series in ("psi_score", "ks_mean", "mmd", "share_rejected"):
            assert found.page.locator(f"#drift-series-{series}").count() == 1
        assert found.page.locator("tbody tr").count() == 3
        backgrounds.append(found.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found.page.context.close()
    assert backgrounds == ["rgb(21, 24, 28)", "rgb(255, 255, 255)"]


def test_the_picture_has_real_colours_and_says_what_it_shows(store: Store, tmp_path: Path) -> None:
    output = tmp_path / "drift.png"
    said(store, "--since", "2026-11-01", "--output", str(output))
    assert output.read_bytes() == drift_picture(chosen(store), DriftThresholds())
    with Image.open(output) as image:
        assert image.info["Description"] == drift_text(chosen(store))
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {(255, 255, 255), (0x1B, 0x1F, 0x24), (0x00, 0x72, 0xB2)} <= colours
    assert not {c for c in colours if c[0] == 0x0F and c[2] == 0xE1}, "stand-ins were left"


def test_a_breach_is_announced_and_calm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import drift as module
    from tests.unit.screening.test_drift import QUICK, REFERENCE_SET, batch
    from thyro_core.screening.drift import compare_with_training

    artifacts, events = [], []
    monkeypatch.setattr(
        module, "create_markdown_artifact", lambda text, **kind: artifacts.append((text, kind))
    )
    monkeypatch.setattr(module, "emit_event", lambda name, **what: events.append((name, what)))
    module.announce(compare_with_training(REFERENCE_SET, batch(), QUICK), 20261103, "n1", MODEL)
    assert artifacts == events == []
    report = compare_with_training(REFERENCE_SET, batch(score=0.3), QUICK)
    module.announce(report, 20261103, "n1", MODEL)
    ((text, kind),), ((name, what),) = artifacts, events
    assert NOTICE in text
    assert "Drift: psi_score" in text
    assert kind["key"] == "drift-20261103-n1"
    assert re.fullmatch(r"[a-z0-9-]+", kind["key"]), "Prefect takes no other keys"
    assert name == "thyro.drift"
    assert what["resource"]["prefect.resource.id"] == "thyro.batch.20261103.n1"
    assert what["payload"] | report.figures() == what["payload"]
    assert json.loads(json.dumps(what["payload"], allow_nan=False))["model_id"] == MODEL


NIGHT = """
from prefect import flow
from flows.drift import announce
from tests.unit.screening.test_drift import QUICK, REFERENCE_SET, batch
from thyro_core.screening.drift import compare_with_training
@flow(name="night")
def night():
    report = compare_with_training(REFERENCE_SET, batch(score=0.3), QUICK)
    announce(report, 20261103, "n0123456789abcdef", "b1111111111111111")
night()
"""


@pytest.mark.slow
def test_a_breach_reaches_prefects_database(tmp_path: Path) -> None:
    quiet = {
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    subprocess.run(
        [sys.executable, "-c", NIGHT],
        env=environment(tmp_path, **quiet), cwd=REPOSITORY, check=True, capture_output=True,
        timeout=240,
    )  # fmt: skip
    database = sqlite3.connect(tmp_path / ".prefect" / "prefect.db")
    (page,) = database.execute("select data from artifact where type = 'markdown'").fetchone()
    (said,) = database.execute("select payload from events where event = 'thyro.drift'").fetchone()
    database.close()
    assert NOTICE in page
    assert json.loads(said)["breaches"] == "psi_score,ks_score"


@pytest.mark.parametrize(("n_nights", "step"), [(2, 1), (8, 1), (26, 3), (500, 60)])
def test_ticks_are_nights_and_never_hours(n_nights: int, step: int) -> None:
    first = dt.date(2026, 1, 3)
    days = [first + dt.timedelta(days=day) for day in range(n_nights)]
    axes = Figure().subplots()
    axes.plot(np.array(days, "M8[D]"), np.zeros(n_nights))
    _mark_nights(axes, days)
    ticks = num2date(axes.get_xticks())
    assert all((tick.hour, tick.minute) == (0, 0) for tick in ticks)
    gaps = [(later - tick).days for tick, later in pairwise(ticks)]
    assert min(gaps) >= step
    assert axes.xaxis.get_major_formatter().get_offset() == ""
