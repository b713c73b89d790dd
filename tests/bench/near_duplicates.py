"""Near-duplicates: recall and precision on an answer sheet, and growth with the number of images.

    python tests/bench/near_duplicates.py SOURCE [ANSWERS] [--images N] [--scale 100000]

SOURCE is a folder with labels.csv (`image[,patient_id]`); ANSWERS a CSV with columns group, image:
all pairs within a group count as near-duplicates, all others do not.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import norm

from thyro_core import near_duplicates as nd
from thyro_core.config import IngestConfig

RULES = IngestConfig()
DISTANCE, CORRELATION = RULES.hash_distance, RULES.duplicate_correlation
DISTANCES = (4, 6, 8, 10, 12, 16)
CORRELATIONS = (0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98)
COPIES = 0.05  # share of near-copies among the made-up fingerprints
SMALLEST = 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
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


def made_up(prints: list[nd.Fingerprint], n: int, rng: np.random.Generator) -> list[nd.Fingerprint]:
    """Fingerprints whose hash bits hang together as the source's do, and some near-copies."""
    raw = np.frombuffer(bytes.fromhex("".join(item.phash for item in prints)), np.uint8)
    bits = np.unpackbits(raw).reshape(len(prints), 64).astype(float)
    share = bits.mean(axis=0)
    standard = (bits - share) / np.maximum(bits.std(axis=0), 1e-9) / np.sqrt(len(prints))
    latent = rng.normal(size=(n, len(prints))) @ standard
    packed = np.packbits(latent > norm.ppf(1 - share), axis=1)
    copies = int(n * COPIES)
    packed[:copies] = packed[copies : 2 * copies]
    packed[:copies, 3] ^= 0b101
    which = rng.integers(len(prints), size=n)
    which[:copies] = which[copies : 2 * copies]
    noise = rng.integers(-2, 3, size=(n, nd.SIDE, nd.SIDE), dtype=np.int8)
    return [
        nd.Fingerprint(row.tobytes().hex(), np.clip(prints[k].descriptor, -125, 125) + extra)
        for row, k, extra in zip(packed, which, noise, strict=True)
    ]


def examined(hashes: np.ndarray) -> int:
    """Pairs whose Hamming distance is computed, repeats included."""
    bands = DISTANCE // 3 + 1
    return sum(
        len(left)
        for band in range(bands)
        for left, _ in nd._meetings(nd._variants(hashes, band, bands))
    )


def report_scale(prints: list[nd.Fingerprint], largest: int) -> None:
    rng = np.random.default_rng(0)
    print("images   seconds       cpu   examined  of all pairs  candidates  confirmed")
    n = SMALLEST
    while n <= largest:
        sample = made_up(prints, n, rng)
        start, cpu = time.perf_counter(), time.process_time()
        found = nd.near_duplicates(sample, DISTANCE, CORRELATION)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        hashes = np.array([int(item.phash, 16) for item in sample], np.uint64)
        looked, near = examined(hashes), len(nd.candidates(hashes, DISTANCE))
        share = looked / (n * (n - 1) / 2)
        counts = f"{looked:>10} {share:>13.5f} {near:>11} {len(found):>10}"
        print(f"{n:>6} {seconds:>9.2f} {cpu:>9.2f} {counts}", flush=True)
        n *= 10


def main() -> None:
    options = arguments()
    labels = pd.read_csv(options.source / "labels.csv")[: options.images]
    names = labels["image"].tolist()
    prints = read_fingerprints(options.source, names)
    if options.answers:
        report_answers(prints, names, options.answers)
    else:
        report_pairs(prints, labels)
    if options.scale:
        report_scale(prints, options.scale)


if __name__ == "__main__":
    main()
