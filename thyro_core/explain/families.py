"""Which family of features of highlighted regions tells the classes apart, and is shape ahead?

The folds of a repeated cross-validation share their images, so that a test on their AUCs has to
guess the correlation, and rejects too often where nothing is to be found. A permutation test
guesses nothing: the whole cross-validation is done again with patients' maps dealt out anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedGroupKFold

from thyro_core.explain.statistics import images_by_share
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.types import FloatArray, IntArray

FAMILY_FOLDS = 5
"""Folds of a cross-validation; fewer where a class has fewer patients."""

REPEATS = 5
"""Repeats of the cross-validation, each with other folds."""

PERMUTATIONS = 199
"""How often maps are dealt out anew; the smallest P is 1 in one more."""

_PERMUTATION_STREAM = 0xFA3
_PENALTY = 1.0
_BLOCK_VALUES = 4_000_000
_TIE = 1e-9

_Fold = tuple[IntArray, IntArray]
"""Training rows and test rows."""


class FamilyAuc(NamedTuple):
    """How well one family of features separates the classes, and shape's lead over it.

    `auc` and `sd` (ddof 1) are over the folds of all repeats, `n` counts images. `difference` is
    shape's AUC - this family's on the same folds, `p` its two-sided P by permutation; both are NaN
    for shape itself, and everything is NaN where a class has fewer than two patients.
    """

    threshold: float
    family: str
    auc: float
    sd: float
    n: int
    difference: float
    p: float


def family_auc(
    features: pa.Table, patients: Mapping[str, str | None], seed: int
) -> list[FamilyAuc]:
    """Which family separates the classes better: AUC of a linear discriminant on each alone.

    Repeated stratified cross-validation, a patient's images never on both sides. The discriminant
    is least squares on the class with a ridge of 1 on features of unit variance (with two classes
    Fisher's, Hastie, Tibshirani and Friedman 2009, section 4.3). Medians for undefined values and
    the scaling are of all images, whatever their class. The AUC is taken within each fold, because
    scores of different folds' models do not compare. Images without a region are left out.

    Shape's lead is tested by permutation: patients change their maps with one another, among those
    with as many images, while labels and folds stay, and everything is fitted again. P is the
    share of leads as large in either direction, the observed one counted among them, so that it is
    never 0 (Phipson and Smyth 2010). It is exact where no family tells anything of the class, for
    patients as units, whatever correlates within them; where two families tell equally much it is
    conservative, as an AUC spreads less above 0.5.

    Args:
        features: see `statistics.cam_tests`.
        patients: see `statistics.cam_tests`.
        seed: of the folds and, in a generator of their own, the permutations; 0 or more.

    Returns:
        By share, a family each, shape first.

    Raises:
        ValueError: see `statistics.cam_tests`.
    """
    results: list[FamilyAuc] = []
    for share, images in images_by_share(features, patients):
        regions = images[images["area"].notna()]
        label = regions["label"].to_numpy(np.int64)
        folds = list(_cross_validation_folds(regions, seed))
        orders = _orders(regions["patient"].to_numpy(), seed) if folds else None
        aucs = {
            family: np.empty((0, 1))
            if orders is None
            else _fold_aucs(_whole_and_scaled(regions, _features_of(family)), label, folds, orders)
            for family in dict.fromkeys(FEATURES.values())
        }
        results += [_family_summary(share, family, aucs, len(regions)) for family in aucs]
    return results


def _features_of(family: str) -> list[str]:
    return [name for name, own_family in FEATURES.items() if own_family == family]


def _cross_validation_folds(images: pd.DataFrame, seed: int) -> Iterator[_Fold]:
    """(training rows, test rows) of all repeats; only folds with both classes on both sides."""
    label, patient = images["label"].to_numpy(), images["patient"].to_numpy()
    smaller = min(len(set(patient[label == value])) for value in (0, 1))
    folds = min(FAMILY_FOLDS, smaller)
    for repeat in range(REPEATS if folds > 1 else 0):
        state = int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
        for train, test in parts.split(label, label, patient):
            if len(set(label[train])) == len(set(label[test])) == 2:
                yield train, test


def _orders(patient: np.ndarray, seed: int) -> IntArray:
    """(1 + PERMUTATIONS, n): whose map stands at each image; the first order is as it was.

    A patient's images move together. Patients of one size only change places: any such change is
    as likely as another where maps tell nothing of the class, and the folds keep their sizes.
    """
    generator = np.random.default_rng([seed, _PERMUTATION_STREAM])
    place = np.unique(patient, return_inverse=True)[1]
    rows = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    sizes = np.array([len(own) for own in rows])
    blocks = [
        np.stack([own for own, of in zip(rows, sizes, strict=True) if of == size])
        for size in np.unique(sizes)
    ]
    orders = np.tile(np.arange(len(patient)), (1 + PERMUTATIONS, 1))
    for order in orders[1:]:
        for block in blocks:
            order[block] = block[generator.permutation(len(block))]
    return np.asarray(orders)


def _whole_and_scaled(images: pd.DataFrame, names: list[str]) -> FloatArray:
    """Medians for what is undefined, mean 0 and unit variance; 0 for a feature without any."""
    values = images[names].to_numpy(np.float64)
    some = np.isfinite(values).any(axis=0)
    middle = np.where(some, np.nanmedian(np.where(some, values, 0.0), axis=0), 0.0)
    whole = np.where(np.isfinite(values), values, middle)
    sd = whole.std(axis=0)
    return np.asarray((whole - whole.mean(axis=0)) / np.where(sd > 0, sd, 1.0))


def _fold_aucs(
    values: FloatArray, label: IntArray, folds: Sequence[_Fold], orders: IntArray
) -> FloatArray:
    """AUC of the discriminant in each fold with each order, (folds, orders)."""
    block = max(1, _BLOCK_VALUES // max(1, values.size))
    return np.array(
        [
            np.concatenate(
                [
                    _discriminant_aucs(values, label, fold, orders[start : start + block])
                    for start in range(0, len(orders), block)
                ]
            )
            for fold in folds
        ]
    )


def _discriminant_aucs(
    values: FloatArray, label: IntArray, fold: _Fold, orders: IntArray
) -> FloatArray:
    train, test = fold
    own = values[orders[:, train]]
    own -= own.mean(axis=1, keepdims=True)
    products = own.transpose(0, 2, 1) @ own + _PENALTY * np.eye(values.shape[1])
    along = (label[train] - label[train].mean()) @ own
    weights = np.linalg.solve(products, along[..., None])
    scores = (values[orders[:, test]] @ weights)[..., 0]
    return _aucs(label[test], scores)


def _aucs(label: IntArray, scores: FloatArray) -> FloatArray:
    """Mann and Whitney's, a row each: the share of pairs with malignant higher, ties half."""
    ill = int((label == 1).sum())
    ranks = rankdata(scores.round(12), axis=1)[:, label == 1].sum(axis=1)
    return np.asarray((ranks - ill * (ill + 1) / 2) / (ill * (len(label) - ill)))


def _family_summary(share: float, family: str, aucs: Mapping[str, FloatArray], n: int) -> FamilyAuc:
    """`aucs` holds each family's AUC by fold and order, shape first."""
    own, shape = aucs[family], next(iter(aucs.values()))
    if not len(own):
        return FamilyAuc(share, family, np.nan, np.nan, n, np.nan, np.nan)
    auc, sd = float(own[:, 0].mean()), float(own[:, 0].std(ddof=1)) if len(own) > 1 else np.nan
    if own is shape:
        return FamilyAuc(share, family, auc, sd, n, np.nan, np.nan)
    leads = (shape - own).mean(axis=0)
    p = float((np.abs(leads) >= abs(leads[0]) - _TIE).mean())
    return FamilyAuc(share, family, auc, sd, n, float(leads[0]), p)
