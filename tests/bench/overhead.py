"""What a split job costs beyond its training, with ten jobs on this machine.

    python tests/bench/overhead.py [--splits 10] [--epochs 2] [--side 64] [--laps 3]

A study of small networks (ResNet18): its jobs are submitted at once to an embedded Ray, as the flow
does it, and waited for. All the time that the machine's slots were there for them, less the epochs'
own seconds, is the overhead: submitting, starting worker processes, imports, reading the pack and
the weights, statistics of batch norm, predictions, Grad-CAM and its checks, writing every table.
Ray itself is started before, and its seconds are told apart.
"""

import argparse
import tempfile
import time
from pathlib import Path

from laps import header, row, spread

from thyro_core.cluster.resources import ResourceRequest, job_resources
from thyro_core.cluster.session import session
from thyro_core.config import StudyConfig
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import RestartPolicy, SplitJob
from thyro_core.study.lifecycle import ingest_for_study, prepare_study
from thyro_core.tables.io import read_table

PATIENCE = 60.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--laps", type=int, default=3)
    return parser.parse_args()


def lap(source: str, store: Store, options: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of Ray's start, of the jobs, and of an overhead for each job."""
    config = StudyConfig(
        architectures=("resnet18",),
        splits=options.splits,
        epochs=options.epochs,
        image_size=options.side,
        weights="none",
    )
    scratch = Path(store.root, "scratch")
    manifest = ingest_for_study(source, config, store)
    started = time.perf_counter()
    with session("local") as capacity:
        from thyro_core.cluster import trainer

        up = time.perf_counter() - started
        request = ResourceRequest(config.precision, 1, None, 1, config.splits, 0, 0, PATIENCE)
        resources = job_resources(capacity, request)
        precision = trainer.job_precision(config.precision, resources, PATIENCE)
        plan = prepare_study(manifest, config, precision, store, scratch=scratch)
        jobs = [
            SplitJob(store.url, plan.study_id, split, str(scratch), resources=resources)
            for split in range(config.splits)
        ]
        started = time.perf_counter()
        runs = [trainer.submit(job, RestartPolicy(0, PATIENCE), None) for job in jobs]
        for run in runs:
            while (outcome := run.outcome()) is None:
                pass
            assert not outcome.failed, outcome
        seconds = time.perf_counter() - started
        slots = min(len(jobs), int(capacity.cpus / resources.cpus))
    training = sum(read_table(store, "epochs", study_id=plan.study_id)["seconds"].to_pylist())
    return up, seconds, (seconds * slots - training) / len(jobs)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/phantoms"
        write_phantoms(source, images=options.images, malignant=options.images // 3)
        laps = [
            lap(source, open_store(f"{folder}/store-{number}"), options)
            for number in range(options.laps)
        ]
    up, seconds, overhead = zip(*laps, strict=True)
    what = f"{options.splits} jobs, {options.epochs} epochs at {options.side}"
    print(header(what, "start of Ray s", "all jobs s", "overhead a job s"))
    print(row("split jobs", spread(up), spread(seconds), spread(overhead, 2)))


if __name__ == "__main__":
    main()
