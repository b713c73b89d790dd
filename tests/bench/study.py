"""A whole study against as many plain PyTorch runs in sequence, done the ordinary way.

    python tests/bench/study.py [SOURCE] [--images 508] [--splits 10] [--epochs 1] [--side 224]
                                [--architectures resnet18] [--laps 1] [--plain 10]

Both are timed as whole processes, start to end, from the same image files (without SOURCE:
phantoms) and from random weights. The study is `thyro study` in a new store each time: ingest,
pack, splits, all its jobs with Grad-CAM, statistics. The ordinary way is one script a split, run
one after another: a DataLoader over the image files, torchvision's transforms, fp32, Adam, as many
threads as torch takes, and the AUC of the test part; it does nothing else that the study does. With
`--plain` fewer of the plain runs are timed, and their time is scaled up to all splits: the runs are
alike, and each is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from laps import header, ratios, row, spread

from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.datasets.phantoms.generate import write_phantoms

MEAN, SD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="folder with labels.csv")
    parser.add_argument("--images", type=int, default=508, help="phantoms to draw")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=["resnet18"])
    parser.add_argument("--laps", type=int, default=1)
    parser.add_argument("--plain", type=int, help="plain runs to time; default: all")
    parser.add_argument("--split", type=int, help="run this split the ordinary way, and no more")
    return parser.parse_args()


def ordinary_run(options: argparse.Namespace) -> None:
    """One split the ordinary way; prints the AUC of each architecture as JSON."""
    import pandas as pd
    from sklearn.model_selection import train_test_split

    table = pd.read_csv(Path(options.source) / "labels.csv")
    files = [str(Path(options.source) / name) for name in table["image"]]
    labels = (table["label"] == "malignant").astype(int).tolist()
    parts = train_test_split(
        files, labels, test_size=0.3, stratify=labels, random_state=options.split
    )
    config = StudyConfig(image_size=options.side)
    print(json.dumps([train_one(a, config.side(a), parts, options) for a in options.architectures]))


def train_one(
    architecture: str, side: int, parts: list[list[object]], options: argparse.Namespace
) -> float:
    """AUC of one network after some epochs on the files of a training part."""
    import torch
    from torch.utils.data import DataLoader

    from thyro_core.training.models import build

    train_files, test_files, train_labels, test_labels = parts
    torch.manual_seed(options.split)
    model = build(architecture, side, seed=options.split)  # torchvision's, with two classes
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    training = DataLoader(dataset(train_files, train_labels, side, True), 32, shuffle=True)
    for _ in range(options.epochs):
        model.train()
        for images, labels in training:
            if len(labels) == 1:
                continue  # batch norm needs two
            output = model(images)
            logits = output[0] if isinstance(output, tuple) else output
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return auc_of(model, DataLoader(dataset(test_files, test_labels, side, False), 32), test_labels)


def auc_of(model: object, batches: object, labels: list[int]) -> float:
    """AUC over all batches of a test part."""
    import torch
    from sklearn.metrics import roc_auc_score

    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(images).softmax(dim=1)[:, 1] for images, _ in batches])
    return float(roc_auc_score(labels, scores.numpy()))


def dataset(files: list[str], labels: list[int], side: int, augmented: bool) -> object:
    """Image files behind torchvision's transforms, read again in each epoch."""
    from thyro_core.training import torchvision_compat

    torchvision_compat.ensure()
    from PIL import Image
    from torch.utils.data import Dataset
    from torchvision import transforms

    turned = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(10)]
    steps = transforms.Compose(
        [
            transforms.Resize((side, side)),
            *(turned if augmented else []),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SD),
        ]
    )

    class Files(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> tuple[object, int]:
            with Image.open(files[place]) as image:
                return steps(image.convert("RGB")), labels[place]

    return Files()


def timed(command: list[str], home: str) -> tuple[float, str]:
    """Seconds of a whole process, and the last line that it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"HOME": home}, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - started, done.stdout.strip().splitlines()[-1]


def study(options: argparse.Namespace, folder: str, lap: int) -> tuple[float, float]:
    """Seconds of the study and its mean AUC over splits and architectures."""
    settings = {
        "architectures": ",".join(options.architectures),
        "splits": options.splits,
        "epochs": options.epochs,
        "image_size": options.side,
        "weights": "none",
    }
    thyro = str(Path(sys.executable).with_name("thyro"))
    command = [thyro, "study", options.source, "--store", f"{folder}/store-{lap}", "--json"]
    command += [f"--set={name}={value}" for name, value in settings.items()]
    seconds, printed = timed(command, folder)
    found = json.loads(printed)["metrics"]
    values = [found[architecture]["auc"]["value"] for architecture in options.architectures]
    return seconds, sum(values) / len(values)


def ordinary(options: argparse.Namespace, folder: str) -> tuple[float, float]:
    """Seconds of all splits the ordinary way, one after another, and the mean AUC of those run."""
    command = [sys.executable, __file__, options.source, f"--epochs={options.epochs}"]
    command += [f"--side={options.side}", "--architectures", *options.architectures]
    runs = min(options.plain or options.splits, options.splits)
    laps = [timed([*command, f"--split={split}"], folder) for split in range(runs)]
    values = [value for _, printed in laps for value in json.loads(printed)]
    seconds = sum(seconds for seconds, _ in laps) * options.splits / runs
    return seconds, sum(values) / len(values)


def main() -> None:
    options = arguments()
    if options.split is not None:
        ordinary_run(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.source is None:
            options.source = f"{folder}/phantoms"
            write_phantoms(
                options.source, images=options.images, malignant=round(options.images * 93 / 508)
            )
        laps = [(study(options, folder, k), ordinary(options, folder)) for k in range(options.laps)]
    ours, theirs = zip(*laps, strict=True)
    what = f"{options.splits} splits of {', '.join(options.architectures)} at {options.side}"
    print(header(f"{what}, epochs: {options.epochs}", "seconds", "mean AUC", "times as fast"))
    seconds = [[each[0] for each in way] for way in (ours, theirs)]
    faster = spread(ratios(seconds[1], seconds[0]), 2)
    print(row("thyro study", spread(seconds[0]), f"{ours[-1][1]:.3f}", faster))
    print(row("plain runs in sequence", spread(seconds[1]), f"{theirs[-1][1]:.3f}", "1"))


if __name__ == "__main__":
    main()
