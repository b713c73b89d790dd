"""A night of phantoms through the real path, against the bare model loop: images/s and memory.

    python tests/bench/screening.py STORE [--images 20000] [--distinct 1000]

STORE holds a promoted model. So many distinct phantoms are drawn; the other files are their copies
with a few bytes behind the end of the picture, which make another hash and no other pixel. Prints a
line a second with the resident memory of the program and of all its workers, then the figures, and
what 1, 8 and 64 GPUs would do, with the assumptions.
"""

import argparse
import csv
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from thyro_core.bundles import load_bundle
from thyro_core.cluster.session import session
from thyro_core.images import resize
from thyro_core.phantoms import write_phantoms
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.registry import champion
from thyro_core.screening import Counts
from thyro_core.screening_config import ScreeningRules
from thyro_core.screening_images import read_screening_images
from thyro_core.screening_night import Means, conclude, make_job, plan_night
from thyro_core.storage import Store, open_store

_LOOP = 256
_NIGHT = 8 * 3600


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
    pictures = [path.read_bytes() for path in drawn]
    copies = [batch / f"copy-{number}.png" for number in range(distinct, images)]
    for number, path in enumerate(copies):
        path.write_bytes(pictures[number % distinct] + number.to_bytes(4, "big"))
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


def watch(program: int, counts: list[Counts], over: threading.Event, seen: list) -> None:
    """One line a second: time, files, memory."""
    started = time.monotonic()
    while not over.wait(1.0):
        own, workers = resident(program)
        seen.append((time.monotonic() - started, counts[-1].files, own, workers))
        if len(seen) % 10 == 1:
            print("{:7.0f} s {:9d} files  driver {:6.0f} MB  workers {:7.0f} MB".format(*seen[-1]))


def bare_loop(store: Store, model_id: str, files: list[Path], means: Means) -> tuple[float, float]:
    """Images/s of the ensemble alone, and of decoding and judging alone, in this process."""
    from thyro_core.screening_model import ScreeningModel

    model = ScreeningModel(store, model_id, means.scratch, threads=means.threads, gpus=means.gpus)
    rules, nobody = ScreeningRules(), Pseudonymiser(None)
    started = time.perf_counter()
    images = [
        image
        for file in files
        for image in read_screening_images(file.read_bytes(), "", rules, nobody)
    ]
    greys = [resize(image.grey, model.side) for image in images if image.grey is not None]
    decoding = time.perf_counter() - started
    pixels = np.stack(greys)
    model.score(pixels[:32])
    started = time.perf_counter()
    model.score(pixels)
    return len(greys) / (time.perf_counter() - started), len(files) / decoding


def night(store: Store, batch: Path, scratch: Path) -> tuple[Counts, float, list, int]:
    """The real path: Ray, decoder processes, chunks, tables, worklist."""
    import os

    from thyro_core.cluster.screening_actors import pools, run_blocks

    counts, seen, over = [Counts()], [], threading.Event()
    plan = plan_night(store, str(batch), "2026-11-25", None, ScreeningRules(outlier_quantile=1.0))
    watcher = threading.Thread(target=watch, args=(os.getpid(), counts, over, seen), daemon=True)
    with session("local") as capacity:
        sizes = pools(capacity, 1, None)
        print(f"{sizes}")
        means = Means(scratch=scratch, gpus=sizes.scorer_gpus)
        watcher.start()
        started = time.monotonic()
        total = run_blocks(
            lambda: make_job(store, str(batch), plan, means), sizes, 0, counts.append
        )
        streamed = time.monotonic() - started
    conclude(store, plan, total, streamed)
    over.set()
    watcher.join()
    print(f"conclude: {time.monotonic() - started - streamed:.1f} s")
    return total, streamed, seen, sizes.scorers


def project(rate: float, decoding: float) -> None:
    """What more GPUs would do, and what that takes for granted."""
    print("\nProjection. Taken for granted: each GPU scores as fast as the bare loop on the device")
    print("measured here; nothing but decoding (on CPU cores, at the rate measured here) keeps up")
    print("with it; the store serves the images; a night has 8 hours. Not measured: all of that.")
    for gpus in (1, 8, 64):
        images = gpus * rate
        print(
            f"  {gpus:3d} GPUs: {images:9.0f} images/s, {images * _NIGHT:13,.0f} a night, "
            f"{images / decoding:6.1f} cores to decode, a million in {1e6 / images / 60:7.1f} min"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, default=1000)
    options = parser.parse_args()
    store = open_store(options.store)
    model_id = champion(store)
    print(f"{load_bundle(store, model_id).architecture}, side {load_bundle(store, model_id).side}")
    with TemporaryDirectory() as folder:
        batch, scratch = Path(folder, "batch"), Path(folder, "scratch")
        files = write_batch(batch, options.images, options.distinct)
        total, seconds, seen, scorers = night(store, batch, scratch)
        from thyro_core.hardware import job_device

        gpus = 1.0 if job_device(1.0).type == "cuda" else 0.0
        rate, decoding = bare_loop(store, model_id, files[:_LOOP], Means(scratch, gpus=gpus))
    print(f"real path: {total.files / seconds:.1f} images/s ({total.files} files, {seconds:.0f} s)")
    print(
        f"bare loop: {rate:.1f} images/s scoring alone, {decoding:.1f} decoding and judging alone"
    )
    whole = rate * scorers
    ratio = total.files / seconds / whole
    print(f"{scorers} scorers of the bare loop: {whole:.1f}; ratio {ratio:.2f}")
    busy = [row for row in seen if row[1] > 0 and row[0] < seconds]
    half = len(busy) // 2
    if half:
        for name, column in (("driver", 2), ("workers", 3)):
            first, second = (max(r[column] for r in part) for part in (busy[:half], busy[half:]))
            print(
                f"{name}: most memory {first:.0f} MB in the first half, {second:.0f} in the second"
            )
    project(rate, decoding)


if __name__ == "__main__":
    main()
