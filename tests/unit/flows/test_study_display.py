"""What someone who watches a study reads."""

import io
import re
import time
from dataclasses import replace

import pyarrow as pa
import pytest
from rich.console import Console

from flows.cli import study_display as module
from flows.cli.study_display import StudyDisplay
from flows.cli.units import clock as clock_text
from flows.observer import Observer, current_observer, observer
from tests.support.builders import images_table
from tests.unit.study.test_progress import IMAGES, a_plan
from thyro_core.datasets.splits import make_splits
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import JobReporter
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def plain() -> tuple[StudyDisplay, io.StringIO]:
    out = io.StringIO()
    return StudyDisplay(Console(file=out, force_terminal=False, width=200)), out


def test_lines_without_a_terminal_carry_no_control_codes(store: Store, plan: StudyPlan) -> None:
    display, out = plain()
    with display.shown():
        display.ingesting(3, 30)
        display.planned(store, plan)
        display.split_ended(0, {})
        display.split_ended(1, {"vgg16": "the loss is not finite"})
    lines = out.getvalue().splitlines()
    assert lines[0] == f"Study {plan.study_id}: 2 splits x vgg16, resnet18, 2 epochs, fp32"
    assert "split 0 done" in lines
    assert "split 1, vgg16 failed: the loss is not finite" in lines
    assert "split 1 done" not in lines
    assert not re.search(r"\x1b|\r|━", out.getvalue())


def test_the_studys_notes_are_shown(store: Store, plan: StudyPlan) -> None:
    display, out = plain()
    display.planned(store, replace(plan, notes=("No patient ids [were] given.",)))
    assert "Note: No patient ids [were] given." in out.getvalue()


def test_an_error_is_shown_as_it_is() -> None:
    display, out = plain()
    display.split_ended(1, {"vgg16": "expected [0, 1], found [/x]"})
    assert "expected [0, 1], found [/x]" in out.getvalue()


def test_a_store_without_progress_is_no_fault(store: Store, plan: StudyPlan) -> None:
    display, _ = plain()
    line = display._refresh(store, plan)
    assert line == "0 %: 0 of 2 splits, 0 images/s, time unknown left"


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
            reporter.finished(architecture)
    for reporter in reporters:
        reporter.end("finished")
        seen.append(display._refresh(store, plan))
    percents = [int(line.split(" %")[0]) for line in seen]
    assert percents == sorted(percents)
    # A quarter of VGG16 in one of two splits is 92.6 x 50 of 103.25 x 200 x 2; then in both.
    assert percents[:3] == [0, 11, 22]
    assert percents[-1] == 100
    assert "0 of 2 splits, 5 images/s" in seen[1]
    assert "0 of 2 splits, 10 images/s" in seen[2]
    assert "1 of 2 splits" in seen[-2]
    assert "2 of 2 splits, 0 images/s" in seen[-1]


def test_time_left_is_measured_from_recent_work(clock: list[float]) -> None:
    display, _ = plain()
    # Found done at the start: this says nothing of the speed.
    assert display._seconds_left(500.0, 1000.0) is None
    clock[0] += 10
    assert display._seconds_left(520.0, 1000.0) == pytest.approx(240.0)  # 2 a second
    for _ in range(10):
        clock[0] += 10
        left = display._seconds_left(520.0 + (clock[0] - 1010) * 8, 1000.0)
    # A minute later only the last minute counts: 8 a second.
    assert left == pytest.approx((1000.0 - 520.0 - 100 * 8) / 8)


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
    assert clock_text(seconds) == text


def test_without_a_terminal_a_line_appears_now_and_then(
    store: Store, plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)
    JobReporter(store, plan, 0, IMAGES, interval=0).position("vgg16", 1, 50, 10.0)
    display, out = plain()
    refreshed = []
    refresh = display._refresh

    def counted(*arguments: object) -> str:
        refreshed.append(refresh(*arguments))
        return refreshed[-1]

    monkeypatch.setattr(display, "_refresh", counted)
    with display.shown():
        display.planned(store, plan)
        while len(refreshed) < 3:
            time.sleep(0.001)
    assert "34 %: 0 of 2 splits, 5 images/s, time unknown left" in out.getvalue()


def test_with_a_terminal_a_bar_for_each_running_split(store: Store, plan: StudyPlan) -> None:
    out = io.StringIO()
    display = StudyDisplay(Console(file=out, force_terminal=True, width=120))
    first = JobReporter(store, plan, 0, IMAGES, interval=0)
    first.position("vgg16", 1, 50, 10.0)
    display._refresh(store, plan)
    assert {task.description for task in display._progress.tasks} == {"study", "split 0"}
    (split,) = (task for task in display._progress.tasks if task.description == "split 0")
    assert split.fields["detail"] == "vgg16, epoch 2 of 2, 5 images/s"
    assert split.percentage == pytest.approx(100 * 92.6 * 150 / (103.25 * 200))
    first.end("finished")
    display._refresh(store, plan)
    assert [task.description for task in display._progress.tasks] == ["study"]
    display.split_ended(0, {})
    assert "split 0 done" not in out.getvalue()


def test_the_watcher_ends_with_the_block_also_after_an_error() -> None:
    display, _ = plain()
    with pytest.raises(KeyError), display.shown():
        raise KeyError
    assert display._over.is_set()


def test_whoever_watches_is_told_and_nobody_is_no_fault(store: Store, plan: StudyPlan) -> None:
    nobody = current_observer()
    nobody.ingesting(1, 2)
    nobody.planned(store, plan)
    nobody.split_ended(0, {})
    mine = Observer()
    token = observer.set(mine)
    assert current_observer() is mine
    observer.reset(token)
    assert current_observer() is not mine
