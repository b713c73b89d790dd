"""Lets torchvision be imported beside a torch build that its compiled operators do not fit.

torchvision's usual wheel is built for CUDA. Beside a CPU build of torch its `_C` library does not
load, and `import torchvision` fails with "operator torchvision::nms does not exist", although the
networks need no compiled operator at all.
"""

import importlib.util
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from threading import Lock

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LOCK = Lock()


def ensure() -> None:
    """Make `import torchvision` work; call it right before each such import.

    Does nothing where torchvision's own operators load. Otherwise `nms` and `qnms` are declared
    without an implementation: the import succeeds, and only calling one of them fails.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    with _LOCK:
        _declare_operators()


@cache
def _declare_operators() -> torch.library.Library | None:
    # The cache keeps the library alive: its operators vanish with the object.
    if hasattr(torch.ops.torchvision, "nms") or _loads(_operator_library()):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _operator_library() -> Path | None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        msg = "torchvision is not installed: expected beside torch, see the README's installation"
        raise ModuleNotFoundError(msg, name="torchvision")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    candidates = (folder / f"_C{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _loads(path: Path | None) -> bool:
    if path is None:
        return False
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
