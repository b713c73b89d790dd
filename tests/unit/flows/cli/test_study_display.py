"""What someone who watches a study reads."""

import io
import json
import re
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from rich.console import Console

from flows.cli import study_display as module
from flows.cli.study_display import StudyDisplay
from flows.cli.units import clock
from flows.observer import Observer, current_observer, observer
from tests.support.builders import images_table
from tests.unit.study.test_progress import IMAGES, a_plan
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import Failure
from thyro_core.store.keys import progress_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan, save_plan
from thyro_core.study.progress import JobReporter, read_job_progress
from thyro_core.study.status import study_status
from thyro_core.study.work import results_work, run_work, training_work
from thyro_core.tables.io import write_table


@pytest.fixture
def plan() -> StudyPlan:
    return a_plan("vgg16", "resnet18", epochs=2, splits=2)


@pytest.fixture
def store(tmp_path: object, plan: StudyPlan) -> Store:
    store = open_store(str(tmp_path))
    images = images_table([0] * 20 + [1] * 10)
    splits: pa.Table = make_splits(plan.study_id, images, plan.config)
    write_table(store, "splits", splits, study_id=plan.study_id)
    return store


def plain() -> tuple[StudyDisplay, io.StringIO]:
    out = io.StringIO()
    return StudyDisplay(Console(file=out, force_terminal=False, width=200)), out


def test_lines_without_a_terminal_carry_no_control_codes(store: Store, plan: StudyPlan) -> None:
    display, out = plain()
    with display.live():
        display.on_images(3, 30)
        display.on_plan(store, plan)
        display.on_split_end(0, {})
        display.on_split_end(1, {"vgg16": Failure("ArithmeticError", "the loss is not finite")})
    lines = out.getvalue().splitlines()
    assert lines[0] == f"Study {plan.study_id}: 2 splits x vgg16, resnet18, 2 epochs, fp32"
    assert "split 0 done" in lines
    assert "split 1, vgg16 failed: ArithmeticError: the loss is not finite" in lines
    assert "split 1 done" not in lines
    assert not re.search(r"\x1b|\r|━", out.getvalue())


def test_the_studys_notes_are_shown(store: Store, plan: StudyPlan) -> None:
    display, out = plain()
    display.on_plan(store, replace(plan, notes=("No patient ids [were] given.",)))
    assert "Note: No patient ids [were] given." in out.getvalue()


def test_an_error_is_shown_as_it_is() -> None:
    display, out = plain()
    display.on_split_end(1, {"vgg16": Failure("InputError", "expected [0, 1], found [/x]")})
    assert "expected [0, 1], found [/x]" in out.getvalue()


def test_a_store_without_progress_is_no_fault(store: Store, plan: StudyPlan) -> None:
    display, _ = plain()
    line = display._refresh(store, plan)
    assert line == "5 %: training begins", "images and weights are there"


def test_percent_grows_with_the_work_of_all_splits(store: Store, plan: StudyPlan) -> None:
    display, _ = plain()
    reporters = [JobReporter(store, plan, split, IMAGES, interval=0) for split in range(2)]
    seen = [display._refresh(store, plan)]
    for architecture in ("vgg16", "resnet18"):
        for epochs in (0, 1):
            for reporter in reporters:
                reporter.position(architecture, epochs, 50, 10.0)
                seen.append(display._refresh(store, plan))
        for reporter in reporters:
            reporter.add_finished(architecture)
    for reporter in reporters:
        reporter.end("finished")
        seen.append(display._refresh(store, plan))
    percents = [int(line.split(" %")[0]) for line in seen]
    assert percents == sorted(percents)
    # A quarter of VGG16's training in one of two splits, then in both.
    quarter = training_work(plan.config, "vgg16", 50) / whole_work(plan)
    assert percents[:3] == [5, round(5 + 95 * quarter), round(5 + 95 * 2 * quarter)]
    assert percents[-1] == round(5 + 95 * (1 - results_work(plan.config) / whole_work(plan)))
    assert percents[-1] < 100, "tables and report follow"
    assert "0 of 2 splits, 5 images/s" in seen[1]
    assert "0 of 2 splits, 10 images/s" in seen[2]
    assert "1 of 2 splits" in seen[-2]
    assert "2 of 2 splits, 0 images/s" in seen[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "time unknown"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.4, "59:59"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_time_left_is_written_like_a_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_without_a_terminal_a_line_appears_now_and_then(
    store: Store, plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.0)
    publish_after(store, plan, seconds=100.0)
    display, out = plain()
    refreshed = []
    refresh = display._refresh

    def counted(*arguments: object) -> str:
        refreshed.append(refresh(*arguments))
        return refreshed[-1]

    monkeypatch.setattr(display, "_refresh", counted)
    with display.live():
        display.on_plan(store, plan)
        while len(refreshed) < 3:
            time.sleep(0.001)
    # 150 images of VGG16 in 100 s; the other split follows, and then the results.
    done = training_work(plan.config, "vgg16", 150)
    results = results_work(plan.config)
    # The results take a CPU core, which does 100 GFLOP a second at most.
    left = (whole_work(plan) - results - done) / done * 100 + results / 100
    lines = re.findall(r"\d+ %: 0 of 2 splits, 5 images/s, ([\d:]+) left", out.getvalue())
    assert lines
    assert lines[0] in {clock(left - passed) for passed in range(10)}


def whole_work(plan: StudyPlan) -> float:
    split = sum(run_work(plan.config, name, IMAGES) for name in plan.config.architectures)
    return plan.config.splits * split + results_work(plan.config)


def publish_after(store: Store, plan: StudyPlan, *, seconds: float) -> None:
    """A position of split 0, as a job publishes it so long after its start."""
    JobReporter(store, plan, 0, IMAGES, interval=0).position("vgg16", 1, 50, 10.0)
    job = read_job_progress(store, plan.study_id, 0)
    assert job is not None
    assert job.updated is not None
    started = datetime.fromisoformat(job.updated) - timedelta(seconds=seconds)
    changed = asdict(replace(job, started=started.isoformat()))
    store.write(progress_key(plan.study_id, 0), json.dumps(changed).encode())


def test_the_terminal_and_the_status_show_the_same_figures(store: Store, plan: StudyPlan) -> None:
    publish_after(store, plan, seconds=100.0)
    save_plan(store, plan)
    status = study_status(store, plan.study_id, datetime.now(UTC))
    line = plain()[0]._refresh(store, plan)
    assert status.seconds_left is not None
    # A moment passes between the two.
    times = {clock(status.seconds_left - passed) for passed in range(10)}
    assert line.removesuffix(" left").rpartition(", ")[2] in times
    assert f" {status.images_per_second:.0f} images/s," in line


def test_with_a_terminal_a_bar_for_each_running_split(store: Store, plan: StudyPlan) -> None:
    out = io.StringIO()
    display = StudyDisplay(Console(file=out, force_terminal=True, width=120))
    first = JobReporter(store, plan, 0, IMAGES, interval=0)
    first.position("vgg16", 1, 50, 10.0)
    display._refresh(store, plan)
    assert {task.description for task in display._bars.tasks} == {"study", "split 0"}
    (split,) = (task for task in display._bars.tasks if task.description == "split 0")
    assert split.fields["detail"] == "vgg16, epoch 2 of 2, 5 images/s"
    works = [run_work(plan.config, name, IMAGES) for name in plan.config.architectures]
    done = training_work(plan.config, "vgg16", 150)
    assert split.percentage == pytest.approx(100 * done / sum(works))
    first.end("finished")
    display._refresh(store, plan)
    assert [task.description for task in display._bars.tasks] == ["study"]
    display.on_split_end(0, {})
    assert "split 0 done" not in out.getvalue()


def test_the_watcher_ends_with_the_block_also_after_an_error() -> None:
    display, _ = plain()
    with pytest.raises(KeyError), display.live():
        raise KeyError
    assert display._end.is_set()


def test_whoever_watches_is_told_and_nobody_is_no_fault(store: Store, plan: StudyPlan) -> None:
    nobody = current_observer()
    nobody.on_images(1, 2)
    nobody.on_plan(store, plan)
    nobody.on_split_end(0, {})
    mine = Observer()
    token = observer.set(mine)
    assert current_observer() is mine
    observer.reset(token)
    assert current_observer() is not mine


def test_one_bar_has_all_phases_and_never_goes_back(store: Store, plan: StudyPlan) -> None:
    out = io.StringIO()
    display = StudyDisplay(Console(file=out, force_terminal=True, width=120))
    seen: list[tuple[float, str]] = []

    def look() -> None:
        (bar,) = (task for task in display._bars.tasks if task.description == "study")
        seen.append((bar.percentage, bar.fields["detail"]))

    with display.live():
        look()
        for n_done in (3, 30):
            display.on_images(n_done, 30)
            look()
        display.on_plan(store, plan)
        for split in range(2):
            reporter = JobReporter(store, plan, split, IMAGES, interval=0)
            for architecture in ("vgg16", "resnet18"):
                reporter.position(architecture, 0, 100, 10.0)
                display._refresh(store, plan)
                look()
                reporter.add_finished(architecture)
            reporter.end("finished")
        display._refresh(store, plan)
        look()
        for place, name in enumerate(("metrics", "cam_tests", "report")):
            display.on_result(name, place, 3)
            look()
            # No rate of a training that is over.
            display._refresh(store, plan)
            look()
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 100
    details = [detail.partition(",")[0] for _, detail in seen]
    assert details[:3] == [
        "starting Prefect", "images: 3 of 30 decoded",
        "images: 30 of 30 decoded; starting weights and Ray follow",
    ]  # fmt: skip
    assert details[3] == "0 of 2 splits"
    assert details[-1] == "results: report (3 of 3)"


def test_without_a_terminal_the_results_are_told_once(store: Store, plan: StudyPlan) -> None:
    display, out = plain()
    for place, name in enumerate(("metrics", "report")):
        display.on_result(name, place, 2)
    assert out.getvalue() == "all splits are trained; tables and report follow\n"
