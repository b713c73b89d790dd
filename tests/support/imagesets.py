"""Small image sets on disk, quick to make and easy to learn."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_image_set(
    folder: Path, benign: int = 16, malignant: int = 12, side: int = 72, seed: int = 0
) -> Path:
    """Speckle images with a dark (malignant) or bright (benign) centre, one patient each."""
    return _write(folder, benign, malignant, side, np.random.default_rng(seed))


def write_masks(folder: Path, side: int = 72) -> Path:
    """Masks of all centres of an image set, under `masks/` by their images' names."""
    centre = np.zeros((side, side), np.uint8)
    centre[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 255
    (folder / "masks").mkdir()
    for image in (folder / "images").iterdir():
        Image.fromarray(centre).save(folder / "masks" / image.name)
    return folder


def _write(folder: Path, benign: int, malignant: int, side: int, rng: np.random.Generator) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(benign + malignant):
        label = "malignant" if i >= benign else "benign"
        pixels = rng.rayleigh(60, (side, side))
        centre = slice(side // 4, 3 * side // 4)
        pixels[centre, centre] *= 0.3 if label == "malignant" else 1.5
        name = f"images/{i:03d}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        rows.append({"image": name, "label": label, "patient_id": f"patient-{i}"})
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
