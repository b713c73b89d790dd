"""The ordinary way to fine-tune a network, without anything of the library but its random draws."""

from math import cos, pi

import numpy as np
import torch
from torch import nn

from thyro_core.training import torchvision_compat

torchvision_compat.ensure()
from torchvision.transforms.v2 import functional as transforms  # noqa: E402

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
SD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def plain_focal_loss(logits, labels, alpha, gamma):
    probability = torch.softmax(logits, dim=1)
    p_t = probability[torch.arange(len(labels)), labels]
    a_t = torch.tensor([alpha if label == 1 else 1 - alpha for label in labels.tolist()])
    return -(a_t * (1 - p_t).pow(gamma) * torch.log(p_t)).mean()


def torchvision_image(pixels, angle, mirror):
    """Flip, then rotate, as torchvision's transforms do."""
    image = torch.from_numpy(np.stack([pixels] * 3)).float() / 255
    if mirror[0] < 0:
        image = transforms.horizontal_flip(image)
    if mirror[1] < 0:
        image = transforms.vertical_flip(image)
    degrees = float(torch.rad2deg(angle))
    bilinear = transforms.InterpolationMode.BILINEAR
    return (transforms.rotate(image, degrees, interpolation=bilinear) - MEAN) / SD


def plain_image(pixels, angle, mirror):
    """The same in one resampling: two would differ by rounding, and Adam magnifies that."""
    cos_, sin_ = torch.cos(angle), torch.sin(angle)
    image = torch.from_numpy(pixels).float()[None, None] / 255
    centres = (torch.arange(image.shape[-1]) * 2 + 1) / image.shape[-1] - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    right, down = (cos_ * x - sin_ * y) * mirror[0], (sin_ * x + cos_ * y) * mirror[1]
    grid = torch.stack([right, down], dim=-1)[None]
    turned = nn.functional.grid_sample(image, grid, align_corners=False)[0]
    return (turned.expand(3, -1, -1) - MEAN) / SD


def plain_training(model, pixels, labels, draws, config, alpha):
    """Loss of each epoch.

    Args:
        draws: for each epoch (order, angle, mirror, seed of torch's global generator).
    """
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    losses = []
    for epoch, (order, angle, mirror, seed) in enumerate(draws):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + cos(pi * epoch / config.epochs))
        torch.manual_seed(seed)
        model.train()
        total = 0.0
        batches = np.array_split(np.arange(len(order)), -(-len(order) // config.batch_size))
        for batch in batches:
            images = torch.stack(
                [plain_image(pixels[order[i]], angle[i], mirror[i]) for i in batch]
            )
            # The library's memory layout: another one rounds otherwise, and deep networks and
            # Adam's first steps magnify that.
            images = images.contiguous(memory_format=torch.channels_last)
            truth = labels[order[batch]]
            output = model(images)
            if isinstance(output, tuple):
                loss = plain_focal_loss(output[0], truth, alpha, config.focal_gamma)
                loss = loss + 0.4 * plain_focal_loss(output[1], truth, alpha, config.focal_gamma)
            else:
                loss = plain_focal_loss(output, truth, alpha, config.focal_gamma)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / len(order))
    return losses
