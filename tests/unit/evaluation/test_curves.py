import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_auc_score

from thyro_core.evaluation import curves
from thyro_core.evaluation.bounded import wilson_interval
from thyro_core.evaluation.curves import (
    DECISION_THRESHOLDS,
    LEAST_HITS,
    POINTS,
    Band,
    calibration_curve,
    decision_curve,
    first_recall_with_interval,
    learning_curves,
    ppv_npv,
    pr_band,
    roc_band,
    score_histogram,
)
from thyro_core.evaluation.metrics import (
    ECE_BINS,
    Confusion,
    calibration_bin,
    metrics_of_confusion,
    weighted_metrics,
)
from thyro_core.evaluation.uncertainty import mean_interval

RATIO = 151 / 357

# Few values, so that ties and edges of bins are common.
scores = st.integers(0, 20).map(lambda k: k / 20)


@st.composite
def parts(draw, least=2):
    """A split with both classes."""
    rows = draw(st.lists(st.tuples(st.integers(0, 1), scores), min_size=least, max_size=25))
    rows += [(0, draw(scores)), (1, draw(scores))]
    label, probability = zip(*rows, strict=True)
    return np.array(label), np.array(probability)


splits = st.lists(parts(), min_size=1, max_size=4)


def part(label, probability):
    return np.array(label), np.array(probability, dtype=float)


def random_parts(n=10, seed=0):
    generator = np.random.default_rng(seed)
    label = (np.arange(151) < 27).astype(int)
    return [
        (label, np.round(1 / (1 + np.exp(-generator.normal(2 * label - 1, 1.5))), 2))
        for _ in range(n)
    ]


def operating_points(label, probability):
    """(hits, false alarms) from no image called malignant to all, in exact numbers."""
    found = [(0, 0)]
    for threshold in sorted(set(probability.tolist()), reverse=True):
        called = probability >= threshold
        found.append((int((called & (label == 1)).sum()), int((called & (label == 0)).sum())))
    return found


def sensitivity_by_hand(label, probability, place):
    """The uppermost point of the polygon through the operating points, in exact numbers."""
    positives, negatives = int(label.sum()), int((1 - label).sum())
    points = operating_points(label, probability)
    wanted, best = place * negatives, Fraction(0)
    for (hits, alarms), (more_hits, more_alarms) in pairwise(points):
        if alarms <= wanted <= more_alarms:
            share = (wanted - alarms) / (more_alarms - alarms) if more_alarms > alarms else 1
            best = max(best, hits + share * (more_hits - hits))
    return float(best / positives)


def precision_by_hand(label, probability, place):
    """Davis and Goadrich: false alarms grow in proportion to hits between operating points."""
    points = operating_points(label, probability)
    wanted, fewest = place * int(label.sum()), None
    for (hits, alarms), (more_hits, more_alarms) in pairwise(points):
        if hits < wanted <= more_hits:
            share = (wanted - hits) / (more_hits - hits)
            fewest = alarms + share * (more_alarms - alarms)
            break
    return float(wanted / (wanted + fewest))


def coarse(points: int, band: Callable[..., Band], *arguments: object, **options: object) -> Band:
    """A band at fewer or more places of the x axis than the report has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "POINTS", points)
        return band(*arguments, **options)


class TestRoc:
    def test_by_hand(self):
        # Ranked malignant, benign, malignant, benign: up, right, up, right.
        band = coarse(5, roc_band, [part([1, 0, 1, 0], [0.9, 0.8, 0.3, 0.1])], RATIO)
        assert band.x.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert band.mean.tolist() == [0.5, 0.5, 1, 1, 1]
        assert (band.n, band.left_out) == (1, 0)

    def test_ties_are_one_slanted_step(self):
        band = roc_band([part([1, 0, 1, 0, 0], [0.5] * 5)], RATIO)
        assert band.mean == pytest.approx(band.x, abs=1e-15)

    def test_vertical_mean_of_a_perfect_and_a_reversed_ranking(self):
        label = [1, 1, 0, 0]
        band = roc_band([part(label, [0.9, 0.8, 0.2, 0.1]), part(label, [0.1, 0.2, 0.8, 0.9])], 0.0)
        assert band.mean[:-1].tolist() == [0.5] * (POINTS - 1)
        assert band.mean[-1] == 1.0

    @given(parts())
    def test_agrees_with_exact_arithmetic(self, case):
        band = coarse(41, roc_band, [case], RATIO)
        expected = [sensitivity_by_hand(*case, Fraction(i, 40)) for i in range(41)]
        assert band.mean == pytest.approx(expected, abs=1e-12)

    @given(splits)
    def test_is_monotone_and_within_the_unit_square(self, cases):
        band = coarse(21, roc_band, cases, RATIO)
        assert (np.diff(band.mean) >= -1e-12).all()
        assert band.mean[-1] == pytest.approx(1.0)
        defined = ~np.isnan(band.low)
        assert defined[-1] == (len(cases) > 1)
        known = coarse(21, roc_band, cases, RATIO, patients=9)
        assert np.isfinite(known.low).all() == (len(cases) > 1)
        for curve in (known.low, known.high):
            assert (np.diff(curve[np.isfinite(curve)]) >= 0).all()
        for curve in (band.low, band.high):
            assert ((curve[defined] >= 0) & (curve[defined] <= 1)).all()
        assert (band.low[defined] <= band.mean[defined] + 1e-12).all()
        assert (band.high[defined] >= band.mean[defined] - 1e-12).all()

    @given(splits)
    def test_its_area_is_the_mean_auc_within_the_grids_error(self, cases):
        # A trapezium of a monotone function errs by at most half a step times its rise.
        band = coarse(31, roc_band, cases, RATIO)
        mean_auc = np.mean([roc_auc_score(*case) for case in cases])
        assert abs(np.trapezoid(band.mean, band.x) - mean_auc) <= 0.5 / 30 + 1e-9

    @given(splits, st.randoms(use_true_random=False))
    def test_order_of_images_changes_no_bit(self, cases, generator):
        def shuffled(label, probability):
            order = list(range(len(label)))
            generator.shuffle(order)
            return label[order], probability[order]

        mixed = [shuffled(*case) for case in cases]
        for band in (roc_band, pr_band):
            one, other = coarse(21, band, cases, RATIO), coarse(21, band, mixed, RATIO)
            assert one.mean.tobytes() == other.mean.tobytes()
            assert one.low.tobytes() == other.low.tobytes()

    @given(splits)
    def test_only_the_ranking_counts(self, cases):
        squeezed = [(label, 0.2 + probability / 2) for label, probability in cases]
        one, other = coarse(11, roc_band, squeezed, RATIO), coarse(11, roc_band, cases, RATIO)
        assert one.mean == pytest.approx(other.mean)

    def test_the_band_is_the_interval_of_the_statistics(self):
        cases = random_parts()
        band = roc_band(cases, RATIO)
        at = 13
        values = [sensitivity_by_hand(*case, Fraction(at, 100)) for case in cases]
        expected = mean_interval(values, RATIO)
        assert band.mean[at] == pytest.approx(expected.mean)
        assert band.low[at] >= expected.low - 1e-12, "never below that of a lower rate"
        assert band.high[at] <= expected.high + 1e-12
        intervals = [
            mean_interval([sensitivity_by_hand(*case, Fraction(i, 100)) for case in cases], RATIO)
            for i in range(101)
        ]
        assert band.low[at] == pytest.approx(max(each.low for each in intervals[: at + 1]))
        assert band.high[at] == pytest.approx(
            np.nanmin([each.high for each in intervals[at:]], initial=1.0)
        )
        assert band.low[at] < band.mean[at] - 0.01
        narrow = roc_band(cases, 0.0)
        assert narrow.high[at] - narrow.low[at] < band.high[at] - band.low[at]


class TestPrecisionRecall:
    def test_davis_and_goadrichs_table(self):
        # Their table 1: A (5 hits, 5 alarms) and B (10, 30) among 20 positives, 2000 negatives.
        label = [1] * 5 + [0] * 5 + [1] * 5 + [0] * 25 + [1] * 10 + [0] * 1970
        probability = [0.9] * 10 + [0.5] * 30 + [0.1] * 1980
        band = coarse(21, pr_band, [part(label, probability)], RATIO)
        expected = [0.500, 0.375, 0.318, 0.286, 0.265, 0.250]
        assert band.mean[5:11] == pytest.approx(expected, abs=5e-4)
        assert band.mean[-1] == pytest.approx(20 / 2020)

    @given(parts())
    def test_agrees_with_exact_arithmetic(self, case):
        band = coarse(41, pr_band, [case], RATIO)
        expected = [precision_by_hand(*case, Fraction(i, 40)) for i in range(1, 41)]
        assert band.mean[1:] == pytest.approx(expected, abs=1e-12)

    @given(parts())
    def test_meets_sklearn_where_a_threshold_has_the_recall(self, case):
        precision, recall, _ = precision_recall_curve(*case)
        positives = int(case[0].sum())
        band = coarse(positives + 1, pr_band, [case], RATIO)
        for hits in range(1, positives + 1):
            there = np.isclose(recall, hits / positives)
            if there.any():
                assert band.mean[hits] == pytest.approx(precision[there].max())

    def test_a_recall_that_is_no_binary_fraction_meets_its_step(self):
        # 7 of 100 found without an alarm, then 50 alarms: at recall 0.07 precision is still 1.
        label = [1] * 7 + [0] * 50 + [1] * 93
        band = pr_band([part(label, np.linspace(1, 0, 150))], RATIO)
        assert band.mean[7] == 1.0
        assert band.mean[8] == pytest.approx(8 / 58)

    @pytest.mark.parametrize(
        ("label", "probability", "limit"),
        [
            ([1, 1, 0], [0.9, 0.8, 0.1], 1.0),
            ([0, 1, 1], [0.9, 0.8, 0.1], 0.0),
            ([1, 0, 0, 1], [0.9, 0.9, 0.9, 0.1], 1 / 3),
        ],
    )
    def test_at_recall_zero_stands_the_limit(self, label, probability, limit):
        assert pr_band([part(label, probability)], RATIO).mean[0] == pytest.approx(limit)

    def test_where_few_malignant_images_are_called_it_has_no_band(self):
        cases = random_parts(5)
        band = pr_band(cases, RATIO, patients=80)
        assert first_recall_with_interval(cases) == pytest.approx(LEAST_HITS / 27)
        # 0.18 x 27 is 4.9 hits, 0.19 x 27 is 5.1.
        for end in (band.low, band.high):
            assert np.isnan(end[:19]).all()
            assert np.isfinite(end[19:]).all()
        assert np.isfinite(band.mean).all()

    def test_where_splits_agree_its_band_rests_on_those_that_are_called(self):
        """Of 80 malignant patients a fifth is called at a recall of 0.2: 16, not 80."""
        label = (np.arange(151) < 27).astype(int)
        cases = [(label, np.where(label == 1, 0.9, 0.1)) for _ in range(5)]
        band = pr_band(cases, RATIO, patients=80)
        assert band.mean.tolist() == [1.0] * POINTS
        assert (band.low[20], band.high[20]) == pytest.approx(wilson_interval(1.0, 16))
        assert (band.low[100], band.high[100]) == pytest.approx(wilson_interval(1.0, 80))

    def test_of_splits_with_fewer_malignant_images_it_has_no_band_at_all(self):
        label = np.array([1, 1, 1, 1, 0, 0, 0, 0])
        generator = np.random.default_rng(2)
        cases = [(label, generator.random(8)) for _ in range(5)]
        assert first_recall_with_interval(cases) == 1.25
        assert np.isnan(pr_band(cases, RATIO, patients=20).low).all()
        assert math.isnan(first_recall_with_interval([part([0, 0], [0.1, 0.2])]))

    def test_without_skill_it_is_the_prevalence(self):
        band = pr_band([part([1, 0, 0, 0], [0.5] * 4)], RATIO)
        assert band.mean == pytest.approx(np.full(POINTS, 0.25))


class TestSplitsOfOneClass:
    @pytest.mark.parametrize("band", [roc_band, pr_band])
    def test_are_left_out_and_counted(self, band):
        whole = random_parts(3)
        some = [*whole, part([0, 0], [0.1, 0.2]), part([1, 1, 1], [0.3, 0.4, 0.5])]
        found, expected = band(some, RATIO), band(whole, RATIO)
        assert (found.n, found.left_out, expected.left_out) == (3, 2, 0)
        assert found.mean.tobytes() == expected.mean.tobytes()

    @pytest.mark.parametrize("band", [roc_band, pr_band])
    def test_alone_leave_nothing(self, band):
        found = band([part([0], [0.5])], RATIO)
        assert (found.n, found.left_out) == (0, 1)
        assert np.isnan(found.mean).all()
        assert np.isnan(found.low).all()
        assert found.mean.shape == found.x.shape == (POINTS,)

    @pytest.mark.parametrize("band", [roc_band, pr_band])
    def test_nonsense_is_refused(self, band):
        with pytest.raises(ValueError, match="NaN or outside"):
            band([part([0, 1], [0.5, math.nan])], RATIO)


def _ece(label, probability):
    return weighted_metrics(label, probability, np.ones((1, label.size)), 0.5)["ece"][0]


class TestCalibration:
    def test_by_hand(self):
        label = [0, 1, 0, 1, 1, 1]
        probability = [0.0, 0.1, 0.05, 0.1000001, 0.95, 1.0]
        found = calibration_curve(*part(label, probability))
        assert found.n.tolist() == [3, 1, 2]
        assert found.probability == pytest.approx([0.05, 0.1000001, 0.975])
        assert found.share == pytest.approx([1 / 3, 1, 1])

    @pytest.mark.parametrize(("k", "n"), [(0, 7), (8, 10), (5, 5), (30, 100)])
    def test_wilsons_interval(self, k, n):
        z, p = 1.959963984540054, k / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        found = calibration_curve(*part([1] * k + [0] * (n - k), [0.55] * n))
        expected = (max(middle - half, 0), min(middle + half, 1))
        assert (found.low[0], found.high[0]) == pytest.approx(expected)

    def test_images_that_count_three_times_add_no_certainty(self):
        """10 splits of which three test an image: bars that count rows cover 73 % instead of 95."""
        generator = np.random.default_rng(0)
        covered, naive = [], []
        for _ in range(300):
            label = (generator.random(100) < 0.3).astype(int)
            tested = np.repeat(np.arange(100), 3)
            case = part(label[tested], np.full(300, 0.35))
            bars = calibration_curve(*case, tested), calibration_curve(*case)
            for bar, hits in zip(bars, (covered, naive), strict=True):
                hits.append(bar.low[0] <= 0.3 <= bar.high[0])
        assert 0.92 <= np.mean(covered) <= 0.98
        assert np.mean(naive) < 0.8

    def test_refuses_clusters_of_another_length(self):
        with pytest.raises(ValueError, match=r"cluster must be of shape \(2,\), found \(3,\)"):
            calibration_curve(*part([0, 1], [0.5, 0.6]), np.arange(3))

    @given(parts())
    def test_its_bins_are_those_of_the_calibration_error(self, case):
        found = calibration_curve(*case)
        error = (found.n * np.abs(found.probability - found.share)).sum() / found.n.sum()
        assert error == pytest.approx(_ece(*case), abs=1e-12)
        assert found.n.sum() == len(case[0])
        assert (np.diff(found.probability) > 0).all()
        assert (found.n > 0).all()
        assert ((found.low <= found.share + 1e-12) & (found.share <= found.high + 1e-12)).all()

    def test_edges_belong_to_the_lower_bin(self):
        edges = np.arange(ECE_BINS + 1) / ECE_BINS
        assert calibration_bin(edges).tolist() == [0, *range(ECE_BINS)]

    @pytest.mark.parametrize("bins", [1, 4, 25])
    def test_other_numbers_of_bins(self, bins):
        found = calibration_curve(*random_parts(1)[0], bins=bins)
        assert len(found.n) <= bins
        assert found.n.sum() == 151


class TestDecisionCurve:
    def test_by_hand(self):
        # 4 images, 2 malignant; from 0.25 on three are called: 2 hits, 1 alarm at odds 1/3.
        case = part([1, 1, 0, 0], [0.9, 0.3, 0.25, 0.1])
        found = decision_curve([case], RATIO, thresholds=(0.0, 0.25, 0.5))
        assert found.model.mean == pytest.approx([0.5, 2 / 4 - 1 / 4 / 3, 1 / 4])
        assert found.treat_all == pytest.approx([0.5, 0.5 - 0.5 / 3, 0.0])
        assert found.treat_none.tolist() == [0, 0, 0]

    @given(splits)
    def test_treating_all_and_the_start_depend_on_prevalence_alone(self, cases):
        found = decision_curve(cases, RATIO, (0.0, 0.2, 0.9))
        prevalence = float(np.mean([label.mean() for label, _ in cases]))
        assert found.model.mean[0] == pytest.approx(prevalence)
        odds = np.array([0, 0.25, 9])
        assert found.treat_all == pytest.approx(prevalence - (1 - prevalence) * odds)
        assert (found.model.mean <= prevalence + 1e-12).all()

    def test_a_perfect_classifier_gains_the_prevalence_everywhere(self):
        found = decision_curve([part([1, 0, 0, 0], [1.0, 0.0, 0.0, 0.0])], RATIO)
        assert found.model.x.tolist() == list(DECISION_THRESHOLDS)
        assert found.model.mean == pytest.approx(np.full(99, 0.25))

    def test_bands_may_be_negative_and_splits_of_one_class_count(self):
        cases = [*random_parts(3), part([0, 0], [0.9, 0.1])]
        found = decision_curve(cases, RATIO).model
        assert (found.n, found.left_out) == (4, 0)
        assert np.nanmin(found.low) < 0

    def test_its_band_is_made_of_the_intervals_of_both_rates(self):
        cases = random_parts(6)
        found = decision_curve(cases, RATIO, (0.6,), patients=(80, 300)).model
        hits, alarms = (
            mean_interval(
                [(probability[label == value] >= 0.6).mean() for label, probability in cases],
                RATIO,
                patients=patients,
            )
            for value, patients in ((1, 80), (0, 300))
        )
        prevalence, odds = 27 / 151, 0.6 / 0.4
        worst = (1 - prevalence) * odds
        assert found.mean[0] == pytest.approx(prevalence * hits.mean - worst * alarms.mean)
        below = math.hypot(prevalence * (hits.mean - hits.low), worst * (alarms.high - alarms.mean))
        above = math.hypot(prevalence * (hits.high - hits.mean), worst * (alarms.mean - alarms.low))
        assert found.low[0] == pytest.approx(found.mean[0] - below)
        assert found.high[0] == pytest.approx(found.mean[0] + above)

    @given(splits)
    def test_its_band_keeps_within_what_a_net_benefit_can_be(self, cases):
        """Above the prevalence nothing can be gained; a symmetric interval reached beyond it."""
        found = decision_curve(cases, RATIO, patients=(9, 9))
        prevalence = float(np.mean([label.mean() for label, _ in cases]))
        band = found.model
        assert np.isfinite(band.low).all() == (len(cases) > 1)
        inside = np.isfinite(band.low)
        assert (band.high[inside] <= prevalence + 1e-12).all()
        worst = (1 - prevalence) * band.x / (1 - band.x)
        assert (band.low[inside] >= -worst[inside] - 1e-12).all()
        assert (band.low[inside] <= band.mean[inside] + 1e-12).all()
        assert (band.mean[inside] <= band.high[inside] + 1e-12).all()

    def test_splits_that_differ_at_high_thresholds_are_where_a_symmetric_band_left_its_bounds(self):
        # One false alarm of 132 images costs 32 hits at a threshold of 0.97.
        label = (np.arange(132) < 28).astype(int)
        calm = np.where(np.arange(132) < 9, 0.99, 0.1)
        alarm = np.where(np.arange(132) == 131, 0.99, calm)
        cases = [(label, alarm if split == 3 else calm) for split in range(5)]
        band = decision_curve(cases, RATIO, (0.97,), patients=(74, 208)).model
        benefits = [9 / 132 - (split == 3) * 97 / 3 / 132 for split in range(5)]
        symmetric = mean_interval(benefits, RATIO, is_bounded=False)
        assert band.mean[0] == pytest.approx(symmetric.mean)
        assert symmetric.high > 28 / 132
        assert band.mean[0] < band.high[0] < 28 / 132

    @pytest.mark.parametrize("threshold", [1.0, -0.1, math.nan])
    def test_a_threshold_has_odds(self, threshold):
        with pytest.raises(ValueError, match="0 to below 1"):
            decision_curve(random_parts(1), RATIO, (threshold,))


class TestPredictiveValues:
    def test_the_papers_figures_where_malignant_are_rarer(self):
        # Recall and specificity of the one pooled confusion that rounds to the paper's figures.
        ppv, _ = ppv_npv(264 / 270, 1222 / 1240, [0.18, 0.05, 0.005])
        assert np.round(ppv, 2).tolist() == [0.94, 0.78, 0.25]

    @given(*(st.integers(1, 50) for _ in range(4)))
    def test_at_the_studys_own_prevalence_they_are_its_precision_and_npv(self, tp, fp, tn, fn):
        values = metrics_of_confusion(Confusion(tp, fp, tn, fn))
        prevalence = (tp + fn) / (tp + fp + tn + fn)
        ppv, npv = ppv_npv(values["recall"], values["specificity"], [prevalence])
        assert (ppv[0], npv[0]) == pytest.approx((values["precision"], values["npv"]))

    def test_undefined_is_nan_in_silence(self):
        ppv, npv = ppv_npv(0.0, 1.0, [0.0, 0.5])
        assert np.isnan(ppv).all()
        assert npv.tolist() == [1.0, 0.5]
        assert np.isnan(ppv_npv(math.nan, 0.5, [0.5])[0]).all()

    @pytest.mark.parametrize("bad", [(1.1, 0.5, [0.5]), (0.5, -0.1, [0.5]), (0.5, 0.5, [2])])
    def test_shares_lie_in_0_to_1(self, bad):
        with pytest.raises(ValueError, match="0 to 1"):
            ppv_npv(*bad)


class TestLearningCurves:
    def test_over_splits(self):
        rows = [
            ("vgg16", 0, 2, 0.2, None),
            ("vgg16", 0, 1, 0.4, None),
            ("vgg16", 1, 1, 0.8, None),
            ("alexnet", 0, 1, 0.5, 0.6),
            ("alexnet", 1, 1, 0.7, None),
        ]
        columns = ("architecture", "split", "epoch", "loss", "val_loss")
        table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows])
        found = learning_curves(table)
        assert list(found) == ["vgg16", "alexnet"]
        vgg, alexnet = found.values()
        assert vgg.epoch.tolist() == [1, 2]
        assert vgg.loss == pytest.approx([0.6, 0.2])
        assert (vgg.low.tolist(), vgg.high.tolist()) == ([0.4, 0.2], [0.8, 0.2])
        assert vgg.val_loss is None
        assert alexnet.val_loss.tolist() == [0.6]

    def test_no_validation_column_of_values_at_all(self):
        table = pa.table(
            {
                "architecture": ["alexnet"],
                "epoch": [1],
                "loss": [0.1],
                "val_loss": pa.nulls(1, pa.float64()),
            }
        )
        assert learning_curves(table)["alexnet"].val_loss is None


class TestScoreHistogram:
    def test_by_hand(self):
        found = score_histogram(*part([0, 0, 1, 1, 1, 1], [0.0, 0.24, 0.25, 0.5, 0.99, 1.0]), 4)
        assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert found.benign.tolist() == [1, 0, 0, 0]
        assert found.malignant.tolist() == [0, 0.25, 0.25, 0.5]

    @given(parts())
    def test_shares_sum_to_one(self, case):
        found = score_histogram(*case)
        assert found.benign.sum() == pytest.approx(1)
        assert found.malignant.sum() == pytest.approx(1)

    def test_a_class_without_images_is_nan(self):
        found = score_histogram(*part([1], [0.5]))
        assert np.isnan(found.benign).all()
        assert found.malignant.sum() == 1
