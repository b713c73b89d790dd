"""A study's tables of tests on its maps: features, families of features, and trust checks."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import StudyConfig
from thyro_core.explain.families import family_auc
from thyro_core.explain.statistics import cam_tests
from thyro_core.explain.trust import trust_tests
from thyro_core.tables.schemas import rows_to_table


def patients_of(splits: pa.Table) -> dict[str, str]:
    """The patient, else the group, of each image; from table `splits`."""
    columns = (splits[name].to_pylist() for name in ("image_id", "patient_id", "group_id"))
    return {image: patient or group for image, patient, group in zip(*columns, strict=True)}


def cam_tests_table(
    study_id: str,
    features: pa.Table,
    predictions: pa.Table,
    splits: pa.Table,
    *,
    config: StudyConfig,
) -> pa.Table:
    """The table `cam_tests` of a study: benign against malignant in each feature of the regions.

    Args:
        study_id: the study.
        features: its table `cam_features`; an architecture without rows gets none.
        predictions: its table `predictions`, for the scores.
        splits: its table `splits`.
        config: its config, for the order of architectures.

    Raises:
        ValueError: see `statistics.cam_tests`.
    """
    patients = patients_of(splits)
    rows = [
        row
        for name, part in _features_by_architecture(features, config)
        for row in cam_tests(
            part, predictions.filter(pc.equal(predictions["architecture"], name)), patients
        )
    ]
    return rows_to_table("cam_tests", [row | {"study_id": study_id} for row in rows])


def cam_families_table(
    study_id: str, features: pa.Table, splits: pa.Table, config: StudyConfig
) -> pa.Table:
    """The table `cam_families` of a study: how well each family of features separates the classes.

    Args:
        study_id: the study.
        features: its table `cam_features`, or some of its rows.
        splits: its table `splits`.
        config: its config, for the order of architectures and the seed of folds and permutations.

    Raises:
        ValueError: see `families.family_auc`.
    """
    patients = patients_of(splits)
    rows = [
        {"study_id": study_id, "architecture": architecture, **auc._asdict()}
        for architecture, part in _features_by_architecture(features, config)
        for auc in family_auc(part, patients, config.seed)
    ]
    return rows_to_table("cam_families", rows)


def cam_checks_table(
    study_id: str, trust: pa.Table, splits: pa.Table, config: StudyConfig
) -> pa.Table:
    """The table `cam_checks` of a study: the checks of its maps over images, and their baselines.

    Args:
        study_id: the study.
        trust: its table `cam_trust`; an architecture without rows gets none.
        splits: its table `splits`.
        config: its config, for the order of architectures.
    """
    patients = patients_of(splits)
    rows = [
        row
        for _, part in _features_by_architecture(trust, config)
        for row in trust_tests(part, patients)
    ]
    return rows_to_table("cam_checks", [row | {"study_id": study_id} for row in rows])


def _features_by_architecture(
    table: pa.Table, config: StudyConfig
) -> Iterator[tuple[str, pa.Table]]:
    for architecture in config.architectures:
        yield architecture, table.filter(pc.equal(table["architecture"], architecture))
