"""The GPU's benchmark is free of errors: made tiny, on a CPU, part by part, the same code."""

import importlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.support.places import REPOSITORY
from thyro_core.config import StudyConfig
from thyro_core.training.loop import train

BENCH = REPOSITORY / "tests" / "bench"
TINY = ["--tiny", "--device=cpu"]
NAMES = (
    "gpu", "gpu_checks", "gpu_jobs", "gpu_machine", "gpu_mps", "gpu_pool", "gpu_pydantic",
    "gpu_setting", "gpu_study", "gpu_together", "gpu_ways", "gpu_worker", "laps", "training",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Imports a script of the folder as it imports its neighbours; all are gone afterwards."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    torch.use_deterministic_algorithms(False)
    for name in NAMES:
        sys.modules.pop(name, None)


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_script_of_the_benchmark_is_tested_here() -> None:
    assert {path.stem for path in BENCH.glob("gpu*.py")} == {n for n in NAMES if n[:3] == "gpu"}


def test_all_checks_are_asked_and_answered(bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench("gpu_checks").main(TINY)
    head, *answers = table(capsys.readouterr().out)
    assert head == ["question", "answer"]
    answered = dict(answers)
    memory = {q: a for q, a in answered.items() if q.startswith("memory")}
    assert len(memory) == 2
    assert all("GB" in answer for answer in memory.values())
    others = {q: a for q, a in answered.items() if q not in memory}
    assert len(others) == 9
    assert {q: a for q, a in others.items() if not a.startswith("yes")} == {}


def test_a_check_that_raises_is_an_answer_and_the_others_are_asked(
    bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = bench("gpu_checks")

    def refuse() -> str:
        msg = "no deterministic | implementation\nand more"
        raise RuntimeError(msg)

    monkeypatch.setattr(checks, "questions", lambda _: [("a", refuse), ("b", lambda: "yes")])
    checks.main(TINY)
    assert table(capsys.readouterr().out)[1:] == [
        ["a", "**raised RuntimeError**: no deterministic / implementation"], ["b", "yes"],
    ]  # fmt: skip


def test_checks_tell_other_weights_from_the_same(bench) -> None:
    checks, setting = bench("gpu_checks"), bench("gpu_setting").setting_of(TINY)
    one, other = (checks.after(setting, "resnet18", 0, graphs=False) for _ in range(2))
    assert checks.ends_like(one, other) == "yes"
    with torch.no_grad():
        next(other.run.model.parameters())[0] += 0.5
    assert checks.ends_like(one, other).startswith("no: 1 of ")


def test_each_way_of_a_step_has_its_row(bench, capsys: pytest.CaptureFixture[str]) -> None:
    ways = bench("gpu_ways")
    ways.main([*TINY, "--architecture=resnet18"])
    _, *rows = table(capsys.readouterr().out)
    assert [row[3] for row in rows] == ["eager", "graphs", "graphs, determinism off"]
    assert all(float(row[5].split()[0]) > 0 and float(row[6]) > 0 for row in rows)


@pytest.mark.slow
def test_compiled_steps_have_their_rows(bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench("gpu_ways").main([*TINY, "--compiled"])
    _, *rows = table(capsys.readouterr().out)
    assert [row[3] for row in rows] == ["compiled, graphs", "compiled"] * 2
    assert all(float(row[5].split()[0]) > 0 for row in rows)


def test_splits_train_together_in_both_ways(bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench("gpu_together").main(TINY)
    out = capsys.readouterr().out
    _, *rows = table(out)
    assert [row[:3] for row in rows] == [
        [name, way, "2"]
        for way, name in [("interleaved", "resnet18"), ("stacked", "resnet18"),
                          ("interleaved", "squeezenet1_1"), ("stacked", "squeezenet1_1")]
    ]  # fmt: skip
    figures = [line for line in out.splitlines() if line.startswith("figure: ")]
    assert [json.loads(line[8:])["way"] for line in figures] == ["interleaved", "stacked"]


def test_an_interleaved_job_trains_as_it_would_alone(bench) -> None:
    setting = bench("gpu_setting").setting_of(TINY)
    together = bench("gpu_together").Interleaved(setting, "resnet18", 2)
    alone = bench("gpu_setting").Job(setting, "resnet18", 1, graphs=False)
    for _ in range(together.jobs[1].epoch):
        alone.train_epoch()
    pairs = zip(alone.run.tensors(), together.jobs[1].run.tensors(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_stacked_splits_train_as_each_would_alone(bench) -> None:
    """A network without dropout; the sums are made in another order."""
    module = bench("gpu_setting")
    setting = replace(module.setting_of(TINY), images=8)
    losses = first_losses(bench("gpu_together"), setting)
    for split, loss in enumerate(losses):
        job = module.Job(setting, "resnet18", split, graphs=False)
        job.start_epoch()
        assert float(job.take(*job.bounds[0])) == pytest.approx(loss, rel=1e-4)


def first_losses(module: ModuleType, setting) -> list[float]:
    """The splits' losses of the first step of a stack."""
    kept: list[list[float]] = []
    take = module.RecordedSteps.take

    def keep(steps, start: int, stop: int) -> torch.Tensor:
        losses = take(steps, start, stop)
        kept.append(losses.tolist())
        return losses

    module.RecordedSteps.take = keep
    try:
        module.Stacked(setting, "resnet18", 2)
    finally:
        module.RecordedSteps.take = take
    return kept[0]


def test_the_steps_of_the_benchmark_are_those_of_a_study(bench) -> None:
    """A job's epochs end with the bits of `train`."""
    module = bench("gpu_setting")
    setting = module.setting_of(TINY)
    job, other = (module.Job(setting, "squeezenet1_1", graphs=way) for way in (True, False))
    for _ in range(setting.epochs):
        job.train_epoch()
    train(other.run, other.examples, None, other.recipe, lambda _: None, lambda *_: None)
    pairs = zip(job.run.tensors(), other.run.tensors(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_worker_answers_line_by_line(bench) -> None:
    worker = bench("gpu_worker")
    setting = bench("gpu_setting").setting_of(TINY)
    name = "resnet18"
    requests = [
        {"do": "measure"},
        {"do": "prepare", "architecture": name, "graphs": True},
        {"do": "measure"},
        {"do": "train", "architecture": name, "split": 1, "graphs": False},
        {"do": "prepare", "architecture": "nosuchnet", "graphs": True},
    ]
    lines = io.StringIO("".join(json.dumps(request) + "\n" for request in requests))
    unready, ready, rate, trained, unknown = map(
        json.loads, worker.answers(lines, worker.Worker(setting))
    )
    assert "nothing is prepared" in unready["error"]
    assert ready["replayed"] is True
    assert rate["rate"] > 0
    assert trained["images"] == setting.images * setting.epochs
    assert "nosuchnet" in unknown["error"]


@pytest.mark.slow
def test_jobs_and_study_in_processes_of_their_own(
    bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert bench("gpu_jobs").main(TINY) == 0
    out = capsys.readouterr().out
    _, *rows = table(out)
    assert [row[:3] for row in rows] == [
        ["resnet18", "1", "graphs"], ["resnet18", "2", "graphs"], ["resnet18", "1", "eager"],
        ["resnet18", "2", "eager"], ["squeezenet1_1", "2", "graphs"],
    ]  # fmt: skip
    assert out.count('figure: {"way": "jobs"') == 2
    assert bench("gpu_study").main([*TINY, "--way=jobs", "--count=2"]) == 0
    assert [row[0] for row in table(capsys.readouterr().out)[1:]][-1] == "all"


def fake_pool(bench, answers):
    """A pool whose workers answer from a list."""
    pool = bench("gpu_pool").Pool([SimpleNamespace(), SimpleNamespace()])
    found = iter(answers)
    pool._send = lambda *_: None
    pool._receive = lambda _: dict(next(found))
    return pool


def test_a_network_is_done_when_all_its_splits_are(
    bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    study = bench("gpu_study")

    @contextmanager
    def workers(*_: object):
        yield fake_pool(bench, [{"images": 1}] * 4)

    monkeypatch.setattr(study, "workers", workers)
    assert study.main([*TINY, "--way=jobs", "--count=2"]) == 0
    _, *rows = table(capsys.readouterr().out)
    assert sorted(row[0] for row in rows[:2]) == ["resnet18", "squeezenet1_1"]
    assert rows[2][0] == "all"


def test_a_worker_that_ends_is_named(bench, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    study = bench("gpu_study")

    @contextmanager
    def workers(*_: object):
        pool = bench("gpu_pool").Pool(
            [SimpleNamespace(stdin=io.StringIO(), stdout=io.StringIO('{"error": "no memory"}\n'))]
        )
        yield pool

    monkeypatch.setattr(study, "workers", workers)
    assert study.main([*TINY, "--way=jobs", "--count=1"]) == 1
    assert "**no memory**" in capsys.readouterr().out


def test_a_study_in_one_process(bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("gpu_study").main([*TINY, "--way=stacked", "--count=2"]) == 0
    _, *rows = table(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [
        ["resnet18", "2", "2"], ["squeezenet1_1", "2", "2"], ["all", "2", "2"],
    ]  # fmt: skip


def test_the_machine_is_named_and_what_it_lacks(
    bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bench("gpu_machine")
    assert machine.main(TINY) == 0
    assert "figures mean nothing" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.main([]) == 1
    assert "torch sees no GPU here" in capsys.readouterr().out
    monkeypatch.setattr(machine, "NEEDS", ("torch", "no_such_package"))
    assert machine.main([]) == 1
    assert "lacks no_such_package" in capsys.readouterr().out


# The driver, which needs nothing beside Python.


@pytest.fixture
def driver(bench, monkeypatch: pytest.MonkeyPatch, tmp_path):
    module = bench("gpu")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "RESULTS-gpu.md")
    monkeypatch.setattr(module, "BENCH", tmp_path / "tests" / "bench")
    module.BENCH.mkdir(parents=True)
    monkeypatch.setattr(module, "GRACE", 0.5)
    return module


SCRIPTS = {
    "good.py": "print('| good |'); print('figure: {\"way\": \"jobs\", \"count\": 4, \"rate\": 5}')",
    "bad.py": "print('| before |'); raise ValueError('wrong')",
    # It starts another process that holds its output open, and ends neither.
    "slow.py": "import subprocess, sys, time; print('| so far |', flush=True); "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)",
    "study.py": "import sys; print('| options', *sys.argv[1:], '|')",
}  # fmt: skip


def run(driver, monkeypatch: pytest.MonkeyPatch, *names: str, limit: float = 60.0) -> int:
    for name, text in SCRIPTS.items():
        (driver.BENCH / name).write_text(text)
    if names[0] != "machine":
        names = ("machine", *names)
        (driver.BENCH / "machine.py").write_text("print('- a GPU')")
    parts = {
        name: driver.Part(f"Part {name}", "none", (f"{name}.py",), limit if name == "slow" else 60)
        for name in names
    }
    monkeypatch.setattr(driver, "PARTS", parts)
    options = SimpleNamespace(device="cuda", tiny=False, seconds=300.0)
    return driver.main(list(names), options)


def test_a_part_that_fails_is_a_line_and_the_others_go_on(driver, monkeypatch) -> None:
    assert run(driver, monkeypatch, "bad", "good") == 1
    page = driver.RESULTS.read_text()
    assert "| before |\n\n**Failed with status 1: ValueError: wrong.**\n" in page
    assert page.index("## Part bad") < page.index("## Part good") < page.index("| good |")
    assert page.rstrip().rsplit("\n", 1)[-1].startswith("Took ")
    assert "figure:" not in page


def test_a_part_out_of_time_keeps_what_it_printed_and_the_others_go_on(driver, monkeypatch) -> None:
    assert run(driver, monkeypatch, "slow", "good", limit=3.0) == 0
    page = driver.RESULTS.read_text()
    assert "**Stopped after its time limit of 3 s.**" in page
    assert "| good |" in page


def test_results_are_written_line_by_line(driver, tmp_path, capsys) -> None:
    path = tmp_path / "page.md"
    results = driver.Results()
    results.add("zero")
    results.path = path
    for line in ("one", "two"):
        results.add(line)
        assert path.read_text().endswith(f"{line}\n")
    assert "\nzero\none\ntwo\n" in path.read_text()
    assert capsys.readouterr().out == "zero\none\ntwo\n"


def test_the_study_takes_the_way_that_was_the_fastest(driver, monkeypatch) -> None:
    assert run(driver, monkeypatch, "good", "study") == 0
    assert "--way=jobs --count=4 |" in driver.RESULTS.read_text()
    figures = [
        {"way": "jobs", "count": 10, "mps": True, "rate": 7.0},
        {"way": "interleaved", "count": 10, "mps": False, "rate": 6.0},
    ]
    assert driver.best_way(figures) == ["--way=jobs", "--count=10", "--mps"]
    assert driver.best_way(figures[1:]) == ["--way=interleaved", "--count=10"]
    assert driver.best_way([]) == []


def test_without_a_gpu_nothing_else_is_run(driver, monkeypatch) -> None:
    (driver.BENCH / "machine.py").write_text("raise SystemExit(1)")
    driver.RESULTS.write_text("of another day")
    assert run(driver, monkeypatch, "machine", "good") == 1
    assert driver.RESULTS.read_text() == "of another day"


def test_later_parts_keep_their_least_time_and_all_fit_in_eight_minutes(bench) -> None:
    gpu = bench("gpu")
    names = list(gpu.PARTS)
    assert gpu.WHOLE + gpu.GRACE <= 8 * 60
    left, spent = gpu.WHOLE, {}
    for place, name in enumerate(names):  # each takes all that it may
        spent[name] = gpu.time_limit(names, place, left)
        left -= spent[name]
    assert all(seconds > 0 for seconds in spent.values())
    assert sum(spent.values()) <= gpu.WHOLE
    assert spent["study"] >= 170
    assert spent["checks"] == 80


def test_a_driver_that_has_no_time_left_says_so(driver, monkeypatch) -> None:
    monkeypatch.setattr(driver, "time_limit", lambda _, place, __: 60.0 * (place == 0))
    assert run(driver, monkeypatch, "good") == 0
    assert "**Not run: no time was left.**" in driver.RESULTS.read_text()


def test_mps_is_started_and_stopped_in_its_own_folder(bench, monkeypatch, tmp_path) -> None:
    mps = bench("gpu_mps")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(mps.MpsError, match="expected the program nvidia-cuda-mps-control"):
        mps.start(str(tmp_path))
    (tmp_path / "bin").mkdir()
    control = tmp_path / "bin" / mps.CONTROL
    control.write_text(
        f'#!/bin/sh\necho "$1 $CUDA_MPS_PIPE_DIRECTORY" >> {tmp_path}/log\n'
        f"read word && echo $word >> {tmp_path}/log\nexit 0\n"
    )
    control.chmod(0o755)
    found = mps.start(str(tmp_path))
    assert found["CUDA_MPS_PIPE_DIRECTORY"].startswith(str(tmp_path))
    mps.stop(str(tmp_path))
    assert (tmp_path / "log").read_text().split() == [
        "-d", found["CUDA_MPS_PIPE_DIRECTORY"], found["CUDA_MPS_PIPE_DIRECTORY"], "quit",
    ]  # fmt: skip
    control.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(mps.MpsError, match="status 3"):
        mps.start(str(tmp_path))


def test_jobs_without_mps_say_so_and_do_not_fail(bench, capsys, tmp_path, monkeypatch) -> None:
    jobs = bench("gpu_jobs")
    assert jobs.main([*TINY, "--mps"]) == 0
    assert "not run on a CPU" in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs.main(["--mps", f"--mps-folder={tmp_path}"]) == 0
    assert "found none" in capsys.readouterr().out


def test_the_stand_in_for_pydantic_gives_a_config_its_defaults() -> None:
    script = (
        "import sys; sys.modules['pydantic'] = None; del sys.modules['pydantic']\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pydantic' else find(name, *a)\n"
        "import gpu_pydantic\n"
        "from thyro_core.config import StudyConfig\n"
        "import json\n"
        "config = StudyConfig.model_validate({'epochs': 4})\n"
        "print(json.dumps(vars(config)))\n"
        "print(type(config).__mro__[-2].__module__, config.side('inception_v3'))\n"
        "try:\n    StudyConfig(no_such=1)\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY}:{BENCH}"},
    )  # fmt: skip
    values, kind, refusal = done.stdout.splitlines()
    expected = StudyConfig.model_validate({"epochs": 4}).model_dump(mode="json")
    full = {name: getattr(StudyConfig(epochs=4), name) for name in StudyConfig.model_fields}
    assert json.loads(values) == json.loads(json.dumps(full))
    assert expected.items() <= json.loads(values).items()
    assert kind == "gpu_pydantic 299"
    assert "no_such" in refusal
