"""All that a user does, from phantoms to a worklist: the commands, one after the other, anywhere.

`python -m tests.e2e.tour FOLDER` does it on a real S3 server that it starts (`make study-s3`);
`test_store_kinds.py` does the same on a folder and in a bucket, and compares.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.places import REPOSITORY
from tests.support.s3server import BUCKET, running_server
from thyro_core.store.keys import report_key, worklist_key
from thyro_core.store.store import open_store

CONFIG = REPOSITORY / "deployments" / "demo-s3.yaml"
DATE = "2026-11-25"
DEADLINE = 900

METRICS = (
    "SELECT architecture, metric, value, ci_low, ci_high FROM metrics "
    "WHERE level = 'image' AND split IS NULL AND metric IN ('auc', 'accuracy') ORDER BY ALL"
)


@dataclass(frozen=True)
class Place:
    """Where a tour goes: everything it keeps lies at `url`, nothing but caches in `here`."""

    url: str
    here: Path
    """A folder of this machine; working directory, home, temporary files and scratch lie in it."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the commands see besides: credentials, say."""

    @property
    def store(self) -> str:
        return f"{self.url}/store"

    @property
    def folders(self) -> dict[str, Path]:
        names = {"HOME": "home", "TMPDIR": "tmp", "THYRO_SCRATCH": "scratch", "PWD": "cwd"}
        return {variable: self.here / name for variable, name in names.items()}

    def variables(self) -> dict[str, str]:
        ours = ("THYRO_", "PREFECT_", "AWS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        own = {name: str(folder) for name, folder in self.folders.items()}
        own |= {"THYRO_STORE": self.store, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        return kept | own | self.environment


@dataclass(frozen=True)
class Size:
    """How long the tour is."""

    images: int = 60
    malignant: int = 24
    new: int = 8
    config: tuple[str, ...] = ("--config", str(CONFIG))


Runner = Callable[[list[str]], str]
"""Runs one command to its end and gives back what it printed; raises if it failed."""


def tour(place: Place, size: Size, run: Runner) -> str:
    """Run everything; the study's id."""
    for folder in place.folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    images, inbox = f"{place.url}/images", f"{place.url}/inbox"
    counts = ["--images", str(size.images), "--malignant", str(size.malignant)]
    run(["phantom", images, *counts, "--seed", "1"])
    run(["ingest", images, *size.config])
    run(["study", images, *size.config])
    run(["query", METRICS])
    said = run(["query", "SELECT DISTINCT study_id FROM metrics", "--format", "csv"])
    study_id = said.split()[-1]
    # Where no weights can be had the study starts from random ones.
    run(["promote", study_id, "--force", "--reason", "a tour on phantoms"])
    run(["phantom", inbox, "--images", str(size.new), "--malignant", "3", "--seed", "2"])
    # Its masks are no images to screen.
    run(["screen", f"{inbox}/images", "--date", DATE])
    run(["query", "SELECT band, count(*) AS images FROM screening GROUP BY ALL ORDER BY ALL"])
    run(["report", study_id])
    run(["verify", study_id])
    run(["status", study_id])
    return study_id


def thyro(arguments: list[str], place: Place, **options: object) -> "subprocess.Popen[str]":
    """One `thyro` command, started."""
    command = str(Path(sys.executable).with_name("thyro"))
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [command, *arguments], cwd=place.folders["PWD"], env=place.variables(), text=True, **options
    )


def quietly(place: Place, said: list[str]) -> Runner:
    """A runner for tests: what is printed is kept in `said`, errors too."""

    def run(arguments: list[str]) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with thyro(arguments, place, **pipes) as process:
            out, err = process.communicate(timeout=DEADLINE)
        said.extend([out, err])
        assert process.returncode == 0, f"thyro {' '.join(arguments)}\n{out}\n{err}"
        return out

    return run


def loudly(place: Place) -> Runner:
    """A runner for people: each command is shown, then what it says as it says it."""

    def run(arguments: list[str]) -> str:
        shown = (f'"{word}"' if " " in word else word for word in arguments)
        print(f"\n$ thyro {' '.join(shown)}", flush=True)
        lines = []
        with thyro(arguments, place, stdout=subprocess.PIPE) as process:
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                print(line, end="", flush=True)
        if process.returncode:
            sys.exit(f"thyro {arguments[0]} ended with exit code {process.returncode}")
        return "".join(lines)

    return run


def main(folder: Path) -> None:
    """The tour on a real S3 server, which ends with it; the pages are kept in the folder."""
    started = time.monotonic()
    # Not below the folder: Ray's sockets lie there, and their names have a bound.
    with tempfile.TemporaryDirectory(prefix="thyro-s3-") as temporary:
        (server_folder := Path(temporary, "server")).mkdir()
        with running_server(server_folder) as server:
            print(f"SeaweedFS answers S3 at {server.endpoint}, bucket {BUCKET}, for this run")
            place = Place(f"s3://{BUCKET}/demo", Path(temporary, "here"), server.environment())
            study_id = tour(place, Size(), loudly(place))
            _keep_pages(place, study_id, folder)
            left = sorted(map(str, place.folders["PWD"].rglob("*")))
    if left:
        sys.exit(f"expected nothing in the working directory, found {', '.join(left)}")
    seconds = time.monotonic() - started
    print(f"\nStudy {study_id}: from phantoms to worklist on S3 alone, in {seconds:.0f} s.")
    print(f"The bucket is gone; its report and worklist were copied to {folder}.")


def _keep_pages(place: Place, study_id: str, folder: Path) -> None:
    os.environ.update(place.environment)
    store = open_store(place.store)
    folder.mkdir(parents=True, exist_ok=True)
    for key in (report_key(study_id), worklist_key(DATE, "html")):
        (folder / Path(key).name).write_bytes(store.read(key))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
