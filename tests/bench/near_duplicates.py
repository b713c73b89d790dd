"""Near-duplicates: recall and precision on an answer sheet, what the search loses, and growth.

    python tests/bench/near_duplicates.py [SOURCE] [ANSWERS] [--images N] [--scale 100000]

SOURCE is a folder with labels.csv (`image[,patient_id]`), by default of phantoms; ANSWERS a CSV
with columns group, image: all pairs within a group count as near-duplicates, all others do not. Of
changed copies of every eighth image the share is told that the search loses though hash and
correlation accept them. Growth is measured on uniform noise, and on images made of two of the
source's, each mirrored, stretched and shifted at random, so that hashes and descriptors cluster as
real ones do.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from laps import header, row
from PIL import Image, ImageDraw
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from thyro_core.config import IngestConfig
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.imaging import near_duplicates as nd
from thyro_core.imaging.candidates import approximate_candidates

RULES = IngestConfig()
DISTANCE, CORRELATION = RULES.hash_distance, RULES.duplicate_correlation
DISTANCES = (4, 6, 8, 10, 12, 16)
CORRELATIONS = (0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98)
COPIES = 0.05  # share of near-copies among the made-up fingerprints
SCALES = (1000, 3000, 10_000, 30_000, 100_000)
PORTION = 2000
PHANTOMS = 400


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("answers", type=Path, nargs="?")
    parser.add_argument("--images", type=int, help="only the first N images")
    parser.add_argument("--scale", type=int, help="most made-up fingerprints, 1000 and up")
    return parser.parse_args()


def read_fingerprints(source: Path, names: Sequence[str]) -> list[nd.Fingerprint]:
    return [nd.fingerprint(np.asarray(Image.open(source / name).convert("L"))) for name in names]


def answer_pairs(answers: Path, names: Sequence[str]) -> set[tuple[int, int]]:
    place = {name: k for k, name in enumerate(names)}
    sheet = pd.read_csv(answers)
    groups = sheet[sheet["image"].isin(place)].groupby("group")["image"]
    members = [sorted(place[name] for name in group) for _, group in groups]
    return {pair for group in members for pair in combinations(group, 2)}


def recall_precision(
    found: set[tuple[int, int]], true: set[tuple[int, int]]
) -> tuple[float, float]:
    """Share of the true pairs found, and of the found pairs that are true; nan: none there."""
    hits = len(found & true)
    return hits / len(true) if true else np.nan, hits / len(found) if found else np.nan


def report_answers(prints: list[nd.Fingerprint], names: list[str], answers: Path) -> None:
    true = answer_pairs(answers, names)
    found = set(nd.near_duplicates(prints, DISTANCE, CORRELATION))
    recall, precision = recall_precision(found, true)
    print(f"{len(names)} images, {len(true)} pairs on the answer sheet, {len(found)} found")
    print(f"recall {recall:.3f}  precision {precision:.3f}  ({DISTANCE} bits, {CORRELATION})")
    for title, pairs in (("missed", true - found), ("not on the sheet", found - true)):
        for i, j in sorted(pairs):
            print(f"  {title}: {names[i]} {names[j]}")
    print("recall / precision; rows: largest distance [bits], columns: least correlation")
    print("     " + "".join(f"{bound:>14}" for bound in CORRELATIONS))
    for bits in DISTANCES:
        cells = (
            recall_precision(set(nd.near_duplicates(prints, bits, bound)), true)
            for bound in CORRELATIONS
        )
        print(f"{bits:>5}" + "".join(f"{r:>8.2f}/{p:.3f}" for r, p in cells))


def report_pairs(prints: list[nd.Fingerprint], labels: pd.DataFrame) -> None:
    patients = labels.get("patient_id", pd.Series(index=labels.index, dtype=object))
    found = nd.near_duplicates(prints, DISTANCE, CORRELATION)
    print(f"{len(labels)} images, {len(found)} pairs found ({DISTANCE} bits, {CORRELATION})")
    for i, j in found:
        same = "one patient" if patients[i] == patients[j] else "different or unknown patients"
        print(f"  {labels['image'][i]} {labels['image'][j]}: {same}")


def cropped(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 5 % off each side."""
    height, width = grey.shape
    top, bottom, left, right = rng.uniform(0, 0.05, 4)
    rows = slice(int(top * height), height - int(bottom * height))
    return grey[rows, int(left * width) : width - int(right * width)]


def recoded(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=int(rng.integers(30, 90)))
    return np.asarray(Image.open(file))


def regraded(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another gamma, contrast and brightness."""
    gamma, gain, offset = rng.uniform((0.7, 0.7, -25), (1.4, 1.3, 25))
    return np.clip(255 * (grey / 255) ** gamma * gain + offset, 0, 255).astype(np.uint8)


def marked(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four callipers and two lines of text."""
    picture = Image.fromarray(grey)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for x, y in rng.uniform((0.2 * width, 0.2 * height), (0.8 * width, 0.8 * height), (4, 2)):
        draw.line((x - 6, y, x + 6, y), fill=255, width=2)
        draw.line((x, y - 6, x, y + 6), fill=255, width=2)
    draw.text((0.05 * width, 0.9 * height), "LT TRANS 3", fill=255)
    draw.text((0.7 * width, 0.03 * height), "12 cm", fill=255)
    return np.asarray(picture)


def rescaled(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each side by half to one and a half."""
    width, height = (int(side * rng.uniform(0.5, 1.5)) for side in grey.shape[::-1])
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
CHANGES: tuple[Change, ...] = (cropped, recoded, regraded, marked, rescaled)


def report_losses(source: Path, names: Sequence[str]) -> None:
    """Of changed copies that hash and correlation accept: the share that the search loses."""
    rng = np.random.default_rng(0)
    ways = {change.__name__: (change,) for change in CHANGES}
    ways["all of these"] = (cropped, marked, rescaled, regraded, recoded)
    print("change         copies  accepted  lost by the search")
    for name, changes in ways.items():
        lost = accepted = 0
        for image in names[::8]:
            grey = np.asarray(Image.open(source / image).convert("L"))
            copy = grey
            for change in changes:
                copy = np.ascontiguousarray(change(copy, rng))
            ours, theirs = nd.fingerprint(grey), nd.fingerprint(copy)
            both = np.stack([ours.descriptor, theirs.descriptor])
            hashes = np.array([int(one.phash, 16) for one in (ours, theirs)], np.uint64)
            near = int(hashes[0] ^ hashes[1]).bit_count() <= DISTANCE
            if near and nd._confirmed(both, np.array([[0, 1]]), CORRELATION)[0]:
                accepted += 1
                lost += len(approximate_candidates(both, hashes, DISTANCE)) == 0
        print(f"{name:<14} {len(names[::8]):>6} {accepted:>9} {lost:>19}")


def thumbnails(source: Path, names: Sequence[str]) -> np.ndarray:
    """float32 (n, SIDE, SIDE)."""
    images = (Image.open(source / name).convert("L") for name in names)
    size = (nd.SIDE, nd.SIDE)
    return np.stack([np.asarray(i.resize(size, Image.Resampling.BOX), np.float32) for i in images])


def varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored or not, stretched and shifted at random."""
    n, middle = len(images), (nd.SIDE - 1) / 2
    images = np.where(rng.random((n, 1, 1)) < 0.5, images[:, :, ::-1], images)
    stretch, offset = rng.uniform(0.75, 1.1, (n, 2, 1)), rng.uniform(-4, 4, (n, 2, 1))
    pixels = np.arange(nd.SIDE)
    where = np.clip((pixels - middle) * stretch + offset + middle, 0, nd.SIDE - 1)
    weights = np.maximum(1 - np.abs(where[..., None] - pixels), 0).astype(np.float32)
    return weights[:, 0] @ images @ weights[:, 1].swapaxes(1, 2)


def recombined(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Two images of the pool, one shown through smooth random holes of the other."""
    one, other = (varied(pool[rng.integers(len(pool), size=n)], rng) for _ in range(2))
    field = gaussian_filter(rng.normal(size=(n, nd.SIDE, nd.SIDE)), (0, 6, 6))
    share = 1 / (1 + np.exp(-4 * field / field.std()))
    return np.rint(one * share + other * (1 - share))


def uniform(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, (n, *pool.shape[1:]))


def fingerprints(greys: np.ndarray) -> list[nd.Fingerprint]:
    """Of images already small, many at once."""
    contrast = np.stack([nd._local_contrast(grey) for grey in greys.astype(np.float32)])
    steps = np.clip(np.rint(contrast * nd._STEPS), -127, 127).astype(np.int8)
    lowest = dctn(greys, axes=(1, 2))[:, :8, :8].reshape(len(greys), 64)
    bits = np.packbits(lowest > np.median(lowest, axis=1, keepdims=True), axis=1)
    return [nd.Fingerprint(b.tobytes().hex(), s) for b, s in zip(bits, steps, strict=True)]


def made_up(draw: Callable[..., np.ndarray], pool: np.ndarray, n: int) -> list[nd.Fingerprint]:
    rng, made = np.random.default_rng(n), []
    for start in range(0, n, PORTION):
        size = min(PORTION, n - start)
        greys, copies = draw(pool, size, rng), int(size * COPIES)
        noise = rng.normal(0, 2, (copies, *greys.shape[1:]))
        greys[:copies] = np.clip(greys[copies : 2 * copies] * 0.9 + 10 + noise, 0, 255)
        made += fingerprints(greys)
    return made


def report_scale(pool: np.ndarray, largest: int) -> None:
    for draw in (uniform, recombined):
        print(header(f"{draw.__name__}, images", "seconds", "cpu", "planted", "found"))
        sizes, costs = [n for n in SCALES if n <= largest], []
        for n in sizes:
            sample = made_up(draw, pool, n)
            start, cpu = time.perf_counter(), time.process_time()
            found = nd.near_duplicates(sample, DISTANCE, CORRELATION)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            costs.append(cpu)
            print(row(n, f"{seconds:.2f}", f"{cpu:.2f}", int(n * COPIES), len(found)))
        if len(sizes) > 1:
            exponent = np.polyfit(np.log(sizes), np.log(costs), 1)[0]
            print(f"\nprocessor seconds grow as n^{exponent:.2f}\n", flush=True)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if options.source is None:
            options.source = Path(folder)
            write_phantoms(folder, images=PHANTOMS, malignant=PHANTOMS // 3)
        report(options)


def report(options: argparse.Namespace) -> None:
    labels = pd.read_csv(options.source / "labels.csv")[: options.images]
    names = labels["image"].tolist()
    prints = read_fingerprints(options.source, names)
    if options.answers:
        report_answers(prints, names, options.answers)
    else:
        report_pairs(prints, labels)
    report_losses(options.source, names)
    if options.scale:
        report_scale(thumbnails(options.source, names), options.scale)


if __name__ == "__main__":
    main()
