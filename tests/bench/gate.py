"""What a screening's checks make of pictures that are no ultrasound: how many pass, and as what.

    python tests/bench/gate.py --store STORE [--model ID] [--photographs FOLDER ...]
                               [--ultrasound FOLDER ...]

Photographs are turned grey and shown whole, and as their middle, square and upper left parts, where
less tells that they are none. Ultrasound images are shown as they are, which should pass, and as a
phone would have taken them of a monitor: a grid of screen pixels, in perspective, with bezel,
glare, lifted black, noise and JPEG, and without colour. `--model` is one of `thyro models`, as a
rule the champion; without a store only the rules that need no model are counted.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from laps import header, row
from PIL import Image, UnidentifiedImageError

from thyro_core.imaging.decode import resize
from thyro_core.registry.champion import champion
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.model import ScreeningModel
from thyro_core.screening.reader import read_screening_images
from thyro_core.screening.score import verdict
from thyro_core.store.store import open_store

RULES = ScreeningRules(min_side=32)
_LARGEST_SIDE, _SCREEN, _PHONE = 1600, 1600, 1100
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store")
    parser.add_argument("--model")
    parser.add_argument("--scratch", type=Path, default=Path("gate-scratch"))
    parser.add_argument("--photographs", nargs="*", type=Path, default=[])
    parser.add_argument("--ultrasound", nargs="*", type=Path, default=[])
    parser.add_argument("--most", type=int, default=10_000, help="images of a folder")
    return parser.parse_args()


def pictures(folder: Path, most: int) -> Iterator[np.ndarray]:
    """Grey levels of a folder's pictures, evenly chosen if there are more; large ones shrunk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[:: max(1, len(files) // most)][:most]:
        try:
            image = Image.open(path).convert("L")
            image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
            yield np.array(image)
        except (UnidentifiedImageError, OSError):
            print(f"{path.name}: no picture", file=sys.stderr)


def whole(grey: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return grey


def middle(grey: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    side = 2 * min(grey.shape) // 3
    top, left = ((length - side) // 2 for length in grey.shape)
    return grey[top : top + side, left : left + side]


def corner(grey: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return grey[: grey.shape[0] // 2, : grey.shape[1] // 2]


def of_a_monitor(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey photograph of a screen that shows the picture."""
    scale = _SCREEN / max(grey.shape)
    screen = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    levels = screen.astype(np.float32)
    # Rows and columns of screen pixels, which the camera's own then beat with.
    period = rng.uniform(2.6, 4.2)
    for axis in (0, 1):
        line = 1 - rng.uniform(0.1, 0.35) * (np.arange(screen.shape[axis]) % period < 1)
        levels *= line[:, None] if axis == 0 else line[None, :]
    bezel, room = rng.uniform(5, 40), rng.uniform(30, 150)
    levels = cv2.copyMakeBorder(levels, *[40] * 4, cv2.BORDER_CONSTANT, value=bezel)
    height, width = levels.shape
    margin = rng.uniform(-0.04, 0.12)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inner = margin + rng.uniform(0, 0.06, (4, 2))
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    shape = (_PHONE, round(_PHONE * height / width))
    places = (corners / (width, height) + signs * inner) * shape
    warp = cv2.getPerspectiveTransform(corners, places.astype(np.float32))
    photo = cv2.warpPerspective(levels, warp, shape, borderValue=room)
    rows, columns = np.mgrid[: shape[1], : shape[0]].astype(np.float32)
    at = rng.uniform(0, 1, 2) * shape
    distance = ((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (
        shape[0] * rng.uniform(0.1, 0.4)
    ) ** 2
    photo = rng.uniform(5, 35) + 0.85 * photo + rng.uniform(0, 110) * np.exp(-distance)
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.4, 1.2))
    photo += rng.normal(0, rng.uniform(1.5, 6), photo.shape)
    data = cv2.imencode(".jpg", np.clip(photo, 0, 255).astype(np.uint8), [1, 85])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


PHOTOGRAPHS: dict[str, Change] = {"whole": whole, "middle": middle, "corner": corner}
ULTRASOUND: dict[str, Change] = {"as it is": whole, "of a monitor": of_a_monitor}


class Gate:
    """The rules of a screening, and a model's if there is one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._model = None
        if options.store:
            store = open_store(options.store)
            self._model = ScreeningModel(store, options.model or champion(store), options.scratch)
            self._limits = self._model.limits(RULES)

    def __call__(self, images: list[np.ndarray]) -> list[dict]:
        """A row an image: `reason` (None: it passed), and what a model says of what passed."""
        rows: list[dict] = []
        inputs = []
        for grey in images:
            data = cv2.imencode(".png", grey)[1].tobytes()
            for image in read_screening_images(data, RULES, lambda *_: None):
                kind = image.reason
                if kind == "not_ultrasound":
                    kind = str(image.detail).split(" ", 1)[0]
                rows.append({"reason": kind})
                if image.grey is not None and self._model is not None:
                    inputs.append((rows[-1], resize(image.grey, self._model.side)))
        for start in range(0, len(inputs), 64):
            block = inputs[start : start + 64]
            scores = self._model.score(np.stack([pixels for _, pixels in block]))
            for i, (each, _) in enumerate(block):
                each.update(verdict(scores, i, self._limits))
        return rows


def main() -> None:
    options = arguments()
    gate = Gate(options)
    print(header("pictures", "n", "turned away, by rule", "pass", "of these", "probability"))
    cases = [
        (folder, name, change)
        for folder in options.photographs
        for name, change in PHOTOGRAPHS.items()
    ]
    cases += [
        (folder, name, change)
        for folder in options.ultrasound
        for name, change in ULTRASOUND.items()
    ]
    for folder, name, change in cases:
        rng = np.random.default_rng(0)
        images = [
            np.ascontiguousarray(change(grey, rng)) for grey in pictures(folder, options.most)
        ]
        rows = gate(images)
        print(summary(f"{folder.name}, {name}", rows), flush=True)


def summary(name: str, rows: list[dict]) -> str:
    away = Counter(
        each["reason"]
        for each in rows
        if each.get("band", "not scored") == "not scored" and each["reason"]
    )
    passed = [
        each
        for each in rows
        if each["reason"] is None or each.get("band", "not scored") != "not scored"
    ]
    bands = Counter(each["band"] for each in passed if "band" in each)
    chances = [each["prob_malignant"] for each in passed if "prob_malignant" in each]
    spread = (
        "{:.2f} (5 to 95 %: {:.2f} to {:.2f})".format(*np.quantile(chances, (0.5, 0.05, 0.95)))
        if chances
        else ""
    )
    return row(
        name,
        len(rows),
        ", ".join(f"{k} {v}" for k, v in away.most_common()),
        len(passed),
        ", ".join(f"{k} {v}" for k, v in bands.most_common()),
        spread,
    )


if __name__ == "__main__":
    main()
