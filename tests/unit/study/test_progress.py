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
    SILENT_SECONDS,
    JobProgress,
    JobReporter,
    Progress,
    mark_stopped,
    read_job_progress,
    read_positions,
    running_splits,
    slowest_first,
    study_progress,
)
from thyro_core.training.timer import RunCost

IMAGES = 100


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
    # 10.65 and 92.6 GFLOP an image, 2 epochs of 100 images each; one and a half are done.
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
        work_done=pytest.approx(10.65 * 150),
        work_total=pytest.approx((10.65 + 92.6) * 200),
        started=found.started,
        updated=found.updated,
        work_before=0.0,
        seconds=0.0,
        gpu_seconds=0.0,
        host=socket.gethostname(),
    )
    assert store.keys("") == [progress_key("s0123456789abcdef", 1)]
    assert read_job_progress(store, "s0123456789abcdef", 0) is None


def test_work_grows_with_the_pixels(store: Store) -> None:
    JobReporter(store, a_plan(image_size=448), 1, IMAGES, interval=0).position("vgg16", 0, 1, 1.0)
    assert published(store).work_done == pytest.approx(4 * 92.6)


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
    assert shares[0] == pytest.approx(92.6 * 10 / (103.25 * 200))
    assert {p.state for p in seen[:-1]} == {"running"}
    assert seen[-1].state == "finished"
    assert seen[-1].images_per_second == 0.0


def test_what_an_earlier_start_finished_counts(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("vgg16")
    reporter.position("resnet18", 0, 10, 1.0)
    assert published(store).work_done == pytest.approx(92.6 * 200 + 10.65 * 10)


def test_a_failed_job_says_so_and_keeps_what_it_did(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("resnet18")
    reporter.end("failed")
    assert published(store).state == "failed"
    assert published(store).work_done == pytest.approx(10.65 * 200)


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
        seen.append(round(published(store).work_done / 92.6))
    assert seen == [10, 10, 10, 20, 20, 35]
    # The end is news at any time.
    reporter.end("finished")
    assert published(store).state == "finished"


def test_nothing_of_an_image_is_published(store: Store) -> None:
    JobReporter(store, a_plan(), 1, IMAGES, interval=0).position("vgg16", 0, 1, 1.0)
    plain = json.loads(store.read(progress_key("s0123456789abcdef", 1)))
    assert plain.keys() == {
        "split", "state", "architecture", "epoch", "images_per_second", "work_done", "work_total",
        "started", "updated", "work_before", "seconds", "gpu_seconds", "host",
    }  # fmt: skip


def test_what_earlier_attempts_did_is_told_apart(store: Store) -> None:
    reporter = JobReporter(store, a_plan("vgg16", "resnet18"), 1, IMAGES, interval=0)
    reporter.add_finished("vgg16", earlier=True)
    reporter.add_resumed("resnet18", 1)
    reporter.position("resnet18", 1, 50, 10.0, RunCost(70.0, 35.0))
    found = published(store)
    assert found.work_before == pytest.approx(92.6 * 200 + 10.65 * 100)
    assert found.work_done - found.work_before == pytest.approx(10.65 * 50)
    assert (found.seconds, found.gpu_seconds) == (70.0, 35.0)
    reporter.add_finished("resnet18")
    reporter.end("finished")
    assert published(store).work_before == found.work_before


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


def progress_of(*jobs: JobProgress, splits: int = 3) -> Progress:
    positions = {job.split: job for job in jobs}
    return study_progress(splits, positions, running_splits(positions, NOW))


def test_a_study_without_positions_has_done_nothing_and_knows_no_time() -> None:
    assert progress_of() == Progress(0.0, 3.0, 0, 0, None)
    assert progress_of().share == 0.0


def test_work_rate_and_time_left_add_up_over_the_jobs() -> None:
    one = progress_of(a_job(0))
    # 120 units of three splits, 12 done, 10 of them in 100 s by this attempt.
    assert (one.work_done, one.work_total, one.share) == (12.0, 120.0, 0.1)
    assert one.seconds_left == pytest.approx(1080.0)
    two = progress_of(a_job(0), a_job(1, seconds=50.0))
    assert two.seconds_left == pytest.approx((120 - 24) / (0.1 + 0.2))
    assert two.images_per_second == 10.0
    assert (one.ended, two.ended) == (0, 0)


@pytest.mark.parametrize(
    "changes", [{"started": None}, {"work_done": 2.0}, {"seconds": 0.0}, {"updated": None}]
)
def test_a_job_whose_rate_is_unknown_makes_the_time_unknown(changes: dict[str, object]) -> None:
    assert progress_of(a_job(0, **changes), a_job(1)).seconds_left is None


def test_a_silent_job_counts_with_its_work_and_not_with_its_speed() -> None:
    silent = a_job(1, silence=SILENT_SECONDS + 1)
    progress = progress_of(a_job(0), silent)
    assert progress.images_per_second == 5.0
    assert progress.seconds_left == pytest.approx((120 - 24) / 0.1)
    assert (a_job(0).is_silent(NOW), silent.is_silent(NOW)) == (False, True)
    assert a_job(1, updated=None).silence(NOW) is None
    assert not a_job(1, updated=None).is_silent(NOW)


def test_a_study_whose_jobs_are_over_has_no_time_left_unless_one_failed() -> None:
    over = {"state": "finished", "work_done": 40.0, "images_per_second": 0.0}
    whole = progress_of(*(a_job(split, **over) for split in range(3)))
    assert (whole.ended, whole.share, whole.seconds_left) == (3, 1.0, 0.0)
    failed = progress_of(a_job(0, state="failed"), a_job(1, **over), a_job(2, **over))
    assert (failed.ended, failed.seconds_left) == (3, None)


def test_a_job_knows_its_own_share_and_time() -> None:
    assert a_job(0).share == 0.3
    assert a_job(0).rate == pytest.approx(0.1)
    assert a_job(0).seconds_left == pytest.approx(280.0)
    assert a_job(0, started=None).seconds_left is None


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
    assert progress_of(*found.values(), splits=4).ended == 2
