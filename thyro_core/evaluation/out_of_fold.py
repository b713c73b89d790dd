"""What a study's networks predict for images they were not trained on, and their ensemble.

Each row is one image in one split that tested it: its whole group was kept from that split's
network. The ensemble of an image averages these networks and no others, so that its figures are
those of an ensemble on new images, not of one network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import logsumexp

from thyro_core.types import BoolArray, FloatArray, IntArray

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Held-out predictions of one architecture; n rows, by split and image."""

    split: IntArray
    """(n,)."""
    image: Ids
    """(n,), image_id."""
    group: Ids
    """(n,), group_id: groups never stand on both sides of a split."""
    unit: Ids
    """(n,), the patient; the group where no patient is known. Units are taken as independent."""
    label: IntArray
    """(n,), 0 benign, 1 malignant."""
    margin: FloatArray
    """(n,), logit of malignant minus logit of benign."""


@dataclass(frozen=True)
class OutOfFoldEnsemble:
    """Each image once, scored by the networks whose split tested it; m images."""

    image: Ids
    """(m,), image_id, ascending."""
    group: Ids
    """(m,), group_id."""
    unit: Ids
    """(m,), patient, or group."""
    label: IntArray
    """(m,), 0 benign, 1 malignant."""
    margin: FloatArray
    """(m,), log odds of the mean probability of malignant over the image's networks."""
    members: IntArray
    """(m,), networks that scored it."""
    member_variance: FloatArray
    """(m,), variance (ddof 1) of their log odds; NaN where one network scored it."""
    networks: int
    """Networks of the ensemble in use: each of them scored some image."""

    def part(self, inside: BoolArray) -> "OutOfFoldEnsemble":
        """Some of the images, of the same networks.

        Args:
            inside: (m,).
        """
        return OutOfFoldEnsemble(
            image=self.image[inside],
            group=self.group[inside],
            unit=self.unit[inside],
            label=self.label[inside],
            margin=self.margin[inside],
            members=self.members[inside],
            member_variance=self.member_variance[inside],
            networks=self.networks,
        )


Ensembles = Mapping[str, OutOfFoldEnsemble]
"""A study's ensemble of each architecture, in its order."""


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
    unit = rows["patient_id"].where(rows["patient_id"].notna(), rows["group_id"])
    return OutOfFoldPredictions(
        split=rows["split"].to_numpy(np.int64),
        image=rows["image_id"].to_numpy(object),
        group=rows["group_id"].to_numpy(object),
        unit=unit.to_numpy(object),
        label=rows["label"].to_numpy(np.int64),
        margin=margin.to_numpy(np.float64),
    )


def out_of_fold_ensemble(rows: OutOfFoldPredictions) -> OutOfFoldEnsemble:
    """Each tested image's ensemble of the networks whose split tested it.

    Args:
        rows: held-out predictions.
    """
    images, first, place, count = np.unique(
        rows.image.astype(str), return_index=True, return_inverse=True, return_counts=True
    )
    malignant, benign = (
        _log_sums(-np.logaddexp(0.0, -sign * rows.margin), place, len(images)) for sign in (1, -1)
    )
    return OutOfFoldEnsemble(
        image=images.astype(object),
        group=rows.group[first],
        unit=rows.unit[first],
        label=rows.label[first],
        margin=malignant - benign,
        members=count.astype(np.int64),
        member_variance=member_sd(rows, rows.margin) ** 2,
        networks=len(np.unique(rows.split)),
    )


def out_of_fold_ensembles(
    predictions: pa.Table, splits: pa.Table, architectures: Sequence[str]
) -> dict[str, OutOfFoldEnsemble]:
    """The out-of-fold ensemble of each architecture that has predictions, in their order.

    Args:
        predictions: a study's table `predictions`.
        splits: its table `splits`.
        architectures: those of the study.

    Raises:
        ValueError: see `out_of_fold_predictions`.
    """
    there = set(predictions["architecture"].to_pylist())
    return {
        name: out_of_fold_ensemble(out_of_fold_predictions(predictions, splits, name))
        for name in architectures
        if name in there
    }


def ensemble_margin(margins: npt.ArrayLike) -> FloatArray:
    """Log odds of the mean probability over members, finite for finite margins.

    Args:
        margins: (..., m), each member's logit of malignant minus logit of benign.

    Returns:
        (...).
    """
    values = np.asarray(margins, dtype=np.float64)
    malignant = logsumexp(-np.logaddexp(0.0, -values), axis=-1)
    benign = logsumexp(-np.logaddexp(0.0, values), axis=-1)
    return np.asarray(malignant - benign)


def sigmoid(margin: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Softmax probability of the second of two logits that differ by `margin`."""
    values = np.asarray(margin, dtype=np.float64)
    # The exponential of a negative magnitude cannot overflow.
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


def _log_sums(logarithms: FloatArray, place: npt.NDArray[np.intp], places: int) -> FloatArray:
    """Logarithm of the sum of exponentials at each place: small probabilities do not vanish."""
    total = np.full(places, -np.inf)
    np.logaddexp.at(total, place, logarithms)
    return total


def member_sd(rows: OutOfFoldPredictions, value: FloatArray) -> FloatArray:
    """Standard deviation (ddof 1) of a value over the networks that scored each image.

    Args:
        rows: n rows.
        value: (n,).

    Returns:
        (m,), by ascending image_id; NaN where one network scored the image.
    """
    _, place, count = np.unique(rows.image.astype(str), return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=value) / count
    squares = np.bincount(place, weights=(value - mean[place]) ** 2)
    return np.asarray(np.sqrt(squares / np.where(count > 1, count - 1, np.nan)))
