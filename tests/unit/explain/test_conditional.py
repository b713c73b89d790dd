"""Features given the score: a function of the score is no finding, an effect of its own is one."""

import numpy as np
import pytest
from scipy import stats

from thyro_core.explain.conditional import (
    LEAST_PATIENTS,
    ScoredImages,
    conditional_test,
    normal_scores,
)


def draw(rng, patients=150, splits=6, shape="hinge", effect=0.0, skill=1.0):
    """Splits of a set with several images a patient; what each network sees of an image varies.

    The feature is a function of that network's score, with the patient's and the image's noise;
    `effect` adds the class itself, which the score does not hold.
    """
    label_of = (rng.random(patients) < 0.3).astype(int)
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    label = label_of[patient]
    signal = (
        skill * (2 * label - 1) + rng.normal(size=patients)[patient] + rng.normal(size=len(label))
    )
    own = rng.normal(size=patients)[patient]
    parts = []
    for split in range(splits):
        rows = np.flatnonzero(rng.random(patients)[patient] < 0.3)
        scale, shift = np.exp(rng.normal(0, 0.3)), rng.normal(0, 0.5)
        score = scale * (signal[rows] + rng.normal(0, 0.6, len(rows))) + shift
        function = {
            "hinge": np.maximum(score - shift, 0) ** 2,
            "bend": (score - shift) ** 2,
            "line": score,
        }[shape]
        feature = function / function.std() + 0.7 * own[rows] + rng.normal(0, 0.7, len(rows))
        feature += effect * label[rows]
        images = ScoredImages(np.full(len(rows), split), patient[rows], label[rows], score)
        parts.append((*images, feature))
    *columns, feature = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ScoredImages(*columns), feature


def p_values(n, seed, **options):
    rng = np.random.default_rng(seed)
    return np.array([conditional_test(*draw(rng, **options)).p for _ in range(n)])


def marginal_p(images, feature):
    ill = images.label == 1
    return stats.mannwhitneyu(feature[ill], feature[~ill]).pvalue


def test_a_map_whose_size_is_the_score_s_is_no_finding_and_differs_by_class():
    """The case that makes "shape differs" circular; 0.05 of 60, and what its spread allows."""
    assert (p_values(60, 1) < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    rng = np.random.default_rng(1)
    assert all(marginal_p(*draw(rng)) < 0.05 for _ in range(10))


def test_an_effect_of_its_own_is_found():
    assert (p_values(40, 2, effect=1.0) < 0.05).mean() > 0.9
    images, feature = draw(np.random.default_rng(0), effect=1.0)
    assert conditional_test(images, feature).odds_ratio > 1.2
    assert conditional_test(images, -feature).odds_ratio < 1 / 1.2


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["hinge", "bend", "line"])
@pytest.mark.parametrize("patients", [60, 250])
def test_under_the_null_p_is_uniform_whatever_the_function(shape, patients):
    found = p_values(800, 5, shape=shape, patients=patients)
    found = found[np.isfinite(found)]
    assert len(found) > 700
    for level in (0.01, 0.05, 0.2, 0.5):
        spread = np.sqrt(level * (1 - level) / len(found))
        assert (found < level).mean() < level + 3 * spread + 0.1 * level


def test_order_and_copies_of_a_patient_s_rows_do_not_matter():
    images, feature = draw(np.random.default_rng(3))
    found = conditional_test(images, feature)
    order = np.random.default_rng(0).permutation(len(feature))
    assert conditional_test(images.subset(order), feature[order]) == pytest.approx(found)
    twice = np.repeat(np.arange(len(feature)), 3)
    assert conditional_test(images.subset(twice), feature[twice]) == pytest.approx(found, rel=0.02)


def test_scale_of_score_and_feature_in_a_split_does_not_matter():
    images, feature = draw(np.random.default_rng(3))
    factor = np.exp(images.split)
    other = images._replace(score=images.score * factor - images.split)
    assert conditional_test(other, feature * factor) == conditional_test(images, feature)


def test_the_feature_that_is_the_score_cannot_be_told_from_it():
    images, _ = draw(np.random.default_rng(3))
    assert np.isnan(conditional_test(images, np.exp(images.score))).all()


def test_too_few_patients_and_separate_scores_are_undefined():
    images, feature = draw(np.random.default_rng(3))
    few = np.isin(
        images.patient, np.unique(images.patient[images.label == 1])[: LEAST_PATIENTS - 1]
    )
    rows = few | (images.label == 0)
    assert np.isnan(conditional_test(images.subset(rows), feature[rows])).all()
    apart = images._replace(score=images.score + 100.0 * images.label)
    assert np.isnan(conditional_test(apart, feature)).all()
    assert np.isnan(conditional_test(images, np.full(len(feature), np.nan))).all()


def test_undefined_values_are_left_out():
    images, feature = draw(np.random.default_rng(3))
    gaps = feature.copy()
    gaps[::5] = np.nan
    rows = np.isfinite(gaps)
    expected = conditional_test(images.subset(rows), feature[rows])
    assert conditional_test(images, gaps) == expected


def test_normal_scores_by_hand():
    values, split = np.array([3.0, 1, 1, 5, 10]), np.array([0, 0, 0, 0, 1])
    found = normal_scores(values, split)
    expected = stats.norm.ppf([2.5 / 4, 1 / 4, 1 / 4, 3.5 / 4, 0.5])
    np.testing.assert_allclose(found, expected, atol=1e-12)
