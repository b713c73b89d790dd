"""The networks: torchvision's, with a two-class head, started at random or from a file.

The paper's four are described here. Of any other, `anatomy` finds head and last feature map, and
`parts` cuts it there.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from thyro_core.config import Architecture
from thyro_core.config.networks import REFERENCE_SIDE, network_side, takes_one_side
from thyro_core.config.starting_weights import PrefixRule
from thyro_core.errors import InputError
from thyro_core.training import torchvision_compat
from thyro_core.training.anatomy import find_anatomy, options_of
from thyro_core.training.batches import IMAGENET_MEAN, IMAGENET_SD
from thyro_core.training.parts import check_cut, cut
from thyro_core.training.pooling import DeterministicPool

LAST_CONV: Mapping[Architecture, str] = MappingProxyType(
    {
        "resnet18": "layer4",
        "alexnet": "features",
        "vgg16": "features",
        "inception_v3": "Mixed_7c",
    }
)
"""Name of the module whose output is the last feature map; of the others see `last_layer`."""

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
# The smallest side of a study; no other network that takes several sides needs more.
_LEAST_SIDE = 64
# Sides at which the feature map already has the size that the adaptive pooling makes.
_POOLED_SIDES: Mapping[str, range] = MappingProxyType(
    {"alex": range(223, 255), "vgg1": range(224, 256)}
)
# The auxiliary head's 5x5 convolution needs a 17x17 map.
_AUX_SIDE = 299
_AUX = "AuxLogits."
_HEAD_SD = 0.02
_PARAMETER_GROUP = re.compile(r"[^.]+(\.\d+)?")
# Names of tensors in torchvision's own files that were made by its earlier versions.
_EARLIER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
NORMALISATION: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"efficientnet_v2_l": (0.5, 0.5)}
)
"""Networks whose weights were made with another normalisation than ImageNet's: mean, SD."""


class Renormalise(nn.Module):
    """Images in ImageNet's normalisation, as another network's weights want them."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self._scale = [own / sd for own in IMAGENET_SD]
        self._shift = [(own - mean) / sd for own in IMAGENET_MEAN]

    def forward(self, images: Tensor) -> Tensor:
        """Float32, b x 3 x side x side."""
        scale, shift = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (self._scale, self._shift)
        )
        return images * scale + shift


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
    _check_side(architecture, side)
    options = torchvision_options(architecture, side)
    torchvision_compat.ensure()
    from torchvision import models

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that one reseeds the GPUs too.
        torch.default_generator.manual_seed(seed)
        model: nn.Module = getattr(models, architecture)(**options)
        _draw_zero_head(model, architecture)
    pool = getattr(model, "avgpool", None)
    if side in _POOLED_SIDES.get(architecture[:4], ()):
        model.avgpool = nn.Identity()
    elif isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size not in {1, (1, 1)}:
        model.avgpool = DeterministicPool(pool.output_size)
    if architecture in NORMALISATION:
        renormalise = Renormalise(*NORMALISATION[architecture])
        model.register_forward_pre_hook(lambda _, inputs: (renormalise(inputs[0]),))
    return model


def torchvision_options(architecture: Architecture, side: int) -> dict[str, Any]:
    """What torchvision's function for a network is called with.

    Args:
        architecture: the network.
        side: of its input [pixels].
    """
    options = options_of(architecture, side)
    if architecture == "inception_v3":
        aux = side >= _AUX_SIDE
        options |= {"aux_logits": aux, "transform_input": False, "init_weights": True}
    return options


def _draw_zero_head(model: nn.Module, architecture: Architecture) -> None:
    """Vision transformers' heads start at zero: a head drawn anew would have no map to compare."""
    if not architecture.startswith("vit_"):
        return
    head = model.get_submodule(find_anatomy(architecture).head)
    nn.init.trunc_normal_(head.get_parameter("weight"), std=_HEAD_SD)


def _check_side(architecture: Architecture, side: int) -> None:
    least = _MIN_SIDE.get(architecture, _LEAST_SIDE)
    one = network_side(architecture, REFERENCE_SIDE)
    if takes_one_side(architecture) and side != one:
        msg = (
            f"{architecture}: expected an input side of {one} pixels, the one that it takes, found "
            f"{side}; set image_size={REFERENCE_SIDE}"
        )
    elif side < least:
        msg = (
            f"{architecture}: expected an input side of at least {least} pixels, found {side}; "
            "raise image_size"
        )
    else:
        return
    raise InputError(msg)


def last_layer(architecture: Architecture) -> str:
    """Name of the module whose output is a network's last feature map, where Grad-CAM looks."""
    return LAST_CONV.get(architecture) or find_anatomy(architecture).layer


def body_and_head(model: nn.Module, architecture: Architecture) -> tuple[nn.Module, nn.Module]:
    """A network up to and with `last_layer`, and what comes after it; both share its modules.

    Of the paper's four torchvision registers modules in the order of the forward pass. The
    auxiliary head, beside the path, is left out: evaluation never takes it. Flattening is the one
    step without a module. The others are cut by `parts.cut`.

    Args:
        model: What `build` made for this architecture, in evaluation mode.
        architecture: Which network it is.
    """
    if architecture not in LAST_CONV:
        body, head = cut(model, last_layer(architecture))
        if architecture in NORMALISATION:
            body = nn.Sequential(Renormalise(*NORMALISATION[architecture]), body)
        return body, head
    children = {name: child for name, child in model.named_children() if name != "AuxLogits"}
    place = list(children).index(LAST_CONV[architecture]) + 1
    parts = list(children.values())
    pool, *rest = parts[place:]
    return nn.Sequential(*parts[:place]), nn.Sequential(pool, nn.Flatten(1), *rest)


def check_anatomy(model: nn.Module, architecture: Architecture, side: int) -> None:
    """Make sure that a network beyond the paper's four has the maps that its anatomy describes.

    Args:
        model: What `build` made for this architecture; its mode stays as it is.
        architecture: Which network it is.
        side: Of its input [pixels].

    Raises:
        CutError: it has not, and must not be studied.
    """
    if architecture in LAST_CONV:
        return
    was_training = model.training
    model.eval()
    check_cut(model, body_and_head(model, architecture), side)
    model.train(was_training)


def forward_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What an image passes in one of the paper's four in evaluation mode, with torchvision's names.

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
    current = {_current_name(name): value for name, value in tensors.items()}
    usable = {name: value for name, value in current.items() if not name.startswith(ignored_keys)}
    if not usable:
        msg = (
            f"{origin}: expected tensors of {architecture} under torchvision's names, found none "
            f"of its feature layers; give a file made for {architecture}"
        )
        raise InputError(msg)
    for name, value in usable.items():
        _check_tensor(name, value, own.get(name), f"{origin}: not weights of {architecture}")
    load_tensors(model, own | usable)
    return _random_layers(own, usable, architecture)


def rename_tensors(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    rules: Sequence[PrefixRule],
    origin: str = "starting weights",
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors of a file of another program by the network's names, as far as it has them.

    Args:
        model: What `build` made.
        tensors: By the file's names.
        rules: The first one that fits a name decides how it begins; others stay as they are.
        origin: Where the tensors came from, for messages.

    Returns:
        What the network knows; and the file's own names, as far as layers, of what it does not.

    Raises:
        InputError: no rule fits any name, or two tensors get the same name.
    """
    if not any(name.startswith(rule.old) for rule in rules for name in tensors):
        beginnings = ", ".join(rule.old for rule in rules)
        examples = ", ".join(list(tensors)[:3])
        msg = (
            f"{origin}: expected names that begin with one of weights_prefix ({beginnings}), found "
            f"{examples}, ...; correct weights_prefix"
        )
        raise InputError(msg)
    own = model.state_dict()
    named_tensors: dict[str, Tensor] = {}
    foreign: list[str] = []
    for name, value in tensors.items():
        rule = next((rule for rule in rules if name.startswith(rule.old)), None)
        target = _current_name(name if rule is None else rule.new + name.removeprefix(rule.old))
        if target not in own:
            foreign.append(_layer(name))
        elif target in named_tensors:
            msg = f"{origin}: expected one tensor for {target}, found two, {name} the second; "
            raise InputError(msg + "correct weights_prefix")
        else:
            named_tensors[target] = value
    return named_tensors, tuple(dict.fromkeys(foreign))


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network all its tensors, as `load_state_dict` does with a state of its own.

    MNASNet takes no others: it asks for the version that its states carry and plain mappings lack.

    Args:
        model: changed in place.
        tensors: by the names of its state.

    Raises:
        RuntimeError: a tensor is missing, unknown or of another shape.
    """
    state = model.state_dict()
    missing = sorted(state.keys() - tensors.keys())
    if missing:
        msg = f"Missing key(s) in state_dict: {', '.join(missing)}"
        raise RuntimeError(msg)
    state.update(tensors)
    model.load_state_dict(state)


def _current_name(name: str) -> str:
    for pattern, replacement in _EARLIER_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _heads(architecture: Architecture) -> tuple[str, ...]:
    """Beginnings of the names of the classification heads' tensors."""
    return _HEADS.get(architecture) or (f"{find_anatomy(architecture).head}.",)


def _random_layers(
    own: Mapping[str, Tensor], names: Mapping[str, Tensor], architecture: Architecture
) -> tuple[str, ...]:
    # num_batches_tracked counts steps; nothing is computed from it.
    heads = _heads(architecture)
    missing = (name for name in own if name not in names and not name.startswith(heads))
    layers = (_layer(name) for name in missing if not name.endswith("num_batches_tracked"))
    return tuple(dict.fromkeys(layers))


def _ignored_keys(model: nn.Module, architecture: Architecture) -> tuple[str, ...]:
    heads = _heads(architecture)
    if architecture == "googlenet":
        return (*heads, "aux1.", "aux2.")
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
