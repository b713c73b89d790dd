"""Networks beyond the paper's four, as their user runs them: study, checks, report, screening."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_study_cli import command, environment
from tests.support.html_page import read_page
from tests.support.report_checks import untraced
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.store.store import open_store
from thyro_core.tables.io import read_table

DEADLINE = 1500  # seconds; bounds a hang, however busy the machine is


def thyro(*arguments: str, home: Path) -> str:
    """What a command of Thyro prints; it must succeed."""
    done = subprocess.run(
        arguments, env=environment(home, OMP_NUM_THREADS="1"), capture_output=True, text=True,
        timeout=DEADLINE, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("names", "side"),
    [
        pytest.param("efficientnet_b0,mobilenet_v3_large", 64, marks=pytest.mark.slow),
        pytest.param("densenet121", 64, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_s", 64, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, marks=pytest.mark.slow),
        pytest.param("swin_v2_t", 64, marks=pytest.mark.slow),
        pytest.param("vit_b_16", 224, marks=pytest.mark.slow),
    ],
)
def test_a_study_of_other_networks_is_reported_promoted_and_screens(
    names: str, side: int, tmp_path: Path
) -> None:
    home, source, store = tmp_path / "home", tmp_path / "set", open_store(str(tmp_path / "store"))
    home.mkdir()
    write_phantoms(str(source), images=24, malignant=10, seed=1)
    started = command(
        source, store.url, architectures=names, image_size=str(side), epochs="1", trust_images="2"
    )
    study_id = json.loads(thyro(*started, home=home).splitlines()[-1])["study_id"]
    program, at = started[0], ("--store", store.url)
    thyro(program, "verify", study_id, *at, home=home)
    runs = read_table(store, "runs").to_pylist()
    assert {row["architecture"] for row in runs} == set(names.split(","))
    cams = read_table(store, "cams")
    assert min(cams["height"].to_pylist()) >= 2
    assert not all(cams["is_empty"].to_pylist())
    page = store.read(f"studies/{study_id}/report.html").decode()
    assert list(untraced(read_page(page).find("body")[0])) == []
    for name in names.split(","):
        assert ARCHITECTURE_NAMES[name] in page
    assert "last two thirds of blocks" in page
    thyro(program, "export", study_id, "--to", str(tmp_path / "paper"), *at, home=home)
    methods = (tmp_path / "paper" / "methods.md").read_text()
    assert f"squashed to {side} x {side} pixels" in methods
    force = ("--force", "--reason", "a test")
    thyro(program, "promote", study_id, *force, *at, home=home)
    thyro(program, "screen", str(source), *at, home=home)
    (worklist,) = Path(store.url.removeprefix("file://")).glob("screening/*/worklist.csv")
    with worklist.open(newline="") as file:
        assert any(row["prob_malignant"] for row in csv.DictReader(file))
