"""Ingest of JPEGs against bare decoding and resizing of the same files on as many threads.

    python tests/bench/ingest.py [--images 10000] [--colour] [--laps 3] [--drawn 200]

The set is made up: halves of two phantoms side by side, each mirrored and rolled at random, and one
image in twenty a copy of the one before it, coded anew. Ingest hashes, decodes, judges, resizes to
224 and 299, seeks near-duplicates and writes table and packs; the bare way opens, decodes and
resizes. Processor seconds stand beside the wall's, for machines that are shared.
"""

import argparse
import csv
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import laps
import numpy as np
from PIL import Image

from thyro_core.config import IngestConfig
from thyro_core.datasets import manifest
from thyro_core.datasets.phantoms.generate import phantom
from thyro_core.store.store import open_store

WIDTH, HEIGHT = 500, 400
SIDES = (224, 299)
COPY_EVERY = 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--drawn", type=int, default=200, help="phantoms to combine")
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--colour", action="store_true", help="JPEGs of three channels")
    return parser.parse_args()


def pieces(drawn: int) -> np.ndarray:
    """uint8 (drawn, HEIGHT, WIDTH)."""
    images = (Image.fromarray(phantom(0, i, bool(i % 2)).image) for i in range(drawn))
    return np.stack([np.asarray(image.resize((WIDTH, HEIGHT))) for image in images])


def moved(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored or not, and rolled: parts shared in place would make near-duplicates of many."""
    offsets = rng.integers(60, (HEIGHT - 60, WIDTH - 60))
    return np.roll(piece[:, :: rng.choice((-1, 1))], offsets, (0, 1))


def encoded(grey: np.ndarray, colour: bool, quality: int) -> bytes:
    image, file = Image.fromarray(grey), io.BytesIO()
    image.convert("RGB" if colour else "L").save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_set(folder: Path, options: argparse.Namespace) -> list[Path]:
    rng = np.random.default_rng(0)
    drawn, files, grey = pieces(options.drawn), [], np.empty(0, np.uint8)
    for k in range(options.images):
        copied = k % COPY_EVERY == COPY_EVERY - 1
        if not copied:
            left, right = (moved(piece, rng) for piece in drawn[rng.choice(len(drawn), 2)])
            grey = np.where(np.arange(WIDTH) < WIDTH // 2, left, right)
        files.append(folder / f"{k:05d}.jpg")
        files[-1].write_bytes(encoded(grey, options.colour, 80 if copied else 90))
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [(path.name, ("benign", "malignant")[k % 2]) for k, path in enumerate(files)]
        csv.writer(file).writerows([("image", "label"), *rows])
    return files


def bare(files: list[Path]) -> None:
    def work(path: Path) -> int:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("L")
        sizes = (image.resize((side, side), Image.Resampling.BILINEAR) for side in SIDES)
        return sum(np.asarray(small).size for small in sizes)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert sum(pool.map(work, files)) == len(files) * sum(side**2 for side in SIDES)


def ingested(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as store:
        manifest.ingest(str(folder), IngestConfig(), open_store(store), SIDES)


def clocked(call: Callable[[], None], spent: list[float]) -> Callable[[], None]:
    """The call, noting its processor seconds."""

    def run() -> None:
        before = time.process_time()
        call()
        spent.append(time.process_time() - before)

    return run


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        files = write_set(folder, options)
        calls = {"bare": lambda: bare(files), "ingest": lambda: ingested(folder)}
        cpu: dict[str, list[float]] = {way: [] for way in calls}
        wall = laps.measure({way: clocked(calls[way], cpu[way]) for way in calls}, options.laps)
    print(laps.header("way", "images", "seconds", "processor seconds", "share of bare", "of cpu"))
    cpu = {way: values[1:] for way, values in cpu.items()}
    for way in calls:
        shares = (laps.spread(laps.ratios(s["bare"], s[way]), 2) for s in (wall, cpu))
        print(laps.row(way, len(files), laps.spread(wall[way]), laps.spread(cpu[way]), *shares))


if __name__ == "__main__":
    main()
