"""What the machine can do, and how torch is set up so that it does it the same way twice."""

import os
import resource
from typing import Literal

import torch
import torch.utils.deterministic

from thyro_core.config import Precision


def job_device(gpus: float) -> torch.device:
    """The device of a job that was given this many GPUs (or a fraction of one)."""
    return torch.device("cuda" if gpus > 0 and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where `auto` meets hardware that computes in it faster than in fp32; else as wanted."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Emulated bfloat16 is slower than float32: only CPUs with the instructions count.
    return "bf16" if _has_bf16_dot() else "fp32"


def _has_bf16_dot() -> bool:
    capabilities = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16")
    return any(bool(capabilities.get(name)) for name in names)


def prepare_torch(threads: int, deterministic: bool) -> None:
    """Set this process's torch up for a job.

    Args:
        threads: CPU threads; the order of sums, and so the last bits, depends on it.
        deterministic: refuse every operation that has no deterministic form.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # Filling fresh memory finds reads of unset values; it costs time and no such read is made.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory() -> int:
    """Peak resident memory of this process [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
