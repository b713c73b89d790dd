"""How a network is made by torchvision alone: what a program without Thyro has to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thyro_core.config import Architecture
from thyro_core.training import torchvision_compat
from thyro_core.training.batches import IMAGENET_MEAN, IMAGENET_SD
from thyro_core.training.models import NORMALISATION, load_tensors, torchvision_options


class NetworkRecipe(NamedTuple):
    """A network in torchvision's words."""

    architecture: Architecture
    options: Mapping[str, Any]
    """What torchvision's function of that name is called with, beside `weights=None`."""
    mean: tuple[float, float, float]
    """Of the input's channels, subtracted from grey levels between 0 and 1."""
    sd: tuple[float, float, float]
    """What they are divided by then."""


def network_recipe(architecture: Architecture, side: int) -> NetworkRecipe:
    """What makes a study's network without Thyro.

    Args:
        architecture: which network.
        side: of its input [pixels].
    """
    options = dict(torchvision_options(architecture, side))
    if "init_weights" in options:
        options["init_weights"] = False  # drawing what is replaced at once takes seconds
    if architecture in NORMALISATION:
        mean, sd = NORMALISATION[architecture]
        return NetworkRecipe(architecture, options, (mean,) * 3, (sd,) * 3)
    return NetworkRecipe(architecture, options, IMAGENET_MEAN, IMAGENET_SD)


def plain_network(recipe: NetworkRecipe, weights: Mapping[str, Tensor]) -> nn.Module:
    """Torchvision's network with these weights, in evaluation mode, without gradients.

    Args:
        recipe: how it is made.
        weights: a member's tensors by name.
    """
    torchvision_compat.ensure()
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        model: nn.Module = models.get_model(recipe.architecture, weights=None, **recipe.options)
    load_tensors(model, weights)
    return model.eval().requires_grad_(False)


def network_input(recipe: NetworkRecipe, pixels: Tensor) -> Tensor:
    """What the plain network takes: float32, b x 3 x side x side.

    Args:
        recipe: how the network is made.
        pixels: uint8, b x side x side, grey levels.
    """
    mean, sd = (torch.tensor(values).view(1, 3, 1, 1) for values in (recipe.mean, recipe.sd))
    return ((pixels.unsqueeze(1).float() / 255.0 - mean) / sd).contiguous()
