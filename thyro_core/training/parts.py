"""A network as two parts: up to and with its last feature map, and what comes after it.

torch.fx splits the network's own forward pass, so that both parts share its modules and, one after
the other, compute what it computes, whatever its forward pass does between modules.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from thyro_core.errors import ThyroError

_LOGIT_ROUNDING = 1e-4


class CutError(ThyroError):
    """A network cannot be cut at the layer whose maps are requested."""


class _Tracer(fx.Tracer):
    """Opens what lies around one layer, and nothing else."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Called by torch."""
        del m
        return not self._layer.startswith(f"{module_qualified_name}.")


def cut(model: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """The part of a network up to and with a layer, and the rest; both share its modules.

    Args:
        model: the network, in evaluation mode.
        layer: name of the module whose output goes from one part to the other.

    Raises:
        CutError: the rest needs more of the image than this output.
    """
    graph = _Tracer(layer).trace(model)
    nodes = list(graph.nodes)
    (place,) = (i for i, n in enumerate(nodes) if n.op == "call_module" and n.target == layer)
    body, head = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[: place + 1]:
        copies[node] = body.node_copy(node, copies.__getitem__)
    body.output(copies[nodes[place]])
    # DenseNet overwrites its features by the ReLU behind them; who asks for maps still needs them.
    own_copy = head.call_method("clone", (head.placeholder("features"),))
    copies = {nodes[place]: own_copy}
    for node in nodes[place + 1 :]:
        if not copies.keys() >= set(node.all_input_nodes):
            msg = f"{layer}: expected all that follows to rest on its output, found {node.name}"
            raise CutError(msg + ", which needs more; choose another network")
        copies[node] = head.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, body), fx.GraphModule(model, head)


def feature_grid(features: Tensor) -> Tensor:
    """A last feature map in the form b x k x h x w.

    Convolutions have it already. A transformer's tokens, b x (1 + h x w) x k, are laid out as the
    patches lie in the image; the first one, the class token, belongs to no place and is left out.

    Args:
        features: what a network's body returns.
    """
    if features.dim() == 4:
        return features
    patches = features[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).reshape(len(patches), -1, side, side)


def check_cut(model: nn.Module, parts: tuple[nn.Module, nn.Module], side: int) -> None:
    """Make sure that a network's maps can be those of its last feature map.

    One image of noise goes through both parts: the features are a map of several cells, the rest
    gives the network's own logits, and they have a gradient by cells of the map. The mode of the
    network and torch's generators stay as they are.

    Args:
        model: the network.
        parts: what `cut` made of it.
        side: of its input [pixels].

    Raises:
        CutError: one of this does not hold.
    """
    device = next(model.parameters()).device
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    was_training = model.training
    model.eval()
    body, head = parts
    with torch.no_grad():
        features, own_logits = body(noise), model(noise)
    features.requires_grad_()
    with torch.enable_grad():
        logits = head(features)
        (slope,) = torch.autograd.grad(logits.sum(), features)
    model.train(was_training)
    grid: Any = feature_grid(features)
    faults = {
        f"a map, found the shape {tuple(grid.shape)}": grid.dim() != 4 or grid[0, 0].numel() < 2,
        "the network's own logits behind it, found others": not torch.allclose(
            logits.detach(),
            own_logits,
            rtol=0,
            atol=_LOGIT_ROUNDING * float(own_logits.abs().max()),
        ),
        "a gradient by its cells, found none": not feature_grid(slope).any(),
    }
    for expectation, is_wrong in faults.items():
        if is_wrong:
            msg = f"{type(model).__name__}: of the last feature map expected {expectation}"
            raise CutError(msg + "; its Grad-CAM would be wrong: choose another network")
