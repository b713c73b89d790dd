"""Memory of a study, against its pack, its models and 1.5 GB for each running job.

    python tests/bench/memory.py [--architectures resnet18 vgg16] [--images 96] [--side 224]

Runs a small study of each network at full size, and all the while adds up the memory of everything
the command started (Linux's proportional set size: what processes share is counted once). `model`
is a network's weights; gradients, Adam's two averages, activations, torch, Ray and Prefect must do
with the 1.5 GB a job.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from laps import header, row

from thyro_core.config import ARCHITECTURES, Architecture, StudyConfig
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.training.models import build

ALLOWED = 1.5e9


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--splits", type=int, default=2)
    return parser.parse_args()


def processes(root: int) -> list[tuple[int, str]]:
    """A process and all below it, with the beginning of their command lines."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                facts = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            parents[int(entry.name)], names[int(entry.name)] = int(facts[1]), line
    found, fresh = {root}, {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return [(pid, names[pid]) for pid in found if pid in names]


def proportional(pid: int) -> int:
    """A process's share of memory [bytes]; 0: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def study(source: str, architecture: Architecture, options: argparse.Namespace) -> tuple[int, int]:
    """Most memory of a study's processes together, and of its largest job [bytes]."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"architectures": architecture, "splits": options.splits, "epochs": 1,
                  "image_size": options.side, "weights": "none", "trust_images": 1}  # fmt: skip
        command = [str(Path(sys.executable).with_name("thyro")), "study", source]
        command += ["--store", f"{folder}/store", "--json"]
        command += [f"--set={name}={value}" for name, value in values.items()]
        environment = os.environ | {"HOME": folder}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        most = largest = 0
        while process.poll() is None:
            sizes = {line: proportional(pid) for pid, line in processes(process.pid)}
            jobs = [size for line, size in sizes.items() if line.startswith("ray::s")]
            most, largest = max(most, sum(sizes.values())), max(largest, *jobs, 0)
            time.sleep(0.2)
        assert process.returncode == 0, process.returncode
    return most, largest


def main() -> None:
    options = arguments()
    jobs = min(options.splits, os.cpu_count() or 1)
    config = StudyConfig(image_size=options.side)
    print(header("memory, MB", "jobs at once", "whole study", "allowed", "share", "largest job"))
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(folder, images=options.images, malignant=options.images // 3)
        for architecture in options.architectures:
            side = config.side(architecture)
            weights = sum(p.numel() * 4 for p in build(architecture, side, seed=0).parameters())
            allowed = options.images * side**2 + jobs * (weights + ALLOWED)
            most, largest = study(folder, architecture, options)
            megabytes = (f"{size / 1e6:.0f}" for size in (most, allowed))
            shown = (jobs, *megabytes, f"{most / allowed:.2f}", f"{largest / 1e6:.0f}")
            print(row(f"{architecture} {side}", *shown), flush=True)


if __name__ == "__main__":
    main()
