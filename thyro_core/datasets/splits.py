"""Which images train and which test: stratified splits that keep every group whole.

Every group has the same chance to be tested, whatever its size; parts are as near the requested
size as that permits. Made once, before any job, from the included and labelled images of a
manifest. The same seed gives the same table whatever the order of the rows it is made from.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import CLASS_NAMES, StudyConfig
from thyro_core.datasets.centres import group_centres
from thyro_core.datasets.group_sampling import NoChoiceError, draw_folds, draw_groups
from thyro_core.datasets.periods import period_roles, temporal_notes
from thyro_core.errors import InputError, amount
from thyro_core.tables import schemas
from thyro_core.types import BoolArray, IntArray

ROLES = ("train", "val", "test")

_TEST_STREAM, _VAL_STREAM, _FOLD_STREAM, _LABEL_STREAM = 0, 1, 2, 3


@dataclass(frozen=True)
class _LabelledImages:
    """The images that take part, by ascending image_id: one entry each."""

    image_id: npt.NDArray[np.object_]
    patient_id: npt.NDArray[np.object_]
    group_id: npt.NDArray[np.object_]
    label: IntArray


def make_splits(study_id: str, images: pa.Table, config: StudyConfig) -> pa.Table:
    """The `splits` table of a study: one row per split and labelled image.

    Hold-out: each split's test part has floor(test_fraction x n) images of each class, or about
    as many where groups of several images stay together; see `draw_groups`. k-fold: each image is
    tested in exactly one fold. Repeated k-fold: each image is tested once in every repetition.
    Leave-one-centre-out: each centre is one split's test part, in order of their names. Temporal:
    each period of the latest images is one split's test part, see `period_roles`.

    Args:
        study_id: written into every row.
        images: an `images` table; rows not included or without a label take no part.
        config: scheme, splits, folds, test_fraction, val_fraction, permute_labels, seed, and the
            columns that the scheme needs.

    Returns:
        ImageRows by split, then image_id.

    Raises:
        InputError: a class is too small for the scheme, or has too few groups.
    """
    rows = _labelled_images(images)
    if config.permute_labels:
        rows = replace(rows, label=permuted_labels(rows.label, rows.group_id, config.seed))
    group, sizes = _groups(rows)
    _check_groups(rows, group, sizes)
    if config.scheme == "temporal":
        roles = period_roles(images, rows.image_id, group, rows.label, config=config)
    else:
        if config.scheme == "leave_one_centre_out":
            tests = _centre_tests(images, rows, group, sizes, config)
        else:
            tests = _tests(rows.label, sizes, config)
        roles = np.array(
            [
                _roles(test, sizes, rows.label, config, split=split)[group]
                for split, test in enumerate(tests)
            ]
        )
    coverage = _coverage_columns(roles == "test")
    parts = [
        _part(study_id, rows, roles[split], split=split, coverage=coverage)
        for split in range(len(roles))
    ]
    return schemas.conform("splits", pa.concat_tables(parts))


def _labelled_images(images: pa.Table) -> _LabelledImages:
    table = images.select(["image_id", "patient_id", "group_id", "label", "included"])
    rows = [row for row in table.to_pylist() if row["included"] and row["label"] is not None]
    rows.sort(key=lambda row: row["image_id"])
    columns = {name: [row[name] for row in rows] for name in ("image_id", "patient_id", "group_id")}
    return _LabelledImages(
        **{name: np.array(values, dtype=object) for name, values in columns.items()},
        label=np.array([row["label"] for row in rows], dtype=np.int64),
    )


def permuted_labels(label: IntArray, group_id: npt.NDArray[np.object_], seed: int) -> IntArray:
    """Labels exchanged between groups at random: an image has the label of the group drawn for its.

    As many groups are malignant as before (a group is, if one of its images is); how many images
    depends on the draw where groups differ in size.

    Args:
        label: (n,), 0 or 1.
        group_id: (n,).
        seed: the study's.
    """
    _, group = np.unique(group_id.astype(str), return_inverse=True)
    of_group = np.zeros(int(group.max()) + 1 if group.size else 0, dtype=np.int64)
    np.maximum.at(of_group, group, label)
    order = np.random.default_rng((seed, 0, _LABEL_STREAM)).permutation(of_group.size)
    return np.asarray(of_group[order][group])


def _groups(rows: _LabelledImages) -> tuple[IntArray, IntArray]:
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


def _check_groups(rows: _LabelledImages, group: IntArray, sizes: IntArray) -> None:
    for label, name in enumerate(CLASS_NAMES):
        members = np.flatnonzero(sizes[:, label])
        if len(members) < 2:
            first = rows.group_id[group == members[0]][0]
            msg = (
                f"all {sizes[:, label].sum()} {name} images stand in one group ({first}: one "
                "patient, or near-duplicates), which stays whole, so that they cannot both train "
                f"and test: add {name} images of another patient"
            )
            raise InputError(msg)


def _tests(label: IntArray, sizes: IntArray, config: StudyConfig) -> list[BoolArray]:
    """Whether each group is tested, (groups,), for each split."""
    if config.fold_count is None:
        return _holdouts(label, sizes, config)
    return _folds(sizes, config, config.fold_count)


def _centre_tests(
    images: pa.Table, rows: _LabelledImages, group: IntArray, sizes: IntArray, config: StudyConfig
) -> list[BoolArray]:
    """Groups of each centre, in order of the centres' names."""
    names, centre = group_centres(images, rows.image_id, group, column=config.centre_column)
    if len(names) != config.splits:
        msg = (
            f"leave_one_centre_out tests each centre once: the column {config.centre_column} has "
            f"{len(names)} of them; set splits to {len(names)}"
        )
        raise InputError(msg)
    tests = [centre == number for number in range(len(names))]
    for name, test in zip(names, tests, strict=True):
        benign, malignant = sizes[test].sum(axis=0)
        if not min(benign, malignant):
            msg = (
                f"centre {name} has {benign} benign and {malignant} malignant images: without "
                "both, nothing tells how well it is read; give it the name of a centre that is "
                f"like it in the column {config.centre_column}, or leave its images out"
            )
            raise InputError(msg)
    return tests


def _holdouts(label: IntArray, sizes: IntArray, config: StudyConfig) -> list[BoolArray]:
    """Groups of each split's test part."""
    target = _targets(label, config.test_fraction)
    _check_targets(target, label, config.test_fraction, "test")
    try:
        return [
            draw_groups(sizes, target, np.random.default_rng((config.seed, split, _TEST_STREAM)))
            for split in range(config.splits)
        ]
    except NoChoiceError as error:
        msg = (
            f"the {len(sizes)} groups (patients, near-duplicates), which stay whole, cannot be "
            "divided such that training and test part both have both classes: add patients"
        )
        raise InputError(msg) from error


def _check_targets(target: IntArray, label: IntArray, fraction: float, role: str) -> None:
    """Make sure that the part has an image of each class before it is drawn."""
    lacking = [
        (int(n), name)
        for n, count, name in zip(np.bincount(label), target, CLASS_NAMES, strict=True)
        if count == 0
    ]
    if lacking:
        n, name = min(lacking)
        enough = math.ceil(100 / n) / 100
        msg = (
            f"the {role} part would have no {name} image: {role}_fraction {fraction:g} of {n} "
            f"{name} images is {fraction * n:.2g}, rounded down 0; set {role}_fraction to at "
            f"least {enough:g}{', or to 0 (none)' if role == 'val' else ''}, or add {name} images"
        )
        raise InputError(msg)


def _folds(sizes: IntArray, config: StudyConfig, folds: int) -> list[BoolArray]:
    """Groups of each fold, of one repetition after the other."""
    smallest = int((sizes > 0).sum(axis=0).min())
    setting = "splits" if config.scheme == "kfold" else "folds"
    if smallest < folds:
        msg = (
            f"{config.scheme} with {folds} folds needs at least {folds} groups (patients) of each "
            f"class; the smaller class has {smallest}: set {setting} to at most {smallest}"
        )
        raise InputError(msg)
    tests = []
    for repetition in range(config.splits // folds):
        rng = np.random.default_rng((config.seed, repetition, _FOLD_STREAM))
        try:
            tests += draw_folds(sizes, folds, rng)
        except NoChoiceError as error:
            msg = (
                f"the {len(sizes)} groups (patients, near-duplicates), which stay whole, cannot "
                f"be divided into {folds} folds that all have both classes: set {setting} lower"
            )
            raise InputError(msg) from error
    return tests


def _roles(
    test: BoolArray, sizes: IntArray, label: IntArray, config: StudyConfig, *, split: int
) -> npt.NDArray[np.object_]:
    """Role of each group, shape (groups,)."""
    roles = np.where(test, "test", "train").astype(object)
    if config.val_fraction > 0:
        target = _targets(label, config.val_fraction)
        _check_targets(target, label, config.val_fraction, "val")
        free = np.flatnonzero(~test)
        rng = np.random.default_rng((config.seed, split, _VAL_STREAM))
        try:
            roles[free[draw_groups(sizes[free], target, rng)]] = "val"
        except NoChoiceError as error:
            raise _no_validation(sizes[free], split) from error
    for role in np.unique(roles.astype(str)):
        if sizes[roles == role].sum(axis=0).min() == 0:
            raise _no_validation(sizes[~test], split)
    return roles


def _no_validation(free: IntArray, split: int) -> InputError:
    benign, malignant = (free > 0).sum(axis=0)
    return InputError(
        f"split {split}: outside its test part stand {benign} groups (patients) with benign and "
        f"{malignant} with malignant images, too few for a training and a validation part that "
        "both have both classes: set val_fraction to 0 (none), or lower, or add patients"
    )


def _coverage_columns(is_test: BoolArray) -> tuple[IntArray, IntArray]:
    """How often each image is tested, (n,), and the number of each split's test set, (splits,)."""
    _, first, number = np.unique(is_test, axis=0, return_index=True, return_inverse=True)
    return is_test.sum(axis=0), first[number.reshape(-1)]


def _part(
    study_id: str,
    rows: _LabelledImages,
    roles: npt.NDArray[np.object_],
    *,
    split: int,
    coverage: tuple[IntArray, IntArray],
) -> pa.Table:
    n = len(rows.label)
    times_tested, test_sets = coverage
    return pa.table(
        {
            "study_id": pa.array([study_id] * n, pa.string()),
            "split": pa.array([split] * n, pa.int32()),
            "image_id": pa.array(rows.image_id, pa.string()),
            "patient_id": pa.array(rows.patient_id, pa.string()),
            "group_id": pa.array(rows.group_id, pa.string()),
            "label": pa.array(rows.label, pa.int8()),
            "role": pa.array(roles, pa.string()),
            "times_tested": pa.array(times_tested, pa.int32()),
            "test_set": pa.array([int(test_sets[split])] * n, pa.int32()),
        }
    )


@dataclass(frozen=True)
class SplitCoverage:
    """What the test parts of a study's splits hold, all together."""

    splits: int
    test_sets: int
    """Distinct test sets among them."""
    images: int
    fewest: int
    """Splits that test the image tested least."""
    most: int
    never: tuple[int, int]
    """Benign and malignant images that no split tests."""

    @property
    def text(self) -> str:
        """For people, in one line."""
        often = f"{self.fewest} to {self.most} times"
        if self.fewest == self.most:
            often = amount(self.most, "time")
        never = f"{sum(self.never)} of {self.images}" if sum(self.never) else "none"
        return (
            f"{self.test_sets} distinct test sets in {self.splits} splits; an image is tested "
            f"{often}, {never} never"
        )


def split_coverage(splits: pa.Table) -> SplitCoverage:
    """Distinct test sets, and how often images are tested.

    Args:
        splits: a `splits` table.
    """
    frame = splits.select(["split", "image_id", "label", "times_tested", "test_set"]).to_pandas()
    images = frame.drop_duplicates("image_id")
    never = images.loc[images["times_tested"] == 0, "label"].to_numpy(np.int64)
    benign, malignant = np.bincount(never, minlength=2)
    return SplitCoverage(
        splits=int(frame["split"].nunique()),
        test_sets=int(frame["test_set"].nunique()),
        images=len(images),
        fewest=int(images["times_tested"].min()),
        most=int(images["times_tested"].max()),
        never=(int(benign), int(malignant)),
    )


def split_notes(splits: pa.Table, config: StudyConfig) -> tuple[str, ...]:
    """What a reader must know of the splits, one sentence each; none if nothing is amiss.

    That is: test sets that repeat, images that are never tested, groups too large for a test part,
    test parts that have another size than requested, and what periods of time are made of.

    Args:
        splits: a `splits` table.
        config: the study's config; k-fold has no size to deviate from.
    """
    coverage = split_coverage(splits)
    notes = []
    if coverage.test_sets < coverage.splits:
        n_groups = len(pc.unique(splits["group_id"]))
        notes.append(
            f"only {coverage.test_sets} of the {coverage.splits} test sets are distinct: the "
            f"images form {n_groups} groups (patients, near-duplicates) that stay whole, and the "
            "other splits repeat a test set, so that means and intervals over splits rest on fewer "
            "splits than their number says"
        )
    if config.scheme == "temporal":
        notes += temporal_notes(splits, config)
    elif sum(coverage.never):
        benign, malignant = coverage.never
        notes.append(
            f"{benign + malignant} of {coverage.images} images ({benign} benign, {malignant} "
            f"malignant) are never tested in {coverage.splits} splits drawn at random; "
            "scheme=repeated_kfold tests every image equally often"
        )
    return (*notes, *_size_notes(splits, config))


def _size_notes(splits: pa.Table, config: StudyConfig) -> list[str]:
    if config.scheme != "holdout":
        return []
    frame = splits.select(["split", "label", "role", "group_id"]).to_pandas()
    n_splits = frame["split"].nunique()
    label = frame.loc[frame["split"] == 0, "label"].to_numpy(np.int64)
    targets = _targets(label, config.test_fraction)
    notes = []
    for column, (name, target) in enumerate(zip(CLASS_NAMES, targets, strict=True)):
        rows = frame[frame["label"] == column]
        groups = rows.groupby("group_id").size() // n_splits
        notes += [
            f"group {group} holds {count} of the {groups.sum()} {name} images, more than the "
            f"{target} of a test part: the figures hang on whether it is trained on or tested"
            for group, count in groups[groups > target].items()
        ]
        counts = rows[rows["role"] == "test"].groupby("split").size()
        if (counts != target).any():
            notes.append(
                f"test parts hold {counts.min()} to {counts.max()} {name} images (mean "
                f"{counts.mean():.1f}) instead of {target}, because whole groups stay together"
            )
    return notes
