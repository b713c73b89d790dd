"""Share of a study's work and the time left: what someone who waits plans the evening by."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from thyro_core.config import Architecture, StudyConfig
from thyro_core.study.progress import SILENT_SECONDS, JobProgress, slowest_first
from thyro_core.study.study_progress import StudyProgress, running_splits, study_progress
from thyro_core.study.work import results_work, run_work, training_work

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
CONFIG = StudyConfig(architectures=("vgg16",), splits=3, epochs=4)
RESULTS = results_work(CONFIG)


def a_job(
    split: int, *, seconds: float = 100.0, silence: float = 0.0, **changes: Any
) -> JobProgress:
    """Ten of forty units of work in `seconds`, two more done before; of a version without sizes."""
    updated = NOW - timedelta(seconds=silence)
    values = {
        "split": split, "state": "running", "architecture": "vgg16", "epoch": 2,
        "images_per_second": 5.0, "work_done": 12.0, "work_total": 40.0, "work_before": 2.0,
        "started": (updated - timedelta(seconds=seconds)).isoformat(),
        "updated": updated.isoformat(),
    }  # fmt: skip
    return JobProgress(**values | changes)


def progress_of(*jobs: JobProgress, config: StudyConfig = CONFIG) -> StudyProgress:
    positions = {job.split: job for job in jobs}
    return study_progress(config, positions, running_splits(positions, NOW), NOW)


def test_a_study_without_positions_has_done_nothing_and_knows_no_time() -> None:
    nothing = progress_of()
    assert (nothing.work_done, nothing.share, nothing.n_ended) == (0.0, 0.0, 0)
    assert nothing.seconds_left is None


def test_share_and_time_are_of_all_splits_the_tables_and_the_report() -> None:
    one = progress_of(a_job(0))
    assert (one.work_done, one.work_total) == (12.0, 120.0 + RESULTS)
    # Ten units in 100 s: 28 are left of this split and 40 of each other one, at one place.
    assert one.job_seconds == {0: pytest.approx(280.0)}
    assert one.training_seconds == pytest.approx(280.0 + 2 * 400.0)
    assert one.results_seconds == pytest.approx(RESULTS * 10.0)
    assert one.seconds_left == pytest.approx(1080.0 + RESULTS * 10.0)


def test_the_waiting_splits_take_the_places_that_become_free() -> None:
    """Whoever runs last decides: three splits at two places take as long as two at one."""
    two = progress_of(a_job(0), a_job(1))
    assert two.training_seconds == pytest.approx(280.0 + 400.0)
    assert two.images_per_second == 10.0
    over = a_job(1, state="finished", architecture="", work_done=40.0)
    # Split 2 is about to take the place of split 1.
    assert progress_of(a_job(0), over).training_seconds == pytest.approx(400.0)
    long_ago = replace(over, updated=(NOW - timedelta(seconds=500)).isoformat())
    assert progress_of(a_job(0), long_ago).training_seconds == pytest.approx(280.0 + 400.0)


def test_a_job_that_has_just_begun_is_expected_to_be_as_fast_as_the_others() -> None:
    begun = a_job(0, work_done=2.0, seconds=0.0)
    assert progress_of(begun).seconds_left is None
    both = progress_of(begun, a_job(1))
    assert both.job_seconds == {0: pytest.approx(380.0), 1: pytest.approx(280.0)}
    assert progress_of(a_job(0, started=None), a_job(1)).job_seconds[0] == pytest.approx(280.0)


def test_silence_is_time_that_passes() -> None:
    """A job that tests its network publishes nothing: it comes nearer to its end all the same."""
    assert progress_of(a_job(0, silence=30.0)).job_seconds[0] == pytest.approx(250.0)
    assert progress_of(a_job(0, silence=290.0)).job_seconds[0] == 0.0
    silent = progress_of(a_job(0), a_job(1, silence=SILENT_SECONDS + 1))
    assert silent.job_seconds.keys() == {0}
    assert silent.images_per_second == 5.0


def test_a_study_whose_jobs_are_over_has_its_results_left() -> None:
    over = {"state": "finished", "work_done": 40.0, "images_per_second": 0.0}
    costs = {"costs": {"vgg16": (400.0, 40.0)}}
    whole = progress_of(*(a_job(split, **over, **costs) for split in range(3)))
    assert (whole.n_ended, whole.training_seconds) == (3, 0.0)
    assert whole.share == pytest.approx(120 / (120 + RESULTS))
    assert whole.seconds_left == pytest.approx(RESULTS * 10.0)
    failed = progress_of(a_job(0, state="failed"), a_job(1, **over), a_job(2, **over))
    assert (failed.n_ended, failed.seconds_left) == (3, None)


def test_results_take_a_core_however_fast_the_training_is() -> None:
    fast = progress_of(a_job(0, seconds=0.01))
    assert fast.results_seconds == pytest.approx(RESULTS / 100)


def test_what_a_network_really_takes_is_learnt() -> None:
    config = StudyConfig(architectures=("resnet18", "alexnet"), splits=2, epochs=2)
    images = (100, 40)
    slow, fast = (run_work(config, name, images) for name in ("resnet18", "alexnet"))
    job = a_job(
        0, architecture="alexnet", work_done=slow + fast / 2, work_total=slow + fast,
        work_before=0.0, seconds=slow + 2 * fast / 2, costs={"resnet18": (slow, slow)},
        n_train=100, n_test=40,
    )  # fmt: skip
    progress = progress_of(job, config=config)
    assert progress.job_seconds == {0: pytest.approx(2 * fast / 2)}
    assert progress.training_seconds == pytest.approx(2 * fast / 2 + slow + 2 * fast)


@dataclass
class Machine:
    """An even machine in simulated time: each network has its speed, and it never changes."""

    config: StudyConfig
    images: tuple[int, int]
    places: int
    speed: dict[Architecture, float]
    """Seconds that a unit of work takes."""
    clock: float = 0.0
    positions: dict[int, JobProgress] = field(default_factory=dict)

    def job(self, split: int, begin: float, now: float) -> JobProgress | None:
        """Its position at a time; None: it has published none. Silent while it makes its maps."""
        names = slowest_first(self.config.architectures)
        works = {name: run_work(self.config, name, self.images) for name in names}
        done, costs, updated, at = 0.0, {}, None, begin
        total = sum(works.values())
        state, current, epoch = "running", "", 0
        for name in names:
            images = self.config.epochs * self.images[0]
            training = training_work(self.config, name, images)
            seconds = training * self.speed[name]
            passed = min(now - at, seconds)
            if passed < 1:
                break
            current, updated = name, at + float(int(passed))
            share = float(int(passed)) / seconds if passed < seconds else 1.0
            epoch = 1 + int(share * self.config.epochs * 0.999)
            position = done + share * training
            if now < at + works[name] * self.speed[name]:
                break
            at += works[name] * self.speed[name]
            costs[name] = (works[name] * self.speed[name], works[name])
            done += works[name]
        else:
            state, updated, position, current, epoch = "finished", at, done, "", 0
        if updated is None:
            return None
        shown = costs if state == "finished" else {n: c for n, c in costs.items() if n != current}
        return JobProgress(
            split=split, state=state, architecture=current, epoch=epoch,
            images_per_second=0.0 if state == "finished" else 9.0,
            work_done=position, work_total=total,
            started=(NOW + timedelta(seconds=begin)).isoformat(),
            updated=(NOW + timedelta(seconds=updated)).isoformat(),
            costs=shown, n_train=self.images[0], n_test=self.images[1],
        )  # fmt: skip

    def run(self) -> Iterator[tuple[float, StudyProgress]]:
        """Each second until the last split is trained: the time, and the study's progress."""
        names = self.config.architectures
        length = sum(run_work(self.config, n, self.images) * self.speed[n] for n in names)
        starting = 4.0
        begins = [
            starting * (1 + split // self.places)
            + length * (split // self.places)
            + 0.7 * (split % self.places)
            for split in range(self.config.splits)
        ]
        end = max(begins) + length
        for second in range(int(end) + 1):
            jobs = {
                split: job
                for split, begin in enumerate(begins)
                if begin <= second and (job := self.job(split, begin, float(second)))
            }
            now = NOW + timedelta(seconds=second)
            yield float(second), study_progress(self.config, jobs, running_splits(jobs, now), now)


@pytest.mark.parametrize("places", [1, 2, 3, 8])
@pytest.mark.parametrize("splits", [3, 10])
@pytest.mark.parametrize(
    "speed",
    [
        {"resnet18": 0.02, "alexnet": 0.02},
        # Networks differ from what their arithmetic says, one way and the other.
        {"resnet18": 0.02, "alexnet": 0.026},
        {"resnet18": 0.02, "alexnet": 0.012},
    ],
    ids=["as counted", "slower", "faster"],
)
def test_on_an_even_machine_the_time_left_hardly_rises(
    speed: dict[Architecture, float], splits: int, places: int
) -> None:
    config = StudyConfig(
        architectures=("resnet18", "alexnet"), splits=splits, epochs=4, image_size=96
    )
    machine = Machine(config, (357, 151), places, speed)
    seen = [(second, p) for second, p in machine.run() if p.seconds_left is not None]
    assert seen[0][0] < 8, "known soon after the first batches"
    least = float("inf")
    for second, progress in seen:
        left = progress.seconds_left
        assert left is not None
        assert left <= 1.25 * least + 1.0, f"{left} s left after {second} s, {least} before"
        least = min(least, left)
    shares = [progress.share for _, progress in seen]
    assert shares == sorted(shares)
    end, last = seen[-1]
    assert last.training_seconds == pytest.approx(0.0, abs=1.0)
    assert last.results_seconds is not None
    # And it is true: what was said at half time was left then.
    second, half = next(item for item in seen if item[0] >= end / 2)
    assert half.training_seconds == pytest.approx(end - second, rel=0.35, abs=5.0)
