"""What produced a result: versions of the packages that matter, and the program's commit."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "thyro", "torch", "torchvision", "ray", "prefect", "numpy", "scikit-learn", "pillow", "pyarrow",
)  # fmt: skip


@cache
def versions() -> str:
    """Versions of Python and the packages that can change a result, as JSON."""
    package_versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            package_versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(package_versions, sort_keys=True)


@cache
def git_commit() -> str | None:
    """The commit this program runs from, `-dirty` if it was changed; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip() or None
