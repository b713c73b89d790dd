import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from thyro_core.evaluation.display_names import METRIC_NAMES
from thyro_core.evaluation.metrics import (
    METRICS,
    PAPER,
    PAPER_METRICS,
    Confusion,
    UndefinedMetricWarning,
    as_valid_arrays,
    confusion,
    metrics,
    metrics_of_confusion,
    weighted_metrics,
)

LABEL = np.array([1, 1, 0, 1, 0, 0, 0, 0])
PROBABILITY = np.array([0.9, 0.6, 0.6, 0.3, 0.45, 0.3, 0.1, 0.0])


@st.composite
def scored(draw, least=2, both=True):
    """Labels and probabilities, coarse ones so that ties are common."""
    label = draw(st.lists(st.integers(0, 1), min_size=least, max_size=40))
    if both:
        label = [0, 1, *label]
    grid = st.integers(0, 20).map(lambda i: i / 20)
    fine = st.floats(0, 1, allow_subnormal=False)
    probability = draw(st.lists(grid | fine, min_size=len(label), max_size=len(label)))
    return np.array(label), np.array(probability)


def quiet_metrics(label, probability, threshold=0.5):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metrics(label, probability, threshold)


class TestByHand:
    def test_confusion_counts_the_threshold_itself_as_positive(self):
        assert confusion(LABEL, PROBABILITY, 0.6) == Confusion(tp=2, fp=1, tn=4, fn=1)
        assert confusion(LABEL, PROBABILITY, 0.61) == Confusion(tp=1, fp=0, tn=5, fn=2)

    def test_all_ten(self):
        found = metrics(LABEL, PROBABILITY, 0.5)
        # 15 pairs: 0.9 beats 5, 0.6 beats 4 and ties 1, 0.3 beats 2 and ties 1.
        # Average precision: steps at 0.9 (1/1), 0.6 (2/3), 0.3 (3/6), a third of recall each.
        # Bins (0, .1] .. : {0, .1}: .1 over none; {.3, .3}: .6 to 1; .45; {.6, .6}: 1.2 to 1; .9.
        expected = {
            "auc": (5 + 4.5 + 2.5) / 15,
            "accuracy": 6 / 8,
            "recall": 2 / 3,
            "precision": 2 / 3,
            "f1": 2 / 3,
            "specificity": 4 / 5,
            "npv": 4 / 5,
            "average_precision": (1 + 2 / 3 + 1 / 2) / 3,
            "brier": (0.01 + 0.16 + 0.36 + 0.49 + 0.2025 + 0.09 + 0.01) / 8,
            "ece": (0.1 + 0.4 + 0.45 + 0.2 + 0.1) / 8,
        }
        assert found == pytest.approx(expected, abs=1e-12)
        assert tuple(found) == METRICS

    def test_perfect(self):
        found = metrics(np.array([0, 0, 1]), np.array([0.0, 0.0, 1.0]), 0.5)
        assert {name for name, value in found.items() if value == 1.0} == set(METRICS[:8])
        assert (found["brier"], found["ece"]) == (0.0, 0.0)

    def test_asymmetric_counts_tell_the_ratios_apart(self):
        found = metrics_of_confusion(Confusion(tp=7, fp=2, tn=11, fn=5))
        assert found == pytest.approx(
            {
                "accuracy": 18 / 25,
                "recall": 7 / 12,
                "precision": 7 / 9,
                "f1": 14 / 21,
                "specificity": 11 / 13,
                "npv": 11 / 16,
            }
        )

    def test_the_paper_pooled(self):
        found = metrics_of_confusion(Confusion(tp=264, fp=18, tn=1222, fn=6))
        assert round(found["recall"], 4) == 0.9778
        assert round(found["accuracy"], 4) == 0.9841
        assert round(found["f1"], 4) == 0.9565
        assert round(found["precision"], 3) == 0.936

    @pytest.mark.parametrize("edge", [i / 10 for i in range(1, 10)])
    def test_a_bin_of_the_calibration_error_holds_its_upper_edge(self, edge):
        # Beside the edge stands an image that shares its bin only if the edge closes the bin
        # below: apart they give |e - 1| + |q - 0|, together |e + q - 1|.
        label, below = np.array([1, 0]), edge - 0.05
        together = quiet_metrics(label, np.array([edge, below]))["ece"]
        assert together == pytest.approx(abs(edge + below - 1) / 2)
        above = edge + 0.05
        apart = quiet_metrics(label, np.array([edge, above]))["ece"]
        assert apart == pytest.approx((1 - edge + above) / 2)


class TestAgainstScikitLearn:
    @given(scored())
    def test_counts(self, case):
        label, probability = case
        called = (probability >= 0.5).astype(int)
        found = quiet_metrics(label, probability)
        assert found["accuracy"] == sk.accuracy_score(label, called)
        assert found["recall"] == sk.recall_score(label, called)
        assert found["specificity"] == sk.recall_score(label, called, pos_label=0)
        assert found["f1"] == pytest.approx(sk.f1_score(label, called, zero_division=np.nan))
        for name, cls in (("precision", 1), ("npv", 0)):
            expected = sk.precision_score(label, called, pos_label=cls, zero_division=np.nan)
            assert found[name] == pytest.approx(expected, nan_ok=True)

    @given(scored())
    def test_auc_is_the_share_of_pairs_in_order(self, case):
        label, probability = case
        gap = probability[label == 1][:, None] - probability[label == 0][None, :]
        assert quiet_metrics(label, probability)["auc"] == pytest.approx(
            ((gap > 0) + 0.5 * (gap == 0)).mean()
        )

    @given(scored(), st.data())
    def test_integer_weights_are_repetition(self, case, data):
        label, probability = case
        weight = np.array(
            data.draw(st.lists(st.integers(0, 3), min_size=label.size, max_size=label.size))
        )
        weight[0] += weight.sum() == 0
        again = np.repeat(np.arange(label.size), weight)
        found = weighted_metrics(label, probability, weight[None, :], 0.5)
        expected = quiet_metrics(label[again], probability[again])
        assert {name: values[0] for name, values in found.items()} == pytest.approx(
            expected, nan_ok=True
        )

    def test_fractional_weights(self):
        generator = np.random.default_rng(3)
        label = generator.integers(0, 2, 60)
        probability = generator.integers(0, 15, 60) / 14
        weight = generator.uniform(0, 2, (5, 60))
        found = weighted_metrics(label, probability, weight, 0.5)
        called = probability >= 0.5
        for row, of_row in enumerate(weight):
            given_row = {"sample_weight": of_row}
            expected = {
                "auc": sk.roc_auc_score(label, probability, **given_row),
                "average_precision": sk.average_precision_score(label, probability, **given_row),
                "brier": sk.brier_score_loss(label, probability, **given_row),
                "accuracy": sk.accuracy_score(label, called, **given_row),
                "recall": sk.recall_score(label, called, **given_row),
                "precision": sk.precision_score(label, called, **given_row),
                "f1": sk.f1_score(label, called, **given_row),
                "specificity": sk.recall_score(label, called, pos_label=0, **given_row),
                "npv": sk.precision_score(label, called, pos_label=0, **given_row),
            }
            assert {name: found[name][row] for name in expected} == pytest.approx(expected)


class TestProperties:
    @given(scored(), st.randoms(use_true_random=False))
    def test_row_order_does_not_matter(self, case, generator):
        label, probability = case
        order = list(range(label.size))
        generator.shuffle(order)
        assert quiet_metrics(label[order], probability[order]) == pytest.approx(
            quiet_metrics(label, probability), nan_ok=True
        )

    @given(scored())
    def test_the_other_class_as_positive_swaps_the_metrics(self, case):
        label, probability = case
        # 0.5 itself changes sides under 1 - p; keep off it.
        probability = np.where(probability == 0.5, 0.55, probability)
        here, there = quiet_metrics(label, probability), quiet_metrics(1 - label, 1 - probability)
        assert there["recall"] == here["specificity"]
        assert there["precision"] == pytest.approx(here["npv"], nan_ok=True)
        assert there["brier"] == pytest.approx(here["brier"])
        assert there["accuracy"] == here["accuracy"]

    @given(scored())
    def test_bounds_and_identities(self, case):
        label, probability = case
        found = quiet_metrics(label, probability)
        assert all(0 <= value <= 1 for value in found.values() if not np.isnan(value))
        share = label.mean()
        assert found["accuracy"] == pytest.approx(
            share * found["recall"] + (1 - share) * found["specificity"]
        )
        # Jensen: within bins, and within the whole set.
        assert found["ece"] <= np.sqrt(found["brier"]) + 1e-12
        assert found["ece"] >= abs(probability.mean() - share) - 1e-12

    @given(scored())
    def test_ranking_metrics_do_not_see_the_threshold(self, case):
        label, probability = case
        low, high = (quiet_metrics(label, probability, t) for t in (0.1, 0.9))
        for name in ("auc", "average_precision", "brier", "ece"):
            assert low[name] == high[name]


class TestUndefined:
    def undefined(self, label, probability):
        with pytest.warns(UndefinedMetricWarning) as caught:
            found = metrics(np.array(label), np.array(probability), 0.5)
        missing = {name for name, value in found.items() if np.isnan(value)}
        assert {str(w.message).split()[0] for w in caught} == missing
        assert all(w.category is UndefinedMetricWarning for w in caught)
        return missing, " / ".join(str(w.message) for w in caught)

    def test_benign_only(self):
        missing, said = self.undefined([0, 0, 0], [0.1, 0.2, 0.7])
        assert missing == {"auc", "recall", "average_precision"}
        assert "auc is undefined (NaN): the images are all of one class" in said
        assert "recall is undefined (NaN): no image is malignant" in said

    def test_benign_only_and_none_called(self):
        missing, _ = self.undefined([0, 0], [0.1, 0.2])
        assert missing == {"auc", "recall", "precision", "f1", "average_precision"}

    def test_malignant_only(self):
        missing, _ = self.undefined([1, 1], [0.9, 0.8])
        assert missing == {"auc", "specificity", "npv"}

    def test_nobody_called_malignant(self):
        missing, said = self.undefined([0, 1], [0.1, 0.2])
        assert missing == {"precision"}
        assert said == "precision is undefined (NaN): no image is called malignant"

    def test_no_images_at_all(self):
        with pytest.warns(UndefinedMetricWarning) as caught:
            found = metrics_of_confusion(Confusion(0, 0, 0, 0))
        assert np.isnan(list(found.values())).all()
        assert len(caught) == 6

    def test_f1_without_a_hit_is_zero_not_undefined(self):
        assert metrics(np.array([0, 1]), np.array([0.8, 0.2]), 0.5)["f1"] == 0.0

    @given(scored(least=1, both=False))
    def test_weighted_agrees_on_what_is_undefined_and_keeps_silent(self, case):
        label, probability = case
        found = weighted_metrics(label, probability, np.ones((1, label.size)), 0.5)
        assert {name: values[0] for name, values in found.items()} == pytest.approx(
            quiet_metrics(label, probability), nan_ok=True
        )


class TestRefusals:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
    @pytest.mark.parametrize("call", [metrics, confusion])
    def test_probability(self, call, bad):
        with pytest.raises(ValueError, match="found 1 of 2 that are NaN or outside"):
            call(np.array([0, 1]), np.array([0.5, bad]), 0.5)

    @pytest.mark.parametrize("bad", [-1, 2])
    def test_label(self, bad):
        with pytest.raises(ValueError, match="label must be 0"):
            metrics(np.array([0, bad]), np.array([0.5, 0.5]), 0.5)

    def test_label_missing(self):
        with pytest.raises(ValueError, match="leave unlabelled images out"):
            metrics(np.array([0.0, np.nan]), np.array([0.5, 0.5]), 0.5)

    @pytest.mark.parametrize(
        ("label", "probability"), [([], []), ([1, 0], [0.5]), ([[1, 0]], [[0.5, 0.5]])]
    )
    def test_shape(self, label, probability):
        with pytest.raises(ValueError, match="two non-empty lists of one length"):
            metrics(np.array(label, dtype=int), np.array(probability), 0.5)

    @pytest.mark.parametrize("weight", [np.ones(8), np.ones((2, 7))])
    def test_weight(self, weight):
        with pytest.raises(ValueError, match=r"weight must be of shape \(r, 8\)"):
            weighted_metrics(LABEL, PROBABILITY, weight, 0.5)

    def test_narrow_types_are_widened(self):
        label, probability = as_valid_arrays(LABEL.astype(np.int8), PROBABILITY.astype(np.float32))
        assert (label.dtype, probability.dtype) == (np.int64, np.float64)


def test_the_paper_is_consistent():
    assert tuple(PAPER) == PAPER_METRICS
    assert set(PAPER_METRICS) <= set(METRICS)
    harmonic = 2 * PAPER["precision"] * PAPER["recall"] / (PAPER["precision"] + PAPER["recall"])
    assert harmonic == pytest.approx(PAPER["f1"], abs=0.002)
    with pytest.raises(TypeError):
        PAPER["auc"] = 1.0


def test_every_metric_has_a_name_and_stands_in_the_same_place() -> None:
    assert tuple(METRIC_NAMES) == METRICS
