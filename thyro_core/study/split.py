"""One split job: train each architecture in turn and write what it predicts.

Each architecture's `predictions` part is written last and only whole: it is there, so the
architecture is done. A job that starts again skips what is done and goes on from the checkpoint of
what is not. The same job gives the same bytes however often it was interrupted.

Several workers may run one job together: each runs `run_split`, they train as a team, and the first
of them alone writes. The others do not wait for its tables: they go on to the next architecture.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import save
from torch import Tensor

from thyro_core.config import Architecture, job_seed
from thyro_core.datasets.masks import mask_of, open_masks
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import StoreError, ThyroError, WorkerFailedError
from thyro_core.explain.analysis import Examined, analysis_tables
from thyro_core.explain.gradcam import predict_with_cams
from thyro_core.explain.maps import cams_table
from thyro_core.logs import log_context
from thyro_core.store.keys import model_key
from thyro_core.store.store import Store, open_store
from thyro_core.study import records
from thyro_core.study.job import SplitJob, SplitOutcome, hive_keys, is_finished
from thyro_core.study.plan import StudyPlan, load_plan
from thyro_core.study.progress import JobReporter, read_job_progress, slowest_first
from thyro_core.study.runs import read_record
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.training.batches import Examples
from thyro_core.training.checkpoint import CheckpointKeeper
from thyro_core.training.device import give_back_freed_memory, job_device, prepare_torch
from thyro_core.training.distributed import PeerLostError, Team, current_team
from thyro_core.training.inference import recalibrate_batchnorm
from thyro_core.training.loop import Recipe, Run, balanced_alpha, start_run, train
from thyro_core.training.models import LAST_CONV, build, load_start
from thyro_core.training.pretrained import load
from thyro_core.training.timer import Meter, Spent

_LOG = logging.getLogger(__name__)
_FAILURES = (ThyroError, RuntimeError, ValueError, ArithmeticError, OSError, MemoryError)


@dataclass(frozen=True)
class _Context:
    """What all architectures of a job share."""

    job: SplitJob
    store: Store
    plan: StudyPlan
    device: torch.device
    team: Team
    roles: Mapping[str, pa.Table]
    """Rows of `splits` by role, each by ascending image_id."""
    index: Mapping[str, int]
    """Row of each image in the pack."""
    masks: npt.NDArray[np.uint8] | None
    """Nodule masks, rows as in the pack; None: the set has none."""


def run_split(job: SplitJob) -> SplitOutcome:
    """Train what is not yet trained of a split, slowest architecture first.

    An architecture that fails is recorded, and the next one goes on; with several workers the job
    ends there, because the others wait for the one that failed.

    Raises:
        InputError: the study or its splits are not in the store.
        StoreError: the store failed for all our patience; what is finished is kept.
        WorkerFailedError: an architecture failed in one of several workers.
        PeerLostError: another worker is gone.
    """
    context = _prepare(job)
    todo = slowest_first(context.plan.config.architectures)
    reporter = JobReporter if context.team.leads else _SilentReporter
    report = reporter(context.store, context.plan, job.split, context.roles["train"].num_rows)
    trained: list[str] = []
    failed: dict[str, str] = {}
    for architecture in todo:
        if architecture in job.skip:
            continue
        if not is_finished(context.store, job.study_id, job.split, architecture):
            error = _attempt(context, architecture, report)
            give_back_freed_memory()
            if error is not None:
                failed[architecture] = error
                continue
            trained.append(architecture)
        report.finished(architecture, earlier=architecture not in trained)
    report.end("failed" if failed or job.skip else "finished")
    return SplitOutcome(job.split, tuple(trained), failed)


class _SilentReporter(JobReporter):
    """The reporter of a worker that is not the first: what it has to say is said already."""

    def _write(self, *_: Any) -> None:  # noqa: ANN401
        pass


def _attempt(context: _Context, architecture: Architecture, report: JobReporter) -> str | None:
    """Run one architecture; what stopped it, or None."""
    job = context.job
    meter = Meter(job.resources.gpus * job.resources.workers)
    for earlier in _spent_before(context, architecture):
        meter.carry(earlier)
    with log_context(study=job.study_id, split=job.split, architecture=architecture):
        try:
            _run_architecture(context, architecture, report, meter)
        except StoreError:
            # The next one would fail as well, and the failure could not be recorded.
            _LOG.exception("the store failed")
            raise
        except PeerLostError:
            raise
        except _FAILURES as error:
            _LOG.exception("failed")
            said = _said(error, context.team)
            records.write_failed(context.store, context.plan, job.split, architecture, said, meter)
            if context.team.size > 1:
                raise WorkerFailedError(architecture, said) from error
            return said
        _LOG.info("finished after %.0f s", meter.spent().seconds)
    return None


def _said(error: BaseException, team: Team) -> str:
    said = f"{type(error).__name__}: {error}"
    return f"worker {team.rank} of {team.size}: {said}" if team.size > 1 else said


def _spent_before(context: _Context, architecture: Architecture) -> Iterator[Spent]:
    """What earlier attempts at a run say they took, but for its checkpoint."""
    store, job = context.store, context.job
    progress = read_job_progress(store, job.study_id, job.split)
    if progress is not None and progress.architecture == architecture:
        yield Spent(progress.seconds, progress.gpu_seconds)
    record = read_record(store, job.study_id, job.split, architecture)
    if record is not None and record["status"] == "failed":
        # Records of failures once left them out.
        yield Spent(record["seconds"] or 0.0, record["gpu_seconds"] or 0.0)


def _prepare(job: SplitJob) -> _Context:
    store = open_store(job.store)
    plan = load_plan(store, job.study_id)
    prepare_torch(job.resources.cpus, deterministic=plan.config.deterministic)
    splits = read_table(store, "splits", study_id=job.study_id)
    rows = splits.filter(pc.equal(splits["split"], job.split)).sort_by("image_id")
    roles = {role: rows.filter(pc.equal(rows["role"], role)) for role in ("train", "val", "test")}
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    index = pack_index(images)
    masks = open_masks(store, plan.manifest_id, Path(job.scratch), len(index))
    device = job_device(job.resources.gpus)
    return _Context(job, store, plan, device, current_team(), roles, index, masks)


def _run_architecture(
    context: _Context, architecture: Architecture, report: JobReporter, meter: Meter
) -> None:
    """Train one architecture to its end and publish what came of it, predictions last."""
    job = context.job
    parts = _examples(context, architecture)
    recipe = _recipe(context, architecture, parts["train"].labels)
    run, missing = _start(context, architecture, recipe)
    keeper = CheckpointKeeper(context.store, job.study_id, job.split, architecture, meter)
    keeper.resume(run, context.device)
    resumed = len(run.history)
    report.resumed(architecture, resumed)
    _LOG.info("training from epoch %d on %s", resumed + 1, context.device)

    def keep(state: Run) -> None:
        if context.team.leads:
            keeper.keep(state, job.checkpoint_seconds)

    train(
        run,
        parts["train"],
        parts["val"] if len(parts["val"]) else None,
        recipe,
        after_epoch=keep,
        after_batch=lambda done, seconds: report.position(
            architecture, len(run.history), done, seconds, meter.spent()
        ),
    )
    if not context.team.leads:
        return
    run.release()
    give_back_freed_memory()
    if recipe.config.batchnorm == "recalibrate":
        recalibrate_batchnorm(run.model, parts["train"], context.device)
    keys = hive_keys(job.study_id, job.split, architecture)
    tables = {"epochs": _epochs(run, keys)} | _test_tables(
        context, run, architecture, parts["test"]
    )
    facts = records.RunFacts(
        split=job.split,
        architecture=architecture,
        threads=job.resources.cpus,
        n_train=len(parts["train"]),
        n_test=len(parts["test"]),
        weights_missing=missing,
        model_sha256=_keep_model(context, architecture, run) if job.keep_models else None,
        started=meter.started,
        spent=meter.spent(),
        resumed_epochs=resumed,
    )
    records.write_finished(context.store, context.plan, recipe, facts)
    for name, table in tables.items():
        write_table(context.store, name, table, **keys)
    keeper.discard()


def _test_tables(
    context: _Context, run: Run, architecture: Architecture, test: Examples
) -> dict[str, pa.Table]:
    """The tables that speak of the test images, in the order of writing: predictions last."""
    rows, config = context.roles["test"], context.plan.config
    keys = hive_keys(context.job.study_id, context.job.split, architecture)
    give_back_freed_memory()
    logits, maps = predict_with_cams(run.model, architecture, test, context.device)
    give_back_freed_memory()
    image_ids = rows["image_id"].to_pylist()
    cams = cams_table(keys, image_ids, LAST_CONV[architecture], maps)
    masks = [mask_of(context.masks, context.index[image_id]) for image_id in image_ids]
    examined = Examined(run.model, architecture, context.device, test, image_ids, masks)
    seed = job_seed(config.seed, context.job.split, architecture)
    return {
        "cams": cams,
        **analysis_tables(keys, examined, cams, config, seed),
        "predictions": _predictions(rows, logits, keys),
    }


def _examples(context: _Context, architecture: Architecture) -> dict[str, Examples]:
    side = context.plan.config.side(architecture)
    n = len(context.index)
    scratch = Path(context.job.scratch)
    pixels: npt.NDArray[np.uint8] | Tensor
    pixels = open_pack(context.store, context.plan.manifest_id, side, scratch, n)
    if context.device.type == "cuda":
        pixels = torch.from_numpy(np.array(pixels)).to(context.device)
    parts = {}
    for role, rows in context.roles.items():
        positions = [context.index[image_id] for image_id in rows["image_id"].to_pylist()]
        labels = torch.from_numpy(rows["label"].to_numpy().astype(np.int64))
        parts[role] = Examples(
            pixels, np.array(positions, dtype=np.int64), labels.to(context.device)
        )
    return parts


def _recipe(context: _Context, architecture: Architecture, labels: Tensor) -> Recipe:
    config = context.plan.config
    alpha = config.focal_alpha
    return Recipe(
        config=config,
        seed=job_seed(config.seed, context.job.split, architecture),
        alpha=balanced_alpha(labels) if alpha is None else alpha,
        precision=context.plan.precision,
        device=context.device,
        team=context.team,
    )


def _start(
    context: _Context, architecture: Architecture, recipe: Recipe
) -> tuple[Run, tuple[str, ...]]:
    model = build(architecture, context.plan.config.side(architecture), recipe.seed)
    start = context.plan.weights[architecture]
    tensors = load(start, context.store, Path(context.job.scratch))
    missing = () if tensors is None else load_start(model, tensors, architecture, start.origin)
    return start_run(model, recipe), missing


def _keep_model(context: _Context, architecture: Architecture, run: Run) -> str:
    state = {name: value.cpu().contiguous() for name, value in run.model.state_dict().items()}
    data = save(state)
    key = model_key(context.plan.study_id, context.job.split, architecture)
    context.store.write(key, data)
    return hashlib.sha256(data).hexdigest()


def _epochs(run: Run, keys: Mapping[str, str | int]) -> pa.Table:
    return schemas.rows_to_table("epochs", [{**keys, **asdict(epoch)} for epoch in run.history])


def _predictions(test: pa.Table, logits: Tensor, keys: Mapping[str, str | int]) -> pa.Table:
    probability = torch.softmax(logits.double(), dim=1)[:, 1].tolist()
    rows = [
        {
            **keys,
            "image_id": row["image_id"],
            "patient_id": row["patient_id"],
            "label": row["label"],
            "logit_benign": benign,
            "logit_malignant": malignant,
            "prob_malignant": prob,
        }
        for row, (benign, malignant), prob in zip(
            test.to_pylist(), logits.tolist(), probability, strict=True
        )
    ]
    return schemas.rows_to_table("predictions", rows)
