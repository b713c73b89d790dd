"""The study's tables on maps: per architecture, by patient, and whole where nothing is defined."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from thyro_core.config import StudyConfig
from thyro_core.explain import families
from thyro_core.explain.families import family_auc
from thyro_core.explain.features import feature_rows, features_table
from thyro_core.explain.regions import DEFAULT_SHARE, SHARES
from thyro_core.explain.statistics import cam_tests
from thyro_core.explain.tables import cam_families_table, cam_tests_table, patients_of
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.tables.schemas import rows_to_table

CONFIG = StudyConfig(architectures=("vgg16", "resnet18"), splits=2, seed=3)
N = 12


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    monkeypatch.setattr(families, "REPEATS", 2)
    monkeypatch.setattr(families, "PERMUTATIONS", 9)


def splits(patients=None):
    rows = [
        {
            "study_id": "s0", "split": split, "image_id": f"{i:064x}", "role": "test",
            "patient_id": patients[i] if patients else None, "group_id": f"g{i}", "label": i % 2,
            "test_set": 0, "times_tested": 2,
        }
        for split in (0, 1) for i in range(N)
    ]  # fmt: skip
    return rows_to_table("splits", rows)


def features(architecture, scale=1.0):
    parts = []
    for split in (0, 1):
        keys = {"study_id": "s0", "split": split, "architecture": architecture}
        rng = np.random.default_rng((split, len(architecture)))
        rows = []
        for i in range(N):
            cam = (rng.random((3, 3)) * scale).astype(np.float32)
            grey = rng.integers(0, 256, (16, 16), dtype=np.uint8)
            rows += feature_rows(f"{i:064x}", i % 2, cam, grey)
        parts.append(features_table(keys, rows))
    return pa.concat_tables(parts)


def scores():
    rng = np.random.default_rng(9)
    rows = [
        {
            "study_id": "s0", "split": split, "architecture": architecture,
            "image_id": f"{i:064x}", "patient_id": None, "label": i % 2, "logit_benign": 0.0,
            "logit_malignant": float(np.float32(rng.normal())), "prob_malignant": 0.5,
        }
        for architecture in CONFIG.architectures for split in (0, 1) for i in range(N)
    ]  # fmt: skip
    return rows_to_table("predictions", rows)


def own_scores(architecture):
    return scores().filter(pc.field("architecture") == architecture)


def both():
    return pa.concat_tables([features("resnet18"), features("vgg16")])


def test_rows_are_each_architectures_in_the_configs_order():
    table = cam_tests_table("s0", both(), scores(), splits(), config=CONFIG)
    assert table.schema.equals(schemas.TABLES["cam_tests"].schema, check_metadata=True)
    assert [(r["architecture"], r["threshold"], r["feature"]) for r in table.to_pylist()] == [
        (architecture, share, feature)
        for architecture in CONFIG.architectures for share in SHARES for feature in FEATURES
    ]  # fmt: skip
    alone = cam_tests(features("resnet18"), own_scores("resnet18"), patients_of(splits()))
    own = [row for row in table.to_pylist() if row["architecture"] == "resnet18"]
    assert repr(own) == repr([{name: row[name] for name in own[0]} for row in alone])


def test_a_feature_without_a_prediction_is_refused():
    with pytest.raises(ValueError, match="predictions: expected one of each image and split"):
        cam_tests(features("resnet18"), own_scores("resnet18")[:-1], patients_of(splits()))


def test_families_are_those_of_the_configs_seed():
    table = cam_families_table("s0", features("vgg16"), splits(), CONFIG)
    assert table.schema.equals(schemas.TABLES["cam_families"].schema, check_metadata=True)
    own = [row for row in table.to_pylist() if row["architecture"] == "vgg16"]
    alone = family_auc(features("vgg16"), patients_of(splits()), CONFIG.seed)
    expected = [{"study_id": "s0", "architecture": "vgg16", **one._asdict()} for one in alone]
    assert repr(own) == repr(expected)
    other = CONFIG.model_copy(update={"seed": 4})
    other = cam_families_table("s0", features("vgg16"), splits(), other)
    assert repr(other.to_pylist()) != repr(table.to_pylist())


def test_a_patient_is_one_and_else_the_group_is():
    patients = ["p0", "p0", *[None] * (N - 2)]
    found = patients_of(splits(patients))
    assert found[f"{0:064x}"] == found[f"{1:064x}"] == "p0"
    assert found[f"{2:064x}"] == "g2"
    counts = cam_tests_table("s0", both(), scores(), splits(patients), config=CONFIG)
    counts = counts["n"].to_pylist()
    assert max(counts) == N - 1


def test_maps_that_are_all_empty_are_undefined_not_a_crash():
    table = cam_tests_table("s0", features("vgg16", 0.0), scores(), splits(), config=CONFIG)
    assert table.num_rows == len(SHARES) * len(FEATURES)
    for row in table.to_pylist():
        assert row["n"] == 0
        assert all(math.isnan(row[name]) for name in ("statistic", "effect_size", "p"))
    families = cam_families_table("s0", features("vgg16", 0.0), splits(), CONFIG).to_pylist()
    assert len(families) == 3 * len(SHARES)
    assert all(row["n"] == 0 and math.isnan(row["auc"]) for row in families)


def test_a_study_older_than_the_tables_gets_empty_ones():
    nothing = schemas.TABLES["cam_features"].schema.empty_table()
    assert cam_tests_table("s0", nothing, scores(), splits(), config=CONFIG).num_rows == 0
    assert cam_families_table("s0", nothing, splits(), CONFIG).num_rows == 0


def test_the_share_to_quote_is_one():
    assert StudyConfig().cam_share == DEFAULT_SHARE
    assert DEFAULT_SHARE in SHARES
