"""Verification of an evaluation finds what does not follow from the members' scores."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tests.support.finished_study import copy_of
from tests.support.imagesets import write_image_set
from thyro_core.config import IngestConfig
from thyro_core.datasets.manifest import ingest
from thyro_core.reporting.evaluation import write_evaluation_page
from thyro_core.store.keys import evaluation_key, evaluation_page_key, study_key, table_key
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table, write_table
from thyro_core.validation import evaluate
from thyro_core.validation.config import EvaluationConfig, ModelChoice
from thyro_core.validation.evaluate import EvaluationTask, run_evaluation
from thyro_core.validation.model import find_model
from thyro_core.validation.verify import verify_evaluations

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory) -> tuple[Store, str]:
    store, plan = finished
    folder = tmp_path_factory.mktemp("verified")
    copied = copy_of(store, folder / "store")
    bundle = find_model(copied, ModelChoice(model=plan.study_id), folder / "scratch")
    source = write_image_set(folder / "set", benign=14, malignant=13, seed=5)
    manifest = ingest(str(source), IngestConfig(blur_bound=0), copied, [bundle.side])
    task = EvaluationTask(bundle, manifest, str(source), EvaluationConfig(resamples=50))
    record = run_evaluation(copied, task, folder / "scratch")
    write_evaluation_page(copied, record.evaluation_id)
    return copied, record.evaluation_id


@pytest.fixture
def copied(evaluated, tmp_path) -> tuple[Store, str]:
    store, evaluation_id = evaluated
    return copy_of(store, tmp_path / "store"), evaluation_id


def change(store: Store, table: str, evaluation_id: str, **columns: object) -> None:
    """Give the first scored row of a table other values."""
    rows = read_table(store, table, evaluation_id=evaluation_id)
    values = rows.to_pylist()
    values[0] |= columns
    write_table(
        store, table, pa.Table.from_pylist(values, rows.schema), evaluation_id=evaluation_id
    )


def only_fault(store: Store) -> str:
    (check,) = verify_evaluations(store)
    assert not check.is_passed
    assert "start its `thyro evaluate` again" in check.detail
    return check.detail


def test_an_evaluation_as_it_was_made_passes(evaluated) -> None:
    store, evaluation_id = evaluated
    (check,) = verify_evaluations(store)
    assert (check.name, check.is_passed) == (evaluation_id, True), check.detail
    assert check.detail.startswith("27 images scored, ")


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ("evaluations", {"call": 7}, "call is 7"),
        ("evaluations", {"prob_calibrated": 0.123}, "prob_calibrated is 0.123"),
        ("evaluations", {"margins": [0.5] * 9}, "1 image without the scores"),
        ("evaluations", {"margins": None}, "1 image without the scores"),
        ("evaluations", {"members": [0.5] * 9}, "members is [0.5"),
        ("evaluations", {"label": None}, "label"),
        ("evaluations", {"excluded": "same_file"}, "its record counts"),
        ("evaluation_metrics", {"value": 0.987}, "value is 0.987"),
        ("evaluation_metrics", {"ci_low": 0.123}, "ci_low is 0.123"),
        ("evaluation_metrics", {"metric": "luck"}, "luck"),
    ],
)
def test_a_changed_figure_is_found(copied, table, columns, words) -> None:
    store, evaluation_id = copied
    change(store, table, evaluation_id, **columns)
    assert words in only_fault(store)


def test_figures_follow_from_the_members(copied) -> None:
    store, evaluation_id = copied
    (first, *_) = read_table(store, "evaluations", evaluation_id=evaluation_id).to_pylist()
    change(store, "evaluations", evaluation_id, margins=[0.5] * len(first["members"]))
    assert "prob_raw" in only_fault(store)


def without_margins(store: Store, evaluation_id: str) -> None:
    """As an earlier version of the program left it."""
    rows = read_table(store, "evaluations", evaluation_id=evaluation_id)
    nothing = pa.nulls(rows.num_rows, rows.schema.field("margins").type)
    place = rows.schema.get_field_index("margins")
    older = rows.set_column(place, rows.schema.field("margins"), nothing)
    write_table(store, "evaluations", older, evaluation_id=evaluation_id)


def test_an_evaluation_of_before_margins_were_kept_is_verified_from_probabilities(copied) -> None:
    store, evaluation_id = copied
    without_margins(store, evaluation_id)
    (check,) = verify_evaluations(store)
    assert check.is_passed, check.detail
    (first, *_) = read_table(store, "evaluations", evaluation_id=evaluation_id).to_pylist()
    change(store, "evaluations", evaluation_id, members=[0.5] * len(first["members"]))
    assert "prob_raw" in only_fault(store)


def test_scores_that_no_probability_holds_are_no_fault(finished, tmp_path, monkeypatch) -> None:
    store, plan = finished
    copied = copy_of(store, tmp_path / "store")
    bundle = find_model(copied, ModelChoice(model=plan.study_id), tmp_path / "scratch")
    source = write_image_set(tmp_path / "set", benign=14, malignant=13, seed=5)
    manifest = ingest(str(source), IngestConfig(blur_bound=0), copied, [bundle.side])
    config = EvaluationConfig(resamples=20, map_images=0)
    task = EvaluationTask(bundle, manifest, str(source), config)
    extreme = np.random.default_rng(0).normal(0, 60, (27, len(bundle.members)))
    monkeypatch.setattr(evaluate, "member_margins", lambda *_, **__: extreme)
    record = run_evaluation(copied, task, tmp_path / "scratch")
    write_evaluation_page(copied, record.evaluation_id)
    (check,) = verify_evaluations(copied)
    assert check.is_passed, check.detail
    without_margins(copied, record.evaluation_id)
    assert not next(verify_evaluations(copied)).is_passed


def test_what_is_gone_is_named(copied) -> None:
    store, evaluation_id = copied
    store.delete(evaluation_page_key(evaluation_id))
    assert "it has no page" in only_fault(store)
    store.delete(table_key("evaluation_metrics", evaluation_id=evaluation_id))
    assert "lacking" in only_fault(store)
    record = json.loads(store.read(evaluation_key(evaluation_id)))
    store.write(evaluation_key(evaluation_id), json.dumps(record | {"version": 99}).encode())
    assert "found 99, which cannot be worked out again" in only_fault(store)
    store.write(evaluation_key(evaluation_id), b"{")
    assert "found a damaged one" in only_fault(store)


def test_without_the_models_study_nothing_follows(copied, finished) -> None:
    store, _ = copied
    _, plan = finished
    for key in store.keys("tables"):
        if plan.study_id in key:
            store.delete(key)
    assert "restore the study's tables" in only_fault(store)
    assert store.exists(study_key(plan.study_id))
