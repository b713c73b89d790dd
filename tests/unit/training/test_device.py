import os
import subprocess
import sys

import pytest
import torch

from thyro_core.training import device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "AMD Zen4", "avx512_bf16": True}, "bf16"),
        ({"cpu_name": "AMD Zen3", "avx512_bf16": False}, "fp32"),
        ({"architecture": "aarch64"}, "fp32"),
    ],
)
def test_auto_takes_bf16_only_where_a_cpu_gains_by_it(monkeypatch, capabilities, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert device.choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_taken(wanted) -> None:
    assert device.choose_precision(wanted, CPU) == wanted


def test_torch_reports_this_cpus_capabilities_under_the_names_used() -> None:
    found = torch.cpu.get_capabilities()
    if found.get("architecture") != "x86_64":
        pytest.skip("names of x86-64 capabilities")
    assert {"amx_bf16", "avx512_bf16", "cpu_name"} <= found.keys()


@pytest.mark.parametrize("gpus", [0.0, 0.25, 1.0])
def test_a_job_without_a_gpu_runs_on_the_cpu(monkeypatch, gpus) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.job_device(gpus) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.job_device(gpus).type == ("cuda" if gpus else "cpu")


def test_peak_memory_grows_with_what_is_held() -> None:
    before = device.peak_memory()
    held = bytearray(b"x") * (before + 200_000_000)
    assert device.peak_memory() - before > 150_000_000
    del held


FRESH_PAGES = """
import resource, sys, torch
from thyro_core.training.device import prepare_torch

if sys.argv[1] == "kept":
    prepare_torch(1, deterministic=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_instead_of_fetched_anew() -> None:
    if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("only glibc is asked to keep memory")
    fresh, kept = (
        int(subprocess.check_output([sys.executable, "-c", FRESH_PAGES, way], text=True))
        for way in ("fresh", "kept")
    )
    # The first few may not fit where the ones before were: something small took a corner of it.
    assert kept < fresh / 4, "32 MB, forty times over"


GIVEN_BACK = """
import torch
from thyro_core.training.device import release_freed_memory, prepare_torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

prepare_torch(1, deterministic=False)
before = resident()
held = [torch.ones(2**22) for _ in range(8)]
last = torch.ones(8)
del held
kept = resident()
release_freed_memory()
print(kept - before, resident() - before)
"""


def test_what_is_kept_can_be_given_back() -> None:
    if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("only glibc is asked to keep memory")
    kept, left = map(
        int, subprocess.check_output([sys.executable, "-c", GIVEN_BACK], text=True).split()
    )
    assert kept > 100e6, "128 MB"
    assert left < 20e6
