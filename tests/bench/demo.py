"""`make study` after its installation: drawing the phantoms and the demo study, start to end.

    python tests/bench/demo.py [--laps 1]

The two commands of the Makefile's target, in an empty folder and with an empty home.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from laps import header, row, spread

CONFIG = Path(__file__).resolve().parents[2] / "deployments" / "demo.yaml"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--laps", type=int, default=1)
    parser.add_argument("--images", type=int, default=508)
    return parser.parse_args()


def demo(images: int) -> tuple[float, float]:
    """Minutes of drawing and of the starting weights, and of the study."""
    with tempfile.TemporaryDirectory() as folder:
        thyro = str(Path(sys.executable).with_name("thyro"))
        malignant = str(round(images * 93 / 508))
        drawn = ["--images", str(images), "--malignant", malignant, "--seed", "0"]
        draw = [thyro, "phantom", f"{folder}/phantoms", *drawn, "--weights", f"{folder}/weights"]
        study = [thyro, "study", f"{folder}/phantoms", "--config", str(CONFIG)]
        study += ["--set", f"weights={folder}/weights", "--store", f"{folder}/store"]
        minutes = []
        for command in (draw, study):
            started = time.perf_counter()
            environment = os.environ | {"HOME": folder}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            minutes.append((time.perf_counter() - started) / 60)
    return minutes[0], minutes[1]


def main() -> None:
    options = arguments()
    drawing, study = zip(*(demo(options.images) for _ in range(options.laps)), strict=True)
    whole = [sum(lap) for lap in zip(drawing, study, strict=True)]
    print(header(f"{options.images} phantoms", "drawing min", "study min", "both min"))
    print(row("make study", *(spread(values, 2) for values in (drawing, study, whole))))


if __name__ == "__main__":
    main()
