"""One split job, step by step: prepare, train, test, explain, record, write.

The architectures of a split follow one another. Of each, the `predictions` part is written last
and only whole: where it exists, the architecture is finished. A job that starts again skips
finished architectures and continues the others from their checkpoints. The same job gives the same
bytes however often it was interrupted.

Several workers may run one job together: each runs `run_split`, they train one network together,
and only the first of them writes. The others do not wait for its tables: they go on to the next
architecture.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save
from torch import Tensor

from thyro_core.config import Architecture, job_seed
from thyro_core.datasets.split_images import SplitImages, open_split_images
from thyro_core.errors import Failure, StoreError, ThyroError, WorkerFailedError
from thyro_core.evaluation.delong import auc_influences
from thyro_core.explain.analysis import TrainedNetwork, explanation_tables
from thyro_core.explain.gradcam import predict_with_cams
from thyro_core.logs import log_context
from thyro_core.store.keys import model_key
from thyro_core.store.store import Store, open_store
from thyro_core.study import records
from thyro_core.study.job import SplitJob, SplitOutcome, hive_keys, is_finished
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.study.progress import JobReporter, slowest_first
from thyro_core.tables.io import write_table
from thyro_core.tables.schemas import rows_to_table
from thyro_core.training.batches import Examples
from thyro_core.training.checkpoint import RunCheckpoint
from thyro_core.training.device import (
    device_name,
    job_device,
    peak_memory,
    prepare_torch,
    release_freed_memory,
)
from thyro_core.training.distributed import PeerLostError, WorkerGroup, current_group
from thyro_core.training.inference import predict, recalibrate_batchnorm
from thyro_core.training.loop import Recipe, Run, balanced_alpha, start_run, train
from thyro_core.training.models import (
    build,
    check_anatomy,
    load_starting_weights,
    rename_tensors,
)
from thyro_core.training.pretrained import load_weights
from thyro_core.training.timer import RunTimer

_LOG = logging.getLogger(__name__)
_RUN_FAILURES = (ThyroError, RuntimeError, ValueError, ArithmeticError, OSError, MemoryError)


@dataclass(frozen=True)
class PreparedSplit:
    """What all architectures of a split job share."""

    job: SplitJob
    store: Store
    plan: StudyPlan
    device: torch.device
    workers: WorkerGroup
    images: SplitImages


@dataclass(frozen=True)
class PreparedRun:
    """One architecture of a split before its first epoch."""

    architecture: Architecture
    recipe: Recipe
    run: Run
    examples: Mapping[str, Examples]
    """The images by role: train, val, test."""
    random_layers: tuple[str, ...]
    """Layers that the starting weights do not cover."""
    foreign_layers: tuple[str, ...]
    """Layers that the file of starting weights holds beyond the network."""


def run_split(job: SplitJob) -> SplitOutcome:
    """Train and test what is unfinished of a split, slowest architecture first.

    An architecture that fails is recorded, and the next one goes on; with several workers the job
    ends there, because the others wait for the one that failed.

    Raises:
        InputError: the study or its splits are not in the store.
        StoreError: the store failed through all retries; what is finished is kept.
        WorkerFailedError: an architecture failed in one of several workers.
        PeerLostError: another worker is gone.
    """
    split = prepare_split(job)
    reporter = JobReporter if split.workers.is_leader else _SilentReporter
    images = (split.images.roles["train"].num_rows, split.images.roles["test"].num_rows)
    report = reporter(split.store, split.plan, job.split, images)
    trained_names: list[str] = []
    failures: dict[str, Failure] = {}
    for architecture in slowest_first(split.plan.config.architectures):
        if architecture in job.skip:
            continue
        if not is_finished(split.store, job.study_id, job.split, architecture):
            failure = _run_or_record_failure(split, architecture, report)
            release_freed_memory()
            if failure is not None:
                failures[architecture] = failure
                continue
            trained_names.append(architecture)
        report.add_finished(architecture, earlier=architecture not in trained_names)
    report.end("failed" if failures or job.skip else "finished")
    return SplitOutcome(job.split, tuple(trained_names), failures)


class _SilentReporter(JobReporter):
    """The reporter of a worker that is not the first, which reports for all."""

    def _write(self, *_: Any) -> None:  # noqa: ANN401
        pass


def prepare_split(job: SplitJob) -> PreparedSplit:
    """Set torch up for a job and open its study.

    Raises:
        InputError: the study or its splits are not in the store.
    """
    store = open_store(job.store)
    plan = load_plan(store, job.study_id)
    prepare_torch(job.resources.cpus, deterministic=plan.config.deterministic)
    images = open_split_images(
        store, plan.study_id, job.split, plan.manifest_id,
        view=plan.config, scratch=Path(job.scratch),
    )  # fmt: skip
    return PreparedSplit(job, store, plan, job_device(job.resources.gpus), current_group(), images)


def prepare_run(split: PreparedSplit, architecture: Architecture, seed: int) -> PreparedRun:
    """An architecture's images, recipe and network with its starting weights.

    Args:
        split: the split to train on.
        architecture: the network.
        seed: of the network's random layers and of all draws of the training.

    Raises:
        InputError: a pack or the starting weights are absent or damaged.
    """
    config = split.plan.config
    side = config.side(architecture)
    examples = split.images.examples(side, split.device)
    alpha = config.focal_alpha
    recipe = Recipe(
        config=config,
        seed=seed,
        alpha=balanced_alpha(examples["train"].labels) if alpha is None else alpha,
        precision=split.plan.precision,
        device=split.device,
        workers=split.workers,
    )
    model = build(architecture, side, seed)
    start = split.plan.weights[architecture]
    tensors = load_weights(start, split.store, Path(split.job.scratch))
    random_layers: tuple[str, ...] = ()
    foreign_layers: tuple[str, ...] = ()
    if tensors is not None:
        if config.prefix_rules:
            tensors, foreign_layers = rename_tensors(
                model, tensors, config.prefix_rules, start.origin
            )
        random_layers = load_starting_weights(model, tensors, architecture, start.origin)
    check_anatomy(model, architecture, side)
    run = start_run(model, recipe)
    return PreparedRun(architecture, recipe, run, examples, random_layers, foreign_layers)


def _run_or_record_failure(
    split: PreparedSplit, architecture: Architecture, report: JobReporter
) -> Failure | None:
    """Run one architecture; returns what stopped it, or None."""
    job, workers = split.job, split.workers
    timer = RunTimer(job.resources.gpus * job.resources.workers)
    for cost in records.earlier_costs(split.store, job.study_id, job.split, architecture):
        timer.add_earlier(cost)
    with log_context(study=job.study_id, split=job.split, architecture=architecture):
        try:
            _run_architecture(split, architecture, report, timer)
        except StoreError:
            # The next one would fail as well, and the failure could not be recorded.
            _LOG.exception("the store failed")
            raise
        except PeerLostError:
            raise
        except _RUN_FAILURES as error:
            _LOG.exception("failed")
            place = {"worker": f"{workers.rank} of {workers.size}"} if workers.size > 1 else {}
            failure = Failure.of(error, place)
            records.write_failed(
                split.store, split.plan, job.split, architecture, failure=failure, timer=timer
            )
            if workers.size > 1:
                raise WorkerFailedError(architecture, failure) from error
            return failure
        _LOG.info("finished after %.0f s", timer.cost().seconds)
    return None


def _run_architecture(
    split: PreparedSplit, architecture: Architecture, report: JobReporter, timer: RunTimer
) -> None:
    """Prepare, train, test, explain, record and write one architecture."""
    job, store, config = split.job, split.store, split.plan.config
    prepared_run = prepare_run(split, architecture, job_seed(config.seed, job.split, architecture))
    run = prepared_run.run
    checkpoint = RunCheckpoint(store, job.study_id, job.split, architecture, timer)
    checkpoint.restore(run, split.device)
    resumed_epochs = len(run.history)
    report.add_resumed(architecture, resumed_epochs)
    _LOG.info("training from epoch %d on %s", resumed_epochs + 1, split.device)

    def report_batch(images: int, seconds: float) -> None:
        report.position(architecture, len(run.history), images, seconds, timer.cost())

    _train_network(split, prepared_run, checkpoint, report_batch)
    if not split.workers.is_leader:
        return
    train_auc = _training_auc(split, prepared_run)
    tables = _test_and_explain(split, prepared_run)
    facts = records.RunFacts(
        split=job.split,
        architecture=architecture,
        seed=prepared_run.recipe.seed,
        device=device_name(split.device),
        precision=prepared_run.recipe.precision,
        side=config.side(architecture),
        focal_alpha=prepared_run.recipe.alpha,
        threads=job.resources.cpus,
        n_train=len(prepared_run.examples["train"]),
        n_test=len(prepared_run.examples["test"]),
        train_auc=train_auc,
        weights_missing=", ".join(prepared_run.random_layers) or None,
        weights_ignored=", ".join(prepared_run.foreign_layers) or None,
        model_sha256=_save_model(split, prepared_run) if job.keep_models else None,
        started=timer.started.isoformat(),
        peak_memory=peak_memory(),
        resumed_epochs=resumed_epochs,
        spent=timer.cost(),
    )
    records.write_finished(store, split.plan, facts)
    for name, table in tables.items():
        write_table(store, name, table, **hive_keys(job.study_id, job.split, architecture))
    checkpoint.delete()


def _train_network(
    split: PreparedSplit,
    prepared_run: PreparedRun,
    checkpoint: RunCheckpoint,
    report_batch: Callable[[int, float], None],
) -> None:
    """Train to the last epoch; the worker that writes also readies the network for its test."""
    train_set, val_set = prepared_run.examples["train"], prepared_run.examples["val"]

    def keep_checkpoint(run: Run) -> None:
        if split.workers.is_leader:
            checkpoint.save(run, split.job.checkpoint_seconds)

    train(
        prepared_run.run,
        train_set,
        val_set if len(val_set) else None,
        prepared_run.recipe,
        after_epoch=keep_checkpoint,
        after_batch=report_batch,
    )
    if not split.workers.is_leader:
        return
    prepared_run.run.release()
    release_freed_memory()
    if prepared_run.recipe.config.batchnorm == "recalibrate":
        recalibrate_batchnorm(prepared_run.run.model, train_set, split.device)
        release_freed_memory()


def _training_auc(split: PreparedSplit, prepared_run: PreparedRun) -> float | None:
    """AUC of the final network on its training images, without augmentation; None: undefined."""
    examples = prepared_run.examples["train"]
    logits = predict(prepared_run.run.model, examples, split.device).double()
    release_freed_memory()
    score = torch.softmax(logits, dim=1)[:, 1].numpy()
    labels = examples.labels.cpu().numpy()
    return float(auc_influences(labels, score)[0]) if len(set(labels.tolist())) == 2 else None


def _test_and_explain(split: PreparedSplit, prepared_run: PreparedRun) -> dict[str, pa.Table]:
    """The tables of one run in the order of writing: predictions last."""
    run, architecture = prepared_run.run, prepared_run.architecture
    test, test_rows = prepared_run.examples["test"], split.images.roles["test"]
    logits, maps = predict_with_cams(run.model, architecture, test, split.device)
    release_freed_memory()
    image_ids = test_rows["image_id"].to_pylist()
    masks = split.images.nodule_masks(image_ids)
    groups = test_rows["group_id"].to_pylist()
    network = TrainedNetwork(
        run.model,
        architecture,
        split.device,
        test,
        image_ids,
        masks,
        groups,
        split.images.height_to_width(image_ids),
    )
    keys = hive_keys(split.job.study_id, split.job.split, architecture)
    config, seed = prepared_run.recipe.config, prepared_run.recipe.seed
    return {
        "epochs": rows_to_table("epochs", [keys | asdict(epoch) for epoch in run.history]),
        **explanation_tables(keys, network, maps, config, seed=seed),
        "predictions": _predictions_table(keys, test_rows, logits),
    }


def _save_model(split: PreparedSplit, prepared_run: PreparedRun) -> str:
    """Keep the trained weights; returns their SHA-256."""
    tensors = prepared_run.run.model.state_dict()
    data = save({name: value.cpu().contiguous() for name, value in tensors.items()})
    key = model_key(split.plan.study_id, split.job.split, prepared_run.architecture)
    split.store.write(key, data)
    return hashlib.sha256(data).hexdigest()


def _predictions_table(
    keys: Mapping[str, str | int], test_rows: pa.Table, logits: Tensor
) -> pa.Table:
    probabilities = torch.softmax(logits.double(), dim=1)[:, 1].tolist()
    rows = [
        {
            **keys,
            "image_id": row["image_id"],
            "patient_id": row["patient_id"],
            "label": row["label"],
            "logit_benign": benign,
            "logit_malignant": malignant,
            "prob_malignant": probability,
        }
        for row, (benign, malignant), probability in zip(
            test_rows.to_pylist(), logits.tolist(), probabilities, strict=True
        )
    ]
    return rows_to_table("predictions", rows)
