"""Batch-norm statistics after a short training: running averages against recalibrated ones.

    python tests/bench/batchnorm.py [SOURCE] [--splits 3] [--epochs 5] [--side 224]

Trains ResNet18 on some splits of an image set (without SOURCE: phantoms) and evaluates each network
twice, with the running averages that training left behind and with statistics measured on the
training part. The ranking (AUC) hardly moves; recall and precision at a threshold do.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from thyro_core.config import StudyConfig, job_seed
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.evaluation.metrics import metrics
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, SplitJob
from thyro_core.study.lifecycle import ingest_for_study, prepare_study
from thyro_core.study.split import PreparedSplit, prepare_run, prepare_split
from thyro_core.training.inference import predict, recalibrate_batchnorm
from thyro_core.training.loop import train

SHOWN = ("auc", "recall", "precision", "accuracy", "brier")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--side", type=int, default=224)
    return parser.parse_args()


def evaluate(split: PreparedSplit) -> dict[str, dict[str, float]]:
    """Metrics of one split with either statistics."""
    seed = job_seed(split.plan.config.seed, split.job.split, "resnet18")
    prepared = prepare_run(split, "resnet18", seed)
    train_set, test_set = prepared.examples["train"], prepared.examples["test"]
    model = prepared.run.model
    train(prepared.run, train_set, None, prepared.recipe, lambda _: None, lambda *_: None)
    label = test_set.labels.numpy()
    results = {}
    for statistics in ("running", "recalibrated"):
        if statistics == "recalibrated":
            recalibrate_batchnorm(model, train_set, split.device)
        logits = predict(model, test_set, split.device).double()
        results[statistics] = metrics(label, logits.softmax(dim=1)[:, 1].numpy(), 0.5)
    return results


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or f"{folder}/phantoms"
        if not options.source:
            write_phantoms(source)
        store = open_store(f"{folder}/store")
        config = StudyConfig(
            architectures=("resnet18",),
            splits=max(2, options.splits),
            epochs=options.epochs,
            image_size=options.side,
        )
        manifest = ingest_for_study(source, config, store)
        mirror = os.environ.get("THYRO_WEIGHTS")
        plan = prepare_study(manifest, config, "fp32", store, scratch=Path(folder), mirror=mirror)
        print(f"{'split':<6} {'statistics':<13}" + "".join(f"{name:>11}" for name in SHOWN))
        rows: dict[str, list[list[float]]] = {"running": [], "recalibrated": []}
        for split in range(options.splits):
            job = SplitJob(
                store.url, plan.study_id, split, folder, resources=JobResources(os.cpu_count() or 1)
            )
            for statistics, values in evaluate(prepare_split(job)).items():
                rows[statistics].append([values[name] for name in SHOWN])
                show(str(split), statistics, rows[statistics][-1])
        for statistics, values in rows.items():
            show("mean", statistics, np.mean(values, axis=0).tolist())
            show("sd", statistics, np.std(values, axis=0, ddof=1).tolist())


def show(split: str, statistics: str, values: list[float]) -> None:
    print(
        f"{split:<6} {statistics:<13}" + "".join(f"{value:>11.3f}" for value in values), flush=True
    )


if __name__ == "__main__":
    main()
