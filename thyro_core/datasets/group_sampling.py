"""Random choice of whole groups of images: equal chances first, sizes as near as those permit."""

import numpy as np

from thyro_core.types import BoolArray, FloatArray, IntArray

_TRIES = 200
_PARTITIONS = 16
_ROUNDS = 1000
_ROUNDING = 1e-9


class NoChoiceError(ValueError):
    """No random choice of whole groups was found that leaves both classes on both sides."""


def inclusion_probabilities(sizes: IntArray, target: IntArray) -> FloatArray:
    """The chance of each group to be chosen: (groups,), 0 to 1.

    It is the same for all groups of a class, target / images, so that no image is tested more
    often than another because of the group that it belongs to; a group of both classes lies
    between the two, such that the expected number of images is the target in both. Where a class
    has so few groups that a choice could leave one side without it, the chance is raised (lowered)
    until one group of it is expected on either side: 1/2 each of two groups, 1/3 each of three.

    Args:
        sizes: images of each class in each group, shape (groups, 2).
        target: images wanted of each class, shape (2,).
    """
    share = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1)
    rate, *_ = np.linalg.lstsq(sizes.T @ share, target.astype(np.float64), rcond=None)
    if rate.min() < 0 or rate.max() > 1:
        rate = target / np.maximum(sizes.sum(axis=0), 1)
    chance: FloatArray = np.clip(share @ rate, 0.0, 1.0)
    classes = [sizes[:, column] > 0 for column in np.flatnonzero(target > 0)]
    for _ in range(_ROUNDS):
        earlier = chance.copy()
        for members in classes:
            _expect_one_on_either_side(chance, members)
        # What one class has corrected in a group of both, the other may have undone.
        if np.abs(chance - earlier).max(initial=0.0) < _ROUNDING:
            break
    return chance


def _expect_one_on_either_side(chance: FloatArray, members: BoolArray) -> None:
    """Raise, or lower, the chances of a class's groups until a choice parts them, on average."""
    expected_count = chance[members].sum()
    if 0 < expected_count < 1:
        chance[members] = np.minimum(1.0, chance[members] / expected_count)
    rest = (1 - chance[members]).sum()
    if rest < 1 < members.sum():
        chance[members] = 1 - (1 - chance[members]) / rest


def draw_groups(sizes: IntArray, target: IntArray, rng: np.random.Generator) -> BoolArray:
    """A random set of whole groups, each with its `inclusion_probabilities`, of about this size.

    Correlated Poisson sampling (Bondesson and Thorburn, "A list sequential sampling method
    suitable for real-time sampling", Scandinavian Journal of Statistics 35, 2008): the groups are
    drawn one after the other, and whatever a draw adds to (or takes from) the expected images of a
    class, the chances of the groups still to come give back, as far as a chance stays one in
    either outcome; so each group keeps its own chance exactly. The largest groups are drawn
    first: the smallest ones then make up for them. Groups of one image each are a simple random
    sample of exactly the target.

    Args:
        sizes: images of each class in each group, shape (groups, 2).
        target: images wanted of each class, shape (2,).
        rng: source of the order and the draws.

    Returns:
        Whether each group is chosen, shape (groups,).

    Raises:
        NoChoiceError: a class with a target has fewer than two groups, or no draw has left both
            classes on both sides.
    """
    order = rng.permutation(len(sizes))
    if sizes.sum(axis=1).max(initial=0) <= 1:
        return _simple_sample(order, sizes, target)
    needed_classes = np.flatnonzero(target > 0)
    if len(needed_classes) and (sizes[:, needed_classes] > 0).sum(axis=0).min() < 2:
        raise NoChoiceError
    chance = inclusion_probabilities(sizes, target)
    is_mixed = (sizes > 0).sum(axis=1) > 1
    order = order[np.lexsort((-sizes.sum(axis=1)[order], ~is_mixed[order]))]
    for _ in range(_TRIES):
        is_chosen = np.zeros(len(sizes), dtype=bool)
        is_chosen[order] = _correlated_draws(chance[order], sizes[order], rng)
        both = (sizes[is_chosen].sum(axis=0) > 0) & (sizes[~is_chosen].sum(axis=0) > 0)
        if both[needed_classes].all():
            return is_chosen
    raise NoChoiceError


def draw_folds(sizes: IntArray, folds: int, rng: np.random.Generator) -> list[BoolArray]:
    """A random partition of whole groups into folds, each about as large in either class.

    Fold by fold, `draw_groups` takes what an equal share of the remaining images is; groups of one
    image give folds that differ by at most one image of each class. Of several such partitions the
    most even one is kept: who is in which fold matters to no image's chance, as each is in one.

    Args:
        sizes: images of each class in each group, shape (groups, 2); of each class there are at
            least as many groups as folds.
        folds: number of folds, at least 2.
        rng: source of the order and the draws.

    Returns:
        Whether each group is in the fold, shape (groups,), for each fold.

    Raises:
        NoChoiceError: no partition was found that has both classes in every fold.
    """
    best: list[BoolArray] = []
    lowest = np.inf
    n_found = 0
    for _ in range(_TRIES):
        parts = _partition(sizes, folds, rng)
        if parts is None:
            continue
        n_found += 1
        counts = np.array([sizes[part].sum(axis=0) for part in parts])
        spread = counts.max(axis=0) - counts.min(axis=0)
        uneven = float((np.maximum(spread - 1, 0) / sizes.sum(axis=0)).sum())
        if uneven < lowest:
            best, lowest = parts, uneven
        if lowest == 0 or n_found == _PARTITIONS:
            break
    if not best:
        raise NoChoiceError
    return best


def _partition(sizes: IntArray, folds: int, rng: np.random.Generator) -> list[BoolArray] | None:
    """A random partition with both classes in every fold; None: this try has none."""
    rest = np.arange(len(sizes))
    parts = []
    for remaining in range(folds, 0, -1):
        if (sizes[rest] > 0).sum(axis=0).min() < remaining:
            return None
        part = np.zeros(len(sizes), dtype=bool)
        if remaining == 1:
            part[rest] = True
        else:
            target = sizes[rest].sum(axis=0) // remaining
            part[rest[draw_groups(sizes[rest], target, rng)]] = True
        parts.append(part)
        rest = rest[~part[rest]]
    return parts


def _simple_sample(order: IntArray, sizes: IntArray, target: IntArray) -> BoolArray:
    is_chosen = np.zeros(len(sizes), dtype=bool)
    for column, count in enumerate(target):
        is_chosen[order[sizes[order, column] > 0][:count]] = True
    return is_chosen


def _correlated_draws(chance: FloatArray, sizes: IntArray, rng: np.random.Generator) -> BoolArray:
    """Draw the groups in the order given, which has those of both classes first; (groups,)."""
    chances, rows = chance.tolist(), sizes.tolist()
    # Each kind's groups still open, the next one last: what is decided is popped off the end.
    kinds = (sizes.min(axis=1) > 0, sizes[:, 1] == 0, sizes[:, 0] == 0)
    queues = [np.flatnonzero(kind)[::-1].tolist() for kind in kinds]
    outcomes = np.zeros(len(rows), dtype=bool)
    for i, uniform in enumerate(rng.random(len(rows))):
        p = chances[i]
        outcomes[i] = uniform < p
        if _is_open(p):
            _compensate(chances, rows, queues, i=i, change=float(outcomes[i]) - p)
    return outcomes


def _is_open(chance: float) -> bool:
    return _ROUNDING < chance < 1 - _ROUNDING


def _compensate(
    chances: list[float],
    rows: list[list[int]],
    queues: list[list[int]],
    *,
    i: int,
    change: float,
) -> None:
    """Let the chances of the groups after i give back what its draw has changed, where they can.

    A weight is the share of the change that a chance gives back. It never exceeds what keeps that
    chance in 0 to 1 for either outcome of the draw, which is what leaves its mean as it was.

    Args:
        chances: of each group; those after i are changed.
        rows: images of each class in each group.
        queues: groups of both classes, of the first and of the second, the next one last.
        i: the group that was drawn, with its chance before the draw at `chances[i]`.
        change: 1 or 0, less that chance.
    """
    p = chances[i]
    unmet = [float(count) for count in rows[i]]
    for queue, columns in zip(queues, ((0, 1), (0,), (1,)), strict=True):
        tried_groups = []
        while queue and all(unmet[column] > _ROUNDING for column in columns):
            j = queue.pop()
            if j <= i or not _is_open(chances[j]):
                continue
            weight = min(chances[j] / (1 - p), (1 - chances[j]) / p)
            weight = min(weight, *(unmet[column] / rows[j][column] for column in columns))
            chances[j] = min(1.0, max(0.0, chances[j] - change * weight))
            for column in columns:
                unmet[column] -= weight * rows[j][column]
            tried_groups.append(j)
        queue.extend(reversed(tried_groups))
