"""Slope and intercept: known answers, finite under separation, and no judge of its own choice."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tests.unit.evaluation.test_out_of_fold import ensemble, rows
from thyro_core.evaluation import calibration as module
from thyro_core.evaluation.calibration import (
    FOLDS,
    LEAST_SLOPE,
    EnsembleFit,
    LogisticCalibration,
    calibration_quality,
    cross_fit,
    fit_calibration,
    fit_ensemble,
    unit_interval,
)
from thyro_core.evaluation.member_count import MemberVariance
from thyro_core.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    ensemble_margin,
    out_of_fold_ensemble,
    sigmoid,
)


def sample(n: int, slope: float, intercept: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, n)
    label = (rng.random(n) < sigmoid(intercept + slope * margin)).astype(np.int64)
    return label, margin


def test_a_true_slope_and_intercept_are_found_again() -> None:
    label, margin = sample(40_000, 0.6, -1.5)
    found = fit_calibration(label, margin)
    assert found.slope == pytest.approx(0.6, abs=0.03)
    assert found.intercept == pytest.approx(-1.5, abs=0.05)
    assert found.probability(margin).mean() == pytest.approx(label.mean(), abs=1e-9)


def test_a_shift_that_no_temperature_undoes_is_undone() -> None:
    """A class-balanced loss adds a constant to all log odds: the case that asked for this."""
    label, margin = sample(20_000, 1.0, -1.5)
    assert sigmoid(margin).mean() > 1.7 * label.mean()
    inverse = np.linspace(0.05, 3, 60)
    temperature = min(float(((sigmoid(margin * t) - label) ** 2).mean()) for t in inverse)
    both = fit_calibration(label, margin).probability(margin)
    assert ((both - label) ** 2).mean() < 0.9 * temperature


def test_the_slope_of_a_large_sample_is_the_likeliest() -> None:
    label, margin = sample(3000, 1.7, -1.0)
    likeliest = LogisticRegression(C=np.inf, tol=1e-10).fit(margin[:, None], label)
    assert fit_calibration(label, margin).slope == pytest.approx(likeliest.coef_[0, 0], rel=0.01)


def test_firths_slope_of_two_points_has_a_closed_form() -> None:
    """A 2 x 2 table: Firth's log odds ratio adds one half to each cell (Firth 1993)."""
    label = np.array([1] * 3 + [0] * 9 + [1] * 8 + [0] * 2)
    margin = np.array([0.0] * 12 + [1.0] * 10)
    expected = math.log(8.5 / 2.5) - math.log(3.5 / 9.5)
    assert fit_calibration(label, margin).slope == pytest.approx(expected, rel=1e-6)


def test_separated_classes_have_a_finite_slope() -> None:
    label, margin = np.array([0, 0, 0, 1, 1]), np.array([-3.0, -2, -1, 1, 2])
    found = fit_calibration(label, margin)
    assert 0.3 < found.slope < 10
    assert found.probability(margin).mean() == pytest.approx(0.4, abs=1e-9)


def test_a_reversed_ranking_is_not_turned_round() -> None:
    label, margin = sample(500, -1.0, 0.0)
    assert fit_calibration(label, margin).slope == LEAST_SLOPE


def test_scores_that_are_all_the_same_have_the_least_slope_and_the_prevalence() -> None:
    margin = np.full(3, 21.706585692033435)
    assert margin.std() > 0, "the mean rounds"
    fit = fit_calibration(np.array([0, 0, 1]), margin)
    assert fit.slope == LEAST_SLOPE
    assert fit.probability(margin) == pytest.approx([1 / 3] * 3, abs=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.floats(-30, 30, allow_subnormal=False)),
        min_size=2, max_size=12,
    ).filter(lambda each: len({label for label, _ in each}) == 2)
)  # fmt: skip
def test_any_scores_give_finite_probabilities_with_the_prevalence_as_mean(each) -> None:
    label, margin = np.array([row[0] for row in each]), np.array([row[1] for row in each])
    found = fit_calibration(label, margin)
    assert found.slope >= LEAST_SLOPE
    assert math.isfinite(found.intercept)
    assert found.probability(margin).mean() == pytest.approx(label.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("label", "margin"), [([], []), ([1, 0], [math.nan, 1.0]), ([1, 1], [1.0, 2.0]), ([1], [1.0])]
)
def test_what_cannot_be_fitted_is_refused(label, margin) -> None:
    with pytest.raises(ValueError, match="expected images of both classes"):
        fit_calibration(np.array(label), np.array(margin))


def test_no_image_takes_part_in_its_own_fit(monkeypatch) -> None:
    label, margin = sample(60, 1.0, 0.0)
    each = ensemble(label, margin, unit=np.arange(60) // 2)
    fits = []

    def fit(others):
        fits.append(set(others.margin.tolist()))
        number = LogisticCalibration(float(len(fits)), 0.0)
        return EnsembleFit(number, number, MemberVariance(0.0, 1.0, 0.0, 1))

    monkeypatch.setattr(module, "fit_ensemble", fit)
    found = cross_fit(each)
    assert len(fits) == FOLDS
    for i in range(60):
        number = round(math.log(found.probability[i] / (1 - found.probability[i])) / margin[i])
        partner = i + 1 if i % 2 == 0 else i - 1
        assert not {margin[i], margin[partner]} & fits[number - 1], "nor its group"
    assert (found.prevalence < 1).all()


def test_changing_an_images_own_label_changes_nothing_of_its_probability() -> None:
    """But for the dealing of groups to parts, which looks at the label; two images a group."""
    label, margin = sample(80, 1.0, 0.0)
    label[:2] = [1, 0]
    each = ensemble(label, margin, unit=np.arange(80) // 2)
    turned = label.copy()
    turned[:2] = [0, 1]
    before, after = cross_fit(each), cross_fit(dataclasses.replace(each, label=turned))
    assert before.probability[:2].tolist() == after.probability[:2].tolist()
    assert before.prevalence[:2].tolist() == after.prevalence[:2].tolist()


def unsteady_networks(rng, images: int, error: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels and log odds of ten networks, each with an error of its own."""
    label = (rng.random(images) < 0.25).astype(np.int64)
    shared = rng.normal(3.0 * label - 1.0, 1.5)
    return label, shared[:, None] + rng.normal(0, error, (images, 10))


def test_the_calibration_fits_the_ensemble_of_all_networks_not_of_the_few_out_of_fold() -> None:
    rng = np.random.default_rng(0)
    label, margins = unsteady_networks(rng, 6000)
    tests = rng.random(margins.shape) < 0.3
    few = out_of_fold_ensemble(
        rows(*((k, f"i{i:05d}", f"g{i:05d}", label[i], margins[i, k])
               for i, k in zip(*np.nonzero(tests), strict=True)))
    )  # fmt: skip
    assert few.members.mean() < 3.5
    new, in_use = unsteady_networks(rng, 20_000)
    score = ensemble_margin(in_use)
    best = fit_calibration(new, score)
    naive = fit_calibration(few.label, few.margin)
    found = fit_ensemble(few).calibration
    assert naive.slope < 0.6 * best.slope, "what a regression on the scores of few networks gives"
    assert found.slope == pytest.approx(best.slope, rel=0.15)
    assert found.probability(score).mean() == pytest.approx(new.mean(), rel=0.05)
    brier = [float(((fit.probability(score) - new) ** 2).mean()) for fit in (naive, found, best)]
    assert brier[1] - brier[2] < 0.1 * (brier[0] - brier[2])


@dataclasses.dataclass(frozen=True)
class Truth:
    """How labels and scores come about: a shared part of the log odds, and each network's error."""

    networks: int = 10
    malignant: float = 2.0
    """Mean of the shared part; benign: -1."""
    spread: tuple[float, float] = (1.5, 1.5)
    """Its SD in benign and in malignant images."""
    error: float = 1.0
    is_logistic: bool = False
    """The label follows the shared part, in place of the part the label."""
    images_per_group: int = 1

    def draw(self, rng, images):
        """Labels, log odds (images, networks), and groups whose images are alike."""
        group = np.arange(images) // self.images_per_group
        alike = 0.6 if self.images_per_group > 1 else 0.0
        common = rng.normal(0, 1, group[-1] + 1)[group]
        own = np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(0, 1, images)
        if self.is_logistic:
            shared = self.spread[0] * own
            label = (rng.random(images) < sigmoid(shared - 1.2)).astype(np.int64)
        else:
            label = (rng.random(group[-1] + 1) < 0.3).astype(np.int64)[group]
            means, spread = np.array([-1.0, self.malignant]), np.array(self.spread)
            shared = means[label] + spread[label] * own
        return label, shared[:, None] + rng.normal(0, self.error, (images, self.networks)), group


TRUTHS = {
    "steady": Truth(),
    "unsteady": Truth(error=2.0),
    "few networks": Truth(networks=3, error=1.2),
    "five networks": Truth(networks=5, malignant=2.5, spread=(1.7, 1.7), error=1.2),
    "many networks": Truth(networks=30, error=1.5),
    "weak": Truth(networks=5, malignant=0.0, spread=(0.7, 0.7)),
    "logistic": Truth(is_logistic=True, error=1.5),
    "unequal": Truth(malignant=2.5, spread=(1.0, 2.0), error=1.5),
    "patients": Truth(images_per_group=4, error=1.5),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_put_in_use_fits(name: str) -> None:
    """In use and out of fold: calibration slopes near 1, intercepts near 0, on average.

    Errors of a network up to 1.4 times the SD of what networks share in a class, as on ultrasound.
    Larger ones bend the scale of log odds of a mean probability, which no slope undoes.
    """
    truth, rng = TRUTHS[name], np.random.default_rng(3)
    found = []
    for _ in range(8):
        label, margins, group = truth.draw(rng, 1200)
        tested = (rng.random((group[-1] + 1, truth.networks)) < 0.3)[group]
        image, network = np.nonzero(tested)
        names, groups = (each.astype(str).astype(object) for each in (image, group[image]))
        few = out_of_fold_ensemble(
            OutOfFoldPredictions(
                network, names, groups, groups, label[image], margins[image, network]
            )
        )
        new, in_use, _ = truth.draw(rng, 5000)
        score = ensemble_margin(in_use)
        for y, p in (
            (new, fit_ensemble(few).calibration.probability(score)),
            (few.label, cross_fit(few).probability),
        ):
            judged = quality(y, p)
            found += [(judged.slope.value, judged.intercept.value)]
    slope, intercept = np.reshape(found, (8, 2, 2)).mean(axis=0).T
    assert slope == pytest.approx([1, 1], abs=0.1)
    assert intercept == pytest.approx([0, 0], abs=0.15)


def test_networks_that_agree_or_stand_alone_are_calibrated_as_they_are() -> None:
    label, margin = sample(200, 0.7, -0.5)
    agreed = ensemble(label, margin)
    assert fit_ensemble(agreed).calibration == pytest.approx(fit_calibration(label, margin))
    alone = dataclasses.replace(
        agreed, members=np.ones(200, np.int64), member_variance=np.full(200, math.nan), networks=1
    )
    assert fit_ensemble(alone).calibration == pytest.approx(fit_calibration(label, margin))
    assert np.allclose(fit_ensemble(alone).probability(alone), sigmoid_of(alone))


def sigmoid_of(each):
    return fit_calibration(each.label, each.margin).probability(each.margin)


def test_without_both_classes_elsewhere_there_is_no_calibration() -> None:
    found = cross_fit(ensemble([1, 0, 0], [1.0, 0.0, -1.0]))
    assert np.isnan(found.probability).tolist() == [True, False, False]


def quality(label, probability, reference=None, unit=None):
    label = np.asarray(label)
    names = np.arange(label.size) if unit is None else np.asarray(unit)
    reference = np.full(label.size, label.mean()) if reference is None else reference
    return calibration_quality(label, np.asarray(probability), reference, names.astype(object))


def test_figures_by_hand() -> None:
    found = quality([1, 0, 0, 0], [0.5, 0.25, 0.25, 0.5])
    assert found.brier.value == pytest.approx((0.25 + 0.0625 + 0.0625 + 0.25) / 4)
    assert found.skill.value == pytest.approx(1 - found.brier.value / (0.25 * 0.75))
    assert found.nll.value == pytest.approx(-(2 * math.log(0.5) + 2 * math.log(0.75)) / 4)
    assert found.observed_expected.value == pytest.approx(1 / 1.5)


def test_probabilities_that_fit_have_slope_one_and_intercept_nought() -> None:
    label, margin = sample(20_000, 1.0, 0.0)
    found = quality(label, sigmoid(margin))
    assert found.slope.low < 1 < found.slope.high
    assert found.intercept.low < 0 < found.intercept.high
    assert found.observed_expected.low < 1 < found.observed_expected.high
    assert found.skill.low > 0
    extreme, high = quality(label, sigmoid(2 * margin)), quality(label, sigmoid(margin + 1))
    assert extreme.slope.high < 1
    assert high.slope.low < 1 < high.slope.high
    assert high.intercept.high < 0
    assert high.observed_expected.high < 1


def test_saying_the_prevalence_has_no_skill() -> None:
    label, _ = sample(400, 1.0, -1.0)
    found = quality(label, np.full(400, label.mean()))
    assert found.skill.value == 0
    assert math.isnan(found.slope.value), "a constant has no slope"
    assert found.observed_expected.value == pytest.approx(1)


def test_separated_classes_have_no_calibration_slope() -> None:
    found = quality([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert math.isnan(found.slope.value)
    assert math.isfinite(found.intercept.value)


def test_without_a_malignant_image_ratios_are_undefined() -> None:
    found = quality([0, 0], [0.1, 0.2], reference=np.array([0.3, 0.3]))
    assert found.observed_expected.value == 0
    assert math.isnan(found.observed_expected.low)
    assert math.isnan(found.intercept.value)


def test_the_intervals_cover_and_know_of_patients() -> None:
    """Three images a patient that share their luck: taken as independent they cover too seldom."""
    rng = np.random.default_rng(1)
    hits = {"patients": 0, "images": 0}
    for _ in range(120):
        margin = np.repeat(rng.normal(0, 1.5, 80), 3)
        label = np.repeat((rng.random(80) < sigmoid(margin[::3])).astype(np.int64), 3)
        for name, unit in (("patients", np.arange(240) // 3), ("images", np.arange(240))):
            found = quality(label, sigmoid(margin), unit=unit).observed_expected
            hits[name] += found.low <= 1 <= found.high
    assert hits["patients"] / 120 >= 0.9
    assert hits["images"] / 120 < 0.85


def test_one_unit_has_no_interval() -> None:
    found = unit_interval(0.5, np.array([0.1, -0.1]), np.array(["a", "a"], object))
    assert found.value == 0.5
    assert math.isnan(found.low)
