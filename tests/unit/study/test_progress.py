"""Where a job stands, as it is published and read back."""

import json
import socket
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from thyro_core.config import ARCHITECTURES, Architecture, StudyConfig
from thyro_core.store.keys import progress_key
from thyro_core.store.store import Store, open_store
from thyro_core.study import progress
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import (
    JobProgress,
    JobReporter,
    mark_stopped,
    read_job_progress,
    read_positions,
    slowest_first,
)
from thyro_core.study.study_progress import running_splits, study_progress
from thyro_core.study.work import run_work, training_work
from thyro_core.training.timer import RunCost

IMAGES = (100, 40)


def a_plan(
    *architectures: Architecture, epochs: int = 2, splits: int = 3, image_size: int = 224
) -> StudyPlan:
    config = StudyConfig(
        architectures=architectures or ("resnet18", "vgg16"),
        epochs=epochs,
        splits=splits,
        image_size=image_size,
    )
    return StudyPlan("s0123456789abcdef", config, "m0", "fp32", {}, ())


@pytest.fixture
def store(tmp_path: object) -> Store:
    return open_store(str(tmp_path))


PLAN_CONFIG = StudyConfig(architectures=("resnet18", "vgg16"), epochs=2, splits=3)


def whole(architecture: Architecture) -> float:
    return run_work(PLAN_CONFIG, architecture, IMAGES)


def part(architecture: Architecture, images: int) -> float:
    return training_work(PLAN_CONFIG, architecture, images)


def published(store: Store, split: int = 1) -> JobProgress:
    found = read_job_progress(store, "s0123456789abcdef", split)
    assert found is not None
    return found


def test_the_slowest_goes_first() -> None:
    wanted = ["vgg16", "inception_v3", "resnet18", "alexnet"]
    assert slowest_first(ARCHITECTURES) == wanted
    assert slowest_first(reversed(ARCHITECTURES)) == wanted
    assert slowest_first(["alexnet", "vgg16"]) == ["vgg16", "alexnet"]


def test_a_job_that_has_published_nothing_has_no_position(store: Store) -> None:
    assert read_job_progress(store, "s0", 0) is None


def test_a_position_is_read_as_it_was_published(store: Store) -> None:
    reporter = JobReporter(store, a_plan(), 1, IMAGES, interval=0)
    reporter.position("resnet18", 1, 50, 10.0)
    found = published(store)
    assert found.started is not None
    assert found.updated is not None
    assert datetime.fromisoformat(found.started) <= datetime.fromisoformat(found.updated)
    assert datetime.fromisoformat(found.updated).utcoffset() == timedelta(0)
    assert found == JobProgress(
        split=1,
        state="running",
        architecture="resnet18",
        epoch=2,
        images_per_second=5.0,
        work_done=pytest.approx(part("resnet18", 150)),
        work_total=pytest.approx(whole("resnet18") + whole("vgg16")),
        started=found.started,
        updated=found.updated,
        work_before=0.0,
        seconds=0.0,
        gpu_seconds=0.0,
        host=socket.gethostname(),
        n_train=100,
        n_test=40,
    )
    assert store.keys("") == [progress_key("s0123456789abcdef", 1)]
    assert read_job_progress(store, "s0123456789abcdef", 0) is None


def test_work_grows_with_the_pixels_and_a_step_has_its_cost() -> None:
    small, large = (StudyConfig(image_size=side) for side in (224, 448))
    # 10.65 and 4.1 GFLOP a training image; a step of Adam's goes over all parameters.
    step = 0.25 * 11.2 / 32
    assert training_work(small, "resnet18", 1) == pytest.approx(10.65 + step)
    assert training_work(large, "resnet18", 1) == pytest.approx(4 * 10.65 + step)
    assert training_work(small, "alexnet", 1) == pytest.approx(4.1 + 0.25 * 57.1 / 32)
    assert run_work(small, "resnet18", (100, 40)) > training_work(small, "resnet18", 3000)


def test_a_jobs_work_never_shrinks_and_ends_whole(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    seen = []
    for architecture in ("vgg16", "resnet18"):
        for epochs in (0, 1):
            for images in (10, 60, 100):
                reporter.position(architecture, epochs, images, 1.0)
                seen.append(published(store))
        reporter.add_finished(architecture)
    reporter.end("finished")
    seen.append(published(store))
    shares = [p.work_done / p.work_total for p in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    total = whole("vgg16") + whole("resnet18")
    assert shares[0] == pytest.approx(part("vgg16", 10) / total)
    assert {p.state for p in seen[:-1]} == {"running"}
    assert seen[-1].state == "finished"
    assert seen[-1].images_per_second == 0.0


def test_what_an_earlier_start_finished_counts(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("vgg16")
    reporter.position("resnet18", 0, 10, 1.0)
    done = whole("vgg16") + part("resnet18", 10)
    assert published(store).work_done == pytest.approx(done)


def test_a_failed_job_says_so_and_keeps_what_it_did(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("resnet18")
    reporter.end("failed")
    assert published(store).state == "failed"
    assert published(store).work_done == pytest.approx(whole("resnet18"))


def test_positions_are_published_at_most_once_in_an_interval(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    reporter = JobReporter(store, a_plan(), 1, IMAGES, interval=1.0)
    seen = []
    for now in (1000.0, 1000.5, 1000.99, 1001.0, 1001.5, 1002.5):
        clock[0] = now
        reporter.position("vgg16", 0, round((now - 999) * 10), 1.0)
        seen.append(round(published(store).work_done / part("vgg16", 1)))
    assert seen == [10, 10, 10, 20, 20, 35]
    # The end is news at any time.
    reporter.end("finished")
    assert published(store).state == "finished"


def test_nothing_of_an_image_is_published(store: Store) -> None:
    JobReporter(store, a_plan(), 1, IMAGES, interval=0).position("vgg16", 0, 1, 1.0)
    plain = json.loads(store.read(progress_key("s0123456789abcdef", 1)))
    assert plain.keys() == {
        "split", "state", "architecture", "epoch", "images_per_second", "work_done", "work_total",
        "started", "updated", "work_before", "seconds", "gpu_seconds", "host", "costs", "n_train",
        "n_test",
    }  # fmt: skip


def test_what_earlier_attempts_did_is_told_apart(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("vgg16", earlier=True)
    reporter.add_resumed("resnet18", 1)
    reporter.position("resnet18", 1, 50, 10.0, RunCost(70.0, 35.0))
    found = published(store)
    assert found.work_before == pytest.approx(whole("vgg16") + part("resnet18", 100))
    assert found.work_done - found.work_before == pytest.approx(part("resnet18", 50))
    assert found.current_cost is not None
    assert found.current_cost[1] == pytest.approx(part("resnet18", 50))
    assert (found.seconds, found.gpu_seconds) == (70.0, 35.0)
    reporter.add_finished("resnet18")
    reporter.end("finished")
    assert published(store).work_before == found.work_before
    # What an earlier attempt did costs this one nothing.
    ((name, (seconds, work)),) = published(store).costs.items()
    assert (name, work) == ("resnet18", pytest.approx(whole("resnet18") - part("resnet18", 100)))
    assert seconds >= 0


def test_objects_of_older_and_of_newer_versions_are_read(store: Store) -> None:
    old = {
        "split": 1, "state": "running", "architecture": "vgg16", "epoch": 2,
        "images_per_second": 3.0, "work_done": 1.0, "work_total": 9.0,
    }  # fmt: skip
    key = progress_key("s0123456789abcdef", 1)
    store.write(key, json.dumps(old).encode())
    found = published(store)
    assert (found.epoch, found.updated, found.seconds, found.host) == (2, None, 0.0, None)
    store.write(key, json.dumps(old | {"invented_later": 1}).encode())
    assert published(store) == found


NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def a_job(
    split: int, *, seconds: float = 100.0, silence: float = 4.0, **changes: object
) -> JobProgress:
    """Ten of forty units of work in `seconds`, two more done before."""
    updated = NOW - timedelta(seconds=silence)
    values = {
        "split": split, "state": "running", "architecture": "vgg16", "epoch": 2,
        "images_per_second": 5.0, "work_done": 12.0, "work_total": 40.0, "work_before": 2.0,
        "started": (updated - timedelta(seconds=seconds)).isoformat(),
        "updated": updated.isoformat(),
    }  # fmt: skip
    return JobProgress(**values | changes)


def test_only_jobs_that_were_at_work_are_marked_as_stopped(store: Store) -> None:
    jobs = [a_job(0), a_job(1, state="finished"), a_job(2, state="failed")]
    for job in jobs:
        key = progress_key("s0000000000000000", job.split)
        store.write(key, json.dumps(asdict(job)).encode())
    mark_stopped(store, "s0000000000000000", range(4))
    found = read_positions(store, "s0000000000000000", range(4))
    assert found == {
        0: replace(jobs[0], state="stopped", images_per_second=0.0),
        1: jobs[1],
        2: jobs[2],
    }
    running = running_splits(found, NOW)
    assert study_progress(PLAN_CONFIG, found, running, NOW).n_ended == 2
