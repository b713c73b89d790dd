"""Run a trained network over images: batch-norm statistics that fit, and logits."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from thyro_core.training.batches import Examples, batch_bounds, normalise

_BATCH = 32


def recalibrate_batchnorm(model: nn.Module, examples: Examples, device: torch.device) -> None:
    """Measure every batch-norm layer's mean and variance anew on the training images.

    Training leaves exponential averages (momentum 0.1) behind: after a few epochs of some ten
    batches they still hold a good part of ImageNet's statistics, and they mix the activations of
    weights that have changed since. A network's scores are then shifted as a whole: its ranking
    stands, its probabilities do not. This pass replaces them by equally weighted averages over
    batches of the training images as inference will see them, without augmentation, with the final
    weights ("precise batch norm", Wu and Johnson 2021, section 3). A batch of 32 takes no more
    memory than training does; one of 128 took twice as much.

    The images are taken at a fixed stride through their order, so that the pass is deterministic
    and each batch is a mixture.

    Args:
        model: changed in place: running statistics only; ends in evaluation mode.
        examples: the training part.
        device: where the model is.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch then keeps the plain average over batches
        layer.train()
    bounds = batch_bounds(len(examples), _BATCH)
    with torch.no_grad():
        for first in range(len(bounds)):
            positions = torch.arange(first, len(examples), len(bounds))
            model(normalise(examples.grey(positions).to(device)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def predict(model: nn.Module, examples: Examples, device: torch.device) -> Tensor:
    """Logits of every example, float32 on the CPU, n x 2 (benign, malignant).

    In float32 whatever the training precision: bfloat16's eight bits would tie scores, and a tied
    ranking is another AUC. Batches have a fixed size, so that a result is bit for bit the same
    for every caller.
    """
    model.eval()
    with torch.inference_mode():
        parts = [model(images) for images in image_batches(examples, device)]
        return torch.cat(parts).float().cpu() if parts else torch.empty((0, 2))


def image_batches(examples: Examples, device: torch.device) -> Iterator[Tensor]:
    """Examples as normalised batches of the one size inference uses, on the device.

    The size decides the last bits of the logits: the same batches, the same logits.
    """
    for start in range(0, len(examples), _BATCH):
        positions = torch.arange(start, min(start + _BATCH, len(examples)))
        yield normalise(examples.grey(positions).to(device))
