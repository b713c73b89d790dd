"""What a study can show before it is run: widths of intervals, splits, cost."""

import math

import numpy as np
import pytest

from tests.support.auc_variance import auc_variance
from tests.support.report_store import fabricated, images
from thyro_core.config import StudyConfig
from thyro_core.store.store import open_store
from thyro_core.study.forecast import expected_interval, forecast


def test_the_width_is_that_of_exponential_scores() -> None:
    """Hanley and McNeil's own example: AUC 0.893, 51 abnormal, 58 normal, standard error 0.032."""
    low, high = expected_interval(0.893, 51, 58)
    error = math.log(high / (1 - high) / (low / (1 - low))) / 2 / 1.959964 * 0.893 * 0.107
    assert error == pytest.approx(0.032, abs=0.0006)


def test_it_is_what_such_scores_give() -> None:
    generator = np.random.default_rng(0)
    label = np.repeat([1, 0], [60, 120])
    errors = []
    for _ in range(100):
        score = generator.exponential(np.where(label == 1, 3.0, 1.0))
        errors.append(auc_variance(label, np.argsort(np.argsort(score)) / label.size))
    low, high = expected_interval(0.75, 60, 120)
    error = math.log(high / (1 - high) / (low / (1 - low))) / 2 / 1.959964 * 0.75 * 0.25
    assert error == pytest.approx(math.sqrt(np.mean(errors)), rel=0.05)


def test_patients_are_fewer_than_images_and_so_less_sure(tmp_path) -> None:
    outlook = forecast(open_store(str(tmp_path)), images(80, 30), StudyConfig())
    assert (outlook.images, outlook.units) == ((50, 30), (25, 15))
    assert outlook.design_effect == 2.0
    for whole, part in zip(outlook.whole, outlook.test_part, strict=True):
        assert whole.by_patient.low < whole.by_image.low < whole.auc < whole.by_image.high
        assert part.by_patient.low < whole.by_patient.low
    assert all(run.seconds is None for run in outlook.runs)
    assert set(outlook.schemes.values()) == {None}


def test_what_cannot_be_split_says_why(tmp_path) -> None:
    outlook = forecast(open_store(str(tmp_path)), images(40, 8), StudyConfig())
    assert outlook.schemes["holdout"] is None
    obstacle = outlook.schemes["kfold 10"]
    assert obstacle is not None
    assert "the smaller class has 4: set splits to at most 4" in obstacle


def test_time_comes_from_the_epochs_of_the_store(tmp_path) -> None:
    config = {"splits": 2, "architectures": ("resnet18",)}
    store, plan = fabricated(tmp_path, trust_images=0, **config)
    (run,) = forecast(store, images(), plan.config).runs
    assert run.epochs_measured == 2 * plan.config.epochs
    assert run.seconds == pytest.approx(2 * plan.config.epochs * 60 * 0.7 / 8.0)
