"""Faithfulness of Grad-CAM maps: where their energy lies, and whether they follow the network.

Saliency maps are no localisation (Arun et al. 2021: none of eight methods passed every check), so
each value here has a level to be compared with; that of nodules is in `localisation`. A map that
is zero everywhere gives NaN and is left out; it counts neither as a failure nor as a success.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from thyro_core.config import Architecture
from thyro_core.explain.gradcam import cams_of_features, grad_cams
from thyro_core.explain.regions import hot_spot, upsample
from thyro_core.tables.cam_columns import CASCADE
from thyro_core.training.anatomy import find_anatomy
from thyro_core.training.models import body_and_head, build, forward_layers
from thyro_core.types import BoolArray, Float32Array, FloatArray

ScoreFunction = Callable[[Float32Array], npt.NDArray[np.floating]]
"""A network's probability of the class in question: images (k, H, W) -> (k,)."""
Baseline = Literal["blur", "mean"]

BLUR_SHARE = 0.05
"""Standard deviation of the blur that stands for "removed", as a share of the image's side."""


def _overlap(cells: int, pixels: int) -> FloatArray:
    """(cells, pixels): share of each cell's length that each pixel covers; rows sum to 1."""
    cell, pixel = np.linspace(0, pixels, cells + 1), np.arange(pixels + 1)
    stop = np.minimum(cell[1:, None], pixel[None, 1:])
    start = np.maximum(cell[:-1, None], pixel[None, :-1])
    return np.asarray(np.clip(stop - start, 0, None) * cells / pixels)


def _share_within(maps: Float32Array, cover: FloatArray | BoolArray) -> FloatArray:
    energy = maps.astype(np.float64)
    total = energy.sum(axis=(1, 2))
    inside = (energy * cover).sum(axis=(1, 2))
    share = np.full(len(maps), np.nan)
    np.divide(inside, total, out=share, where=total > 0)
    return share


def _check_pairs(maps: Float32Array, masks: BoolArray) -> None:
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks):
        msg = f"expected one mask a map, found maps {maps.shape} and masks {masks.shape}"
        raise ValueError(msg)


def energy_inside(maps: Float32Array, masks: BoolArray) -> FloatArray:
    """Share of each map's energy (its sum) that lies within the image's mask.

    The mask is averaged over the area of each cell, and the map is not enlarged: a cell's value
    counts for all of the cell, by the share of it that the mask covers. Nothing is
    interpolated within a cell of some 32 pixels, and a map without any preference gets exactly the
    share of area (`area_share`), which is no level of chance where masks keep to the middle.

    For nodule masks it measures how well the map finds them; for burned-in annotations, how much
    of it rests on something that is not tissue.

    Args:
        maps: (n, h, w), at least 0.
        masks: bool (n, H, W), of the same extent as the maps.

    Returns:
        float64 (n,), 0 to 1; NaN for an empty map.

    Raises:
        ValueError: there is not one mask a map.
    """
    _check_pairs(maps, masks)
    return _share_within(maps, cell_cover(masks, *maps.shape[1:]))


def cell_cover(masks: BoolArray, height: int, width: int) -> FloatArray:
    """Share of each cell of a map that the mask covers, (n, height, width).

    Args:
        masks: bool (n, H, W).
        height: of the maps [cells].
        width: of the maps [cells].
    """
    rows, columns = _overlap(height, masks.shape[1]), _overlap(width, masks.shape[2])
    return np.asarray(rows @ masks.astype(np.float64) @ columns.T)


def area_share(masks: BoolArray) -> FloatArray:
    """Share of each image that its mask covers, (n,)."""
    return np.asarray(masks.mean(axis=(1, 2)))


def border_energy(maps: Float32Array, width_share: float) -> FloatArray:
    """Share of each map's energy in a frame along the image's border.

    Cells that the frame's inner edge cuts count by area. Chance level, and the value of a map
    without any preference, is 1 - (1 - 2 width_share)^2.

    Args:
        maps: (n, h, w), at least 0.
        width_share: width of the frame as a share of the side, from 0 to 0.5.

    Returns:
        float64 (n,), 0 to 1; NaN for an empty map.

    Raises:
        ValueError: the width is not within 0 and 0.5.
    """
    if not 0 <= width_share <= 0.5:
        msg = f"expected a frame of 0 to 0.5 of the side, found {width_share}"
        raise ValueError(msg)
    rows, columns = (_inner(size, width_share) for size in maps.shape[1:])
    return _share_within(maps, 1 - np.outer(rows, columns))


def _inner(cells: int, width_share: float) -> FloatArray:
    edges = np.clip(np.linspace(0, 1, cells + 1), width_share, 1 - width_share)
    return np.diff(edges) * cells


def pointing_hits(maps: Float32Array, masks: BoolArray) -> FloatArray:
    """Whether each map's peak points into the mask (the pointing game of Zhang et al. 2018).

    The peak is the centre of the highest cell, where the enlarged map has its peak too; no
    tolerance is given around the mask. Equal peaks share the hit, so that a map without any
    preference gets about the share of area.

    Args:
        maps: (n, h, w), at least 0.
        masks: bool (n, H, W), of the same extent as the maps.

    Returns:
        float64 (n,): 1 hit, 0 miss; NaN for an empty map. The hit rate is the mean of the rest.

    Raises:
        ValueError: there is not one mask a map.
    """
    _check_pairs(maps, masks)
    peaks, centres = peak_cells(maps, masks)
    return np.asarray((peaks * centres).sum(axis=(1, 2)))


def peak_cells(maps: Float32Array, masks: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Where maps peak, and which cells' centres lie in masks, one after the other.

    Args:
        maps: (n, h, w), at least 0.
        masks: bool (k, H, W), of the same extent as the maps.

    Returns:
        (n, h, w), 1 at the highest cell, shared among equal ones, NaN for an empty map; and bool
        (k, h, w).
    """
    rows, columns = (
        (np.arange(cells) * 2 + 1) * pixels // (2 * cells)
        for cells, pixels in zip(maps.shape[1:], masks.shape[1:], strict=True)
    )
    top = maps.max(axis=(1, 2), keepdims=True)
    is_peak = ((maps == top) & (top > 0)).astype(np.float64)
    count = is_peak.sum(axis=(1, 2), keepdims=True)
    share = np.full(maps.shape, np.nan)
    np.divide(is_peak, count, out=share, where=count > 0)
    return share, masks[:, rows[:, None], columns[None, :]]


def region_iou(cam: Float32Array, mask: BoolArray, share: float) -> float:
    """Intersection over union of a map's highlighted region and a mask.

    The region is cut from the map enlarged to the mask's size, as `regions.hot_spot` does.

    Args:
        cam: (h, w), at least 0.
        mask: bool (H, W), of the same extent as the map.
        share: share of the peak at which the region is cut, at least 0 and below 1.

    Returns:
        0 to 1; NaN for an empty map or mask.
    """
    region = hot_spot(upsample(cam, *mask.shape), share)
    if not region.any() or not mask.any():
        return float("nan")
    return float((region & mask).sum() / (region | mask).sum())


def cascade_maps(
    model: nn.Module, architecture: Architecture, images: Tensor, seed: int
) -> list[Float32Array]:
    """Maps while a network's layers are drawn anew, from the head down: Adebayo et al. 2018.

    At each stage of `CASCADE`, else of `ANY_CASCADE`, the layers from that one to the output are
    those of a fresh network (as `models.build` draws it before any training), and those below it
    keep their training. The first stage leaves the layer whose map is shown as it was trained: with
    that layer redrawn the map changes whatever it shows. Of the paper's four nothing below a stage
    is computed again.

    Args:
        model: made by `models.build` for this architecture, in evaluation mode; not changed.
        architecture: which network it is.
        images: float32, b x 3 x side x side, normalised, on the model's device.
        seed: of the fresh network; torch's generators are not changed.

    Returns:
        A stage each, float32 (b, 2, h, w): the maps of both outputs, which are two draws alike.
    """
    fresh = build(architecture, images.shape[-1], seed).eval().to(images.device)
    fresh = fresh.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if architecture not in CASCADE:
        return _block_cascade(model, fresh, architecture, images)
    layers, own = zip(*forward_layers(model), strict=True)
    _, random = zip(*forward_layers(fresh), strict=True)
    head = layers.index("avgpool")
    starts = [layers.index(name) for name in CASCADE[architecture]]
    inputs, values = {}, images
    with torch.no_grad():
        for place, layer in enumerate(own[:head]):
            if place in starts:
                inputs[place] = values
            values = layer(values)
        inputs[head] = values
        maps = []
        for start in starts:
            features = nn.Sequential(*random[start:head])(inputs[min(start, head)])
            tail = nn.Sequential(*own[head:start], *random[max(start, head) :])
            maps.append(cams_of_features(tail, features)[1].numpy())
    return maps


def _block_cascade(
    model: nn.Module, fresh: nn.Module, architecture: Architecture, images: Tensor
) -> list[Float32Array]:
    """Maps at the stages of `ANY_CASCADE`: what is behind the map, then blocks from it down."""
    mixture, blocks = copy.deepcopy(model), find_anatomy(architecture).blocks
    random, behind = fresh.state_dict(), set(body_and_head(model, architecture)[1].state_dict())
    n = len(blocks)
    maps = []
    for count in (0, 1, math.ceil(n / 3), math.ceil(2 * n / 3), n):
        drawn_blocks = tuple(f"{name}." for block in blocks[n - count :] for name in block)
        with torch.no_grad():
            for name, tensor in mixture.state_dict().items():
                if name in behind or name.startswith(drawn_blocks) or count == n:
                    tensor.copy_(random[name])
        maps.append(grad_cams(mixture, architecture, images)[1].numpy())
    return maps


def rank_correlations(maps_a: Float32Array, maps_b: Float32Array) -> FloatArray:
    """Spearman's correlation over cells of each pair of maps, (n,).

    1: the same ranking of the image's parts; 0: nothing in common. NaN where either map is the
    same everywhere. Between a network's maps and a randomised copy's: near 0 the maps follow the
    weights, as they must; near 1 they do not, and explain nothing. Padding alone makes maps of
    unrelated weights alike to some degree, and one draw may agree by chance: use several.

    Args:
        maps_a: (n, h, w).
        maps_b: (n, h, w), of the same images.
    """
    correlations = np.full(len(maps_a), np.nan)
    for i, (a, b) in enumerate(zip(maps_a, maps_b, strict=True)):
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            correlations[i] = spearmanr(a.ravel(), b.ravel()).statistic
    return correlations


@dataclass(frozen=True)
class Curve:
    """A network's score while pixels are removed, or brought back, in the order of a map."""

    shares: FloatArray
    """Share of pixels changed so far, (steps + 1,), from 0 to 1."""
    scores: FloatArray
    """The score at each share."""

    @property
    def auc(self) -> float:
        """Area under the curve by the trapezoidal rule, 0 to 1 where scores are."""
        return float(np.trapezoid(self.scores, self.shares))


def baseline_image(image: Float32Array, baseline: Baseline) -> Float32Array:
    """The pixels that replace removed ones: float32 (H, W).

    `mean`: its own mean everywhere; edges of removed parts are new structure. `blur`: a Gaussian
    with a standard deviation of `BLUR_SHARE` of the shorter side, edges repeated: only the fine
    structure is gone. A finding should hold with both.
    """
    if baseline == "mean":
        return np.full_like(image, image.mean())
    return np.asarray(gaussian_filter(image, BLUR_SHARE * min(image.shape), mode="nearest"))


def deletion_curve(
    scores: ScoreFunction,
    image: Float32Array,
    cam: Float32Array,
    baseline: Baseline = "mean",
    steps: int = 20,
) -> Curve:
    """The score while the pixels of a map's highest values are replaced by the baseline's first.

    A low area is good: what the map shows was what the score rested on (Petsiuk et al. 2018). Its
    level without a map is the area under the curve of a random map.

    Args:
        scores: called once, with all steps + 1 images.
        image: float32 (H, W).
        cam: (h, w), enlarged to the image; equal values go in reading order.
        baseline: see `baseline_image`.
        steps: into how many parts, as equal as can be, the pixels are divided; at least 1.
    """
    return _perturbation_curve(scores, image, baseline_image(image, baseline), cam, steps)


def insertion_curve(
    scores: ScoreFunction,
    image: Float32Array,
    cam: Float32Array,
    baseline: Baseline = "blur",
    steps: int = 20,
) -> Curve:
    """The score while the pixels of a map's highest values are brought back to the baseline first.

    A high area is good. Arguments as for `deletion_curve`.
    """
    return _perturbation_curve(scores, baseline_image(image, baseline), image, cam, steps)


def _perturbation_curve(
    scores: ScoreFunction, first: Float32Array, last: Float32Array, cam: Float32Array, steps: int
) -> Curve:
    order = np.argsort(-upsample(cam, *first.shape).ravel(), kind="stable")
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    counts = order.size * np.arange(steps + 1) // steps
    is_changed = rank.reshape(first.shape) < counts[:, None, None]
    values = np.asarray(scores(np.where(is_changed, last, first)), dtype=np.float64)
    return Curve(counts / order.size, values)
