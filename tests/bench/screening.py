"""Nights of phantoms from S3 through the real path, against the bare forward loop.

    python tests/bench/screening.py [--images 2000] [--distinct 500] [--side 224] [--members 1]
                                    [--laps 3]

A small study is trained and promoted; its first so many members are the model. The batch and the
store are in a bucket of an S3 server that is started here. So many distinct phantoms are drawn; the
other files are their copies with four other pixels in a corner: the same picture again would not be
scored again. The real path lists, reads, decodes, judges and scores, makes maps of the
referred, and writes its tables; `whole` counts from its start to its last block, `steady` from its
first block on. The bare loop is the network alone on a batch in memory, on all cores. Lines with
the memory of the program and of its workers go to the standard error.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from laps import header, ratios, row, spread
from PIL import Image

from thyro_core.cluster.screening import pools, run_blocks
from thyro_core.cluster.session import session
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.registry.bundle import load_bundle
from thyro_core.registry.card import card_bytes, parse_card
from thyro_core.registry.champion import champion
from thyro_core.registry.ensemble import load_members
from thyro_core.registry.promote import PromotionConfig, promote
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.night import Means, conclude_night, make_job, plan_night
from thyro_core.screening.reader import read_screening_images
from thyro_core.screening.rules import Counts
from thyro_core.store.keys import card_key
from thyro_core.store.store import Store, open_store
from thyro_core.training.batches import normalise
from thyro_core.training.device import job_device

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.support.s3server import BUCKET, running_server

_TOGETHER = 32
_BATCHES = 8
_NIGHT = 8 * 3600


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=500)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--members", type=int, choices=(1, 2), default=1)
    parser.add_argument("--laps", type=int, default=3)
    return parser.parse_args()


def promoted(store: Store, folder: Path, options: argparse.Namespace) -> str:
    """Id of a model that is made for this, with so many members."""
    write_phantoms(str(folder / "train"), images=40, malignant=16)
    command = [str(Path(sys.executable).with_name("thyro")), "study", str(folder / "train")]
    command += ["--store", store.url, "--json", "--set=architectures=resnet18"]
    command += ["--set=splits=2", "--set=epochs=1", "--set=weights=none"]
    command += [f"--set=image_size={options.side}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    study = json.loads(said.splitlines()[-1])["study_id"]
    promote(store, PromotionConfig(study_id=study, force=True, reason="benchmark"), folder)
    model_id = champion(store)
    key = card_key(model_id)
    card = parse_card(store.read(key), model_id)
    members = card.members[: options.members]
    store.write(key, card_bytes(card.model_copy(update={"members": members})))
    return model_id


def only_images(batch: Path) -> list[Path]:
    """The images that labels.csv names; the masks beside them are removed."""
    with (batch / "labels.csv").open(newline="") as file:
        images = {batch / row["image"] for row in csv.DictReader(file)}
    for path in batch.rglob("*.png"):
        if path not in images:
            path.unlink()
    return sorted(images)


def write_batch(batch: Path, images: int, distinct: int) -> list[Path]:
    """So many files, and so many pictures."""
    distinct = min(images, distinct)
    write_phantoms(str(batch), images=distinct, malignant=distinct // 5)
    drawn = only_images(batch)
    pictures = [np.array(Image.open(path)) for path in drawn]
    copies = [batch / f"copy-{number}.png" for number in range(distinct, images)]
    for number, path in enumerate(copies):
        pixels = pictures[number % distinct].copy()
        corner = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        pixels[0, :4] = corner if pixels.ndim == 2 else corner[:, None]
        Image.fromarray(pixels).save(path)
    return [*drawn, *copies]


def resident(program: int) -> tuple[float, float]:
    """Resident memory of the program, and of all processes below it [MB]."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                facts = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(facts[1])
            sizes[int(entry.name)] = int(facts[21]) * 4096 / 1e6

    def below(pid: int) -> bool:
        while pid in parents and pid != program:
            pid = parents[pid]
        return pid == program

    own = sizes.get(program, 0.0)
    return own, sum(size for pid, size in sizes.items() if below(pid)) - own


def watch(program: int, counts: list, over: threading.Event, seen: list) -> None:
    """One line a second: time, files, memory."""
    started = time.monotonic()
    while not over.wait(1.0):
        own, workers = resident(program)
        seen.append((time.monotonic() - started, counts[-1][1].files, own, workers))
        if len(seen) % 10 == 1:
            said = "{:7.0f} s {:9d} files  driver {:6.0f} MB  workers {:7.0f} MB".format(*seen[-1])
            print(said, file=sys.stderr)


def bare_loop(store: Store, model_id: str, scratch: Path) -> float:
    """Images/s of the networks alone, on all cores or a GPU."""
    bundle = load_bundle(store, model_id)
    device = job_device(1.0)
    members = [m.to(device).eval() for m in load_members(bundle, store, scratch)]
    batch = normalise(torch.rand(_TOGETHER, 1, bundle.side, bundle.side, device=device))
    torch.set_num_threads(os.cpu_count() or 1)
    with torch.inference_mode():
        for lap in range(_BATCHES + 1):
            for member in members:
                found = member(batch)
            found.sum().item()  # a GPU has answered
            if not lap:
                started = time.perf_counter()
    return _BATCHES * _TOGETHER / (time.perf_counter() - started)


def decoding_alone(files: list[Path]) -> float:
    """Images/s of reading, decoding and judging on one core."""
    started = time.perf_counter()
    for file in files:
        list(read_screening_images(file.read_bytes(), ScreeningRules(), Pseudonymiser(None)))
    return len(files) / (time.perf_counter() - started)


class Night:
    """The real path, once: Ray, decoder processes, chunks, tables, worklist."""

    def __init__(self, store: Store, batch: str, scratch: Path, capacity) -> None:
        self.counts, self.seen, over = [(0.0, Counts())], [], threading.Event()
        rules = ScreeningRules(outlier_quantile=1.0)
        plan = plan_night(store, batch, "2026-11-25", None, rules)
        self.sizes = pools(capacity, 1, None)
        means = Means(scratch=scratch, gpus=self.sizes.scorer_gpus)
        watcher = threading.Thread(target=watch, args=(os.getpid(), self.counts, over, self.seen))
        watcher.start()
        started = time.monotonic()

        def progress(counts: Counts) -> None:
            self.counts.append((time.monotonic() - started, counts))

        try:
            self.total = run_blocks(
                lambda: make_job(store, batch, plan, means), self.sizes, 0, progress
            )
        finally:
            over.set()
            watcher.join()
        self.seconds = time.monotonic() - started
        self.totals = conclude_night(store, plan, self.total, self.seconds).totals

    @property
    def whole(self) -> float:
        """Images/s from the start to the last block."""
        return self.total.files / self.seconds

    @property
    def steady(self) -> float:
        """Images/s from the first block to the last."""
        (first, begun), (last, ended) = self.counts[1], self.counts[-1]
        return (ended.files - begun.files) / (last - first) if last > first else self.whole


def project(rate: float, decoding: float) -> None:
    """What more GPUs would do, and what that takes for granted."""
    print("\nProjection. Taken for granted: each GPU scores as fast as the bare loop on the device")
    print("measured here; nothing but decoding (on CPU cores, at the rate measured here) keeps up")
    print("with it; the store serves the images; a night has 8 hours. Not measured: all of that.\n")
    print(header("GPUs", "images/s", "images a night", "cores to decode", "minutes for a million"))
    for gpus in (1, 8, 64):
        images = gpus * rate
        print(
            row(
                gpus, f"{images:.0f}", f"{images * _NIGHT:,.0f}", f"{images / decoding:.1f}",
                f"{1e6 / images / 60:.1f}",
            )
        )  # fmt: skip


def nights(folder: Path, options: argparse.Namespace) -> tuple[list[float], list[Night], float]:
    """The bare loop and the real path in turn; images/s of decoding alone."""
    bucket = f"s3://{BUCKET}"
    files = write_batch(folder / "batch", options.images, options.distinct)
    source = open_store(f"{bucket}/batch")
    for file in files:
        source.write(str(file.relative_to(folder / "batch")), file.read_bytes())
    store = open_store(f"{bucket}/store")
    model_id = promoted(store, folder, options)
    bare, real = [], []
    with session("local") as capacity:
        for lap in range(options.laps):
            again = open_store(f"{bucket}/lap-{lap}")  # where nothing has been screened
            for key in store.keys("registry"):
                again.write(key, store.read(key))
            bare.append(bare_loop(again, model_id, folder / "scratch"))
            real.append(Night(again, source.url, folder / "scratch", capacity))
    return bare, real, decoding_alone(files[:256])


def main() -> None:
    """Measure and print."""
    options = arguments()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with running_server(folder / "s3") as server:
            os.environ |= server.environment()
            bare, real, decoding = nights(folder, options)
    whole, steady = [night.whole for night in real], [night.steady for night in real]
    print(
        f"{options.images} files, {options.side} px, {options.members} member(s); {real[0].sizes}"
    )
    referred = real[0].totals.refer / real[0].totals.received
    print(f"of the images {referred:.0%} were referred and got maps\n")
    print(header("path", "images/s", "of the bare loop"))
    print(row("bare loop", spread(bare), "1"))
    print(row("whole", spread(whole), spread(ratios(whole, bare), 2)))
    print(row("steady", spread(steady), spread(ratios(steady, bare), 2)))
    print(f"\ndecoding and judging alone: {decoding:.0f} images/s on one core")
    for who, column in (("driver", 2), ("workers", 3)):
        most = [max((r[column] for r in night.seen), default=0.0) for night in real]
        print(f"most memory of the {who} in each lap: {', '.join(f'{m:.0f}' for m in most)} MB")
    project(statistics.median(bare), decoding)


if __name__ == "__main__":
    main()
