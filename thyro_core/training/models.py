"""The four networks: torchvision's, with a two-class head, started at random or from a file."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from thyro_core.config import CLASS_NAMES, Architecture
from thyro_core.errors import InputError
from thyro_core.training import torchvision_compat

LAST_CONV: Mapping[Architecture, str] = MappingProxyType(
    {
        "resnet18": "layer4",
        "alexnet": "features",
        "vgg16": "features",
        "inception_v3": "Mixed_7c",
    }
)
"""Name of the module whose output is the last feature map, where Grad-CAM looks."""

_HEADS: Mapping[Architecture, tuple[str, ...]] = MappingProxyType(
    {
        "resnet18": ("fc.",),
        "alexnet": ("classifier.6.",),
        "vgg16": ("classifier.6.",),
        "inception_v3": ("fc.", "AuxLogits.fc."),
    }
)
# torchvision's `min_size` of each network's weights; below it a feature map has no cell left.
_MIN_SIDE: Mapping[Architecture, int] = MappingProxyType(
    {"resnet18": 32, "alexnet": 63, "vgg16": 32, "inception_v3": 75}
)
# Sides at which the feature map already has the size that the adaptive pooling makes.
_POOLED_SIDES: Mapping[Architecture, range] = MappingProxyType(
    {"alexnet": range(223, 255), "vgg16": range(224, 256)}
)
# The auxiliary head's 5x5 convolution needs a 17x17 map.
_AUX_SIDE = 299
_AUX = "AuxLogits."
_PARAMETER_GROUP = re.compile(r"[^.]+(\.\d+)?")


def build(architecture: Architecture, side: int, seed: int) -> nn.Module:
    """A network with torchvision's random initialisation and a head of two classes.

    Input: float32, N x 3 x side x side. Output: logits, float32, N x 2 (benign, malignant);
    Inception_v3 in training mode with its auxiliary head returns the pair
    `(logits, aux_logits)`. That head exists from a side of 299 pixels on, where its map fits.
    Inception_v3's `transform_input` is off whatever the starting weights.

    The same arguments make the same weights, and torch's global generators stay as they are.

    Args:
        architecture: Which network.
        side: Side of the square input [pixels].
        seed: Seed of the initialisation.

    Raises:
        InputError: the side is too small for the network.
    """
    least = _MIN_SIDE[architecture]
    if side < least:
        msg = (
            f"{architecture}: expected an input side of at least {least} pixels, found {side}; "
            "raise image_size"
        )
        raise InputError(msg)
    options = {"num_classes": len(CLASS_NAMES)}
    if architecture == "inception_v3":
        aux = side >= _AUX_SIDE
        options |= {"aux_logits": aux, "transform_input": False, "init_weights": True}
    torchvision_compat.ensure()
    from torchvision import models

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that one reseeds the GPUs too.
        torch.default_generator.manual_seed(seed)
        model: nn.Module = getattr(models, architecture)(**options)
    if side in _POOLED_SIDES.get(architecture, ()):
        # The backward pass of adaptive pooling is not deterministic on CUDA.
        model.avgpool = nn.Identity()
    return model


def body_and_head(
    model: nn.Module, architecture: Architecture
) -> tuple[nn.Sequential, nn.Sequential]:
    """A network up to and with `LAST_CONV`, and what comes after it; both share its modules.

    torchvision registers modules in the order of the forward pass. The auxiliary head, beside the
    path, is left out: evaluation never takes it. Flattening is the one step without a module.

    Args:
        model: What `build` made for this architecture.
        architecture: Which network it is.
    """
    children = {name: child for name, child in model.named_children() if name != "AuxLogits"}
    cut = list(children).index(LAST_CONV[architecture]) + 1
    parts = list(children.values())
    pool, *rest = parts[cut:]
    return nn.Sequential(*parts[:cut]), nn.Sequential(pool, nn.Flatten(1), *rest)


def forward_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What an image passes in evaluation mode, in order, with torchvision's names.

    `features` and `classifier` are taken apart; `avgpool` is the first layer behind `LAST_CONV`,
    and flattening, which has no module, follows it under the name `flatten`.

    Args:
        model: What `build` made.
    """
    layers: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == "AuxLogits":
            continue
        if name in {"features", "classifier"}:
            layers += [(f"{name}.{place}", part) for place, part in child.named_children()]
        else:
            layers.append((name, child))
        if name == "avgpool":
            layers.append(("flatten", nn.Flatten(1)))
    return layers


def load_starting_weights(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    origin: str = "starting weights",
) -> tuple[str, ...]:
    """Copy starting weights into a network, all but the classification heads.

    The heads stay random: ImageNet's 1000 classes are replaced by two. The values take the
    network's own dtype (float16 files become float32).

    Args:
        model: What `build` made; changed in place.
        tensors: Tensors by torchvision's names.
        architecture: Which network it is.
        origin: Where the tensors came from, for messages.

    Returns:
        Names of the layers, heads apart, that the file does not cover and that therefore still
        have random values, in the network's order: `("classifier.1", "classifier.4")`.

    Raises:
        InputError: a tensor is unknown to the network, has another shape or kind of number,
            holds values that are not finite, or none of them belongs to the network.
    """
    own = model.state_dict()
    ignored_keys = _ignored_keys(model, architecture)
    usable = {name: value for name, value in tensors.items() if not name.startswith(ignored_keys)}
    if not usable:
        msg = (
            f"{origin}: expected tensors of {architecture} under torchvision's names, found none "
            f"of its feature layers; give a file made for {architecture}"
        )
        raise InputError(msg)
    for name, value in usable.items():
        _check_tensor(name, value, own.get(name), f"{origin}: not weights of {architecture}")
    model.load_state_dict(usable, strict=False)
    return _random_layers(own, usable, architecture)


def _random_layers(
    own: Mapping[str, Tensor], names: Mapping[str, Tensor], architecture: Architecture
) -> tuple[str, ...]:
    # num_batches_tracked counts steps; nothing is computed from it.
    heads = _HEADS[architecture]
    missing = (name for name in own if name not in names and not name.startswith(heads))
    layers = (_layer(name) for name in missing if not name.endswith("num_batches_tracked"))
    return tuple(dict.fromkeys(layers))


def _ignored_keys(model: nn.Module, architecture: Architecture) -> tuple[str, ...]:
    heads = _HEADS[architecture]
    without_aux = architecture == "inception_v3" and getattr(model, "AuxLogits", None) is None
    return (*heads, _AUX) if without_aux else heads


def _check_tensor(name: str, value: Tensor, own: Tensor | None, where: str) -> None:
    if own is None:
        msg = f"{where}: expected torchvision's names, found an unknown tensor {name!r}"
    elif value.shape != own.shape:
        msg = f"{where}: expected {name} of shape {tuple(own.shape)}, found {tuple(value.shape)}"
    elif value.is_floating_point() != own.is_floating_point():
        msg = f"{where}: expected {name} as {own.dtype}, found {value.dtype}"
    elif not bool(torch.isfinite(value).all()):
        msg = f"{where}: expected finite numbers in {name}, found NaN or infinity"
    else:
        return
    msg += "; give a file made for this network"
    raise InputError(msg)


def _layer(name: str) -> str:
    match = _PARAMETER_GROUP.match(name)
    return match.group() if match else name
