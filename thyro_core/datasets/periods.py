"""Temporal validation: the latest images are tested, in periods, by networks of the earlier ones.

The order comes from a kept column of labels.csv: dates, of which a manifest holds the order alone,
or years and other numbers that rise with time. No date is written anywhere.
"""

import math
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from thyro_core.config import CLASS_NAMES, StudyConfig
from thyro_core.datasets.attributes import column_values, kept_columns
from thyro_core.errors import InputError, amount
from thyro_core.types import FloatArray, IntArray

_SHARE_OFF = 0.02
_MONTH = re.compile(r"((?:19|20)\d\d)[-/.](0[1-9]|1[0-2])")


def period_roles(
    images: pa.Table,
    image_id: npt.NDArray[np.object_],
    group: IntArray,
    label: IntArray,
    *,
    config: StudyConfig,
) -> npt.NDArray[np.object_]:
    """Role of each image in each split, shape (splits, n): train, test or unused.

    The latest `test_fraction` of the images are cut into as many periods as there are splits, as
    near to the same size as images of the same time permit. A split tests one period. All earlier
    images train; later ones are not used, and neither are images of the period whose group (the
    patient, near-duplicates) has earlier images.

    Args:
        images: the `images` table.
        image_id: (n,), the images that take part.
        group: (n,), number of each image's group, from 0.
        label: (n,), 0 or 1.
        config: date_column, test_fraction and splits.

    Raises:
        InputError: an image has no time, there are too few times for so many periods, or a part
            lacks a class.
    """
    times = image_times(images, config.date_column)
    lacking = sum(image not in times for image in image_id)
    if lacking:
        msg = (
            f"temporal: expected a date of every image, found none in the column "
            f"{config.date_column} for {lacking} of {amount(len(image_id), 'image')}: fill its "
            "cells with dates such as 2024-01-31 or with years, or leave these images out"
        )
        raise InputError(msg)
    time = np.array([times[image] for image in image_id])
    starts = [*_period_starts(time, config), math.inf]
    roles = np.full((config.splits, len(time)), "unused", dtype=object)
    for split, part in enumerate(roles):
        is_earlier = time < starts[split]
        is_in_period = ~is_earlier & (time < starts[split + 1])
        part[is_earlier] = "train"
        is_known = np.isin(group, group[is_earlier])
        part[is_in_period & ~is_known] = "test"
        _check_classes(part, label, split, int((is_in_period & is_known).sum()))
    return roles


def image_times(images: pa.Table, column: str) -> Mapping[str, float]:
    """Image -> a number that rises with time, for the included images that have one.

    Args:
        images: an `images` table.
        column: the kept column with the order of dates, years, months (2024-01) or other numbers.

    Raises:
        InputError: the image set has no such column, or a cell is no number.
    """
    cells = column_values(images, column)
    if not cells:
        names = ", ".join(kept_columns(images)) or "none"
        msg = (
            f"temporal: expected a kept column {column} of labels.csv with the date or year of "
            f"each image, found none; kept are {names}: name the column in date_column"
        )
        raise InputError(msg)
    times = {image: _time(text) for image, text in cells.items()}
    n_unordered = sum(time is None for time in times.values())
    if n_unordered:
        msg = (
            f"temporal: expected dates such as 2024-01-31, months such as 2024-01, or numbers such "
            f"as years in the column {column}, found something else in "
            f"{amount(n_unordered, 'cell')} of {len(cells)}: correct them, or name another column "
            "in date_column"
        )
        raise InputError(msg)
    return {image: time for image, time in times.items() if time is not None}


def check_sources(config: StudyConfig, n_sources: int) -> None:
    """Refuse to compare the times of several image sets: of dates each keeps an order of its own.

    Args:
        config: the study's.
        n_sources: its image sets.

    Raises:
        InputError: the scheme is temporal and there are several.
    """
    if config.scheme == "temporal" and n_sources > 1:
        msg = (
            f"temporal: expected one image set, found {n_sources}: each set keeps only the order "
            "of its own dates, and those of different sets cannot be compared; put them into one "
            "folder with one labels.csv, or choose scheme=leave_one_centre_out"
        )
        raise InputError(msg)


def temporal_notes(splits: pa.Table, config: StudyConfig) -> tuple[str, ...]:
    """What a reader must know of the periods, one sentence each.

    Args:
        splits: a `splits` table of the scheme temporal.
        config: the study's.
    """
    frame = splits.select(["split", "image_id", "group_id", "role", "times_tested"]).to_pandas()
    first = frame[frame["split"] == 0]
    earliest = int((first["role"] == "train").sum())
    n_untested = int((first["times_tested"] == 0).sum()) - earliest
    text = (
        f"each split tests one period of time by networks of all earlier images; the {earliest} "
        f"earliest of {len(first)} images only train"
    )
    test_sizes = frame[frame["role"] == "test"].groupby("split").size()
    share = 1 - earliest / len(first)
    extent = (
        f"a period tests {test_sizes.min()} to {test_sizes.max()} images; all periods together "
        f"hold {share:.0%} of the images"
    )
    if abs(share - config.test_fraction) >= _SHARE_OFF:
        extent += (
            f" instead of {config.test_fraction:.0%}, because images of one time stay together"
        )
    notes = [text, extent]
    if n_untested:
        notes.append(
            f"{amount(n_untested, 'later image')} of patients or groups with earlier images "
            "that networks are trained on: never tested"
        )
    sizes = frame[frame["role"] == "train"].groupby("split").size()
    notes.append(
        f"training parts grow from {sizes.min()} to {sizes.max()} images, so that a difference "
        "between periods holds the number of training images as well as the time"
    )
    return tuple(notes)


def _time(text: str) -> float | None:
    if month := _MONTH.fullmatch(text.strip()):
        return int(month[1]) + (int(month[2]) - 1) / 12
    try:
        time = float(text)
    except ValueError:
        return None
    return time if math.isfinite(time) else None


def _period_starts(time: FloatArray, config: StudyConfig) -> list[float]:
    """The first time of each period; each is later than some image."""
    moments, counts = np.unique(time, return_counts=True)
    since = counts[::-1].cumsum()[::-1]
    n_tested = config.test_fraction * len(time)
    starts: list[int] = []
    if len(moments) <= config.splits:
        msg = (
            f"temporal: expected at least {config.splits + 1} different times for {config.splits} "
            f"periods and what comes before, found {len(moments)} in the column "
            f"{config.date_column}: set splits lower, or name a column with finer times in "
            "date_column"
        )
        raise InputError(msg)
    for period in range(config.splits):
        target = n_tested * (config.splits - period) / config.splits
        first = starts[-1] + 1 if starts else 1
        # One time is left for each period that follows.
        last = len(moments) - (config.splits - 1 - period)
        starts.append(first + int(np.abs(since[first:last] - target).argmin()))
    return [float(moments[start]) for start in starts]


def _check_classes(
    roles: npt.NDArray[np.object_], label: IntArray, split: int, n_known: int
) -> None:
    parts = pd.crosstab(roles, label).reindex(index=["train", "test"], columns=[0, 1], fill_value=0)
    for role, counts in parts.iterrows():
        if counts.min() == 0:
            of_class = " and ".join(
                f"{n} {name}" for n, name in zip(counts, CLASS_NAMES, strict=True)
            )
            part = "training" if role == "train" else "test"
            msg = (
                f"temporal: the {part} part of period {split + 1} has {of_class} images, "
                f"beside {amount(n_known, 'image')} of patients or groups with earlier images; "
                "both classes are needed: set splits lower (longer periods), or change "
                "test_fraction (the share of latest images that are tested)"
            )
            raise InputError(msg)
