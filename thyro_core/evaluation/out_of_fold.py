"""What a study's models said of images they were not trained on: the ground for every threshold.

Each row is one image in one split that tested it. What is chosen on some rows is judged on others:
`outside` gives the rows that share neither image nor group with a split's test part.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.evaluation.uncertainty import mean_test_train_ratio
from thyro_core.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Held-out predictions of one architecture; n rows, by split and image."""

    split: IntArray
    """(n,)."""
    image: npt.NDArray[np.object_]
    """(n,), image_id."""
    group: npt.NDArray[np.object_]
    """(n,), group_id: groups never stand on both sides of a split."""
    label: IntArray
    """(n,), 0 benign, 1 malignant."""
    margin: FloatArray
    """(n,), logit of malignant minus logit of benign."""
    ratio: float
    """Mean of n_test / n_train over the splits, for Nadeau and Bengio's variance."""

    @property
    def splits(self) -> list[int]:
        """The numbers of the splits, ascending."""
        return [int(split) for split in np.unique(self.split)]

    def probability(self, temperature: float) -> FloatArray:
        """(n,), probability of malignant at a temperature."""
        return sigmoid(self.margin / temperature)

    def inside(self, split: int) -> BoolArray:
        """(n,), rows of a split's own test part."""
        return np.asarray(self.split == split)

    def outside(self, split: int) -> BoolArray:
        """(n,), rows of other splits whose image and group the split does not test."""
        own = self.inside(split)
        image = np.isin(self.image, self.image[own])
        group = np.isin(self.group, self.group[own])
        return np.asarray(~own & ~image & ~group)


def out_of_fold_predictions(
    predictions: pa.Table, splits: pa.Table, architecture: str
) -> OutOfFoldPredictions:
    """The held-out predictions of an architecture.

    Args:
        predictions: a study's table `predictions`.
        splits: its table `splits`.
        architecture: which network's.

    Raises:
        ValueError: there are none, or they are not of exactly the splits' test images.
    """
    own = predictions.filter(pc.equal(predictions["architecture"], architecture)).to_pandas()
    split_rows = splits.to_pandas()
    tests = split_rows[split_rows["role"] == "test"]
    test_rows = own.merge(tests[["split", "image_id", "group_id"]], on=["split", "image_id"])
    if own.empty or not len(test_rows) == len(own) == len(tests):
        msg = (
            f"{architecture}: expected a prediction of each of the {len(tests)} test images, "
            f"found {len(own)}, {len(test_rows)} of them of test images"
        )
        raise ValueError(msg)
    rows = test_rows.sort_values(["split", "image_id"])
    margin = rows["logit_malignant"].astype("float64") - rows["logit_benign"].astype("float64")
    return OutOfFoldPredictions(
        split=rows["split"].to_numpy(np.int64),
        image=rows["image_id"].to_numpy(object),
        group=rows["group_id"].to_numpy(object),
        label=rows["label"].to_numpy(np.int64),
        margin=margin.to_numpy(np.float64),
        ratio=mean_test_train_ratio(splits),
    )


def sigmoid(margin: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Softmax probability of the second of two logits that differ by `margin`."""
    values = np.asarray(margin, dtype=np.float64)
    # The exponential of a negative magnitude cannot overflow.
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


@dataclass(frozen=True)
class ImageMeans:
    """Held-out probabilities by image: mean and spread over the splits that tested it."""

    image: npt.NDArray[np.object_]
    """(m,), image_id, ascending."""
    label: IntArray
    """(m,)."""
    mean: FloatArray
    """(m,)."""
    sd: FloatArray
    """(m,), ddof 1; NaN where one split tested it."""


def image_means(rows: OutOfFoldPredictions, value: FloatArray) -> ImageMeans:
    """A value of each row, over the rows of each image.

    Args:
        rows: n rows.
        value: (n,).
    """
    images, first, place, count = np.unique(
        rows.image.astype(str), return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(place, weights=value) / count
    squares = np.bincount(place, weights=(value - mean[place]) ** 2)
    sd = np.sqrt(squares / np.where(count > 1, count - 1, np.nan))
    return ImageMeans(images.astype(object), rows.label[first], mean, sd)
