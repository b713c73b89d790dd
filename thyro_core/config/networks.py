"""The networks that a study can name: torchvision's classification networks, without torch.

Their names and the sides of their inputs are those of torchvision's own lists, which a test holds.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, get_args

NetworkName = Literal[
    "resnet18", "alexnet", "vgg16", "inception_v3", "convnext_base", "convnext_large",
    "convnext_small", "convnext_tiny", "densenet121", "densenet161", "densenet169", "densenet201",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "maxvit_t", "mnasnet0_5",
    "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf",
    "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf",
    "regnet_y_8gf", "resnet101", "resnet152", "resnet34", "resnet50", "resnext101_32x8d",
    "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b",
    "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13",
    "vgg13_bn", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16",
    "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
]  # fmt: skip

NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
"""All of them, the paper's four first."""

REFERENCE_SIDE = 224
"""Side of the paper's images, and of those that most networks' weights were made with [pixels]."""

RECIPE_SIDES: Mapping[str, int] = MappingProxyType(
    {
        "inception_v3": 299, "efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3":
        300, "efficientnet_b4": 380, "efficientnet_b5": 456, "efficientnet_b6": 528,
        "efficientnet_b7": 600, "efficientnet_v2_l": 480, "efficientnet_v2_m": 480,
        "efficientnet_v2_s": 384, "regnet_y_128gf": 384, "swin_v2_b": 256, "swin_v2_s": 256,
        "swin_v2_t": 256, "vit_h_14": 518,
    }
)  # fmt: skip
"""Sides of the images that the other networks' weights were made with [pixels]."""

_ONE_SIDE = ("vit_", "maxvit_")


def takes_one_side(name: str) -> bool:
    """Whether a network takes images of its weights' side alone: its positions are learned."""
    return name.startswith(_ONE_SIDE)


def network_side(name: str, image_size: int) -> int:
    """Side of a network's square input [pixels]: `image_size`, in proportion to its weights' side.

    Args:
        name: the network.
        image_size: side for a network whose weights were made with 224 pixels.
    """
    return round(image_size * RECIPE_SIDES.get(name, REFERENCE_SIDE) / REFERENCE_SIDE)


def checked_name(name: object) -> object:
    """A network's name as it is.

    Raises:
        ValueError: it is none of `NETWORKS`; says which one may be meant.
    """
    if name in NETWORKS:
        return name
    text = str(name).strip().lower()
    reason = ""
    if text.startswith("quantized_"):
        text = text.removeprefix("quantized_")
        reason = " (quantised weights cannot be trained)"
    nearest = get_close_matches(text.replace("-", "_"), NETWORKS, 1)
    guess = f", did you mean {nearest[0]}?" if nearest else ""
    msg = (
        f"expected the name of one of torchvision's {len(NETWORKS)} classification networks, such "
        f"as {', '.join(NETWORKS[:4])}, densenet121 or efficientnet_b0{reason}{guess}"
    )
    raise ValueError(msg)


def check_image_size(names: tuple[str, ...], image_size: int) -> None:
    """Refuse a side that a network cannot take.

    Raises:
        ValueError: says which network, and which side it takes.
    """
    for name in names:
        if takes_one_side(name) and image_size != REFERENCE_SIDE:
            msg = (
                f"{name} takes images of one size alone, because its positions are learned: "
                f"expected image_size {REFERENCE_SIDE}, found {image_size}; set "
                f"image_size={REFERENCE_SIDE} or choose another network"
            )
            raise ValueError(msg)
