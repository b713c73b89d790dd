"""A network as ONNX and as torch's own exported program, checked against the network itself."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from thyro_core.errors import ThyroError

OPSET = 18
LOGIT_TOLERANCE = 1e-4
"""Largest difference of a logit, relative where logits exceed 1."""

_INPUT, _OUTPUT = "images", "logits"


@dataclass(frozen=True)
class NetworkFiles:
    """Where a network's files go; None: that one is left out."""

    onnx: Path | None
    program: Path | None


def export_network(
    model: nn.Module, images: Tensor, files: NetworkFiles, facts: Mapping[str, Any]
) -> float | None:
    """Write a network as ONNX, as an exported program or as both; any number of images goes in.

    Args:
        model: in evaluation mode, on the CPU.
        images: float32, n x 3 x side x side, at least two: what the files are checked on.
        files: where they go.
        facts: put into each as JSON, one entry a key.

    Returns:
        The largest difference of a logit of the ONNX file by onnxruntime; None: there is none.

    Raises:
        ModuleNotFoundError: there is to be an ONNX file, and its packages are not installed.
        ThyroError: a file gives other logits than the network.
    """
    with torch.inference_mode():
        own_logits = model(images)
    with warnings.catch_warnings():
        # Its own parts are deprecated to itself.
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        if files.program is not None:
            own_facts = {"model.json": json.dumps(facts)}
            torch.export.save(program, files.program, extra_files=own_facts)
        if files.onnx is not None:
            _write_onnx(program, files.onnx, facts)
    if files.program is not None:
        with torch.inference_mode():
            logits = torch.export.load(files.program).module()(images)
        _largest_gap(logits, own_logits, files.program)
    if files.onnx is None:
        return None
    return _largest_gap(onnx_logits(files.onnx, images), own_logits, files.onnx)


def load_onnx_packages() -> None:
    """Load what writes and checks ONNX, before any work is done.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401


def _write_onnx(program: ExportedProgram, file: Path, facts: Mapping[str, Any]) -> None:
    import onnx

    onnx_program = torch.onnx.export(
        program, (), dynamo=True, opset_version=OPSET, verbose=False,
        input_names=[_INPUT], output_names=[_OUTPUT],
    )  # fmt: skip
    if onnx_program is None:
        msg = f"{file.name}: torch made no ONNX program; report this"
        raise ThyroError(msg)
    proto = onnx_program.model_proto
    onnx.helper.set_model_props(proto, onnx_properties(facts))
    onnx.save_model(proto, file)


def onnx_properties(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as an ONNX file's metadata holds them: texts as they are, all else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
    }


def onnx_logits(file: Path, images: Tensor) -> Tensor:
    """A network's logits by onnxruntime on the CPU.

    Args:
        file: the ONNX file.
        images: float32, n x 3 x side x side.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run([_OUTPUT], {_INPUT: images.numpy()})
    return torch.from_numpy(logits)


def _largest_gap(actual: Tensor, own_logits: Tensor, file: Path) -> float:
    gap = (actual - own_logits).abs()
    if not bool((gap <= LOGIT_TOLERANCE * own_logits.abs().clamp(min=1.0)).all()):
        msg = (
            f"{file.name}: expected the network's logits to {LOGIT_TOLERANCE:g}, found a "
            f"difference of {float(gap.max()):.3g}; report this with the versions of torch and "
            "onnxruntime"
        )
        raise ThyroError(msg)
    return float(gap.max())
