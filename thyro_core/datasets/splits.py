"""Which images train and which test: stratified splits that keep every group whole.

Made once, before any job, from the included and labelled images of a manifest. The same seed gives
the same table whatever the order of the rows it is made from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.model_selection import StratifiedGroupKFold

from thyro_core.config import CLASS_NAMES, StudyConfig
from thyro_core.errors import InputError
from thyro_core.tables import schemas
from thyro_core.types import BoolArray, IntArray

ROLES = ("train", "val", "test")

_TEST_STREAM, _VAL_STREAM = 0, 1
_MOST_CELLS = 50_000_000


@dataclass(frozen=True)
class _Labelled:
    """The images that take part, by ascending image_id: one entry each."""

    image_id: npt.NDArray[np.object_]
    patient_id: npt.NDArray[np.object_]
    group_id: npt.NDArray[np.object_]
    label: IntArray


def make_splits(study_id: str, images: pa.Table, config: StudyConfig) -> pa.Table:
    """The `splits` table of a study: one row per split and labelled image.

    Hold-out: each split's test part has floor(test_fraction x n) images of each class, or as close
    to that as whole groups allow. k-fold: each image is tested in exactly one fold.

    Args:
        study_id: written into every row.
        images: an `images` table; rows not included or without a label take no part.
        config: scheme, splits, test_fraction, val_fraction and seed.

    Returns:
        ImageRows by split, then image_id.

    Raises:
        InputError: a class is too small for the scheme, in some split.
    """
    rows = _labelled(images)
    group, sizes = _groups(rows)
    if config.scheme == "kfold":
        tests = _folds(rows, group, config)
    else:
        target = _targets(rows.label, config.test_fraction)
        tests = [
            choose_groups(sizes, target, np.random.default_rng((config.seed, split, _TEST_STREAM)))
            for split in range(config.splits)
        ]
    parts = [
        _part(study_id, rows, _roles(test, sizes, group, rows.label, config, split), split)
        for split, test in enumerate(tests)
    ]
    return schemas.conform("splits", pa.concat_tables(parts))


def choose_groups(sizes: IntArray, target: IntArray, rng: np.random.Generator) -> BoolArray:
    """A random set of whole groups whose images come as close to a target as they can.

    Dynamic programming over what the groups, in random order, can add up to: no other choice comes
    closer. In sets too large for that (several thousand images) only the last few groups are chosen
    so, after most were taken in random order. Closeness is the sum over classes of
    |found - target| / target; a class is left empty only if it must be.

    Args:
        sizes: images of each class in each group, shape (groups, 2).
        target: images wanted of each class, shape (2,).
        rng: source of the order.

    Returns:
        Whether each group is chosen, shape (groups,).
    """
    order = [int(group) for group in rng.permutation(len(sizes))]
    chosen = np.zeros(len(sizes), dtype=bool)
    if _cells(sizes, target) * len(sizes) > _MOST_CELLS:
        chosen[_take(order, sizes, target)] = True
    rest = [group for group in order if not chosen[group]]
    chosen[_fill(rest, sizes, target - sizes[chosen].sum(axis=0), target)] = True
    return chosen


def _cells(sizes: IntArray, remaining: IntArray) -> int:
    return int((remaining + sizes.max(axis=0) + 1).prod())


def _take(order: list[int], sizes: IntArray, target: IntArray) -> list[int]:
    """Groups in the order given while, of each class, two largest groups' worth is left to find."""
    margin = 2 * sizes.max(axis=0)
    remaining = target
    groups = []
    for group in order:
        if np.all((remaining - sizes[group] >= margin)[sizes[group] > 0]):
            groups.append(group)
            remaining = remaining - sizes[group]
    return groups


def _fill(rest: list[int], sizes: IntArray, remaining: IntArray, target: IntArray) -> list[int]:
    """Groups among `rest`, the earliest preferred, that come closest to the images left to find."""
    extent = remaining + sizes.max(axis=0) + 1
    rest = rest[: max(1, _MOST_CELLS // _cells(sizes, remaining))]
    reach = [np.zeros(extent, dtype=bool)]
    reach[0][0, 0] = True
    for group in reversed(rest):
        reach.append(reach[-1] | _shifted(reach[-1], sizes[group]))
    reach.reverse()
    here = _closest(reach[0], remaining, target)
    groups = []
    for position, group in enumerate(rest):
        before = here - sizes[group]
        if np.all(before >= 0) and reach[position + 1][tuple(before)]:
            groups.append(group)
            here = before
    return groups


def _shifted(reach: BoolArray, size: IntArray) -> BoolArray:
    moved = np.zeros_like(reach)
    benign, malignant = size
    if benign < reach.shape[0] and malignant < reach.shape[1]:
        moved[benign:, malignant:] = reach[: reach.shape[0] - benign, : reach.shape[1] - malignant]
    return moved


def _closest(reach: BoolArray, remaining: IntArray, target: IntArray) -> IntArray:
    cells = np.argwhere(reach)
    deviation = np.abs(cells - remaining) / np.maximum(target, 1)
    empty = (cells - remaining + target <= 0) & (target > 0)
    cost = deviation.sum(axis=1) + 1000.0 * empty.sum(axis=1)
    best = np.lexsort((cells[:, 1], cells[:, 0], np.round(cost, 9)))[0]
    return np.asarray(cells[best], dtype=np.int64)


def _labelled(images: pa.Table) -> _Labelled:
    table = images.select(["image_id", "patient_id", "group_id", "label", "included"])
    rows = [row for row in table.to_pylist() if row["included"] and row["label"] is not None]
    rows.sort(key=lambda row: row["image_id"])
    columns = {name: [row[name] for row in rows] for name in ("image_id", "patient_id", "group_id")}
    return _Labelled(
        **{name: np.array(values, dtype=object) for name, values in columns.items()},
        label=np.array([row["label"] for row in rows], dtype=np.int64),
    )


def _groups(rows: _Labelled) -> tuple[IntArray, IntArray]:
    """Each image's group number, shape (n,), and each group's class counts, shape (groups, 2)."""
    counts = np.bincount(rows.label, minlength=2)
    if counts.min() < 2:
        class_counts = ", ".join(
            f"{n} {name}" for n, name in zip(counts, CLASS_NAMES, strict=False)
        )
        msg = (
            f"the image set has {class_counts} usable labelled images; a study needs at least 2 "
            "of each class: check the labels and the excluded images in the `images` table"
        )
        raise InputError(msg)
    _, group = np.unique(rows.group_id.astype(str), return_inverse=True)
    sizes = np.zeros((int(group.max()) + 1, 2), dtype=np.int64)
    np.add.at(sizes, (group, rows.label), 1)
    return group.astype(np.int64), sizes


def _targets(label: IntArray, fraction: float) -> IntArray:
    counts = np.bincount(label, minlength=2)
    # 0.3 x 10 is 2.9999...: without the nudge floor would lose an image to the representation.
    return np.asarray(np.floor(counts * fraction + 1e-9), dtype=np.int64)


def _folds(rows: _Labelled, group: IntArray, config: StudyConfig) -> list[BoolArray]:
    """Chosen groups of each fold, by scikit-learn's stratified group k-fold."""
    smallest = min(len(np.unique(group[rows.label == label])) for label in (0, 1))
    if smallest < config.splits:
        msg = (
            f"kfold with {config.splits} folds needs at least {config.splits} groups of each "
            f"class; the smaller class has {smallest}: set splits to at most {smallest}"
        )
        raise InputError(msg)
    folds = StratifiedGroupKFold(config.splits, shuffle=True, random_state=config.seed)
    folds_by_group = []
    for _, test in folds.split(np.zeros(len(group)), rows.label, group):
        mask = np.zeros(int(group.max()) + 1, dtype=bool)
        mask[group[test]] = True
        folds_by_group.append(mask)
    return folds_by_group


def _roles(
    test: BoolArray,
    sizes: IntArray,
    group: IntArray,
    label: IntArray,
    config: StudyConfig,
    split: int,
) -> npt.NDArray[np.object_]:
    """Role of each image, shape (n,)."""
    roles = np.where(test, "test", "train").astype(object)
    if config.val_fraction > 0:
        free = np.flatnonzero(~test)
        rng = np.random.default_rng((config.seed, split, _VAL_STREAM))
        val = choose_groups(sizes[free], _targets(label, config.val_fraction), rng)
        roles[free[val]] = "val"
    for role in ("train", "test"):
        counts = sizes[roles == role].sum(axis=0)
        if counts.min() == 0:
            lacking = CLASS_NAMES[int(counts.argmin())]
            msg = (
                f"split {split}: its {role} part has no {lacking} image, because whole groups "
                "(patients, near-duplicates) stay together; use fewer splits, another "
                "test_fraction, or more images"
            )
            raise InputError(msg)
    return np.asarray(roles[group])


def _part(study_id: str, rows: _Labelled, roles: npt.NDArray[np.object_], split: int) -> pa.Table:
    n = len(rows.label)
    return pa.table(
        {
            "study_id": pa.array([study_id] * n, pa.string()),
            "split": pa.array([split] * n, pa.int32()),
            "image_id": pa.array(rows.image_id, pa.string()),
            "patient_id": pa.array(rows.patient_id, pa.string()),
            "group_id": pa.array(rows.group_id, pa.string()),
            "label": pa.array(rows.label, pa.int8()),
            "role": pa.array(roles, pa.string()),
        }
    )


def split_notes(splits: pa.Table, config: StudyConfig) -> tuple[str, ...]:
    """One sentence for each split whose test part is not the size asked for; none if all are.

    Args:
        splits: a `splits` table.
        config: the study's config; k-fold has no size to deviate from.
    """
    if config.scheme == "kfold":
        return ()
    frame = splits.select(["split", "label", "role"]).to_pandas()
    notes = []
    for split, rows in frame.groupby("split"):
        target = _targets(rows["label"].to_numpy(np.int64), config.test_fraction)
        test = rows.loc[rows["role"] == "test", "label"].to_numpy(np.int64)
        counts = np.bincount(test, minlength=2)
        if np.any(counts != target):
            notes.append(
                f"split {split}: {counts[0]} benign and {counts[1]} malignant test images instead "
                f"of {target[0]} and {target[1]}, because whole groups stay together"
            )
    return tuple(notes)
