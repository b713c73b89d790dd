"""Everything that a GPU can tell, in under eight minutes: writes RESULTS-gpu.md as it goes.

    make gpu            or, with any Python that has torch, torchvision and numpy:
    python tests/bench/gpu.py [PART ...] [--tiny --device cpu]

Neither Ray nor Prefect nor a network is needed. Each part is a process with a time limit: what it
has printed by then stands in the results, a part that fails or runs out of time is a line there,
and the others go on. `--tiny --device cpu` runs the same code on a CPU, in minutes and without
meaning, and writes to the terminal. This file needs nothing beside Python.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import gpu_mps

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "RESULTS-gpu.md"
WHOLE = 470.0
"""Seconds for all parts."""
GRACE = 5.0
"""Seconds to end well after a time limit, before the part is killed."""

FIGURE = "figure: "
"""Begins a line that is for the parts that follow, and not for the reader: JSON."""

_ERROR = re.compile(r"\w+(\.\w+)*(Error|Exception|Interrupt)\b.*")


@dataclass(frozen=True)
class Part:
    """One process of the benchmark.

    Attributes:
        title: Its heading in the results.
        target: What is hoped for.
        command: Script and options.
        limit: Most seconds that it may take.
        least: Seconds that earlier parts leave to it, whatever they do.
    """

    title: str
    target: str
    command: tuple[str, ...]
    limit: float
    least: float = 5.0


PARTS = {
    "machine": Part("The machine", "a GPU that torch sees", ("gpu_machine.py",), 30),
    "checks": Part(
        "The same numbers", "yes in each row; memory below its estimate", ("gpu_checks.py",), 80
    ),
    **{
        f"ways-{name}": Part(
            f"Training steps, {name}",
            "graphs faster than eager; share of the roofline as near to 1 as convolutions come",
            ("gpu_ways.py", f"--architecture={name}"),
            25,
        )
        for name in ("resnet18", "alexnet", "vgg16", "inception_v3")
    },
    "jobs": Part(
        "Jobs that share the GPU", "more images a second than one job alone", ("gpu_jobs.py",), 60
    ),
    "jobs-mps": Part(
        "Jobs that share the GPU through MPS", "as above", ("gpu_jobs.py", "--mps"), 60
    ),
    "together": Part(
        "Ten splits trained by one process",
        "more than ten jobs at once",
        ("gpu_together.py",),
        60,
    ),
    "study": Part(
        "The whole study: 10 splits, 4 networks, 357 images, 30 epochs",
        "<= 180 s of training on an H100 or H200",
        ("gpu_study.py",),
        240,
        least=170,
    ),
    "compile": Part(
        "torch.compile, in what time is left",
        "faster than graphs by more than it takes to compile",
        ("gpu_ways.py", "--compiled"),
        120,
    ),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="for all parts")
    return parser.parse_args()


def run_part(command: Sequence[str], limit: float, on_line: Callable[[str], None]) -> str:
    """Run a command, and end it with all that it started when its time is over.

    Args:
        command: what to run.
        limit: seconds.
        on_line: takes each line that it prints, as it comes.

    Returns:
        How it ended, in words for the results.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        output = process.stdout
        reader = threading.Thread(target=lambda: [on_line(line) for line in output])
        reader.start()
        try:
            process.wait(limit)
            ending = "" if process.returncode == 0 else f"**Failed with status {process.returncode}"
        except subprocess.TimeoutExpired:
            ending = f"**Stopped after its time limit of {limit:.0f} s"
        finally:
            end_group(process)
        reader.join()
        output.close()
        if not ending:
            return f"Took {time.monotonic() - started:.0f} s."
        errors.seek(0)
        return f"{ending}{reason(errors.read())}.**"


def python_path() -> str:
    """Where Python looks for modules: this checkout, then where it was told to look."""
    return os.pathsep.join(filter(None, (str(BENCH.parents[1]), os.environ.get("PYTHONPATH"))))


def end_group(process: "subprocess.Popen[str]") -> None:
    """End a process and those it has started: they hold its output open, and the GPU busy."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 60.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def reason(text: str) -> str:
    """The last error that a process wrote, for a line of the results; empty: it wrote none."""
    found = [line.strip() for line in text.splitlines() if _ERROR.match(line.strip())]
    return f": {found[-1][:300]}" if found else ""


def best_way(figures: Sequence[Mapping[str, object]]) -> list[str]:
    """Options of the study: the way of sharing the GPU that trained most images a second."""
    shared = [figure for figure in figures if "way" in figure]
    if not shared:
        return []
    best = max(shared, key=lambda figure: float(str(figure["rate"])))
    options = [f"--way={best['way']}", f"--count={best['count']}"]
    return [*options, "--mps"] if best.get("mps") else options


def time_limit(names: Sequence[str], place: int, left: float) -> float:
    """Seconds for a part, of those that are left: later ones keep their least."""
    reserved = sum(PARTS[name].least for name in names[place + 1 :])
    return min(PARTS[names[place]].limit, left - reserved)


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=BENCH, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


class Results:
    """The page of results, written anew with each line once it has a file."""

    def __init__(self) -> None:
        """Show lines in the terminal only, until `path` is set."""
        self.path: Path | None = None
        python = f"Python {platform.python_version()}"
        self._lines = [
            "# What a GPU showed", "",
            "Written by `make gpu`, part by part; each script in this folder says in its first",
            "lines what it measures. A part that failed or ran out of time says so at its end.", "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}, {python}",
        ]  # fmt: skip

    def add(self, *lines: str) -> None:
        """Show lines, and keep them."""
        for line in lines:
            print(line, flush=True)
        self._lines += lines
        if self.path is not None:
            self.path.write_text("\n".join(self._lines) + "\n")


def main(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run the parts; returns the exit status: 1 if one of them failed."""
    deadline = time.monotonic() + options.seconds
    results = Results()
    figures: list[dict[str, object]] = []
    endings: list[str] = []
    common = [f"--device={options.device}", *(["--tiny"] if options.tiny else [])]

    def take(line: str) -> None:
        if line.startswith(FIGURE):
            figures.append(json.loads(line.removeprefix(FIGURE)))
        else:
            results.add(line.rstrip())

    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(names):
            part = PARTS[name]
            command = [sys.executable, str(BENCH / part.command[0]), *part.command[1:], *common]
            command += [f"--mps-folder={folder}"]
            if name == "study":
                command += best_way(figures)
            results.add("", f"## {part.title}", "", f"Target: {part.target}.", "")
            limit = time_limit(names, place, deadline - time.monotonic())
            ending = "**Not run: no time was left.**"
            if limit >= 1:
                ending = run_part(command, limit, take)
            gpu_mps.stop(folder)
            results.add("", ending)
            endings.append(ending)
            if name == "machine" and not ending.startswith("Took"):
                return 1
            # Results of another day stay, unless all of them are made anew.
            if name == "machine" and not options.tiny and len(names) == len(PARTS):
                results.path = RESULTS
    return int(any(ending.startswith("**Failed") for ending in endings))


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(main(chosen.parts or list(PARTS), chosen))
