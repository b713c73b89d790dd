"""The benchmarks still run: made tiny, and without a look at what they measure."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent / "bench"


def rows(script, *options):
    """Cells of the Markdown table that a benchmark prints, its head first."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def laps():
    spec = importlib.util.spec_from_file_location("laps", BENCH / "laps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ways_take_turns_and_the_first_lap_does_not_count(laps):
    called = []
    seconds = laps.measure({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_medians_and_spread(laps):
    assert laps.spread([3.0, 1.0, 10.0]) == "3.0 (1.0-10.0)"
    assert laps.ratios([1.0, 6.0], [2.0, 3.0]) == [0.5, 2.0]
    assert laps.header("a", "b") == "| a | b |\n|---|---|"


@pytest.mark.slow
def test_training_against_a_bare_loop():
    head, row = rows(
        "training.py", "--side=64", "--batch=4", "--laps=1", "--architectures", "resnet18"
    )
    assert row[:4] == ["resnet18", "64", row[2], "4"]
    assert len(head) == len(row) == 7


@pytest.mark.slow
def test_grad_cam():
    _, *ways = rows("gradcam.py", "--side=64", "--batch=2", "--rounds=1")
    assert [way[0].rsplit(" ", 1)[-1] for way in ways] == ["forward", "grad_cams", "package"]


@pytest.mark.slow
def test_a_study_against_plain_runs():
    _, ours, theirs = rows("study.py", "--images=40", "--splits=2", "--side=64")
    assert ours[0] == "thyro study"
    assert 0 <= float(ours[2]) <= 1
    assert 0 <= float(theirs[2]) <= 1


@pytest.mark.slow
def test_ingest_against_bare_decoding():
    head, bare, ours = rows("ingest.py", "--images=40", "--drawn=4", "--laps=1")
    assert [bare[0], ours[0]] == ["bare", "ingest"]
    assert bare[4:] == ["1.00 (1.00-1.00)"] * 2
    assert len(head) == len(ours) == 6
