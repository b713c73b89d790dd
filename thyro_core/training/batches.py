"""Batches from a pack: gather, augment and normalise on the device, no image file in sight.

All randomness of an epoch is drawn at once on the CPU from one generator, so that a device, a
batch size or an interruption cannot change which image is turned by how much.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from thyro_core.config import StudyConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)

_ORDER_STREAM = 0x5EED


@dataclass(frozen=True)
class Examples:
    """Some images of a pack and their labels.

    On a CPU `pixels` is the memory-mapped pack that all jobs of a node share; on a GPU it is a
    tensor in device memory.
    """

    pixels: npt.NDArray[np.uint8] | Tensor
    """uint8, all images of the pack: N x side x side."""
    rows: npt.NDArray[np.int64]
    """Which of them, shape (n,)."""
    labels: Tensor
    """int64 on the device, shape (n,): 0 benign, 1 malignant."""

    def __len__(self) -> int:
        return len(self.rows)

    def grey(self, positions: Tensor) -> Tensor:
        """Pixels of the examples at these positions: float32, b x 1 x side x side, 0 to 1."""
        rows = self.rows[positions.numpy()]
        if isinstance(self.pixels, Tensor):
            pixels = self.pixels[torch.from_numpy(rows).to(self.pixels.device)]
        else:
            pixels = torch.from_numpy(self.pixels[rows])
        return as_grey(pixels)


@dataclass(frozen=True)
class EpochDraws:
    """Every random choice of one epoch, in the order of the shuffled examples."""

    order: Tensor
    """int64, shape (n,): the shuffle."""
    angle: Tensor
    """float32, shape (n,), radians."""
    mirror: Tensor
    """float32, shape (n, 2): -1 where the image is flipped left-right, up-down; else 1."""


def draw_epoch(n: int, epoch: int, seed: int, config: StudyConfig) -> EpochDraws:
    """Draw an epoch's shuffle, rotations and flips; the same arguments, the same draws.

    Args:
        n: number of training images.
        epoch: from 0.
        seed: the run's own seed.
        config: rotation [degrees] and flip probabilities.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, _ORDER_STREAM, epoch))
    order = torch.randperm(n, generator=generator)
    turn = torch.rand(n, generator=generator) * 2 - 1
    coin = torch.rand((n, 2), generator=generator)
    flips = coin < torch.tensor([config.flip_horizontal, config.flip_vertical])
    return EpochDraws(
        order=order,
        angle=turn * np.deg2rad(config.rotation),
        mirror=torch.where(flips, -1.0, 1.0),
    )


def stream_seed(*keys: int) -> int:
    """A seed of its own for each tuple of non-negative keys, in [0, 2**63)."""
    state = np.random.SeedSequence(keys).generate_state(2, np.uint32)
    return (int(state[0]) << 31) | (int(state[1]) >> 1)


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and stop of each batch: as few as fit, as equal as can be, none of one image.

    A short last batch would get the same weight in the optimiser as a full one, and one of a
    single image has no batch statistics.
    """
    count = -(-n // batch_size)
    edges = [n * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def augment(grey: Tensor, angle: Tensor, mirror: Tensor) -> Tensor:
    """Rotate about the centre and flip, in one bilinear resampling; outside is black.

    Args:
        grey: float32, b x 1 x side x side.
        angle: float32, shape (b,), radians, counter-clockwise.
        mirror: float32, shape (b, 2), -1 to flip left-right, up-down.
    """
    if not len(grey):
        return grey  # a worker without a share of this batch; torch samples no empty grid
    return functional.grid_sample(
        grey, _turned_grid(angle, mirror, grey.shape[-1]), padding_mode="zeros", align_corners=False
    )


def _turned_grid(angle: Tensor, mirror: Tensor, side: int) -> Tensor:
    """Where each pixel of the turned images is found: float32, b x side x side x 2 (x, y), -1 to 1.

    What `affine_grid` computes in seven times the time: without a shift, the grid is a sum of one
    term of the column and one of the row.
    """
    centres = (torch.arange(side, device=angle.device) * 2 + 1) / side - 1
    cos, sin = (part(angle)[:, None] * centres for part in (torch.cos, torch.sin))
    flip_x, flip_y = mirror[:, :1, None], mirror[:, 1:, None]
    grid = torch.empty((len(angle), side, side, 2), device=angle.device)
    torch.sub(cos[:, None, :] * flip_x, sin[:, :, None] * flip_x, out=grid[..., 0])
    torch.add(sin[:, None, :] * flip_y, cos[:, :, None] * flip_y, out=grid[..., 1])
    return grid


def as_grey(pixels: Tensor) -> Tensor:
    """Grey levels from 0 to 1: float32, b x 1 x side x side.

    Args:
        pixels: uint8, b x side x side.
    """
    return pixels.unsqueeze(1).float() / 255.0


def normalise(grey: Tensor) -> Tensor:
    """Three channels with ImageNet's normalisation: float32, b x 3 x side x side, channels last."""
    of_channels = _channels if grey.device.type == "cpu" else _lasting_channels
    mean, sd = (of_channels(values, grey.device) for values in (IMAGENET_MEAN, IMAGENET_SD))
    return ((grey - mean) / sd).contiguous(memory_format=torch.channels_last)


def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


@cache
def _lasting_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Made once on a GPU: while a CUDA graph is recorded nothing can be copied there."""
    with torch.inference_mode(mode=False):
        return _channels(values, device)
