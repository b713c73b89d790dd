"""How well maps find the nodule, or burned-in marks, beside maps that cannot know where they are.

A nodule's share of the area is no level of chance: nodules lie near the middle and maps do too, so
a blob that sees no image does better than that. Two baselines stand in its place. *Permuted*: the
maps of other images over this mask, and this map over other masks, within the split. *Mean map*:
one map that sees no image, the mean of the other images' maps. Marks have the same two. A frame
along the border has neither: it is the same in each image, so that both give the map's own value.
"""

from collections.abc import Sequence

import numpy as np

from thyro_core.explain.faithfulness import (
    cell_cover,
    energy_inside,
    peak_cells,
    pointing_hits,
    region_iou,
)
from thyro_core.explain.regions import hot_spot, upsample
from thyro_core.tables.cam_columns import NODULE_MEASURES
from thyro_core.types import AnyIntArray, BoolArray, Float32Array, FloatArray

_MAPS_AT_ONCE = 256
_CHECK_COLUMNS = tuple(
    measure + suffix for measure in NODULE_MEASURES for suffix in ("", "_permuted", "_mean_map")
)


def nodule_checks(
    maps: Float32Array, masks: Sequence[BoolArray | None], groups: Sequence[str], share: float
) -> list[dict[str, float | None]]:
    """The columns of `cam_trust` on nodules, an image each.

    `*_permuted` is r + c - m: r the mean of this map over the masks of other groups' images, c the
    mean of other groups' maps over this mask, m the mean over all such pairs. Its mean over images
    is the permutation mean; the measure less it is what map and mask have in common beyond the
    map's own position and the mask's own, and the image's influence on the lead (the projection of
    a U statistic, Hoeffding 1948), so that its spread gives the lead's interval. A single value
    may lie outside 0 to 1.

    Args:
        maps: (n, h, w), at least 0.
        masks: bool, all of one size; None: the image has none.
        groups: images that belong together (one patient's) are no partners of each other.
        share: share of the peak at which regions are cut.

    Returns:
        None in all columns without a mask; NaN for an empty map or a mask without a pixel, which
        are no partners either, and in the baselines where no image of another group has both.

    Raises:
        ValueError: the masks are of several sizes.
    """
    rows: list[dict[str, float | None]] = []
    for mask in masks:
        nothing = None if mask is None else float("nan")
        area = None if mask is None else float(mask.mean())
        rows.append({"nodule_area": area, **dict.fromkeys(_CHECK_COLUMNS, nothing)})
    usable = [
        i for i, mask in enumerate(masks) if mask is not None and mask.any() and maps[i].any()
    ]
    if not usable:
        return rows
    outlines = np.stack([mask for i in usable if (mask := masks[i]) is not None])
    group = np.unique(np.array([groups[i] for i in usable], dtype=object), return_inverse=True)[1]
    values = _pair_columns(maps[usable], outlines, group, share)
    values |= _mean_map_columns(maps[usable], outlines, group, share)
    for name, column in values.items():
        for i, value in zip(usable, column.tolist(), strict=True):
            rows[i][name] = value
    return rows


def mark_checks(
    maps: Float32Array, covers: FloatArray, groups: Sequence[str]
) -> list[dict[str, float]]:
    """The baselines of `mark_energy` in `cam_trust`, an image each; see `nodule_checks`.

    Energy is linear in map and marks, so that sums over other groups' images stand for the pairs.

    Args:
        maps: (n, h, w), at least 0.
        covers: (n, h, w), share of each cell that is marks, as `faithfulness.cell_cover` gives it.
        groups: images that belong together (one patient's) are no partners of each other.

    Returns:
        NaN for an empty map or an image without marks, which are no partners either, and where no
        image of another group has both.
    """
    names = ("mark_energy_permuted", "mark_energy_mean_map")
    rows = [dict.fromkeys(names, float("nan")) for _ in maps]
    usable = [i for i in range(len(maps)) if maps[i].any() and covers[i].any()]
    if not usable:
        return rows
    group = np.unique(np.array([groups[i] for i in usable], dtype=object), return_inverse=True)[1]
    weights = maps[usable].reshape(len(usable), -1).astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    marks = covers[usable].reshape(len(usable), -1)
    count = len(usable) - np.bincount(group)[group]
    if count.all():
        over_others = (weights * _sum_of_others(marks, group)).sum(axis=1)
        mean_map = (marks * _sum_of_others(weights, group)).sum(axis=1) / count
        permuted_means = over_others / count + mean_map - over_others.sum() / count.sum()
        for i, *values in zip(usable, permuted_means.tolist(), mean_map.tolist(), strict=True):
            rows[i] = dict(zip(names, values, strict=True))
    return rows


def _sum_of_others(values: FloatArray, group: AnyIntArray) -> FloatArray:
    """Sum over the rows of all other groups, a row each."""
    totals = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(totals, group, values)
    return np.asarray((totals.sum(axis=0) - totals)[group])


def _pair_columns(
    maps: Float32Array, masks: BoolArray, group: AnyIntArray, share: float
) -> dict[str, FloatArray]:
    """Each measure of an image's own pair, and what its map and its mask reach in other pairs.

    Pairs are made a block of maps at a time: of thousands of images all at once are gigabytes.
    """
    n = len(maps)
    own, by_map, by_mask = ({name: np.zeros(n) for name in NODULE_MEASURES} for _ in range(3))
    for start in range(0, n, _MAPS_AT_ONCE):
        rows = slice(start, start + _MAPS_AT_ONCE)
        is_partner = group[rows, None] != group[None, :]
        for name, pairs in _measures_of_pairs(maps[rows], masks, share).items():
            own[name][rows] = np.diagonal(pairs, start)
            others = np.where(is_partner, pairs, 0.0)
            by_map[name][rows] = others.sum(axis=1)
            by_mask[name] += others.sum(axis=0)
    count = n - np.bincount(group)[group]
    columns = dict(own)
    if count.all():  # else one group is alone: it has no partner
        for name in NODULE_MEASURES:
            grand = by_map[name].sum() / count.sum()
            columns[f"{name}_permuted"] = by_map[name] / count + by_mask[name] / count - grand
    return columns


def _measures_of_pairs(maps: Float32Array, masks: BoolArray, share: float) -> dict[str, FloatArray]:
    """Every map over every mask: (maps, masks)."""
    cells = maps.reshape(len(maps), -1).astype(np.float64)
    cover = cell_cover(masks, *maps.shape[1:]).reshape(len(masks), -1)
    peaks, centres = peak_cells(maps, masks)
    return {
        "nodule_energy": (cells / cells.sum(axis=1, keepdims=True)) @ cover.T,
        "nodule_hit": peaks.reshape(len(maps), -1) @ centres.reshape(len(masks), -1).T,
        "nodule_iou": _overlaps(maps, masks, share),
    }


def _overlaps(maps: Float32Array, masks: BoolArray, share: float) -> FloatArray:
    size = masks.shape[1:]
    regions = np.stack([hot_spot(upsample(cam, *size), share) for cam in maps])
    flat_regions, flat_masks = (part.reshape(len(part), -1) for part in (regions, masks))
    own = flat_regions.astype(np.float32)
    both = np.empty((len(maps), len(masks)))
    for start in range(0, len(masks), _MAPS_AT_ONCE):
        some = slice(start, start + _MAPS_AT_ONCE)
        both[:, some] = own @ flat_masks[some].astype(np.float32).T
    either = flat_regions.sum(axis=1)[:, None] + flat_masks.sum(axis=1)[None, :] - both
    return np.asarray(both / either)


def _mean_map_columns(
    maps: Float32Array, masks: BoolArray, group: AnyIntArray, share: float
) -> dict[str, FloatArray]:
    """What the mean of other groups' maps, each of sum 1, reaches over each mask."""
    weights = maps.astype(np.float64) / maps.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    totals = np.zeros((group.max() + 1, *maps.shape[1:]))
    np.add.at(totals, group, weights)
    others = (totals.sum(axis=0) - totals)[group].clip(0).astype(np.float32)
    if len(totals) < 2:
        return {}
    ious = [region_iou(cam, mask, share) for cam, mask in zip(others, masks, strict=True)]
    return {
        "nodule_energy_mean_map": energy_inside(others, masks),
        "nodule_hit_mean_map": pointing_hits(others, masks),
        "nodule_iou_mean_map": np.array(ious),
    }
