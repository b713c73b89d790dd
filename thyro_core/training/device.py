"""What the machine can do, and how torch is set up so that it does it the same way twice."""

import ctypes
import os
import resource
from collections.abc import Mapping
from typing import Literal

import torch
import torch.utils.deterministic

from thyro_core.config import Precision
from thyro_core.host import peak_bytes

# glibc's malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD [bytes], M_ARENA_MAX.
_MALLOC = {-3: 1 << 30, -1: (1 << 31) - 1, -8: 1}


def job_device(gpus: float) -> torch.device:
    """The device of a job that was given this many GPUs (or a fraction of one)."""
    return torch.device("cuda" if gpus > 0 and torch.cuda.is_available() else "cpu")


def choose_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where `auto` meets hardware that computes in it faster than in fp32; else as wanted."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _bf16_pays(torch.cpu.get_capabilities()) else "fp32"


def _bf16_pays(capabilities: Mapping[str, object]) -> bool:
    """Whether a CPU multiplies matrices faster in bfloat16 than in float32.

    With AMX, or on AMD with AVX512-BF16, twice as fast. Intel's AVX512-BF16 without AMX (hidden by
    many hypervisors) is half as fast: 83 against 158 GFLOP/s on one core of a Xeon, measured.
    """
    if capabilities.get("amx_bf16"):
        return True
    amd = "amd" in str(capabilities.get("cpu_name", "")).lower()
    return amd and bool(capabilities.get("avx512_bf16"))


def retain_freed_memory() -> None:
    """Have the C library keep freed memory for the next batch, where it is glibc.

    Else each large tensor is fresh memory from the kernel, which clears it page by page: 13 % of
    the processor time of training ResNet18, 28 % of AlexNet's. The most memory in use grows by a
    tenth. Threads that have taken memory before keep theirs as they did.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def release_freed_memory() -> None:
    """Return the unused memory that `retain_freed_memory` has retained to the system.

    Called between phases: the free blocks of one phase do not fit the batches of the next, and an
    idle process needs none of them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.malloc_trim(0)


def prepare_torch(threads: int, deterministic: bool) -> None:
    """Set this process's torch up for a job.

    Args:
        threads: CPU threads; the order of sums, and so the last bits, depends on it.
        deterministic: refuse every operation that has no deterministic form.
    """
    retain_freed_memory()
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


def gpu_memory() -> int | None:
    """Memory of the smallest GPU that this process sees [bytes]; None: it sees none."""
    sizes = [
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    ]
    return min(sizes, default=None)


def peak_memory() -> int:
    """Peak resident memory of this process [bytes]."""
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
