"""A split job, run in this process: what it writes, what it skips, how it survives."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load

from tests.support.imagesets import write_image_set, write_masks
from thyro_core.config import StudyConfig, job_seed
from thyro_core.errors import Failure, IncompleteStudyError
from thyro_core.explain import families
from thyro_core.explain.gradcam import predict_with_cams
from thyro_core.explain.regions import SHARES
from thyro_core.store.keys import checkpoint_key, model_key, progress_key, run_key
from thyro_core.store.store import Store, open_store
from thyro_core.study import split as split_job
from thyro_core.study.job import JobResources, SplitJob, is_finished
from thyro_core.study.lifecycle import (
    conclude_study,
    ingest_for_study,
    prepare_study,
    unfinished_runs,
)
from thyro_core.study.plan import StudyPlan
from thyro_core.study.progress import read_job_progress
from thyro_core.study.records import runs_table, train_aucs
from thyro_core.study.split import run_split
from thyro_core.study.verify.verify import verify_study
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.tables.io import read_table
from thyro_core.training import timer
from thyro_core.training.models import build

TIMES = ["seconds", "images_per_second"]


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    """A study is concluded a few times; each cross-validation is repeated once."""
    monkeypatch.setattr(families, "REPEATS", 1)
    monkeypatch.setattr(families, "PERMUTATIONS", 9)


@pytest.fixture(autouse=True)
def torch_as_it_was():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_set(tmp_path_factory.mktemp("source") / "set")


def planned(tmp_path: Path, source: Path, **config: object) -> tuple[Store, StudyPlan]:
    values = {
        "architectures": ("resnet18",), "splits": 2, "epochs": 2, "image_size": 64,
        "batch_size": 8, "weights": "none", "resamples": 100, "blur_bound": 0, "trust_images": 1,
    } | config  # fmt: skip
    store = open_store(str(tmp_path / "store"))
    study = StudyConfig.model_validate(values)
    manifest = ingest_for_study(str(source), study, store)
    plan = prepare_study(manifest, study, "fp32", store, scratch=tmp_path / "scratch")
    return store, plan


def job(store: Store, plan: StudyPlan, split: int = 0, **settings: object) -> SplitJob:
    values = {"checkpoint_seconds": 0.0} | settings
    return SplitJob(store.url, plan.study_id, split, "/tmp/thyro-test-scratch", **values)


def contents(store: Store) -> dict[str, bytes]:
    """All tables' bytes; of `epochs` and `studies` the rows without times and places."""
    found = {}
    for key in store.keys("tables"):
        if not key.startswith(("tables/epochs/", "tables/runs/", "tables/studies/")):
            found[key] = store.read(key)
    of_start = ["source", "command", "started", "finished"]
    found["studies"] = repr(
        read_table(store, "studies").drop_columns(of_start).to_pylist()
    ).encode()
    found["epochs"] = repr(read_table(store, "epochs").drop_columns(TIMES).to_pylist()).encode()
    return found


def test_a_job_writes_all_that_a_finished_architecture_leaves(tmp_path: Path, source: Path) -> None:
    store, plan = planned(tmp_path, source)
    outcome = run_split(job(store, plan))
    assert outcome.trained == ("resnet18",)
    assert outcome.failed == {}

    predictions = read_table(store, "predictions", study_id=plan.study_id)
    splits = read_table(store, "splits", study_id=plan.study_id)
    test = splits.filter(pc.equal(splits["split"], 0)).filter(
        pc.equal(splits.filter(pc.equal(splits["split"], 0))["role"], "test")
    )
    assert predictions["image_id"].to_pylist() == sorted(test["image_id"].to_pylist())
    by_id = dict(zip(test["image_id"].to_pylist(), test["label"].to_pylist(), strict=True))
    assert predictions["label"].to_pylist() == [
        by_id[i] for i in predictions["image_id"].to_pylist()
    ]
    logits = np.stack([predictions["logit_benign"], predictions["logit_malignant"]], axis=1)
    exp = np.exp(logits.astype(np.float64))
    assert np.allclose(predictions["prob_malignant"], exp[:, 1] / exp.sum(axis=1))

    cams = read_table(store, "cams", study_id=plan.study_id).to_pylist()
    assert [(row["image_id"], row["target_class"]) for row in cams] == [
        (image_id, target) for image_id in predictions["image_id"].to_pylist() for target in (0, 1)
    ]
    assert {(row["layer"], row["height"], row["width"]) for row in cams} == {("layer4", 2, 2)}

    features = read_table(store, "cam_features", study_id=plan.study_id)
    assert features.num_rows == len(SHARES) * predictions.num_rows
    trust = read_table(store, "cam_trust", study_id=plan.study_id)
    for name in ("image_id", "label"):
        assert trust[name].to_pylist() == predictions[name].to_pylist()
    assert trust["nodule_area"].null_count == trust.num_rows
    assert trust["deletion"].null_count == trust.num_rows - plan.config.trust_images

    epochs = read_table(store, "epochs", study_id=plan.study_id).to_pylist()
    assert [row["epoch"] for row in epochs] == [1, 2]
    record = json.loads(store.read(run_key(plan.study_id, 0, "resnet18")))
    assert record["status"] == "finished"
    assert record["seed"] == job_seed(0, 0, "resnet18")
    assert record["n_train"] == 21
    assert record["n_test"] == 7
    assert 0 <= record["train_auc"] <= 1
    assert train_aucs(store, plan) == {(0, "resnet18"): record["train_auc"]}
    assert record["focal_alpha"] == pytest.approx(12 / 21)
    assert record["weights_origin"] == "none"
    assert not store.exists(checkpoint_key(plan.study_id, 0, "resnet18"))
    model = load(store.read(model_key(plan.study_id, 0, "resnet18")))
    build("resnet18", 64, 0).load_state_dict(model)


def test_it_learns_what_can_be_learnt(tmp_path: Path, source: Path) -> None:
    config = {"epochs": 6, "learning_rate": 1e-3}
    store, plan = planned(tmp_path, source, **config)
    run_split(job(store, plan))
    found = read_table(store, "predictions", study_id=plan.study_id)
    called = np.array(found["prob_malignant"]) >= 0.5
    assert (called == np.array(found["label"])).mean() > 0.8
    assert train_aucs(store, plan)[0, "resnet18"] > 0.9


def test_what_is_finished_is_not_done_again(tmp_path: Path, source: Path, monkeypatch) -> None:
    store, plan = planned(tmp_path, source)
    run_split(job(store, plan))
    before = contents(store)

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(split_job, "train", never)
    outcome = run_split(job(store, plan))
    assert outcome.trained == ()
    assert contents(store) == before


class PowerCutError(BaseException):
    """Stops a job as a power cut would: nothing in the job may catch it."""


def cut_at(monkeypatch: pytest.MonkeyPatch, write: int) -> Callable[[], int]:
    """Let a job's n-th write to the store fail before it is made."""
    count = 0
    real = Store.writing

    def writing(self: Store, key: str):
        nonlocal count
        if "/progress/" not in key:
            count += 1
            if count == write:
                raise PowerCutError(key)
        return real(self, key)

    monkeypatch.setattr(Store, "writing", writing)
    return lambda: count


@pytest.mark.slow
def test_a_cut_before_any_write_loses_nothing(tmp_path: Path, source: Path, monkeypatch) -> None:
    """Two checkpoints, a model, a record, epochs, maps and two tables on them, predictions."""
    store, plan = planned(tmp_path / "whole", source)
    with monkeypatch.context() as patch:
        writes = cut_at(patch, -1)
        run_split(job(store, plan))
        total = writes()
    assert total == 9
    expected = contents(store)
    for write in range(1, total + 1):
        store, plan = planned(tmp_path / str(write), source)
        with monkeypatch.context() as patch:
            cut_at(patch, write)
            with pytest.raises(PowerCutError):
                run_split(job(store, plan))
        assert not is_finished(store, plan.study_id, 0, "resnet18")
        torch.manual_seed(write)
        run_split(job(store, plan))
        assert contents(store) == expected
        record = json.loads(store.read(run_key(plan.study_id, 0, "resnet18")))
        assert record["resumed_epochs"] == min(write - 1, 2)


def test_a_runs_time_is_that_of_all_its_attempts(tmp_path: Path, source: Path, monkeypatch) -> None:
    """Cut in its second epoch, then failed, then finished: three attempts, half a GPU each."""
    store, plan = planned(tmp_path, source)
    clock, now = [0.0], timer.time.perf_counter
    monkeypatch.setattr(timer.time, "perf_counter", lambda: now() + clock[0])
    key, key_of_checkpoint = run_and_checkpoint(plan)
    real = split_job.train

    def train_for(seconds: float, error: type[BaseException] | None):
        def slow(run, *arguments, after_epoch, **named):
            def after(state):
                clock[0] += seconds
                after_epoch(state)
                if error is not None:
                    raise error

            real(run, *arguments, after_epoch=after, **named)

        return slow

    monkeypatch.setattr(split_job, "train", train_for(1e6, PowerCutError))
    with pytest.raises(PowerCutError):
        run_split(job(store, plan, resources=JobResources(gpus=0.5)))
    state = torch.load(store.path(key_of_checkpoint), weights_only=True)
    first = state["seconds"]
    assert 1e6 <= first < 1e6 + 600
    assert state["gpu_seconds"] == pytest.approx(first / 2)
    assert read_job_progress(store, plan.study_id, 0).architecture == "resnet18"

    monkeypatch.setattr(split_job, "predict_with_cams", fails)
    monkeypatch.setattr(split_job, "train", train_for(1e5, None))
    assert run_split(job(store, plan, resources=JobResources(gpus=0.5))).failed
    record = json.loads(store.read(key))
    second = record["seconds"]
    assert first + 1e5 <= second < first + 1e5 + 600
    assert record["gpu_seconds"] == pytest.approx(second / 2)
    assert datetime.fromisoformat(record["started"]).utcoffset() == timedelta(0)

    monkeypatch.setattr(split_job, "predict_with_cams", predict_with_cams)
    clock[0] += 1e4  # nobody ran then
    run_split(job(store, plan, resources=JobResources(gpus=0.5)))
    record = json.loads(store.read(key))
    assert (record["status"], record["resumed_epochs"]) == ("finished", 2)
    assert second <= record["seconds"] < second + 600
    assert record["gpu_seconds"] == pytest.approx(record["seconds"] / 2)


def fails(*_: object) -> None:
    raise RuntimeError("no room on the device")


def run_and_checkpoint(plan: StudyPlan) -> tuple[str, str]:
    where = (plan.study_id, 0, "resnet18")
    return run_key(*where), checkpoint_key(*where)


def test_an_attempt_without_a_checkpoint_costs_too(
    tmp_path: Path, source: Path, monkeypatch
) -> None:
    """Killed in its first epoch, it left only its position."""
    store, plan = planned(tmp_path, source)
    position = {
        "split": 0, "state": "running", "architecture": "resnet18", "epoch": 1,
        "images_per_second": 1.0, "work_done": 1.0, "work_total": 9.0,
        "seconds": 5000.0, "gpu_seconds": 1250.0,
    }  # fmt: skip
    store.write(progress_key(plan.study_id, 0), json.dumps(position).encode())
    run_split(job(store, plan))
    record = json.loads(store.read(run_and_checkpoint(plan)[0]))
    assert 5000.0 < record["seconds"] < 5600.0
    assert record["gpu_seconds"] == 1250.0


def test_a_checkpoint_of_an_older_version_is_still_taken(
    tmp_path: Path, source: Path, monkeypatch
) -> None:
    store, plan = planned(tmp_path, source)
    with monkeypatch.context() as patch:
        cut_at(patch, 2)
        with pytest.raises(PowerCutError):
            run_split(job(store, plan))
    key, checkpoint = run_and_checkpoint(plan)
    state = torch.load(store.path(checkpoint), weights_only=True)
    del state["seconds"], state["gpu_seconds"]
    torch.save(state, store.path(checkpoint))
    run_split(job(store, plan))
    assert json.loads(store.read(key))["resumed_epochs"] == 1


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"PK\x03\x04half a zip"])
def test_a_damaged_checkpoint_costs_time_not_the_result(
    tmp_path: Path, source: Path, damage: bytes
) -> None:
    store, plan = planned(tmp_path / "one", source)
    run_split(job(store, plan))
    other, plan = planned(tmp_path / "two", source)
    other.write(checkpoint_key(plan.study_id, 0, "resnet18"), damage)
    run_split(job(other, plan))
    assert contents(other) == contents(store)


def test_another_runs_checkpoint_is_not_taken(tmp_path: Path, source: Path, monkeypatch) -> None:
    store, plan = planned(tmp_path, source)
    with monkeypatch.context() as patch:
        cut_at(patch, 2)
        with pytest.raises(PowerCutError):
            run_split(job(store, plan))
    foreign = store.read(checkpoint_key(plan.study_id, 0, "resnet18"))
    store.write(checkpoint_key(plan.study_id, 1, "resnet18"), foreign)
    run_split(job(store, plan, split=1))
    record = json.loads(store.read(run_key(plan.study_id, 1, "resnet18")))
    assert record["resumed_epochs"] == 0


def run_quietly(spec: SplitJob) -> None:
    run_split(spec)


@pytest.mark.slow
def test_predictions_do_not_depend_on_how_many_jobs_run_or_in_which_order(
    tmp_path: Path, source: Path
) -> None:
    config = {"architectures": ("resnet18", "alexnet"), "epochs": 1}
    one, plan = planned(tmp_path / "one", source, **config)
    for split in (0, 1):
        run_split(job(one, plan, split))
    other, plan = planned(tmp_path / "other", source, **config)
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(run_quietly, [job(other, plan, split) for split in (1, 0)]))
    assert contents(other) == contents(one)


def test_an_architecture_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, source: Path, monkeypatch
) -> None:
    store, plan = planned(tmp_path, source, architectures=("resnet18", "alexnet"), epochs=1)
    real = split_job.build

    def build_one(architecture: str, side: int, seed: int) -> torch.nn.Module:
        if architecture == "resnet18":
            raise RuntimeError("no room on the device")
        return real(architecture, side, seed)

    monkeypatch.setattr(split_job, "build", build_one)
    outcome = run_split(job(store, plan))
    assert outcome.trained == ("alexnet",)
    assert outcome.failed == {"resnet18": Failure("RuntimeError", "no room on the device")}
    rows = {row["architecture"]: row for row in runs_table(store, plan).to_pylist()}
    assert rows["resnet18"]["status"] == "failed"
    assert rows["resnet18"]["error"] == "RuntimeError: no room on the device"
    assert rows["alexnet"]["status"] == "finished"
    with pytest.raises(IncompleteStudyError, match="3 runs are not finished"):
        conclude_study(store, plan)
    assert read_table(store, "runs", study_id=plan.study_id).num_rows == 2

    monkeypatch.undo()
    run_split(job(store, plan))
    rows = {row["architecture"]: row for row in runs_table(store, plan).to_pylist()}
    assert rows["resnet18"]["status"] == "finished"
    assert rows["resnet18"]["error"] is None


def test_a_whole_study_concludes_with_tables_that_do_not_change(
    tmp_path: Path, source: Path
) -> None:
    store, plan = planned(tmp_path, source, epochs=1, val_fraction=0.2)
    assert unfinished_runs(store, plan) == [(0, "resnet18"), (1, "resnet18")]
    for split in (0, 1):
        run_split(job(store, plan, split, keep_models=False))
    conclude_study(store, plan)
    first = {key: store.read(key) for key in store.keys("tables")}
    conclude_study(store, plan)
    assert {key: store.read(key) for key in store.keys("tables")} == first
    assert read_table(store, "epochs", study_id=plan.study_id)["val_loss"].null_count == 0
    assert not store.keys(f"studies/{plan.study_id}/models")
    runs = read_table(store, "runs", study_id=plan.study_id).to_pylist()
    assert {row["model_sha256"] for row in runs} == {None}


@pytest.mark.filterwarnings("ignore::thyro_core.evaluation.metrics.UndefinedMetricWarning")
def test_a_study_with_masks_passes_its_own_verification(tmp_path: Path) -> None:
    """What real jobs leave, not what a test makes up, follows from maps, pixels and features."""
    source = write_masks(write_image_set(tmp_path / "set"))
    config = {"architectures": ("resnet18", "alexnet"), "epochs": 1, "trust_images": 2}
    store, plan = planned(tmp_path, source, **config, cam_share=0.6)
    for split in (0, 1):
        run_split(job(store, plan, split, keep_models=False))
    conclude_study(store, plan)
    checks = list(verify_study(store, plan.study_id))
    assert [check.detail for check in checks if not check.is_passed] == []
    trust = read_table(store, "cam_trust", study_id=plan.study_id)
    assert set(np.round(trust["nodule_area"].to_pylist(), 3)) == {0.25}
    energy = np.array(trust["nodule_energy"].to_pylist())
    whole = ~np.array(trust["is_empty"].to_pylist())
    assert ((energy[whole] >= 0) & (energy[whole] <= 1)).all()
    assert np.isnan(energy[~whole]).all()
    tests = read_table(store, "cam_tests", study_id=plan.study_id)
    assert tests.num_rows == 2 * len(SHARES) * len(FEATURES)
    families = read_table(store, "cam_families", study_id=plan.study_id)
    assert families.num_rows == 2 * len(SHARES) * len(set(FEATURES.values()))


def test_nothing_a_study_leaves_holds_a_patients_id(tmp_path: Path, source: Path) -> None:
    store, plan = planned(tmp_path, source, epochs=1)
    run_split(job(store, plan))
    for key in store.keys(""):
        assert b"patient-1" not in store.read(key), key
    predictions = read_table(store, "predictions", study_id=plan.study_id)
    assert all(name.startswith("p") for name in predictions["patient_id"].to_pylist())
