"""NVIDIA's Multi-Process Service for the jobs of a benchmark, started and stopped in a folder.

With MPS the kernels of several processes run on a GPU at the same time; without it the processes
take turns. The service belongs to the folder of its pipes: one that serves others is left alone.
"""

import os
import shutil
import subprocess
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"


class MpsError(RuntimeError):
    """The service cannot be had."""


def environment(folder: str) -> dict[str, str]:
    """What a process needs to find the service of a folder."""
    return {
        "CUDA_MPS_PIPE_DIRECTORY": str(Path(folder) / "mps-pipes"),
        "CUDA_MPS_LOG_DIRECTORY": str(Path(folder) / "mps-logs"),
    }


def start(folder: str) -> dict[str, str]:
    """Start the service; returns the environment of the processes that use it.

    Raises:
        MpsError: this machine has none, or it does not start.
    """
    found = environment(folder)
    for place in found.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    if shutil.which(CONTROL) is None:
        msg = f"MPS: expected the program {CONTROL}, found none; it comes with NVIDIA's driver"
        raise MpsError(msg)
    status = _control(folder, "-d")
    if status:
        msg = f"MPS: {CONTROL} did not start (status {status}); see whether another one runs"
        raise MpsError(msg)
    return found


def stop(folder: str) -> None:
    """Stop the service of a folder, if there is one."""
    if Path(environment(folder)["CUDA_MPS_PIPE_DIRECTORY"]).exists() and shutil.which(CONTROL):
        _control(folder, words="quit\n")


def _control(folder: str, *options: str, words: str = "") -> int:
    # Its output goes nowhere: the service would hold a pipe open for as long as it runs.
    try:
        return subprocess.run(
            [CONTROL, *options],
            env=os.environ | environment(folder),
            input=words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=15,
        ).returncode
    except subprocess.TimeoutExpired:
        return -1
