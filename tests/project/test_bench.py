"""The benchmarks still run: made tiny, and without a look at what they measure."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support.dicoms import speckle
from tests.support.places import REPOSITORY

BENCH = REPOSITORY / "tests" / "bench"


def rows(script, *options):
    """Cells of the Markdown table that a benchmark prints, its head first."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def load(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def laps(monkeypatch):
    return load("laps", monkeypatch)


@pytest.fixture
def results(monkeypatch, tmp_path):
    module = load("results", monkeypatch)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "RESULTS.md")
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


def test_a_part_measured_again_replaces_its_own_section_only(results, monkeypatch):
    said = iter(["replaced", "second", "third"])

    def section(name, *, quick):
        return f"## {results.PARTS[name].title}\n\n{next(said)} {quick}\n"

    monkeypatch.setattr(results, "section", section)
    results.main(["gradcam", "training"], quick=False)
    results.main(["gradcam"], quick=False)
    page = results.RESULTS.read_text()
    assert "replaced" not in page
    assert page.count("## ") == page.count("\n## ") == 2 + results.NOTES.read_text().count("## ")
    assert page.index("second False") < page.index("third False"), "in their own order"
    assert "processor" in page


def test_every_part_has_its_script_and_the_scripts_of_results_are_all_there(results):
    scripts = {part.command[0] for part in results.PARTS.values()}
    # Those of a GPU have a command, results and tests of their own.
    others = {"results.py", "laps.py", *(path.name for path in BENCH.glob("gpu*.py"))}
    known = {path.name for path in BENCH.glob("*.py")} - others
    assert scripts <= known
    one_by_one = {"batchnorm.py", "cam_analysis.py", "families.py", "gate.py"}
    assert known - scripts == one_by_one


@pytest.mark.parametrize(
    "script",
    ["bands.py", "calibration.py", "coverage.py", "false_alarms.py", "promise.py", "threshold.py"],
)
def test_a_script_runs_by_its_path(script):
    """As `make bench` starts it: the folder of the script is all that Python adds to its path."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--help"], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_without_a_gpu_its_part_says_so(results, monkeypatch):
    monkeypatch.setattr(results.torch.cuda, "is_available", lambda: False)
    assert "**Not run: this machine has no GPU.**" in results.section("gpu", quick=False)


def test_a_part_that_fails_is_said_to_have_failed(results, monkeypatch):
    broken = results.Part("A title", "none", ("laps.py", "--no-such"), ())
    monkeypatch.setitem(results.PARTS, "broken", broken)
    assert "**Failed with status" not in results.section("broken", quick=False)
    broken = results.Part("A title", "none", ("gradcam.py", "--no-such"), ())
    monkeypatch.setitem(results.PARTS, "broken", broken)
    assert "**Failed with status 2.**" in results.section("broken", quick=False)


def test_coverage_of_intervals(monkeypatch, capsys):
    coverage = load("coverage", monkeypatch)
    monkeypatch.setattr(coverage, "AUCS", (0.85,))
    monkeypatch.setattr(sys, "argv", ["coverage.py", "--repeats=2"])
    coverage.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    images = [row[1] for row in table if row[0] == "0.85"]
    assert images == ["1", "4", "1", "1", "4", "4", "1", "4"]
    assert [row[-1] for row in table if row[0] == "AUC"] == [
        "test", "specificity at the declared sensitivity", "NPV"
    ]  # fmt: skip
    assert all(0 <= float(cell) <= 1 for row in table if row[0] != "AUC" for cell in row[3:])


@pytest.mark.slow
def test_training_against_a_bare_loop():
    head, row = rows(
        "training.py", "--side=64", "--batch=4", "--laps=1", "--architectures", "resnet18"
    )
    assert row[:4] == ["resnet18", "64", row[2], "4"]
    assert len(head) == len(row) == 8
    assert 0 < float(row[-1]) < 2


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


@pytest.mark.slow
def test_overhead_of_a_job():
    _, row = rows("overhead.py", "--splits=2", "--epochs=1", "--images=40", "--laps=1")
    assert float(row[3].split()[0]) > 0


@pytest.mark.slow
def test_memory_of_a_study():
    _, row = rows("memory.py", "--architectures", "resnet18", "--images=40", "--side=64")
    _, jobs, whole, allowed, _, largest = row
    assert int(jobs) in {1, 2}
    assert 0 < int(largest) < int(whole)
    assert int(allowed) > 1500


@pytest.mark.slow
def test_two_precisions_and_two_seeds():
    _, *ways = rows("precision.py", "--splits=2", "--epochs=1", "--side=64", "--images=40")
    assert [way[0] for way in ways] == ["fp32", "bf16", "fp32, another seed"]
    assert [float(figure) for figure in ways[0][2:]] == [0, 0, 0]
    assert float(ways[2][4]) > 0, "another seed is another run"


def test_the_parts_of_the_spread_are_those_that_were_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    seeds = load("seeds", monkeypatch)
    # By hand: means 2 and 5, 4.5 between them; 2 and 8 within, so 5, of which each mean has half.
    splits, within = seeds.components(np.array([[1.0, 3.0], [3.0, 7.0]]))
    assert (splits, within) == pytest.approx((2.0, 5.0))
    generator = np.random.default_rng(0)
    values = 0.04 * generator.normal(size=(1, 4000)) + 0.02 * generator.normal(size=(3, 4000))
    assert seeds.components(values) == pytest.approx((0.0016, 0.0004), rel=0.1)
    assert seeds.components(np.array([[1.0, 1.0], [3.0, 3.0]])) == (0.0, 2.0)


def test_calm_months_are_judged(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    alarms = load("false_alarms", monkeypatch)
    monkeypatch.setattr(alarms, "NIGHTS", 6)
    case = alarms.CASES["12 patients of 2 stills, 12 clips"]
    judged, _ = alarms.month(np.random.default_rng(0), case)
    # Twelve patients a night: with the fifth night there are more than fifty.
    assert judged in {1, 2}


@pytest.mark.slow
def test_jobs_side_by_side_and_in_turn():
    _, *ways = rows("threads.py", "--side=64", "--batch=4", "--laps=1")
    assert len(ways) == 2


@pytest.mark.slow
def test_screening_against_a_bare_loop():
    bare, whole, steady, gpus, *_ = rows(
        "screening.py", "--images=80", "--distinct=20", "--side=64", "--laps=1"
    )[1:]
    assert [way[0] for way in (bare, whole, steady)] == ["bare loop", "whole", "steady"]
    assert float(whole[1].split()[0]) > 0
    assert gpus[0] == "GPUs"


def test_what_passes_the_gate_without_a_model(tmp_path):
    photographs, ultrasound = (tmp_path / name for name in ("photographs", "ultrasound"))
    photographs.mkdir()
    ultrasound.mkdir()
    Image.fromarray(speckle(200, 240)).save(ultrasound / "a.png")
    Image.new("L", (240, 200), 90).save(photographs / "blank.png")
    (photographs / "notes.txt").write_text("no picture")
    _, *kinds = rows("gate.py", "--photographs", photographs, "--ultrasound", ultrasound)
    assert [kind[0] for kind in kinds] == [
        "photographs, whole", "photographs, middle", "photographs, corner",
        "ultrasound, as it is", "ultrasound, of a monitor",
    ]  # fmt: skip
    assert {tuple(kind[1:4]) for kind in kinds[:3]} == {("1", "standard 1", "0")}
    assert {tuple(kind[1:4]) for kind in kinds[3:]} == {("1", "", "1")}


@pytest.mark.slow
def test_near_duplicates_of_phantoms():
    *_, made_up = rows("near_duplicates.py", "--images=40", "--scale=1000")
    assert made_up[3:] == ["50", "50", "0"]
