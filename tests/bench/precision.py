"""Whether bfloat16 tells benign from malignant as well as float32: AUC of the same splits in both.

    python tests/bench/precision.py [SOURCE] [--architecture resnet18] [--splits 4] [--epochs 4]
                                    [--side 112] [--images 200]

Trains each split of an image set (without SOURCE: phantoms) twice, from the same weights with the
same draws, in fp32 and in bf16 (autocast; predictions are always made in fp32). The difference of a
split's two AUCs stands beside what another seed alone does to its AUC in fp32: numbers this small
change a run as another shuffle would, and the question is whether bf16 does more than that.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from laps import header, row

from thyro_core.config import ARCHITECTURES, StudyConfig, job_seed
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.evaluation.metrics import metrics
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import JobResources, SplitJob
from thyro_core.study.lifecycle import ingest_for_study, prepare_study
from thyro_core.study.split import prepare_run, prepare_split
from thyro_core.training.inference import predict, recalibrate_batchnorm
from thyro_core.training.loop import train

WAYS = (("fp32", 0), ("bf16", 0), ("fp32", 1))
"""Precision and seed of the trainings of a split."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--images", type=int, default=200, help="phantoms to draw")
    return parser.parse_args()


def aucs(
    source: str, store: Store, precision: str, seed: int, options: argparse.Namespace
) -> list[float]:
    """AUC of each split's test part. The seed is of the training alone: the splits stay."""
    config = StudyConfig(
        architectures=(options.architecture,),
        splits=max(2, options.splits),
        epochs=options.epochs,
        image_size=options.side,
        learning_rate=5e-4,
    )
    scratch = Path(store.root, "scratch")
    manifest = ingest_for_study(source, config, store)
    mirror = os.environ.get("THYRO_WEIGHTS")
    plan = prepare_study(manifest, config, precision, store, scratch=scratch, mirror=mirror)
    values = []
    for split in range(options.splits):
        job = SplitJob(
            store.url,
            plan.study_id,
            split,
            str(scratch),
            resources=JobResources(os.cpu_count() or 1),
        )
        prepared_split = prepare_split(job)
        run_seed = job_seed(config.seed, split, options.architecture) + seed
        prepared = prepare_run(prepared_split, options.architecture, run_seed)
        train_set, test_set = prepared.examples["train"], prepared.examples["test"]
        model, device = prepared.run.model, prepared_split.device
        train(prepared.run, train_set, None, prepared.recipe, lambda _: None, lambda *_: None)
        recalibrate_batchnorm(model, train_set, device)
        logits = predict(model, test_set, device).double()
        probability = logits.softmax(dim=1)[:, 1].numpy()
        values.append(metrics(test_set.labels.numpy(), probability, 0.5)["auc"])
    return values


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or f"{folder}/phantoms"
        if not options.source:
            malignant = options.images * 2 // 5
            write_phantoms(source, images=options.images, malignant=malignant)
        store = open_store(f"{folder}/store")
        fp32, bf16, other = (np.array(aucs(source, store, *way, options)) for way in WAYS)
    what = f"{options.architecture} {options.side}, {options.epochs} epochs"
    print(header(what, "AUC, mean", "difference from fp32, mean", "sd", "largest"))
    for name, values in (("fp32", fp32), ("bf16", bf16), ("fp32, another seed", other)):
        apart = values - fp32
        figures = (values.mean(), apart.mean(), apart.std(ddof=1), np.abs(apart).max())
        print(row(name, *(f"{figure:.4f}" for figure in figures)))


if __name__ == "__main__":
    main()
