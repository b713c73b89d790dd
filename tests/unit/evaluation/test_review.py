"""Operating points, predictive values, subgroups, readers and shortcuts, worked out anew."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.auc_variance import auc_variance
from tests.support.report_store import images
from thyro_core.config import StudyConfig
from thyro_core.config.columns import ColumnSpec, ReaderSpec
from thyro_core.datasets.splits import make_splits
from thyro_core.evaluation import shortcuts
from thyro_core.evaluation.bounded import Interval, wilson_interval
from thyro_core.evaluation.delong import auc_influences
from thyro_core.evaluation.ensemble import paired_auc_difference
from thyro_core.evaluation.metrics import metrics
from thyro_core.evaluation.operating import (
    PREVALENCES,
    operating_point,
    predictive_intervals,
    predictive_values_table,
    ratio_interval,
    sensitivity_threshold,
    specificity_at,
)
from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble, out_of_fold_ensembles, sigmoid
from thyro_core.evaluation.readers import category, paired_gain, reading, separates_classes
from thyro_core.evaluation.shortcuts import (
    LEARNERS,
    SEEN_FACTS,
    SEEN_PREFIX,
    chosen_learner,
    learner_scores,
    shortcut_scores,
    shortcuts_table,
    shortcuts_tell,
)
from thyro_core.evaluation.subgroups import NOT_GIVEN, group_names, group_of, heterogeneity
from thyro_core.evaluation.uncertainty import holm
from thyro_core.tables import schemas


def ensemble(label, margin, unit=None) -> OutOfFoldEnsemble:
    label = np.asarray(label)
    names = np.array([f"i{i:04}" for i in range(label.size)], dtype=object)
    units = names if unit is None else np.asarray(unit, dtype=object)
    members = np.ones(label.size, dtype=np.int64)
    none = np.full(label.size, np.nan)
    scores = np.asarray(margin, float)
    return OutOfFoldEnsemble(names, units, units, label, scores, members, none, 1)


def scores(malignant: int, benign: int, shift: float, seed: int):
    label = np.repeat([1, 0], [malignant, benign])
    return label, np.random.default_rng(seed).normal(size=label.size) + shift * label


class TestOperatingPoints:
    def test_the_threshold_is_the_largest_that_reaches_the_sensitivity(self) -> None:
        label = np.array([1] * 10 + [0])
        score = np.arange(11.0)
        assert sensitivity_threshold(label, score, 0.9) == 1.0
        assert sensitivity_threshold(label, score, 0.91) == 0.0
        assert np.isnan(sensitivity_threshold(label[10:], score[10:], 0.9))

    def test_no_image_has_a_part_in_the_choice_of_its_own_threshold(self) -> None:
        """On noise a choice on the same images keeps its sensitivity; a fair one need not."""
        reached, apparent = [], []
        for seed in range(60):
            label, margin = scores(20, 60, 1.5, seed)
            point = operating_point(ensemble(label, margin), 0.95, resamples=2, seed=0)
            assert point is not None
            reached.append(point.sensitivity)
            apparent.append(point.apparent_specificity - point.specificity)
        assert 0.88 < np.mean(reached) < 0.95
        assert np.mean(apparent) > -0.02

    def test_one_class_has_no_point(self) -> None:
        one = ensemble([1, 1, 1], [0.1, 0.2, 0.3])
        assert operating_point(one, 0.9, resamples=2, seed=0) is None

    @pytest.mark.parametrize("sensitivity", [0.5, 0.9, 0.95, 1.0])
    def test_a_resample_has_the_specificity_of_its_images_repeated(self, sensitivity) -> None:
        generator = np.random.default_rng(3)
        label, score = scores(15, 40, 1.0, 5)
        score = np.round(score, 1)  # with ties
        weight = generator.integers(0, 4, size=(30, label.size))
        expected = []
        for counts in weight:
            drawn_label, drawn = np.repeat(label, counts), np.repeat(score, counts)
            threshold = sensitivity_threshold(drawn_label, drawn, sensitivity)
            expected.append(np.mean(drawn[drawn_label == 0] < threshold))
        found = specificity_at(label, score, sensitivity, weight.astype(float))
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_a_resample_without_a_class_has_no_specificity(self) -> None:
        weight = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
        found = specificity_at(np.array([1, 1, 0]), np.array([0.9, 0.8, 0.1]), 0.9, weight)
        np.testing.assert_array_equal(found, [np.nan, np.nan, 1.0])

    def test_few_malignant_images_widen_the_interval_however_many_are_benign(self) -> None:
        label, margin = scores(12, 4000, 1.5, 1)
        point = operating_point(ensemble(label, margin), 0.9, resamples=400, seed=0)
        assert point is not None
        benign_alone = wilson_interval(point.apparent_specificity, 4000)
        width = point.apparent_high - point.apparent_low
        assert width > 5 * (benign_alone.high - benign_alone.low)
        assert point.apparent_low < point.apparent_specificity < point.apparent_high

    def test_copies_of_a_patients_image_make_the_interval_no_narrower(self) -> None:
        label, margin = scores(30, 90, 1.5, 2)
        unit = [f"p{i:03}" for i in range(label.size)]
        once = operating_point(ensemble(label, margin, unit), 0.9, resamples=400, seed=0)
        parts = [np.repeat(each, 5) for each in (label, margin, unit)]
        copies = operating_point(ensemble(*parts), 0.9, resamples=400, seed=0)
        assert once is not None
        assert copies is not None
        assert copies[-3:] == pytest.approx(once[-3:], rel=1e-9)

    def test_a_perfect_order_has_the_interval_of_its_benign_patients(self) -> None:
        label = np.repeat([1, 0], [20, 50])
        point = operating_point(ensemble(label, label * 1.0), 0.9, resamples=50, seed=0)
        assert point is not None
        assert point[-3:] == pytest.approx((1.0, *wilson_interval(1.0, 50)))


class TestPredictiveValues:
    def test_a_ratio_of_precise_figures_has_the_interval_of_the_delta_method(self) -> None:
        errors = 0.001, 0.002
        ends = [
            Interval(v - 1.96 * e, v + 1.96 * e) for v, e in zip((0.2, 0.8), errors, strict=True)
        ]
        low, high = ratio_interval(0.2, ends[0], 0.8, ends[1])
        half = 1.96 * 0.25 * np.hypot(errors[0] / 0.2, errors[1] / 0.8)
        assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-4)

    def test_a_perfect_specificity_of_few_leaves_the_ppv_open(self) -> None:
        perfect = wilson_interval(1.0, 20)
        (ppv,), (npv,) = predictive_intervals(
            (0.9, wilson_interval(0.9, 40)), (1.0, perfect), [0.1]
        )
        assert ppv.high == 1.0
        assert 0.2 < ppv.low < 0.6
        assert npv.low < 0.9 / (0.9 + 0.1 * 0.1) < npv.high

    def test_they_cover(self) -> None:
        generator = np.random.default_rng(5)
        sens, spec, m, b, share = 0.9, 0.8, 40, 160, 0.1
        truth = sens * share / (sens * share + (1 - spec) * (1 - share))
        hits = 0
        for x, y in zip(
            generator.binomial(m, sens, 600), generator.binomial(b, spec, 600), strict=True
        ):
            (ppv,), _ = predictive_intervals(
                (x / m, wilson_interval(x / m, m)), (y / b, wilson_interval(y / b, b)), [share]
            )
            hits += ppv.low <= truth <= ppv.high
        assert 0.92 <= hits / 600 <= 0.98


class TestSubgroups:
    spec = ColumnSpec("age", (40.0, 60.0))

    @pytest.mark.parametrize(
        ("cell", "group"),
        [("39.9", "below 40"), ("40", "40 to below 60"), ("60", "60 and above"),
         ("12,5", "below 40"), ("old", NOT_GIVEN), (None, NOT_GIVEN), ("nan", NOT_GIVEN)],
    )  # fmt: skip
    def test_numbers_are_cut(self, cell: str | None, group: str) -> None:
        assert group_of(self.spec, cell) == group
        assert group in group_names(self.spec, {})

    def test_influences_are_those_of_the_variance(self) -> None:
        label, score = scores(40, 90, 1.0, 3)
        auc, influences = auc_influences(label, score)
        m, n = 40, 90
        small = [(influences[label == v] ** 2).sum() * k / (k - 1) for v, k in ((1, m), (0, n))]
        places = np.argsort(np.argsort(score)) / label.size
        assert sum(small) == pytest.approx(auc_variance(label, places))
        assert influences.sum() == pytest.approx(0)
        assert 0.5 < auc < 1

    @pytest.mark.parametrize("repeated", [1, 3])
    def test_equal_groups_differ_in_one_of_twenty_and_copies_prove_nothing(self, repeated) -> None:
        p = []
        for seed in range(200):
            label, score = scores(30, 60, 1.2, seed)
            group = np.random.default_rng(seed + 1000).integers(0, 2, label.size)
            unit = np.arange(label.size)
            parts = (np.repeat(part, repeated) for part in (label, score, unit, group))
            p.append(heterogeneity(*parts))
        assert np.mean(np.array(p) < 0.05) <= 0.09

    def test_unequal_groups_are_told_apart(self) -> None:
        parts = [scores(60, 60, shift, 1) for shift in (0.0, 3.0)]
        label, score = (np.concatenate(each) for each in zip(*parts, strict=True))
        assert heterogeneity(label, score, np.arange(240), np.repeat([0, 1], 120)) < 1e-4

    def test_a_group_without_errors_has_no_test(self) -> None:
        label = np.tile([1, 0], 20)
        assert np.isnan(heterogeneity(label, label + 0.0, np.arange(40), np.repeat([0, 1], 20)))


class TestReaders:
    def test_categories_have_their_order(self) -> None:
        texts = ("TR1", "2", "3", "4a", "TI-RADS 4B", "4c", "5")
        ranks = [category(text) for text in texts]
        assert None not in ranks
        assert ranks == sorted(ranks)
        assert category("unclear") is None

    def test_a_number_keeps_its_sign_and_the_dash_of_a_name_is_none(self) -> None:
        assert category("-1.3") == (-1.3, "")
        assert category(" -0,5 ") == category("\N{MINUS SIGN}0.5") == (-0.5, "")
        assert category("TIRADS-4") == (4.0, "")
        assert reading(ReaderSpec("score", "1"), "-1.3") is False
        assert reading(ReaderSpec("score", "1"), "1.3") is True

    @pytest.mark.parametrize(
        ("cut", "cell", "call"),
        [("4a", "4a", True), ("4a", "3", False), ("4a", "?", None), (None, "Benign", False),
         (None, "1", True), (None, "4a", None), (None, None, None)],
    )  # fmt: skip
    def test_a_reading_is_a_call_or_nothing(self, cut, cell, call) -> None:
        assert reading(ReaderSpec("r", cut), cell) is call

    @pytest.mark.parametrize(
        ("benign", "malignant", "separated"),
        [(["2", "3"] * 10, ["4a", "4C"] * 10, True),
         (["2"] * 19 + ["4A "], ["4a", "4c"] * 10, False),
         (["2"], ["3", "4a", "4b"], True),
         ([f"{i}" for i in range(20)], [f"{i}" for i in range(20, 40)], True),
         ([f"{i}" for i in range(0, 40, 2)], [f"{i}" for i in range(1, 40, 2)], True),
         ([f"{i // 4}" for i in range(0, 40, 2)], [f"{i // 4}" for i in range(1, 40, 2)], False)],
        ids=["categories", "one error", "few images", "a number that a threshold parts",
             "a number for each image", "coarse numbers"],
    )  # fmt: skip
    def test_what_labels_may_follow_from_is_no_reader(self, benign, malignant, separated) -> None:
        label = np.repeat([0, 1], [len(benign), len(malignant)])
        assert separates_classes([*benign, *malignant], label) is separated

    def test_at_equal_sensitivity_the_network_spares_what_it_spares(self) -> None:
        """The reader finds 8 of 10 and errs on 6 of 10; so does the network on 1."""
        label = np.repeat([1, 0], [10, 10])
        score = np.r_[np.arange(20.0, 10, -1), 13.5, np.arange(9.0, 0, -1)]
        called = np.r_[[True] * 8, [False] * 2, [True] * 6, [False] * 4]
        gain = paired_gain(label, score, called, np.arange(20), resamples=200, seed=0)
        assert (gain.specificity, gain.difference) == pytest.approx((0.9, 0.5))
        assert gain.low < 0.5 < gain.high

    def test_copies_of_images_do_not_narrow_the_interval(self) -> None:
        label, score = scores(40, 80, 1.0, 2)
        called = score + np.random.default_rng(0).normal(size=label.size) > 0.7
        once = paired_gain(label, score, called, np.arange(120), resamples=300, seed=1)
        parts = [np.repeat(part, 4) for part in (label, score, called, np.arange(120))]
        copies = paired_gain(*parts, resamples=300, seed=1)
        assert copies.difference == pytest.approx(once.difference)
        assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.2)


@pytest.mark.parametrize(
    ("malignant", "more"),
    [(8, []), (10, []), (16, []), (20, []), (30, [0.6]), (36, [0.6, 0.8])],
)
def test_predictive_values_have_the_set_s_own_share_with_the_figures_of_its_test_parts(
    malignant, more
) -> None:
    """Of 40 test images a split, two splits; one figure and one interval for one quantity."""
    keys = {"study_id": "s", "architecture": "resnet18", "level": "image"}
    unset = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    rows = [
        unset | keys | {"split": split, "metric": "accuracy", "n": 40, "n_positive": malignant}
        for split in (0, 1)
    ]
    figures = {"recall": 0.9, "specificity": 0.8, "precision": 0.77, "npv": 0.61}
    rows += [
        unset | keys | {"metric": name, "value": value, "ci_low": value - 0.1, "ci_high": 0.95}
        for name, value in figures.items()
    ]
    table = predictive_values_table("s", schemas.rows_to_table("metrics", rows), StudyConfig())
    own = malignant / 40
    for measure, name in (("ppv", "precision"), ("npv", "npv")):
        of_measure = [row for row in table.to_pylist() if row["measure"] == measure]
        shares = [row["prevalence"] for row in of_measure]
        assert shares == sorted({*PREVALENCES, *more, own})
        (row,) = [row for row in of_measure if row["prevalence"] == own]
        value = figures[name]
        assert (row["value"], row["ci_low"], row["ci_high"]) == (value, value - 0.1, 0.95)
    share = PREVALENCES[2]
    (row,) = [
        row for row in table.to_pylist() if (row["measure"], row["prevalence"]) == ("ppv", share)
    ]
    by_bayes = 0.9 * share / (0.9 * share + 0.2 * (1 - share))
    assert row["value"] == pytest.approx(by_bayes)
    assert row["ci_low"] < by_bayes < row["ci_high"]


def test_shortcuts_see_the_file_alone() -> None:
    """The builder's widths run with the labels; where they do not, nothing is left."""
    table = images(120, 50, patients=False)
    splits = make_splits("s0", table, StudyConfig(splits=2))

    def aucs(rows):
        each = shortcut_scores(rows, splits)
        return {
            name: metrics(of.label, sigmoid(of.margin), 0.5)["auc"]
            for name, of in each.learners.items()
        }

    assert min(aucs(table).values()) > 0.9
    generator = np.random.default_rng(0)
    blind = table.to_pandas()
    for name in ("width", "sharpness", "overlay_share", "mean"):
        blind[name] = generator.permutation(blind[name].to_numpy())
    values = aucs(pa.Table.from_pandas(blind, schema=table.schema))
    assert set(values) == set(LEARNERS)
    assert all(0.25 < value < 0.75 for value in values.values())


@pytest.fixture(scope="module")
def squares():
    """Wide and narrow malignant images: a straight line through the width tells nothing."""
    table = images(160, 60, patients=False)
    frame = table.to_pandas()
    generator = np.random.default_rng(0)
    ill = frame["label"].to_numpy() == 1
    side = np.where(generator.random(ill.size) < 0.5, -1, 1)
    width = 300 + side * np.where(ill, 60, 5) + generator.normal(0, 15, ill.size)
    frame["height"] = 100
    frame["width"] = width.astype(int)
    for name in ("sharpness", "overlay_share", "mean", "sd"):
        frame[name] = 0.5
    table = pa.Table.from_pandas(frame, schema=table.schema)
    return table, make_splits("s0", table, StudyConfig(splits=4))


def test_a_network_is_compared_with_the_chosen_learner_on_the_same_images(squares) -> None:
    table, splits = squares
    config = StudyConfig(splits=4, architectures=("resnet18",))
    tested = splits.to_pandas()
    tested = tested[tested["role"] == "test"]
    margin = np.random.default_rng(1).normal(0.8 * tested["label"], 1.0)
    predictions = tested[["split", "image_id", "label"]].assign(
        architecture="resnet18", patient_id=None, logit_malignant=margin, logit_benign=0.0
    )
    (row,) = shortcuts_table(
        "s0", pa.Table.from_pandas(predictions), splits, config, images=table
    ).to_pylist()
    each = {name: row[f"{name}_auc"] for name in LEARNERS}
    assert each["logistic_regression"] < 0.7
    scores = shortcut_scores(table, splits)
    counts = Counter(scores.choices)
    assert "logistic_regression" not in counts
    assert row["learner_splits"] == counts[row["learner"]] == max(counts.values())
    assert sum(counts.values()) == row["n"] == 4
    assert 0.85 < row["shortcut_auc"] <= max(each.values()) + 0.02
    assert row["ci_low"] > 0.5
    assert shortcuts_tell([row])
    network = out_of_fold_ensembles(pa.Table.from_pandas(predictions), splits, ["resnet18"])[
        "resnet18"
    ]
    facts = scores.baseline
    assert network.image.tolist() == facts.image.tolist()
    expected = paired_auc_difference(network.label, network.margin, facts.margin, network.unit)
    assert (row["lead"], row["lead_low"], row["lead_high"]) == pytest.approx(expected)
    assert row["auc"] - row["shortcut_auc"] == pytest.approx(row["lead"])
    assert row["lead_high"] < 0, "this network does worse than the width alone"
    assert row["n_images"] == tested["image_id"].nunique()


def test_what_a_network_sees_is_compared_without_the_size_that_it_is_not_given(squares) -> None:
    """Width alone tells the classes apart here: of what a network sees nothing does."""
    table, splits = squares
    tested = splits.to_pandas()
    tested = tested[tested["role"] == "test"]
    rows = []
    for name, skill in (("resnet18", 0.8), ("alexnet", 0.0)):
        margin = np.random.default_rng(1).normal(skill * tested["label"], 1.0)
        rows.append(
            tested[["split", "image_id", "label"]].assign(
                architecture=name, patient_id=None, logit_malignant=margin, logit_benign=0.0
            )
        )
    config = StudyConfig(splits=4, architectures=("resnet18", "alexnet"))
    predictions = pa.Table.from_pandas(pd.concat(rows, ignore_index=True))
    found = shortcuts_table("s0", predictions, splits, config, images=table).to_pylist()
    seen = shortcut_scores(table, splits, SEEN_FACTS).baseline
    assert not {"width", "height", "aspect"} & set(SEEN_FACTS)
    for row in found:
        assert row["seen_shortcut_auc"] == pytest.approx(roc_auc_score(seen.label, seen.margin))
        assert row["seen_ci_low"] <= 0.5
        assert row["ci_low"] > 0.8
        assert row["seen_lead"] == pytest.approx(row["auc"] - row["seen_shortcut_auc"])
    assert not shortcuts_tell(found, SEEN_PREFIX)
    assert shortcuts_tell(found)
    # The size is not held against the network where both are asked about what it sees.
    assert found[0]["seen_lead"] > 0 > found[0]["lead"]
    for prefix in ("", SEEN_PREFIX):
        adjusted = holm([row[f"{prefix}p"] for row in found])
        assert [row[f"{prefix}p_adjusted"] for row in found] == pytest.approx(adjusted)


def test_no_tested_image_has_a_part_in_the_choice_of_the_learner(monkeypatch) -> None:
    """Three learners that know nothing: the best of them on the tested images looks as if."""
    generator = np.random.default_rng(0)

    def noise(learner, features, label, test):
        return generator.random(len(test))

    monkeypatch.setattr(shortcuts, "learner_scores", noise)
    table = images(90, 40, patients=False)
    best, chosen = [], []
    for seed in range(60):
        splits = make_splits("s0", table, StudyConfig(splits=2, seed=seed))
        scores = shortcut_scores(table, splits)
        best.append(max(roc_auc_score(o.label, o.margin) for o in scores.learners.values()))
        own = scores.baseline
        chosen.append(roc_auc_score(own.label, own.margin))
    error = float(np.std(chosen)) / math.sqrt(60)
    assert float(np.mean(best)) > 0.5 + 4 * error
    assert abs(float(np.mean(chosen)) - 0.5) < 3 * error


def test_the_learner_is_chosen_by_the_training_images_alone(squares) -> None:
    table, splits = squares
    frame = splits.to_pandas()
    is_test = (frame["role"] == "test") & (frame["split"] == 0)
    frame.loc[is_test, "label"] = 1 - frame.loc[is_test, "label"]
    turned = pa.Table.from_pandas(frame, schema=splits.schema)
    assert shortcut_scores(table, turned).choices == shortcut_scores(table, splits).choices


def test_too_few_groups_leave_no_choice() -> None:
    features, label = np.random.default_rng(0).normal(size=(20, 7)), np.repeat([0, 1], 10)
    group = np.where(label == 1, "one patient", np.arange(20).astype(str))
    assert chosen_learner(features, label, group) == LEARNERS[0]


def test_facts_tell_something_only_where_their_interval_lies_above_chance() -> None:
    assert shortcuts_tell([{"ci_low": 0.501}])
    assert not shortcuts_tell([{"ci_low": 0.5}])
    assert not shortcuts_tell([{"ci_low": math.nan}, {"ci_low": None}])
    assert not shortcuts_tell([])


@pytest.mark.parametrize(
    "field", [{"subgroups": ["age:60,40"]}, {"subgroups": ["age:x"]}, {"subgroups": [":4"]},
              {"subgroups": ["a", "a:3"]}, {"readers": ["tirads:"]}, {"readers": ["x:high"]}],
)  # fmt: skip
def test_what_is_no_column_is_refused(field) -> None:
    with pytest.raises(ValueError, match=r"expected a column|named twice"):
        StudyConfig.model_validate(field)


def test_two_windows_are_a_fact_that_a_learner_may_use() -> None:
    """Of images alike in all else; learners on different scales are put together by rank."""
    table = images(160, 64)
    label = table["label"].to_numpy()
    for name in ("width", "height", "mean", "sd", "sharpness", "overlay_share"):
        place = table.schema.get_field_index(name)
        same = pa.array([1.0] * table.num_rows).cast(table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), same)
    place = table.schema.get_field_index("views")
    views = pa.array(1 + label, table.schema.field("views").type)
    table = table.set_column(place, table.schema.field("views"), views)
    splits = make_splits("s", table, StudyConfig(splits=2))
    baseline = shortcut_scores(table, splits).baseline
    assert roc_auc_score(baseline.label, baseline.margin) == 1.0
    assert np.isfinite(baseline.margin).all()


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_fact_that_no_image_has_changes_nothing(learner) -> None:
    label, score = scores(20, 40, 2.0, 1)
    facts, nothing = score[:, None], np.full((label.size, 1), np.nan)
    alone = learner_scores(learner, facts, label, facts)
    beside = learner_scores(learner, np.hstack([nothing, facts]), label, np.hstack([facts, facts]))
    assert np.array_equal(alone, beside)
    assert set(learner_scores(learner, nothing, label, nothing)) == {label.mean()}
