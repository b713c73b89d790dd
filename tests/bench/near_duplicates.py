"""Near-duplicates: recall by kind of change, false pairs, precision on an answer sheet, growth.

    python tests/bench/near_duplicates.py [SOURCE] [ANSWERS] [--images N] [--among N]
        [--scale N]

SOURCE is a folder with labels.csv (`image[,patient_id]`), by default of phantoms; ANSWERS a CSV
with columns group, image: all pairs within a group count as near-duplicates, all others do not.
Changed copies of every eighth image are sought in the whole set, at the defaults; with `--among`,
N made-up images are added to it. Growth is measured on made-up fingerprints: features that are each
mixed of two of the source's, at random places, and the print of one of eight scanners, the same in
all of its images; one image in twenty is a copy of another with noise, half of its features,
another shift.
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
from scipy.ndimage import gaussian_filter, map_coordinates

from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.imaging import near_duplicates as nd
from thyro_core.imaging.local_features import PATTERN_NORM, LocalFeatures

COPIES = 0.05  # share of near-copies among the made-up fingerprints
SCANNERS, PRINT = 8, 15  # of made-up images, and features that each scanner prints on them
SCALES = (1000, 3000, 10_000, 30_000, 100_000)
PHANTOMS = 400
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("answers", type=Path, nargs="?")
    parser.add_argument("--images", type=int, help="only the first N images")
    parser.add_argument("--every", type=int, default=8, help="copies of each Nth image")
    parser.add_argument("--among", type=int, default=0, help="made-up images beside the copies")
    parser.add_argument("--scale", type=int, help="most made-up fingerprints, 1000 and up")
    return parser.parse_args()


def read_image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def read_fingerprints(source: Path, names: Sequence[str]) -> list[nd.Fingerprint]:
    return [nd.fingerprint(read_image(source / name)) for name in names]


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


def report_pairs(
    prints: list[nd.Fingerprint], labels: pd.DataFrame, true: set[tuple[int, int]] | None
) -> None:
    names = labels["image"].tolist()
    patients = labels.get("patient_id", pd.Series(index=labels.index, dtype=object))
    found = nd.near_duplicates(prints)
    same = [pair for pair in found if pair.same_picture]
    print(
        f"{len(names)} images, {len(same)} pairs of one picture, {len(found) - len(same)} similar"
    )
    if true is not None:
        for title, some in (("same picture", same), ("all", found)):
            pairs = {(pair.first, pair.second) for pair in some}
            recall, precision = recall_precision(pairs, true)
            print(f"{title}: of {len(true)} on the sheet {recall:.3f}, precision {precision:.3f}")
    for pair in found:
        i, j = pair.first, pair.second
        if true is None or (i, j) not in true:
            facts = f"{pair.correlation:.2f}, {pair.n_shared} features"
            kind = "same picture" if pair.same_picture else "similar"
            whose = (
                "one patient" if patients[i] == patients[j] else "patients differ or are unknown"
            )
            print(f"  {names[i]} {names[j]}: {kind}, {facts}, {whose}")
    known = patients.notna().to_numpy()
    given = patients.to_numpy()
    strangers = sum(
        int((known[k + 1 :] & (given[k + 1 :] != given[k])).sum()) for k in np.flatnonzero(known)
    )
    false = sum(bool(known[p.first] and known[p.second] and given[p.first] != given[p.second])
                for p in found)  # fmt: skip
    print(f"pairs found of different patients: {false} of {strangers}")


def crop(share: float) -> Change:
    """The same share off each side."""

    def change(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, columns = (int(side * share) for side in grey.shape)
        return grey[rows : grey.shape[0] - rows, columns : grey.shape[1] - columns]

    return change


def uneven_crop(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 15 % off each side."""
    height, width = grey.shape
    top, bottom, left, right = rng.uniform(0, 0.15, 4)
    rows = slice(int(top * height), height - int(bottom * height))
    return grey[rows, int(left * width) : width - int(right * width)]


def toolbar(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bar of figures over the image: whichever of the two is the copy, it is cut off."""
    height, width = grey.shape
    bar = int(0.15 * height)
    picture = Image.new("L", (width, height + bar), 40)
    picture.paste(Image.fromarray(grey), (0, bar))
    draw = ImageDraw.Draw(picture)
    for k in range(12):
        draw.text((5 + k * width // 12, bar // 4 + k % 2 * bar // 3), f"G{7 * k} TI{k}", fill=220)
    return np.asarray(picture)


def framed(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scanner's screen around the image: names, ticks, a grey scale, a box."""
    height, width = grey.shape
    left, top = int(0.22 * width), int(0.2 * height)
    across, down = int(1.4 * width), int(1.35 * height)
    picture = Image.new("L", (across, down), 0)
    picture.paste(Image.fromarray(grey), (left, top))
    draw = ImageDraw.Draw(picture)
    for k in range(10):
        y = 10 + k * down // 12
        draw.text((5, y), f"Gain {k * 13 % 97}", fill=200)
        draw.text((across - 60, y), f"{k / 2:.1f} cm", fill=200)
        draw.line((across - 8, y, across - 2, y), fill=255)
    draw.text((width // 3, 4), "SCANNER  THYROID  12:31:07", fill=230)
    for k in range(height // 2):
        x, y = left + width + 6, top + k
        draw.line((x, y, x + 8, y), fill=510 * k // height)
    draw.rectangle((0.02 * width, 0.85 * down, 0.4 * width, 0.97 * down), outline=120)
    return np.asarray(picture)


def zoomed(factor: float) -> Change:
    def change(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = grey.shape
        inner = crop((1 - 1 / factor) / 2)(grey, rng)
        return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.BILINEAR))

    return change


def mirrored(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return grey[:, ::-1]


def quarter(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By 90 degrees, either way."""
    return np.rot90(grey, rng.choice((-1, 1)))


def upside_down(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by 180 degrees, or flipped."""
    return grey[::-1, :: rng.choice((-1, 1))]


def transposed(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About either diagonal, and coded anew."""
    return recoded(np.ascontiguousarray(np.rot90(grey, rng.choice((0, 2))).T), rng)


def turned(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """3 degrees either way."""
    return np.asarray(
        Image.fromarray(grey).rotate(3 * rng.choice((-1, 1)), Image.Resampling.BILINEAR)
    )


def dual(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Beside other tissue, on either side: the image is half of this dual view."""
    height, width = grey.shape
    other = np.roll(grey[::-1], (height // 3, width // 2), (0, 1))
    gap = np.zeros((height, max(2, width // 100)), np.uint8)
    halves = [grey, gap, other] if rng.random() < 0.5 else [other, gap, grey]
    return np.concatenate(halves, axis=1)


def gain(levels: int) -> Change:
    return lambda grey, _: np.clip(grey.astype(int) + levels, 0, 255).astype(np.uint8)


def gamma(exponent: float) -> Change:
    return lambda grey, _: np.rint(255 * (grey / 255) ** exponent).astype(np.uint8)


def recoded(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def callipers(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four callipers, dotted lines between them and two lines of text."""
    picture = Image.fromarray(grey)
    draw = ImageDraw.Draw(picture)
    size = np.array(picture.size)
    for axis in (0, 1):
        middle, reach = rng.uniform(0.35, 0.65, 2) * size, np.zeros(2)
        reach[axis] = rng.uniform(0.15, 0.3) * size[axis]
        for x, y in (middle - reach, middle + reach):
            draw.line((x - 7, y, x + 7, y), fill=255, width=2)
            draw.line((x, y - 7, x, y + 7), fill=255, width=2)
        for share in np.arange(-1, 1, 3 / reach[axis]):
            x, y = middle + share * reach
            draw.rectangle((x, y, x + 1, y + 1), fill=255)
    draw.text(tuple(size * (0.03, 0.85)), "1 D 12.3 mm\n2 D 9.1 mm", fill=255)
    return np.asarray(picture)


def next_frame(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissue moved smoothly by up to 3 % of the side, under other speckle."""
    height, width = grey.shape
    side = min(grey.shape)
    moves = []
    for _ in range(2):
        field = gaussian_filter(rng.normal(size=(height // 8 + 1, width // 8 + 1)), side / 48)
        field = Image.fromarray((0.03 * side * field / np.abs(field).max()).astype(np.float32))
        moves.append(np.asarray(field.resize((width, height), Image.Resampling.BILINEAR)))
    y, x = np.mgrid[:height, :width]
    moved = map_coordinates(
        grey.astype(float), [y + moves[0], x + moves[1]], order=1, mode="nearest"
    )
    speckle = gaussian_filter(rng.normal(size=grey.shape), (1.2, 1.8))
    return np.clip(moved * (1 + 0.12 * speckle / speckle.std()), 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "crop of 5 % a side": crop(0.05),
    "crop of 10 % a side": crop(0.1),
    "crop of 15 % a side": crop(0.15),
    "crop of 0 to 15 % a side": uneven_crop,
    "toolbar": toolbar,
    "scanner's frame": framed,
    "zoom of 1.3": zoomed(1.3),
    "zoom of 1.5": zoomed(1.5),
    "mirror": mirrored,
    "turn by 90 degrees": quarter,
    "upside down": upside_down,
    "transposition, recompression": transposed,
    "rotation of 3 degrees": turned,
    "half of a dual view": dual,
    "gain +40": gain(40),
    "gain -40": gain(-40),
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "recompression": recoded,
    "callipers, dotted lines": callipers,
    "next frame, 3 % of motion": next_frame,
}


def report_recall(
    source: Path, names: Sequence[str], prints: list[nd.Fingerprint], every: int, among: int
) -> None:
    prints = [*prints, *made_up(prints, among)]
    print(header("change", "copies", "found", "same picture", "recall", "5 % point of correlation"))
    places = range(0, len(names), every)
    for title, change in CHANGES.items():
        copies = [
            np.ascontiguousarray(change(read_image(source / names[k]), np.random.default_rng(k)))
            for k in places
        ]
        true = {(k, len(prints) + n) for n, k in enumerate(places)}
        found = nd.near_duplicates([*prints, *nd.fingerprints(copies)])
        hits = [pair for pair in found if (pair.first, pair.second) in true]
        correlations = [pair.correlation for pair in hits] or [np.nan]
        same = sum(pair.same_picture for pair in hits)
        low = f"{np.percentile(correlations, 5):.2f}"
        print(
            row(title, len(true), len(hits), same, f"{len(hits) / len(true):.3f}", low), flush=True
        )


def made_up(pool: Sequence[nd.Fingerprint], n: int) -> list[nd.Fingerprint]:
    """Fingerprints whose features cluster as real ones do, with planted copies."""
    rng, made = np.random.default_rng(n), []
    patterns = np.concatenate([one.features.patterns for one in pool])
    places = np.concatenate([one.features.places for one in pool])
    picks = rng.integers(len(places), size=(SCANNERS, PRINT))
    for k in range(n):
        if k % round(1 / COPIES) == 1:
            made.append(copied(made[-1], rng))
            continue
        size = len(pool[rng.integers(len(pool))].features.places)
        one, other = (patterns[rng.integers(len(patterns), size=size)] for _ in range(2))
        mixed = one.astype(float) + other
        mixed *= PATTERN_NORM / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1)
        where = places[rng.integers(len(places), size=size)].copy()
        where[:, :2] += rng.integers(-160, 160, (size, 2)).astype(np.int16)
        mixed = np.clip(np.rint(mixed), -127, 127).astype(np.int8)
        own = picks[k % SCANNERS]
        where, mixed = np.concatenate([where, places[own]]), np.concatenate([mixed, patterns[own]])
        features = LocalFeatures(212, 174, where, mixed)
        left, right = (pool[k].thumbnail for k in rng.integers(len(pool), size=2))
        thumbnail = np.rint(left * 0.5 + right[:, :: rng.choice((-1, 1))] * 0.5).astype(np.uint8)
        made.append(nd.Fingerprint("0" * 16, features, thumbnail))
    return made


def copied(one: nd.Fingerprint, rng: np.random.Generator) -> nd.Fingerprint:
    kept = np.sort(rng.permutation(len(one.features.places))[: len(one.features.places) // 2])
    patterns = one.features.patterns[kept] + rng.normal(0, 8, (len(kept), 1))
    patterns = patterns + rng.normal(0, 10, patterns.shape)
    features = LocalFeatures(
        one.features.width,
        one.features.height,
        one.features.places[kept] + rng.integers(-4, 5, (len(kept), 3)).astype(np.int16),
        np.clip(np.rint(patterns), -127, 127).astype(np.int8),
    )
    return nd.Fingerprint(one.phash, features, one.thumbnail)


def report_scale(pool: Sequence[nd.Fingerprint], largest: int) -> None:
    print(header("made-up images", "seconds", "cpu", "planted", "found", "others"))
    sizes, costs = [n for n in SCALES if n <= largest], []
    for n in sizes:
        sample = made_up(pool, n)
        start, cpu = time.perf_counter(), time.process_time()
        found = {(pair.first, pair.second) for pair in nd.near_duplicates(sample)}
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        costs.append(cpu)
        planted = {(k - 1, k) for k in range(1, n, round(1 / COPIES))}
        figures = len(planted), len(planted & found), len(found - planted)
        print(row(n, f"{seconds:.2f}", f"{cpu:.2f}", *figures), flush=True)
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
    start = time.process_time()
    prints = read_fingerprints(options.source, names)
    cost = 1000 * (time.process_time() - start) / len(names)
    print(f"{cost:.1f} ms of processor time an image, decoding included")
    true = answer_pairs(options.answers, names) if options.answers else None
    report_pairs(prints, labels, true)
    report_recall(options.source, names, prints, options.every, options.among)
    if options.scale:
        report_scale(prints, options.scale)


if __name__ == "__main__":
    main()
