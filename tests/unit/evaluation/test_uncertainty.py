import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from thyro_core.evaluation import uncertainty
from thyro_core.evaluation.bounded import (
    f1_interval,
    newcombe_interval,
    proportion_interval,
    wilson_interval,
)
from thyro_core.evaluation.delong import auc_interval
from thyro_core.evaluation.metrics import METRICS, metrics
from thyro_core.evaluation.uncertainty import (
    MIN_SPLITS,
    bootstrap_intervals,
    holm,
    mean_interval,
    metric_intervals,
    nadeau_bengio,
)

PAPER_RATIO = 151 / 357

spread_values = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=5, max_size=20)
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
        point = metrics(label, probability, 0.5)
        patients = min(len(set(cluster[label == value])) for value in (0, 1))
        quantile = stats.t.ppf(0.975, patients - 1)
        for name, values in (("auc", auc), ("accuracy", accuracy)):
            middle = math.log(point[name] / (1 - point[name]))
            step = quantile * np.std(values, ddof=1) / (point[name] * (1 - point[name]))
            ends = [1 / (1 + math.exp(-(middle + side * step))) for side in (-1, 1)]
            assert found[name] == pytest.approx(ends, abs=0.012)

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
            assert fourfold[name] == pytest.approx(single[name], nan_ok=True)

    @pytest.mark.parametrize("seed", range(5))
    def test_holds_the_point_estimate(self, seed):
        label, probability, cluster = sample(seed=seed)
        point = metrics(label, probability, 0.5)
        found = bootstrap_intervals(label, probability, cluster, 0.5, 500, seed)
        assert tuple(found) == METRICS
        assert np.isnan(found["ece"]).all()  # chance lifts a mean of |.|, and so do resamples
        for name in set(METRICS) - {"ece"}:
            assert found[name][0] < point[name] < found[name][1]

    @pytest.mark.parametrize("seed", range(10))
    def test_row_order_changes_no_bit(self, seed):
        # Many ties, in probabilities whose sums depend on the order of summation.
        label, probability, cluster = sample(n=200, per_patient=10)
        label = np.where(np.arange(200) % 3 == 0, 1 - label, label)
        probability = np.round(4 * probability) / 7 + 1 / 30
        order = np.random.default_rng(seed).permutation(200)
        for function in (bootstrap_intervals, metric_intervals):
            assert repr(
                function(
                    label[order], probability[order], cluster[order], 0.5, resamples=101, seed=3
                )
            ) == repr(function(label, probability, cluster, 0.5, resamples=101, seed=3))

    def test_seed_decides(self):
        case = (*sample(), 0.5, 200)
        assert repr(bootstrap_intervals(*case, 1)) == repr(bootstrap_intervals(*case, 1))
        assert repr(bootstrap_intervals(*case, 1)) != repr(bootstrap_intervals(*case, 2))

    def test_blocks_of_resamples_are_one_stream(self, monkeypatch):
        case = (*sample(n=60), 0.5, 100, 7)
        whole = bootstrap_intervals(*case)
        monkeypatch.setattr(uncertainty, "_BLOCK", 60 * 7)
        blocked = bootstrap_intervals(*case)
        for name in METRICS:
            assert blocked[name] == pytest.approx(whole[name], rel=1e-12, nan_ok=True)

    def test_undefined_resamples_are_left_out(self):
        # Two of four patients are malignant: (1/2)^4 = 6 % of resamples have no malignant image.
        label, probability = np.array([1, 1, 0, 0]), np.array([0.8, 0.3, 0.1, 0.6])
        found = bootstrap_intervals(label, probability, np.arange(4), 0.5, 400, 0)
        assert 0 < found["recall"].low < 0.5 < found["recall"].high < 1

    def test_mostly_undefined_is_nan(self):
        # One of two patients has the only malignant image and the only benign one: three quarters
        # of the resamples have it, one quarter has no image with a call.
        label, probability = np.array([1, 0, 0]), np.array([0.8, 0.7, 0.6])
        found = bootstrap_intervals(label, probability, np.array([0, 1, 2]), 0.9, 100, 0)
        assert np.isnan(found["precision"]).all()

    def test_no_spread_is_no_certainty(self):
        label = np.repeat([1, 0], 20)
        found = bootstrap_intervals(label, 0.2 + 0.6 * label, np.arange(40), 0.5, 100, 0)
        assert np.isnan(found["auc"]).all()
        assert np.isnan(found["recall"]).all()

    def test_always_undefined_is_nan_without_a_warning(self):
        found = bootstrap_intervals(np.zeros(5, int), np.full(5, 0.2), np.arange(5), 0.5, 100, 0)
        assert np.isnan(found["auc"]).all()

    def test_one_patient_tells_nothing(self):
        for function in (bootstrap_intervals, metric_intervals):
            found = function(
                np.array([1, 0]),
                np.array([0.8, 0.1]),
                np.array(["a", "a"]),
                0.5,
                resamples=100,
                seed=0,
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


class TestMetricIntervals:
    def test_each_by_its_own_method(self):
        label, probability, cluster = sample()
        found = metric_intervals(label, probability, cluster, 0.5, resamples=200, seed=1)
        called = probability >= 0.5
        ill = label == 1
        expected = {
            "auc": auc_interval(label, probability, cluster),
            "accuracy": proportion_interval(called == ill, cluster),
            "recall": proportion_interval(called[ill], cluster[ill]),
            "precision": proportion_interval(ill[called], cluster[called]),
            "f1": f1_interval(label, called, cluster),
            "specificity": proportion_interval(~called[~ill], cluster[~ill]),
            "npv": proportion_interval(~ill[~called], cluster[~called]),
        }
        bootstrap = bootstrap_intervals(label, probability, cluster, 0.5, 200, 1)
        expected |= {name: bootstrap[name] for name in ("average_precision", "brier")}
        assert tuple(found) == METRICS
        for name, interval in expected.items():
            assert found[name] == pytest.approx(interval, rel=1e-9)
        assert np.isnan(found["ece"]).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_holds_the_point_estimate(self, seed):
        label, probability, cluster = sample(seed=seed)
        point = metrics(label, probability, 0.5)
        found = metric_intervals(label, probability, cluster, 0.5, resamples=300, seed=seed)
        for name in set(METRICS) - {"ece"}:
            assert 0 <= found[name].low < point[name] < found[name].high <= 1

    def test_a_perfect_part_is_no_certainty(self):
        """20 patients of a class with two images each, all called rightly."""
        label = np.repeat([1, 0], 40)
        found = metric_intervals(
            label, 0.2 + 0.6 * label, np.arange(80) // 2, 0.5, resamples=100, seed=0
        )
        twenty = wilson_interval(1.0, 20)
        for name in ("recall", "specificity", "precision", "npv", "average_precision"):
            assert found[name] == twenty
        assert found["accuracy"] == wilson_interval(1.0, 40)
        assert found["auc"] == newcombe_interval(1.0, 20, 20)
        assert found["f1"].low == pytest.approx(2 * twenty.low / (1 + twenty.low))
        assert all(found[name].low < 0.95 for name in ("recall", "auc", "f1"))

    def test_what_is_undefined_has_no_interval(self):
        label, probability = np.array([0, 0, 0]), np.array([0.1, 0.2, 0.3])
        found = metric_intervals(label, probability, np.arange(3), 0.5, resamples=100, seed=0)
        undefined = ("auc", "recall", "precision", "f1", "average_precision", "ece")
        for name in METRICS:
            assert np.isnan(found[name]).all() == (name in undefined)


class TestNadeauBengio:
    def test_by_hand(self):
        test = nadeau_bengio([0.01, 0.03, 0.02, 0.04, 0.025], 0.5)
        error = math.sqrt(0.0005 / 4) * math.sqrt(0.2 + 0.5)
        assert test.mean == pytest.approx(0.025)
        assert test.sd == pytest.approx(math.sqrt(0.0005 / 4))
        assert test.t == pytest.approx(0.025 / error)
        assert test.df == 4
        # 2.7764451 is the table's 97.5 % point of t with 4 df.
        assert (test.ci_low, test.ci_high) == pytest.approx(
            (0.025 - 2.7764451 * error, 0.025 + 2.7764451 * error), rel=1e-6
        )
        # The distribution of t with 4 df in closed form.
        x = test.t**2 / (test.t**2 + 4)
        assert test.p == pytest.approx(1 - math.sqrt(x) * (1 + (1 - x) / 2))

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

    @pytest.mark.parametrize("value", [0.0, 0.1, -0.1])
    def test_no_spread_is_no_test(self, value):
        found = nadeau_bengio([value] * 10, PAPER_RATIO)
        assert (found.mean, found.sd, found.df) == (pytest.approx(value), 0.0, 9)
        assert np.isnan([found.t, found.p, found.ci_low, found.ci_high]).all()

    def test_rounding_is_no_spread(self):
        differences = [0.9 - 0.8, 0.8 - 0.7, 0.4 - 0.3, 0.3 - 0.2, 0.2 - 0.1]
        assert len(set(differences)) > 1
        assert math.isnan(nadeau_bengio(differences, 0.5).p)

    def test_few_splits_have_an_interval_and_no_test(self):
        four, five = ([0.01, 0.03, 0.02, 0.04, 0.02][:n] for n in (MIN_SPLITS - 1, MIN_SPLITS))
        found = nadeau_bengio(four, 0.5)
        assert np.isnan([found.t, found.p]).all()
        assert found.ci_low < 0 < found.ci_high
        assert 0 < nadeau_bengio(five, 0.5).p < 1

    @pytest.mark.parametrize("splits", [2, 5, 10])
    def test_equals_on_forty_images_are_never_told_apart_with_certainty(self, splits):
        p = [
            nadeau_bengio(
                _differences_of_equals(np.random.default_rng(seed), 40, 12, splits), 12 / 28
            ).p
            for seed in range(120)
        ]
        assert np.nanmin([*p, 1.0]) > 0
        assert np.mean(np.array(p) < 0.05) < 0.1

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
        found = mean_interval([0.9, 0.8, 0.7], 0.5)
        # The shares whose own error times the t quantile reaches 0.8: Wilson's, of 19.2 units.
        unit = 0.8 * 0.2 / (0.1**2 * (1 / 3 + 0.5))
        for end in (found.low, found.high):
            assert abs(end - 0.8) == pytest.approx(4.302653 * math.sqrt(end * (1 - end) / unit))
        assert (found.mean, found.sd, found.n) == pytest.approx((0.8, 0.1, 3))

    def test_of_aucs_by_hand(self):
        found = mean_interval([0.9, 0.8, 0.7], 0.5, patients=(9, 9))
        step = 4.302653 * 0.1 * math.sqrt(1 / 3 + 0.5) / (0.8 * 0.2)
        ends = [1 / (1 + math.exp(-(math.log(4) + side * step))) for side in (-1, 1)]
        assert found == pytest.approx((0.8, 0.1, *ends, 3), rel=1e-6)

    def test_one_miss_in_one_split_is_no_cliff(self):
        """Sensitivity 1 in all splits but one: the lower end is near that of no miss at all."""
        perfect = mean_interval([1.0] * 5, PAPER_RATIO, patients=60)
        found = mean_interval([1.0, 1.0, 1.0, 1.0, 0.96], PAPER_RATIO, patients=60)
        assert perfect.low == pytest.approx(0.94, abs=0.005)
        assert found.low == pytest.approx(0.82, abs=0.01), "on the logit scale it would be 0.47"

    @pytest.mark.parametrize("truth", [0.85, 0.97])
    @pytest.mark.parametrize("images", [1, 4])
    def test_the_interval_of_a_sensitivity_covers(self, truth, images):
        """94 malignant images, some patients with four that go together; splits that vary."""
        generator = np.random.default_rng(5)
        shift = math.sqrt(2) * NormalDist().inv_cdf(truth)
        hits = 0
        for _ in range(300):
            patient = np.arange(94) // images
            own, noise = generator.normal(size=(2, 94))
            score = (own[patient] + noise if images > 1 else math.sqrt(2) * noise) + shift
            tests = (
                np.isin(patient, generator.permutation(patient[-1] + 1)[: int(0.3 * patient[-1])])
                for _ in range(10)
            )
            values = [(score[rows] > 0).mean() for rows in tests]
            found = mean_interval(values, PAPER_RATIO, patients=int(patient[-1]) + 1)
            hits += found.low <= truth <= found.high
        assert hits / 300 >= 0.93

    def test_unbounded(self):
        found = mean_interval([0.9, 0.8, 1.0], 0.5, is_bounded=False)
        half = 4.302653 * 0.1 * math.sqrt(1 / 3 + 0.5)
        assert found == pytest.approx((0.9, 0.1, 0.9 - half, 0.9 + half, 3), rel=1e-6)

    def test_nan_is_dropped_and_counted(self):
        assert mean_interval([0.9, np.nan, 0.8, 0.6, np.nan], 0.5) == mean_interval(
            [0.9, 0.8, 0.6], 0.5
        )

    @given(st.lists(st.floats(0, 1).map(lambda x: round(x, 6)), min_size=2, max_size=20))
    def test_holds_the_mean_and_stays_between_0_and_1(self, values):
        found = mean_interval(values, PAPER_RATIO)
        if found.sd > 0:
            assert 0 <= found.low <= found.mean <= found.high <= 1

    def test_ten_splits_of_one_are_no_certainty(self):
        share = mean_interval([1.0] * 10, PAPER_RATIO, patients=90)
        assert (share.low, share.high) == wilson_interval(1.0, 90)
        assert share.low < 0.97
        auc = mean_interval([1.0] * 10, PAPER_RATIO, patients=(90, 418))
        assert (auc.low, auc.high) == newcombe_interval(1.0, 90, 418)
        assert 0.97 < auc.low < 0.99
        unknown = mean_interval([1.0] * 10, PAPER_RATIO)
        assert np.isnan([unknown.low, unknown.high]).all()

    def test_any_constant_value_has_the_interval_of_its_patients(self):
        found = mean_interval([0.75] * 3, PAPER_RATIO, patients=4)
        assert (found.low, found.high) == wilson_interval(0.75, 4)

    def test_one_value(self):
        found = mean_interval([np.nan, 0.7], 0.5, patients=9)
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
