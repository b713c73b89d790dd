"""What a study of an image set can show, before anything is trained: splits, precision, cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import Architecture, StudyConfig
from thyro_core.datasets.attributes import column_values
from thyro_core.datasets.centres import with_one_split_a_centre
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError
from thyro_core.evaluation.bounded import Interval, logit_interval, t_quantile
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table
from thyro_core.training.memory import job_cpu_bytes
from thyro_core.training.networks import NETWORK_FIGURES

EXPECTED_AUCS: tuple[float, ...] = (0.75, 0.85, 0.95)
"""AUCs at which the width of an interval is given."""

_SCHEMES: tuple[dict[str, object], ...] = (
    {"scheme": "holdout"},
    {"scheme": "kfold", "splits": 5},
    {"scheme": "kfold", "splits": 10},
    {"scheme": "repeated_kfold", "splits": 10, "folds": 5},
)


@dataclass(frozen=True)
class ExpectedInterval:
    """The 95 % interval to expect of an AUC; patients' images are all alike, or all independent."""

    auc: float
    by_patient: Interval
    by_image: Interval


@dataclass(frozen=True)
class RunEstimate:
    """What an architecture's runs take."""

    architecture: Architecture
    seconds: float | None
    """Training of all splits, one after the other; None: the store has no epoch to measure from."""
    epochs_measured: int


@dataclass(frozen=True)
class Forecast:
    """Counts, splits, precision and cost of a study before it is run."""

    images: tuple[int, int]
    """Benign and malignant, included and labelled."""
    units: tuple[int, int]
    """Patients (groups, where none are known) with benign and with malignant images."""
    schemes: dict[str, str | None]
    """Scheme -> None if it is possible, else why not."""
    whole: list[ExpectedInterval]
    """Of the out-of-fold scores of all images together."""
    test_part: list[ExpectedInterval]
    """Of a single split's test part."""
    mean: list[ExpectedInterval]
    """Of the mean over the config's splits, as a report has it."""
    runs: list[RunEstimate]
    memory_bytes: int
    """Most memory of a job on a node without a GPU."""
    pack_bytes: int
    """Packs of all input sizes in the store."""
    model_bytes: int
    """All networks of the study, in the store where models are kept."""

    @property
    def design_effect(self) -> float:
        """Images a patient, in the class with more: the most that a variance grows by."""
        pairs = zip(self.images, self.units, strict=True)
        return max(images / units if units else math.nan for images, units in pairs)


def auc_variance_expected(auc: float, malignant: float, benign: float) -> float:
    """Variance of an AUC from the sizes of the classes, see `expected_interval`."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc)
    spread += (malignant - 1) * (first - auc**2) + (benign - 1) * (second - auc**2)
    return max(spread, 0.0) / (malignant * benign)


def expected_interval(auc: float, malignant: float, benign: float) -> Interval:
    """95 % interval to expect around an AUC, from the sizes of the classes, on the logit scale.

    The variance is Hanley and McNeil's for exponential scores ("The Meaning and Use of the Area
    under a Receiver Operating Characteristic (ROC) Curve", Radiology 143, 1982): with
    Q1 = A / (2 - A) and Q2 = 2 A^2 / (1 + A), [A (1 - A) + (m - 1)(Q1 - A^2) + (n - 1)(Q2 - A^2)]
    / (m n). Where a class has several images of a patient, m or n lies between its patients and its
    images: a design effect of 1 + (images a patient - 1) x correlation (Kish 1965).

    Args:
        auc: above 0 and below 1.
        malignant: independent units m of the class, at least 1.
        benign: the same, n.
    """
    return logit_interval(auc, math.sqrt(auc_variance_expected(auc, malignant, benign)))


def expected_mean_interval(
    auc: float, malignant: float, benign: float, config: StudyConfig
) -> Interval:
    """95 % interval to expect of the mean AUC over a study's splits, as its report makes it.

    A report takes the variance of the AUCs over splits times 1 / J + n_test / n_train (Nadeau and
    Bengio 2003) and a t quantile of J - 1 degrees of freedom. To expect of that variance is the
    variance of one test part, Hanley and McNeil's, times 1 - r, where r is the mean correlation of
    two splits' AUCs. Test parts correlate by the images that they share: r is the share of the
    images that a hold-out tests, the same for folds of different repetitions, and 0 for folds of
    one and for periods of time. What networks differ by for being trained on other images comes on
    top, and is not known before: the interval will rather be wider.

    Args:
        auc: above 0 and below 1.
        malignant: independent units of the class in one test part, at least 1.
        benign: the same.
        config: gives scheme and number of splits.
    """
    share, splits = _test_share(config), config.splits
    likeness = 0.0 if config.scheme == "temporal" else share
    if config.fold_count is not None:
        # Folds of one repetition share no image.
        likeness = share * (splits - config.fold_count) / (splits - 1)
    variance = auc_variance_expected(auc, malignant, benign) * (1 - likeness)
    ratio = share / (1 - share)
    if config.scheme == "temporal":
        earliest = 1 - config.test_fraction
        ratio = sum(share / (earliest + period * share) for period in range(splits)) / splits
    error = math.sqrt(variance * (1 / splits + ratio))
    return logit_interval(auc, error, t_quantile(splits - 1))


def _test_share(config: StudyConfig) -> float:
    """Share of the images that one split tests."""
    if config.scheme == "temporal":
        return config.test_fraction / config.splits
    folds = config.fold_count
    return config.test_fraction if folds is None else 1 / folds


def _trained_share(config: StudyConfig) -> float:
    """Share of the images that one split trains on, mean over the splits."""
    if config.scheme == "temporal":
        earliest = 1 - config.test_fraction
        return earliest + config.test_fraction * (config.splits - 1) / (2 * config.splits)
    return 1 - _test_share(config)


def forecast(store: Store, images: pa.Table, config: StudyConfig) -> Forecast:
    """What a study of these images can show, and what it takes.

    Args:
        store: whose studies the speed is measured in.
        images: an `images` table.
        config: the study's config.
    """
    frame = images.select(["label", "included", "patient_id", "group_id"]).to_pandas()
    frame = frame[frame["included"] & frame["label"].notna()]
    unit = frame["patient_id"].where(frame["patient_id"].notna(), frame["group_id"])
    counts = [int((frame["label"] == label).sum()) for label in (0, 1)]
    units = [int(unit[frame["label"] == label].nunique()) for label in (0, 1)]
    share = _test_share(config)

    def mean_interval(auc: float, malignant: float, benign: float) -> Interval:
        return expected_mean_interval(auc, malignant, benign, config)

    sides = {config.side(name) for name in config.architectures}
    schemes = list(_SCHEMES)
    if column_values(images, config.centre_column):
        schemes.append({"scheme": "leave_one_centre_out"})
    if column_values(images, config.date_column) and not config.val_fraction:
        schemes.append({"scheme": "temporal", "splits": 3})
    return Forecast(
        images=(counts[0], counts[1]),
        units=(units[0], units[1]),
        schemes={_scheme_name(scheme): _obstacle(images, config, scheme) for scheme in schemes},
        whole=_intervals(counts, units, 1.0, expected_interval),
        test_part=_intervals(counts, units, share, expected_interval),
        mean=_intervals(counts, units, share, mean_interval),
        runs=[_run_estimate(store, len(frame), config, name) for name in config.architectures],
        memory_bytes=job_cpu_bytes(config),
        pack_bytes=sum(side**2 for side in sides) * int(images.to_pandas()["included"].sum()),
        model_bytes=config.splits
        * sum(NETWORK_FIGURES[name].model_bytes for name in config.architectures),
    )


def _scheme_name(scheme: dict[str, object]) -> str:
    return " ".join(str(value) for value in scheme.values())


def _obstacle(images: pa.Table, config: StudyConfig, scheme: dict[str, object]) -> str | None:
    try:
        plan = StudyConfig.model_validate(config.model_dump() | scheme)
        make_splits("s", images, with_one_split_a_centre(plan, images))
    except InputError as error:
        return str(error)
    return None


def _intervals(
    images: list[int],
    units: list[int],
    share: float,
    interval: Callable[[float, float, float], Interval],
) -> list[ExpectedInterval]:
    sizes = [[max(math.floor(n * share), 1) for n in of] for of in (units, images)]
    return [
        ExpectedInterval(auc, *(interval(auc, malignant, benign) for benign, malignant in sizes))
        for auc in EXPECTED_AUCS
    ]


def _run_estimate(
    store: Store, images: int, config: StudyConfig, architecture: Architecture
) -> RunEstimate:
    """From the median speed of this architecture's epochs in the store, at any image size."""
    rows = read_table(store, "epochs")
    own = rows.filter(pc.equal(rows["architecture"], architecture))
    speeds = own["images_per_second"].drop_null().to_numpy()
    if not speeds.size:
        return RunEstimate(architecture, None, 0)
    n_trained = images * _trained_share(config)
    seconds = config.splits * config.epochs * n_trained / float(np.median(speeds))
    return RunEstimate(architecture, seconds, int(speeds.size))
