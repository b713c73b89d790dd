"""The variance behind `auc_interval`, for the tests that compare it with others."""

import numpy.typing as npt

from thyro_core.evaluation import delong
from thyro_core.evaluation.metrics import as_valid_arrays
from thyro_core.types import AnyFloatArray, AnyIntArray


def auc_variance(
    label: AnyIntArray, probability: AnyFloatArray, cluster: npt.ArrayLike | None = None
) -> float:
    """Variance of one AUC; NaN with fewer than two patients of a class.

    Args:
        label: (n,), 0 or 1.
        probability: (n,), probability of malignant.
        cluster: (n,), the patient of each image; None: each image is a patient of its own.

    Raises:
        ValueError: see `metrics.as_valid_arrays`; or `cluster` is not of shape (n,).
    """
    label, probability = as_valid_arrays(label, probability)
    places = delong._placements(label, probability)
    return delong._variance(label, places, delong._clusters(label, cluster))
