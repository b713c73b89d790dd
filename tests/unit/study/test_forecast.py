"""What a study can show before it is run: widths of intervals, splits, cost."""

import math

import numpy as np
import pytest

from tests.support.auc_variance import auc_variance
from tests.support.report_store import fabricated, images
from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.evaluation.bounded import t_quantile
from thyro_core.evaluation.delong import auc_influences
from thyro_core.store.store import open_store
from thyro_core.study.forecast import (
    expected_interval,
    expected_mean_interval,
    forecast,
)
from thyro_core.training.models import build
from thyro_core.training.networks import NETWORK_FIGURES


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


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [({"splits": 10}, 10), ({"scheme": "kfold", "splits": 5}, 5),
     ({"scheme": "repeated_kfold", "splits": 10, "folds": 5}, 10)],
)  # fmt: skip
def test_the_mean_over_splits_is_as_wide_as_a_report_has_it(scheme, parts) -> None:
    """Scores that no training changes: of 150 studies the mean width, on the logit scale."""
    config = StudyConfig(**scheme)
    label = np.repeat([1, 0], [100, 200])
    generator = np.random.default_rng(0)
    share = config.test_fraction if config.fold_count is None else 1 / config.fold_count
    spreads = []
    for _ in range(150):
        score = generator.exponential(np.where(label == 1, 3.0, 1.0))
        aucs = []
        for part in range(parts):
            if config.fold_count is None or part % config.fold_count == 0:
                place = np.concatenate([generator.permutation(100), generator.permutation(200)])
            low = 0 if config.fold_count is None else part % config.fold_count * share
            size = np.where(label == 1, 100, 200)
            rows = (place >= low * size - 1e-9) & (place < (low + share) * size - 1e-9)
            aucs.append(auc_influences(label[rows], score[rows])[0])
        spreads.append(np.var(aucs, ddof=1) * (1 / parts + share / (1 - share)))
    mean = expected_mean_interval(0.75, 100 * share, 200 * share, config)
    half = math.log(mean.high / (1 - mean.high) / (mean.low / (1 - mean.low))) / 2
    error = half * 0.75 * 0.25 / t_quantile(parts - 1)
    assert error == pytest.approx(math.sqrt(np.mean(spreads)), rel=0.06)


def test_patients_are_fewer_than_images_and_so_less_sure(tmp_path) -> None:
    outlook = forecast(open_store(str(tmp_path)), images(80, 30), StudyConfig())
    assert (outlook.images, outlook.units) == ((50, 30), (25, 15))
    assert outlook.design_effect == 2.0
    for mean, whole, part in zip(outlook.mean, outlook.whole, outlook.test_part, strict=True):
        assert mean.by_patient.low < mean.by_image.low < mean.auc < mean.by_image.high
        assert part.by_image.low < mean.by_image.low < whole.by_image.low
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


def test_the_models_take_what_their_networks_hold(tmp_path) -> None:
    for name in ARCHITECTURES:
        # With Inception v3's auxiliary head, which the paper's size has.
        state = build(name, StudyConfig().side(name), 0).state_dict()
        assert sum(each.numel() * each.element_size() for each in state.values()) == (
            NETWORK_FIGURES[name].model_bytes
        )
    config = StudyConfig(architectures=("resnet18", "alexnet"), splits=3)
    outlook = forecast(open_store(str(tmp_path)), images(), config)
    assert outlook.model_bytes == 3 * (
        NETWORK_FIGURES["resnet18"].model_bytes + NETWORK_FIGURES["alexnet"].model_bytes
    )
