"""Centres: the hospitals or devices that images come from, by a column of labels.csv."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from thyro_core.config import StudyConfig
from thyro_core.datasets.attributes import column_values, kept_columns
from thyro_core.errors import InputError, amount
from thyro_core.types import IntArray

MOST_CENTRES = 12
"""Most centres of a study: what has more names is no hospital or device."""


def image_centres(images: pa.Table, column: str) -> Mapping[str, str]:
    """Image -> its centre, for the included and labelled images.

    Args:
        images: an `images` table.
        column: the kept column that names the centre.

    Raises:
        InputError: there is no such column, an image has no centre, or there is one centre only.
    """
    cells = column_values(images, column)
    if not cells:
        names = ", ".join(kept_columns(images)) or "none"
        msg = (
            f"leave_one_centre_out: expected a kept column {column} of labels.csv with each "
            f"image's hospital or device, found none; kept are {names}: name the column in "
            "centre_column"
        )
        raise InputError(msg)
    frame = images.select(["image_id", "included", "label"]).to_pandas()
    taking_part = frame.loc[frame["included"] & frame["label"].notna(), "image_id"]
    lacking = sum(image not in cells for image in taking_part)
    if lacking:
        msg = (
            f"leave_one_centre_out: expected a centre of every image, found none in the column "
            f"{column} for {lacking} of {amount(len(taking_part), 'image')}; fill its cells"
        )
        raise InputError(msg)
    centres = {image: cells[image] for image in taking_part}
    if len(set(centres.values())) < 2:
        msg = (
            f"leave_one_centre_out: expected at least 2 centres, found one in the column {column}: "
            f"{next(iter(centres.values()))}; choose another scheme, or another centre_column"
        )
        raise InputError(msg)
    return centres


def with_one_split_a_centre(config: StudyConfig, images: pa.Table) -> StudyConfig:
    """A config whose number of splits is that of the centres; of another scheme, as it is.

    Args:
        config: the study's.
        images: the `images` table of its manifest.

    Raises:
        InputError: as `image_centres`, or there are more centres than a study has splits.
    """
    if config.scheme != "leave_one_centre_out":
        return config
    n_centres = len(set(image_centres(images, config.centre_column).values()))
    if n_centres > MOST_CENTRES:
        msg = (
            f"leave_one_centre_out: expected at most {MOST_CENTRES} centres, found {n_centres} in "
            f"the column {config.centre_column}; put small centres under one name"
        )
        raise InputError(msg)
    return config.model_copy(update={"splits": n_centres})


def group_centres(
    images: pa.Table, image_id: npt.NDArray[np.object_], group: IntArray, *, column: str
) -> tuple[Sequence[str], IntArray]:
    """The centre of each group of images: that of most of them, of equally many the first by name.

    A group (a patient, near-duplicates) stays whole, so that no network is tested at a centre on
    what it was trained on at another.

    Args:
        images: the `images` table.
        image_id: (n,), the images.
        group: (n,), number of each image's group, from 0.
        column: the kept column that names the centre.

    Returns:
        The centres in order of their names, and the number of each group's, (groups,).

    Raises:
        InputError: as `image_centres`.
    """
    centres = image_centres(images, column)
    names, centre = np.unique([centres[image] for image in image_id], return_inverse=True)
    counts = np.zeros((int(group.max()) + 1, len(names)), dtype=np.int64)
    np.add.at(counts, (group, centre), 1)
    return [str(name) for name in names], counts.argmax(axis=1)


def centre_notes(images: pa.Table, config: StudyConfig) -> tuple[str, ...]:
    """What a reader must know of the centres, one sentence each.

    Args:
        images: the `images` table of the study's manifest.
        config: the study's.
    """
    if config.scheme != "leave_one_centre_out":
        return ()
    centres = image_centres(images, config.centre_column)
    frame = images.select(["image_id", "group_id"]).to_pandas().drop_duplicates("image_id")
    frame["centre"] = pd.Series(frame["image_id"].map(centres), dtype=object)
    per_group = frame.dropna(subset="centre").groupby("group_id")["centre"].nunique()
    straddling = int((per_group > 1).sum())
    if not straddling:
        return ()
    text = (
        f"{amount(straddling, 'group')} of images (patients, near-duplicates) from several "
        "centres: a group stays whole and is tested with the centre of most of its images"
    )
    return (text,)
