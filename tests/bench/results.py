"""Run the benchmarks and write RESULTS.md: machine, method, ratios, and what did not work.

    python tests/bench/results.py [PART ...] [--quick]

Without a PART all are run, which takes about three hours on two cores; with some, only their
sections are written anew. Every ratio is measured side by side in one run, and is the median of
several laps with the least and the most in brackets. `--quick` shows that everything runs, in
minutes; its figures mean nothing, and it writes to the terminal.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "RESULTS.md"
NOTES = BENCH / "NOTES.md"
PACKAGES = ("torch", "torchvision", "ray", "prefect", "pyarrow", "numpy", "pillow")


@dataclass(frozen=True)
class Part:
    """A section of the results."""

    title: str
    target: str
    command: tuple[str, ...]
    quick: tuple[str, ...]
    needs_gpu: bool = False


PARTS = {
    "training": Part(
        "Training throughput of a job",
        "each architecture >= 0.95 of the bare loop",
        ("training.py", "--batches=2", "--laps=5"),
        ("--side=75", "--batch=4", "--laps=1"),
    ),
    "study": Part(
        "Ten splits of ResNet18 against ten plain runs in sequence",
        ">= 2.5 times as fast",
        ("study.py", "--epochs=2", "--laps=3", "--plain=2"),
        ("--images=40", "--splits=2", "--epochs=1", "--side=64", "--laps=1"),
    ),
    "study-default": Part(
        "The same with the default's 30 epochs",
        ">= 2.5 times as fast",
        ("study.py", "--epochs=30", "--laps=1", "--plain=1"),
        ("--images=40", "--splits=2", "--epochs=1", "--side=64", "--laps=1"),
    ),
    "overhead": Part(
        "Overhead of a split job beyond its training",
        "<= 5 s amortised, ten jobs on two cores",
        ("overhead.py", "--laps=3"),
        ("--splits=2", "--images=40", "--laps=1"),
    ),
    "demo": Part(
        "The demo study after installation",
        "<= 6 min on two cores",
        ("demo.py",),
        ("--images=40",),
    ),
    "ingest": Part(
        "Ingest of 10,000 JPEGs",
        ">= 0.7 of bare decoding and resizing",
        ("ingest.py", "--laps=3"),
        ("--images=40", "--drawn=4", "--laps=1"),
    ),
    "near-duplicates": Part(
        "Near-duplicates",
        "growth below quadratic",
        ("near_duplicates.py", "--scale=10000"),
        ("--images=40", "--scale=1000"),
    ),
    "gradcam": Part(
        "Grad-CAM of both classes",
        "ResNet18 <= 1.15 times its forward pass",
        ("gradcam.py", "--batch=32"),
        ("--side=64", "--batch=2", "--rounds=1"),
    ),
    "screening": Part(
        "Screening from S3 with QC, Grad-CAM of the referred and Parquet",
        "a single model >= 0.8 of the bare forward loop",
        ("screening.py", "--images=6000"),
        ("--images=40",),
    ),
    "evaluate": Part(
        "Evaluation of ten networks on another image set",
        "<= 1.2 times the bare forward passes",
        ("evaluate.py", "--images=2000"),
        ("--images=40", "--members=2", "--side=64", "--laps=1"),
    ),
    "memory": Part(
        "Memory of a study",
        "<= pack + model + 1.5 GB for each running job",
        ("memory.py",),
        ("--images=40", "--architectures", "resnet18", "--side=64"),
    ),
    "precision": Part(
        "Parity of bfloat16 and float32",
        "AUC moves no more than another seed moves it",
        ("precision.py", "--splits=12", "--epochs=6"),
        ("--splits=2", "--epochs=1", "--side=64", "--images=40"),
    ),
    "seeds": Part(
        "Spread of an AUC: splits and seeds",
        "none; a study's spread over splits holds both",
        ("seeds.py",),
        ("--splits=2", "--seeds=2", "--epochs=1", "--images=40"),
    ),
    "threshold": Part(
        "Studies whose true sensitivity falls below the declared one",
        "<= 0.05 by the lower bound",
        ("threshold.py", "--studies=500"),
        ("--studies=5",),
    ),
    "promise": Part(
        "New patients whom conformal bands call what they promised not to",
        "at most the declared share, by patient",
        ("promise.py", "--studies=200"),
        ("--studies=2",),
    ),
    "coverage": Part(
        "Coverage of the 95 % intervals",
        "0.92 to 0.97, or the report says what it is",
        ("coverage.py", "--repeats=200"),
        ("--repeats=3",),
    ),
    "bands": Part(
        "Coverage of the bands of curves",
        "0.90 and more, or the report says what it is",
        ("bands.py", "--repeats=120"),
        ("--repeats=2",),
    ),
    "false-alarms": Part(
        "Months with a false alarm of drift, although nothing changed",
        "<= 0.10 of months of 30 nights, with patients' pseudonyms",
        ("false_alarms.py",),
        ("--months=1",),
    ),
    "calibration": Part(
        "Probabilities of new patients, calibrated on scores of few networks",
        "near the best there is",
        ("calibration.py",),
        ("--studies=2",),
    ),
    "threads": Part(
        "Threads of a job",
        "the default, one thread a job, loses nothing",
        ("threads.py",),
        ("--side=64", "--batch=4", "--laps=1"),
    ),
    "gpu": Part(
        "Training throughput on a GPU",
        "images/s and share of the roofline, each architecture",
        ("training.py", "--device=cuda", "--batches=20", "--laps=5"),
        ("--side=75", "--batch=4", "--laps=1"),
        needs_gpu=True,
    ),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def section(name: str, *, quick: bool) -> str:
    """Run a part; what it printed, below what was asked."""
    part = PARTS[name]
    head = f"## {part.title}\n\nTarget: {part.target}.\n"
    if part.needs_gpu and not torch.cuda.is_available():
        return f"{head}\n**Not run: this machine has no GPU.**\n"
    command = [*part.command, *(part.quick if quick else ())]
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, str(BENCH / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return f"{head}\n**Failed with status {done.returncode}.**\n"
    asked = f"`python tests/bench/{' '.join(command)}`"
    when = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, load before it {load:.1f}"
    return f"{head}\n{asked} ({when})\n\n{done.stdout.strip()}\n"


def commit() -> str:
    """The commit that is measured; `-dirty` where a file differs from it, but for the results."""
    sha = _git("rev-parse", "--short", "HEAD")
    others = (":/", ":(top,exclude)tests/bench/RESULTS.md")
    changed = sha and _git("status", "--porcelain", "--untracked-files=no", "--", *others)
    return f"{sha}-dirty" if changed else sha or "unknown"


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=BENCH, capture_output=True, text=True)
    return done.stdout.strip()


def machine() -> str:
    """What the figures were measured on."""
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = torch.cpu.get_capabilities()
    useful = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if found.get(name)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return (
        f"- processor: {processor()}, {cores} cores ({', '.join(useful)})\n"
        f"- memory: {memory:.0f} GiB; GPU: {gpu}\n"
        f"- {platform.system()}, Python {platform.python_version()}, {versions}\n"
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def earlier() -> dict[str, str]:
    """The sections that RESULTS.md holds, by part."""
    if not RESULTS.exists():
        return {}
    pieces = re.split(r"^(?=## )", RESULTS.read_text(), flags=re.MULTILINE)
    titles = {f"## {part.title}\n": name for name, part in PARTS.items()}
    found = {titles.get(piece.splitlines(keepends=True)[0]): piece for piece in pieces if piece}
    return {name: piece.strip() + "\n" for name, piece in found.items() if name}


def page(sections: dict[str, str]) -> str:
    head = (
        "# How close to the limit of the machine\n\n"
        "Written by `make bench`. Each ratio is of two ways measured in turn in one run: the\n"
        "median of the laps, with the least and the most in brackets. Each script in this folder\n"
        "says in its first lines what it compares.\n\n"
    )
    body = "\n".join(sections[name] for name in PARTS if name in sections)
    return f"{head}{machine()}\n{body}\n{NOTES.read_text()}"


def main(parts: Sequence[str], *, quick: bool) -> None:
    sections = {} if quick else earlier()
    for name in parts or PARTS:
        sections[name] = section(name, quick=quick)
        if quick:
            print(sections[name], flush=True)
        else:
            RESULTS.write_text(page(sections))


if __name__ == "__main__":
    options = arguments()
    main(options.parts, quick=options.quick)
