"""How many models a store could choose from, and what choosing the best of them does."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.metric_levels import with_patient_level
from thyro_core.config import StudyConfig
from thyro_core.registry.candidates import count_candidates, expected_largest
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan, save_plan
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table


def add(
    store: Store, number: int, auc: float | None, manifest_id: str = "m1", **config
) -> StudyPlan:
    """A study in a store; `auc` None: it is not finished."""
    study = StudyConfig.model_validate({"architectures": ("resnet18",)} | config)
    plan = StudyPlan(f"s{number:016x}", study, manifest_id, "fp32", {}, ())
    save_plan(store, plan)
    if auc is not None:
        blank = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
        rows = [
            blank | {"study_id": plan.study_id, "architecture": name, "metric": "auc",
                     "split": split, "value": value}
            for name in study.architectures
            for split, value in ((0, 0.1), (None, auc))
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=schemas.TABLES["metrics"].schema)
        write_table(store, "metrics", with_patient_level(table), study_id=plan.study_id)
    return plan


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_a_single_study_has_no_rival(store: Store) -> None:
    found = count_candidates(store, add(store, 1, 0.9), "resnet18")
    assert (found.studies, found.candidates, found.reruns) == (1, 1, 1)
    assert found.auc_sd is found.optimism is None


def test_runs_that_differ_by_their_seed_are_counted_apart(store: Store) -> None:
    plan = add(store, 1, 0.90)
    add(store, 2, 0.92, seed=1)
    add(store, 3, 0.88, seed=2, architectures=("resnet18", "vgg16"))
    add(store, 4, 0.70, epochs=5)
    add(store, 5, 0.99, manifest_id="m2")
    add(store, 6, None, seed=3)
    found = count_candidates(store, plan, "resnet18")
    assert (found.studies, found.candidates, found.reruns) == (4, 5, 3)
    assert found.auc_sd == pytest.approx(np.std([0.90, 0.92, 0.88], ddof=1))
    assert found.optimism == pytest.approx(found.auc_sd * expected_largest(3))


def write_images(store: Store, manifest_id: str, numbers: range) -> None:
    schema = schemas.TABLES["images"].schema
    rows = [dict.fromkeys(schema.names) | {"manifest_id": manifest_id, "image_id": f"i{number}"}
            for number in numbers]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    write_table(store, "images", table, manifest_id=manifest_id)


def test_a_changed_manifest_does_not_begin_the_count_again(store: Store) -> None:
    plan = add(store, 1, 0.90)
    add(store, 2, 0.92, manifest_id="m2")  # two images more
    add(store, 3, 0.95, manifest_id="m3")  # half of the images
    add(store, 4, 0.99, manifest_id="m4")  # fewer
    add(store, 5, 0.99, manifest_id="gone")
    for name, numbers in (("m1", range(10)), ("m2", range(12)), ("m3", range(5, 40)),
                          ("m4", range(6, 40))):  # fmt: skip
        write_images(store, name, numbers)
    found = count_candidates(store, plan, "resnet18")
    assert (found.studies, found.candidates) == (3, 3)
    assert found.reruns == 1, "another manifest is more than another seed"


def test_a_damaged_plan_counts_for_none(store: Store) -> None:
    plan = add(store, 1, 0.9)
    other = add(store, 2, 0.8, seed=1)
    store.delete(f"studies/{other.study_id}/config.json")
    store.write(f"studies/{other.study_id}/config.json", b"{")
    assert count_candidates(store, dataclasses.replace(plan), "resnet18").studies == 1


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_the_expected_largest_of_normal_draws(n: int) -> None:
    drawn = np.random.default_rng(0).normal(size=(40_000, n)).max(axis=1).mean()
    assert expected_largest(n) == pytest.approx(drawn, abs=0.03)


def test_twenty_seeds_are_as_optimistic_as_was_measured() -> None:
    """The best of twenty runs whose AUCs scatter by 0.011 leads by 0.02."""
    assert 0.011 * expected_largest(20) == pytest.approx(0.02, abs=0.002)
