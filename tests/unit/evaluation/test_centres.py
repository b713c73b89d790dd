"""An AUC over centres: against published figures, by simulation, and where there is none."""

import numpy as np
import pytest
from scipy.special import expit

from thyro_core.config import StudyConfig
from thyro_core.evaluation.centres import RandomEffects, centres_table, random_effects
from thyro_core.evaluation.delong import auc_error, auc_interval
from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble

# Tuberculosis and not, of the vaccinated and of the others, in thirteen trials (Colditz et al.,
# "Efficacy of BCG vaccine in the prevention of tuberculosis", JAMA 271, 1994).
TRIALS = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619),
        (33, 5036, 47, 5761), (180, 1361, 372, 1079), (8, 2537, 10, 619),
        (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
        (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
    ],
    dtype=float,
)  # fmt: skip


def trials() -> RandomEffects:
    ill, well, ill_others, well_others = TRIALS.T
    n, n_others = ill + well, ill_others + well_others
    values = np.log(ill / n) - np.log(ill_others / n_others)
    return random_effects(values, np.sqrt(1 / ill - 1 / n + 1 / ill_others - 1 / n_others))


def test_thirteen_trials_have_the_published_figures() -> None:
    """As metafor's documentation gives them: rma(method="PM"), confint."""
    pooled = trials()
    assert pooled.tau**2 == pytest.approx(0.3181, abs=5e-4)
    assert pooled.mean == pytest.approx(-0.7150, abs=5e-4)
    low, high = np.square(pooled.tau_interval)
    assert (low, high) == pytest.approx((0.1197, 1.1115), abs=5e-4)


def test_values_that_differ_by_less_than_their_errors_have_no_tau() -> None:
    pooled = random_effects(np.array([1.0, 1.01, 0.99]), np.array([0.3, 0.3, 0.3]))
    assert pooled.tau == 0
    assert pooled.tau_interval.low == 0
    # The factor of Knapp and Hartung would make this interval a hundredth of its width.
    error = 0.3 / np.sqrt(3)
    half = (pooled.mean_interval.high - pooled.mean_interval.low) / 2
    assert half == pytest.approx(4.3027 * error, rel=1e-4)
    assert pooled.prediction.high - pooled.mean == pytest.approx(12.7062 * error, rel=1e-4)


def test_the_mean_and_a_further_centre_are_covered() -> None:
    """Five centres, true logits with mean 1.5 and tau 0.4; 500 times. Less would be too narrow."""
    generator = np.random.default_rng(0)
    mean, further = [], []
    for _ in range(500):
        errors = generator.uniform(0.15, 0.4, 5)
        pooled = random_effects(generator.normal(1.5, np.hypot(0.4, errors)), errors)
        mean.append(pooled.mean_interval.low < 1.5 < pooled.mean_interval.high)
        another = generator.normal(1.5, 0.4)
        further.append(pooled.prediction.low < another < pooled.prediction.high)
    # Binomial SD of 500 at 0.95 is 0.01: four of them.
    assert np.mean(mean) > 0.91
    assert np.mean(further) > 0.91


def ensemble(aucs: dict[str, float], each: int = 30) -> tuple[OutOfFoldEnsemble, dict[str, str]]:
    """Images of centres, as many of either class, with about these AUCs."""
    generator = np.random.default_rng(1)
    label, margin, centre = [], [], []
    for name, auc in aucs.items():
        for value in (0, 1):
            label += [value] * each
            margin += list(generator.normal(value * 2**0.5 * _normal_quantile(auc), 1, each))
            centre += [name] * each
    names = np.array([f"i{i:04}" for i in range(len(label))], dtype=object)
    members, none = np.ones(len(label), np.int64), np.full(len(label), np.nan)
    scores = np.array(margin)
    parts = OutOfFoldEnsemble(names, names, names, np.array(label), scores, members, none, 1)
    return parts, dict(zip(names, centre, strict=True))


def _normal_quantile(p: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf(min(p, 1 - 1e-9)))


BY_CENTRE = StudyConfig(scheme="leave_one_centre_out", splits=3)


def row(aucs: dict[str, float], config: StudyConfig = BY_CENTRE, each: int = 30) -> dict:
    parts, cells = ensemble(aucs, each)
    (only,) = centres_table("s", {"resnet18": parts}, config, cells).to_pylist()
    return only


def test_a_row_is_the_random_effects_of_the_centres_logits() -> None:
    parts, cells = ensemble({"a": 0.9, "b": 0.8, "c": 0.6})
    values, errors = [], []
    for name in "abc":
        inside = np.array([cells[image] == name for image in parts.image])
        part = parts.part(inside)
        auc, error = auc_error(part.label, part.margin, part.unit.astype(str))
        assert auc_interval(part.label, expit(part.margin)).low < auc
        values.append(np.log(auc / (1 - auc)))
        errors.append(error / (auc * (1 - auc)))
    expected = random_effects(np.array(values), np.array(errors))
    only = row({"a": 0.9, "b": 0.8, "c": 0.6})
    assert only["n_centres"] == 3
    assert only["auc"] == pytest.approx(expit(expected.mean))
    assert only["tau"] == pytest.approx(expected.tau)
    assert (only["tau_low"], only["tau_high"]) == pytest.approx(expected.tau_interval)
    assert (only["ci_low"], only["ci_high"]) == pytest.approx(expit(expected.mean_interval))
    bounds = only["prediction_low"], only["prediction_high"]
    assert bounds == pytest.approx(expit(expected.prediction))


@pytest.mark.parametrize(
    ("aucs", "each", "n_centres"),
    [
        ({"a": 0.9, "b": 0.8}, 30, 2),
        ({"a": 0.9, "b": 0.8, "c": 0.7}, 9, 0),
        ({"a": 0.9, "b": 0.8, "c": 1.0}, 30, 3),
    ],
)
def test_there_is_no_mean_of_few_centres_nor_without_one_of_them(aucs, each, n_centres) -> None:
    only = row(aucs, each=each)
    assert only["n_centres"] == n_centres
    assert all(np.isnan(value) for name, value in only.items() if isinstance(value, float))


def test_a_study_that_looks_at_no_centres_has_no_row() -> None:
    parts, cells = ensemble({"a": 0.9, "b": 0.8, "c": 0.6})
    for config, rows in (
        (StudyConfig(), 0),
        (StudyConfig(subgroups=("centre",)), 1),
        (StudyConfig(subgroups=("device",)), 0),
        (StudyConfig(subgroups=("device",), centre_column="device"), 1),
    ):
        assert centres_table("s", {"vgg16": parts}, config, cells).num_rows == rows
