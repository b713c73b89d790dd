"""Where a network of torchvision is cut: its last feature map, its head, and its blocks.

Found once for each name by tracing a copy without values (torch's meta device), so that nothing is
computed and no weight is drawn. The last feature map is the last output of the form b x k x h x w,
of more than one cell, that a module gives before the classification head, pooling apart. A vision
transformer has none: there it is the tokens that the last encoder block receives, because behind
that block only the class token counts and no patch has a gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thyro_core.config import CLASS_NAMES, Architecture
from thyro_core.config.networks import REFERENCE_SIDE, network_side
from thyro_core.errors import InputError
from thyro_core.training import torchvision_compat

_NO_STAGE = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Anatomy:
    """The modules by which a network is cut, by their names in it."""

    layer: str
    """Its output is the last feature map."""
    head: str
    """The classification head: a layer with an output a class."""
    blocks: tuple[tuple[str, ...], ...]
    """The parts with weights up to and with `layer`, in the order of the forward pass: each a
    module that mixes values (convolutions, linear layers) and the norms behind it."""


class _WeightsOnMeta(TorchFunctionMode):
    """Weights without values; what else a network computes while it is made keeps them."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - as torch declares it
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


def options_of(architecture: Architecture, side: int) -> dict[str, Any]:
    """What torchvision's function for a network beyond the paper's four is called with.

    GoogLeNet has no auxiliary heads here; its official weights take another normalisation than
    ImageNet's, to which `transform_input` converts. Vision transformers are made for one side.

    Args:
        architecture: the network.
        side: of its input [pixels].
    """
    options: dict[str, Any] = {"num_classes": len(CLASS_NAMES)}
    if architecture == "googlenet":
        options |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    if architecture.startswith("vit_"):
        options["image_size"] = side
    return options


def meta_network(architecture: Architecture, side: int) -> nn.Module:
    """A network beyond the paper's four on torch's meta device: shapes without values.

    Args:
        architecture: the network.
        side: of its input [pixels].
    """
    torchvision_compat.ensure()
    from torchvision import models

    with _WeightsOnMeta():
        model: nn.Module = models.get_model(architecture, **options_of(architecture, side))
    return model.to("meta")


@cache
def find_anatomy(architecture: Architecture) -> Anatomy:
    """Where a network beyond the paper's four is cut.

    Args:
        architecture: the network.

    Raises:
        InputError: the network has no single head, or no feature map before it.
    """
    side = network_side(architecture, REFERENCE_SIDE)
    model = meta_network(architecture, side).eval()
    heads = [name for name, module in model.named_modules() if _width(module) == len(CLASS_NAMES)]
    calls = _output_shapes(model, side)
    order = list(calls)
    layer = _tokens_layer(model)
    if layer is None and len(heads) == 1:
        before = order[: order.index(heads[0])]
        layer = next((n for n in reversed(before) if _is_map(model, n, calls[n])), None)
    if layer is None:
        msg = (
            f"{architecture}: expected one classification head behind a feature map, found "
            f"{len(heads)} heads and no such map; choose another network"
        )
        raise InputError(msg)
    return Anatomy(layer, heads[0], _blocks(model, layer, order))


def _width(module: nn.Module) -> int | None:
    """Outputs of a layer that can be a head: torchvision's are linear, or 1 x 1 convolutions."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _output_shapes(model: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """Shape of each module's output, in the order in which they are done."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:  # noqa: ANN401 - a hook as torch takes it
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    with torch.no_grad():
        model(torch.zeros(2, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return shapes


def _is_map(model: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    is_stage = not isinstance(model.get_submodule(name), _NO_STAGE)
    return is_stage and len(shape) == 4 and shape[2] * shape[3] > 1


def _tokens_layer(model: nn.Module) -> str | None:
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Module):
        return None
    names = [name for name, _ in encoder.get_submodule("layers").named_children()]
    return f"encoder.layers.{names[-2]}"


def _blocks(model: nn.Module, layer: str, order: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The parts with weights that are done with the layer; sequences are taken apart once."""
    parts = [part for name, m in model.named_children() for part in _module_names(name, m, layer)]
    places = {name: place for place, name in enumerate(order) if place <= order.index(layer)}
    blocks: list[tuple[str, ...]] = []
    for part in sorted((part for part in parts if part in places), key=places.__getitem__):
        module = model.get_submodule(part)
        if any(isinstance(m, nn.Linear | nn.Conv2d) for m in module.modules()):
            blocks.append((part,))
        elif blocks and next(module.parameters(), None) is not None:
            blocks[-1] += (part,)
    return tuple(blocks)


def _module_names(name: str, module: nn.Module, layer: str) -> list[str]:
    is_sequence = isinstance(module, nn.Sequential | nn.ModuleList) and "." not in name
    if not is_sequence and not layer.startswith(f"{name}."):
        return [name]
    children = module.named_children()
    return [
        part for own, child in children for part in _module_names(f"{name}.{own}", child, layer)
    ]
