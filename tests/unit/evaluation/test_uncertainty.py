import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from thyro_core.evaluation import uncertainty
from thyro_core.evaluation.metrics import METRICS, metrics
from thyro_core.evaluation.uncertainty import (
    auc_variance,
    bootstrap_intervals,
    delong,
    holm,
    mean_interval,
    nadeau_bengio,
)

PAPER_RATIO = 151 / 357

spread_values = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=3, max_size=20)
p_values = st.lists(st.floats(0, 1), max_size=12)


def sample(n=150, share=0.3, seed=0, per_patient=3):
    """Labels, overlapping probabilities and patients with up to `per_patient` images."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, n // per_patient, n)
    label = (generator.random(n // per_patient) < share).astype(int)[patient]
    logit = generator.normal(1.5 * (2 * label - 1), 1.5) + generator.normal(size=n)[patient]
    return label, np.round(1 / (1 + np.exp(-logit)), 3), np.array([f"p{i:03}" for i in patient])


class TestBootstrap:
    def test_agrees_with_resampling_patients_one_by_one(self):
        label, probability, cluster = sample(n=90)
        generator = np.random.default_rng(99)
        names = np.unique(cluster)
        rows = {name: np.flatnonzero(cluster == name) for name in names}
        auc, accuracy = [], []
        for _ in range(1000):
            drawn = generator.choice(names, len(names))
            taken = np.concatenate([rows[name] for name in drawn])
            auc.append(roc_auc_score(label[taken], probability[taken]))
            accuracy.append(accuracy_score(label[taken], probability[taken] >= 0.5))
        found = bootstrap_intervals(label, probability, cluster, 0.5, 4000, 1)
        assert found["auc"] == pytest.approx(np.percentile(auc, [2.5, 97.5]), abs=0.01)
        assert found["accuracy"] == pytest.approx(np.percentile(accuracy, [2.5, 97.5]), abs=0.015)

    def test_independent_images_give_the_binomial_spread(self):
        label = np.zeros(400, dtype=int)
        label[:200] = 1
        probability = np.where(np.arange(400) % 4 == 0, 1.0 - label, label)  # accuracy 0.75
        low, high = bootstrap_intervals(label, probability, np.arange(400), 0.5, 4000, 0)[
            "accuracy"
        ]
        half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
        assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)

    def test_copies_of_a_patients_image_add_no_certainty(self):
        label, probability, _ = sample(n=60)
        single = bootstrap_intervals(label, probability, np.arange(60), 0.5, 300, 5)
        copies = np.repeat(np.arange(60), 4)
        fourfold = bootstrap_intervals(label[copies], probability[copies], copies, 0.5, 300, 5)
        for name in METRICS:
            assert fourfold[name] == pytest.approx(single[name])

    @pytest.mark.parametrize("seed", range(5))
    def test_holds_the_point_estimate(self, seed):
        label, probability, cluster = sample(seed=seed)
        point = metrics(label, probability, 0.5)
        found = bootstrap_intervals(label, probability, cluster, 0.5, 500, seed)
        assert tuple(found) == METRICS
        for name in set(METRICS) - {"ece"}:  # the bootstrap biases a mean of |.| upwards
            assert found[name][0] < point[name] < found[name][1]

    @pytest.mark.parametrize("seed", range(10))
    def test_row_order_changes_no_bit(self, seed):
        # Many ties, in probabilities whose sums depend on the order of summation.
        label, probability, cluster = sample(n=200, per_patient=10)
        label = np.where(np.arange(200) % 3 == 0, 1 - label, label)
        probability = np.round(4 * probability) / 7 + 1 / 30
        order = np.random.default_rng(seed).permutation(200)
        assert bootstrap_intervals(
            label[order], probability[order], cluster[order], 0.5, 101, 3
        ) == bootstrap_intervals(label, probability, cluster, 0.5, 101, 3)

    def test_seed_decides(self):
        case = (*sample(), 0.5, 200)
        assert bootstrap_intervals(*case, 1) == bootstrap_intervals(*case, 1)
        assert bootstrap_intervals(*case, 1) != bootstrap_intervals(*case, 2)

    def test_blocks_of_resamples_are_one_stream(self, monkeypatch):
        case = (*sample(n=60), 0.5, 100, 7)
        whole = bootstrap_intervals(*case)
        monkeypatch.setattr(uncertainty, "_BLOCK", 60 * 7)
        blocked = bootstrap_intervals(*case)
        for name in METRICS:
            assert blocked[name] == pytest.approx(whole[name], rel=1e-13)

    def test_undefined_resamples_are_left_out(self):
        # One of three patients is malignant: (2/3)^3 = 30 % of resamples have no malignant image.
        label, probability = np.array([1, 0, 0]), np.array([0.8, 0.1, 0.6])
        found = bootstrap_intervals(label, probability, np.arange(3), 0.5, 400, 0)
        assert found["recall"] == (1.0, 1.0)
        assert found["accuracy"] == (0.0, 1.0)

    def test_mostly_undefined_is_nan(self):
        # With two patients, one of a class each, half of the resamples have both classes: the
        # seed decides on which side of one half their share falls.
        found = {
            seed: bootstrap_intervals(
                np.array([1, 0]), np.array([0.8, 0.1]), np.arange(2), 0.5, 101, seed
            )["auc"]
            for seed in range(8)
        }
        counts = {
            seed: (np.random.default_rng(seed).multinomial(2, [0.5, 0.5], size=101) == 1)
            .all(axis=1)
            .sum()
            for seed in found
        }
        assert {n > 50 for n in counts.values()} == {True, False}
        for seed, (low, high) in found.items():
            assert math.isnan(low) == math.isnan(high) == (counts[seed] < 50.5)

    def test_always_undefined_is_nan_without_a_warning(self):
        found = bootstrap_intervals(np.zeros(5, int), np.full(5, 0.2), np.arange(5), 0.5, 100, 0)
        assert np.isnan(found["auc"]).all()
        assert found["specificity"] == (1.0, 1.0)

    def test_one_patient_tells_nothing(self):
        found = bootstrap_intervals(
            np.array([1, 0]), np.array([0.8, 0.1]), np.array(["a", "a"]), 0.5, 100, 0
        )
        assert tuple(found) == METRICS
        assert all(np.isnan(pair).all() for pair in found.values())

    def test_refuses_clusters_of_another_length(self):
        with pytest.raises(ValueError, match=r"cluster must be of shape \(2,\), found \(3,\)"):
            bootstrap_intervals(np.array([1, 0]), np.array([0.8, 0.1]), np.arange(3), 0.5, 100, 0)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="NaN"):
            bootstrap_intervals(
                np.array([1, 0]), np.array([0.8, np.nan]), np.arange(2), 0.5, 100, 0
            )


class TestNadeauBengio:
    def test_by_hand(self):
        test = nadeau_bengio([0.01, 0.03, 0.02, 0.04], 0.5)
        error = math.sqrt(0.0005 / 3) * math.sqrt(0.25 + 0.5)
        assert test.mean == pytest.approx(0.025)
        assert test.sd == pytest.approx(math.sqrt(0.0005 / 3))
        assert test.t == pytest.approx(0.025 / error)
        assert test.df == 3
        # 3.182446 is the table's 97.5 % point of t with 3 df.
        assert (test.ci_low, test.ci_high) == pytest.approx(
            (0.025 - 3.182446 * error, 0.025 + 3.182446 * error), rel=1e-6
        )
        # The distribution of t with 3 df in closed form.
        x = test.t / math.sqrt(3)
        assert test.p == pytest.approx(1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x)))

    @given(spread_values)
    def test_ratio_zero_is_the_plain_t_test(self, values):
        if np.ptp(values) < 1e-3:
            values = [*values, 0.5, -0.5]
        plain = stats.ttest_1samp(values, 0.0)
        found = nadeau_bengio(values, 0.0)
        assert (found.t, found.p, found.df) == pytest.approx(
            (plain.statistic, plain.pvalue, plain.df)
        )
        interval = plain.confidence_interval(0.95)
        assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))

    @given(spread_values, st.floats(0.01, 2))
    def test_the_correction_widens_by_its_factor(self, values, ratio):
        values = [*values, 0.5, -0.4]
        plain, corrected = nadeau_bengio(values, 0.0), nadeau_bengio(values, ratio)
        factor = math.sqrt(1 + len(values) * ratio)
        assert corrected.t * factor == pytest.approx(plain.t)
        assert corrected.ci_high - corrected.ci_low == pytest.approx(
            factor * (plain.ci_high - plain.ci_low)
        )
        assert corrected.p >= plain.p

    @given(spread_values, st.floats(0, 2))
    def test_antisymmetric_and_p_agrees_with_the_interval(self, values, ratio):
        values = np.array([*values, 0.5])
        here, there = nadeau_bengio(values, ratio), nadeau_bengio(-values, ratio)
        assert here.t == pytest.approx(-there.t)
        assert here.p == pytest.approx(there.p)
        assert (here.p < 0.05) == (not here.ci_low <= 0 <= here.ci_high)

    def test_no_differences_at_all(self):
        assert nadeau_bengio([0.0] * 10, PAPER_RATIO) == (0.0, 0.0, 0.0, 9, 1.0, 0.0, 0.0)

    @pytest.mark.parametrize(("value", "t"), [(0.1, math.inf), (-0.1, -math.inf)])
    def test_the_same_difference_everywhere(self, value, t):
        found = nadeau_bengio([value] * 7, PAPER_RATIO)
        assert (found.sd, found.t, found.p) == (0.0, t, 0.0)
        assert found.ci_low == found.ci_high == found.mean == pytest.approx(value)

    def test_rounding_is_no_spread(self):
        differences = [0.9 - 0.8, 0.8 - 0.7, 0.4 - 0.3]
        assert len(set(differences)) > 1
        assert nadeau_bengio(differences, 0.5).t == math.inf

    def test_nan_makes_all_nan(self):
        found = nadeau_bengio([0.1, np.nan, 0.2], 0.5)
        assert found.df == 2
        assert np.isnan([value for value in found if value != 2]).all()

    def test_one_split_has_only_a_mean(self):
        found = nadeau_bengio([0.1], 0.5)
        assert found.mean == 0.1
        assert np.isnan([found.sd, found.t, found.p, found.ci_low, found.ci_high]).all()

    def test_none(self):
        assert np.isnan(nadeau_bengio([], 0.5).mean)

    @pytest.mark.parametrize("ratio", [-0.1, np.nan, np.inf])
    def test_refuses_a_ratio(self, ratio):
        with pytest.raises(ValueError, match="n_test / n_train >= 0"):
            nadeau_bengio([0.1, 0.2], ratio)

    def test_refuses_a_matrix(self):
        with pytest.raises(ValueError, match="expected a list of differences"):
            nadeau_bengio([[0.1, 0.2]], 0.5)

    def test_false_positives_on_overlapping_splits(self):
        """Two learners of equal merit: the plain t test cries wolf, the corrected one does not."""
        plain, corrected, repeats = 0, 0, 600
        for seed in range(repeats):
            differences = _differences_of_equals(np.random.default_rng(seed))
            plain += nadeau_bengio(differences, 0.0).p < 0.05
            corrected += nadeau_bengio(differences, 30 / 70).p < 0.05
        assert plain / repeats > 0.2
        assert corrected / repeats < 0.1


def _differences_of_equals(generator, n=100, test=30, splits=10):
    """Per split, the accuracy on one of two equally good features minus that on the other."""
    label = np.arange(n) % 2
    feature = generator.normal(size=(n, 2)) + 0.6 * label[:, None]
    differences = []
    for _ in range(splits):
        order = generator.permutation(n)
        held, rest = order[:test], order[test:]
        low, high = (feature[rest][label[rest] == c].mean(axis=0) for c in (0, 1))
        called = np.abs(feature[held] - high) < np.abs(feature[held] - low)
        accuracy = (called == label[held][:, None]).mean(axis=0)
        differences.append(accuracy[0] - accuracy[1])
    return differences


class TestMeanInterval:
    def test_by_hand(self):
        found = mean_interval([0.9, 0.8, 1.0], 0.5)
        half = 4.302653 * 0.1 * math.sqrt(1 / 3 + 0.5)
        assert found == pytest.approx((0.9, 0.1, 0.9 - half, 0.9 + half, 3), rel=1e-6)

    def test_nan_is_dropped_and_counted(self):
        assert mean_interval([0.9, np.nan, 0.8, 1.0, np.nan], 0.5) == mean_interval(
            [0.9, 0.8, 1.0], 0.5
        )

    def test_not_clipped(self):
        assert mean_interval([0.99, 1.0, 0.98], PAPER_RATIO).high > 1.0

    def test_constant_values(self):
        assert mean_interval([1.0] * 10, PAPER_RATIO) == (1.0, 0.0, 1.0, 1.0, 10)

    def test_one_value(self):
        found = mean_interval([np.nan, 0.7], 0.5)
        assert (found.mean, found.n) == (0.7, 1)
        assert np.isnan(found[1:4]).all()

    def test_no_value(self):
        found = mean_interval([np.nan, np.nan], 0.5)
        assert found.n == 0
        assert np.isnan(found[:4]).all()

    def test_refuses_a_matrix(self):
        with pytest.raises(ValueError, match="expected a list"):
            mean_interval(np.ones((2, 2)), 0.5)


class TestHolm:
    def test_by_hand(self):
        # 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.2 x 1.
        assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])

    def test_a_later_step_never_falls_below_an_earlier_one(self):
        # 0.01 x 3 = 0.03; 0.011 x 2 = 0.022 is lifted to 0.03; 0.02 x 1 is lifted too.
        assert holm([0.01, 0.011, 0.02]) == pytest.approx([0.03, 0.03, 0.03])

    def test_capped_at_one(self):
        assert holm([0.6, 0.7, 0.9]) == [1.0, 1.0, 1.0]

    def test_nan_stays_and_does_not_count(self):
        found = holm([0.04, math.nan, 0.01])
        assert found[::2] == pytest.approx([0.04, 0.02])
        assert math.isnan(found[1])

    def test_nothing(self):
        assert holm([]) == []
        assert math.isnan(holm([math.nan])[0])

    @given(p_values)
    def test_between_p_and_bonferroni_and_monotone(self, p):
        found = holm(p)
        pairs = list(zip(p, found, strict=True))
        assert all(raw <= adjusted <= min(1.0, raw * len(p)) for raw, adjusted in pairs)
        by_p = [adjusted for _, adjusted in sorted(pairs)]
        assert by_p == sorted(by_p)

    @given(p_values, st.floats(0.001, 0.999))
    def test_rejects_what_the_step_down_procedure_rejects(self, p, level):
        order = sorted(range(len(p)), key=p.__getitem__)
        rejected = set()
        for step, place in enumerate(order):
            if p[place] * (len(p) - step) > level:
                break
            rejected.add(place)
        assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= level} == rejected

    @pytest.mark.parametrize("bad", [-0.1, 1.1])
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match="must lie in 0 to 1"):
            holm([0.5, bad])


@st.composite
def two_scores(draw):
    m, n = draw(st.integers(2, 15)), draw(st.integers(2, 15))
    label = np.array([1] * m + [0] * n)
    grid = st.integers(0, 8).map(lambda i: i / 8)
    scores = st.lists(grid, min_size=m + n, max_size=m + n).map(np.array)
    return label, draw(scores), draw(scores)


def delong_1988(label, *probabilities):
    """AUCs and their covariance from explicit placement values, DeLong et al. 1988, eq. 3 to 8."""
    x = [p[label == 1] for p in probabilities]
    y = [p[label == 0] for p in probabilities]
    psi = [
        (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
        for a, b in zip(x, y, strict=True)
    ]
    m, n = psi[0].shape
    v10 = np.array([k.mean(axis=1) for k in psi])
    v01 = np.array([k.mean(axis=0) for k in psi])
    auc = np.array([k.mean() for k in psi])
    s10 = (v10 - auc[:, None]) @ (v10 - auc[:, None]).T / (m - 1)
    s01 = (v01 - auc[:, None]) @ (v01 - auc[:, None]).T / (n - 1)
    return auc, s10 / m + s01 / n


class TestDeLong:
    @given(two_scores())
    def test_equals_the_definition(self, case):
        label, a, b = case
        auc, covariance = delong_1988(label, a, b)
        found = delong(label, a, b)
        assert (found.auc_a, found.auc_b) == pytest.approx(tuple(auc))
        assert auc_variance(label, a) == pytest.approx(covariance[0, 0], abs=1e-15)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        if variance > 1e-9:
            z = (auc[0] - auc[1]) / math.sqrt(variance)
            half = 1.959963985 * math.sqrt(variance)
            assert found.z == pytest.approx(z, abs=1e-9)
            assert found.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))
            assert (found.ci_low, found.ci_high) == pytest.approx(
                (found.difference - half, found.difference + half)
            )

    @given(two_scores())
    def test_antisymmetric(self, case):
        label, a, b = case
        here, there = delong(label, a, b), delong(label, b, a)
        assert here.difference == -there.difference
        assert here.z == -there.z
        assert here.p == there.p
        assert (here.ci_low, here.ci_high) == (-there.ci_high, -there.ci_low)

    @given(two_scores())
    def test_the_same_ranking_is_no_difference(self, case):
        label, a, _ = case
        found = delong(label, a, a**2 / 2)
        assert (found.difference, found.z, found.p) == (0.0, 0.0, 1.0)
        assert (found.ci_low, found.ci_high) == (0.0, 0.0)

    def test_by_hand(self):
        # a: placements of 3 malignant (1, 1, .5) and 2 benign (1, 2/3); b ranks perfectly.
        label = np.array([1, 1, 1, 0, 0])
        a, b = np.array([0.9, 0.8, 0.3, 0.1, 0.5]), np.array([0.9, 0.8, 0.7, 0.1, 0.2])
        found = delong(label, a, b)
        variance = (1 / 12) / 3 + (1 / 18) / 2
        assert auc_variance(label, a) == pytest.approx(variance)
        assert auc_variance(label, b) == 0.0
        assert found.z == pytest.approx((5 / 6 - 1) / math.sqrt(variance))

    def test_perfect_against_worst_has_no_variance(self):
        label = np.array([0, 0, 1, 1])
        found = delong(label, label.astype(float), 1.0 - label)
        assert (found.difference, found.z, found.p) == (1.0, math.inf, 0.0)
        assert (found.ci_low, found.ci_high) == (1.0, 1.0)

    def test_one_class(self):
        found = delong(np.array([0, 0]), np.array([0.1, 0.2]), np.array([0.3, 0.2]))
        assert np.isnan(found).all()
        assert math.isnan(auc_variance(np.array([1, 1]), np.array([0.1, 0.2])))

    def test_a_single_malignant_image_has_an_auc_but_no_variance(self):
        label = np.array([0, 0, 1])
        found = delong(label, np.array([0.1, 0.5, 0.3]), np.array([0.1, 0.2, 0.3]))
        assert found[:3] == (0.5, 1.0, -0.5)
        assert np.isnan(found[3:]).all()

    def test_variance_is_that_of_repeated_samples(self):
        generator = np.random.default_rng(0)
        label = np.repeat([1, 0], [27, 124])
        probability = 1 / (1 + np.exp(-generator.normal(1.5 * label, 1.0, (800, 151))))
        spread = np.var([roc_auc_score(label, p) for p in probability], ddof=1)
        estimate = np.mean([auc_variance(label, p) for p in probability])
        assert estimate == pytest.approx(spread, rel=0.15)

    def test_level_under_the_null(self):
        generator = np.random.default_rng(1)
        label = np.repeat([1, 0], [50, 100])
        logit = generator.normal(size=(600, 2, 150)) + label + generator.normal(size=(600, 1, 150))
        pairs = 1 / (1 + np.exp(-logit))
        rejected = np.mean([delong(label, a, b).p < 0.05 for a, b in pairs])
        assert 0.03 <= rejected <= 0.08

    def test_refuses_nan_in_either(self):
        label, good, bad = np.array([0, 1]), np.array([0.1, 0.2]), np.array([0.1, np.nan])
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(ValueError, match="NaN"):
                delong(label, *pair)
