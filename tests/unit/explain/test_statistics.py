import math
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.evaluation.uncertainty import holm
from thyro_core.explain import families, statistics
from thyro_core.explain.families import family_auc
from thyro_core.explain.statistics import mann_whitney, shape_finding
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.tables.schemas import TABLES

SHAPE = [name for name, family in FEATURES.items() if family == "shape"]
NAN = math.nan

samples = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


def frame(values, label, split=0, share=0.5, ids=None):
    """Rows of `cam_features`; `values` (n,) for every feature, or (n, features)."""
    n = len(label)
    values = np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = np.repeat(values[:, None], len(FEATURES), axis=1)
    rows = pd.DataFrame(values, columns=list(FEATURES))
    return rows.assign(
        study_id="s",
        split=split,
        architecture="resnet18",
        image_id=ids if ids is not None else [f"i{k:03}" for k in range(n)],
        label=label,
        threshold=share,
    )


def table(*frames):
    return pa.Table.from_pandas(
        pd.concat(frames), schema=TABLES["cam_features"].schema, preserve_index=False
    )


def alone(features):
    """Every image of a patient of its own."""
    return dict.fromkeys(features["image_id"].to_pylist())


def predictions_of(features, scores=None):
    """One prediction a row and split; `scores` maps an image's id to its log odds, else noise."""
    pairs = sorted(set(zip(*(features[c].to_pylist() for c in ("split", "image_id")), strict=True)))
    noise = np.random.default_rng(len(pairs)).normal(size=len(pairs))
    return pa.table(
        {
            "split": [split for split, _ in pairs],
            "image_id": [image for _, image in pairs],
            "logit_malignant": [
                noise[i] if scores is None else scores[image] for i, (_, image) in enumerate(pairs)
            ],
            "logit_benign": np.zeros(len(pairs)),
        }
    )


def cam_tests(features, patients, scores=None):
    return statistics.cam_tests(features, predictions_of(features, scores), patients)


CONDITIONAL = ("score_correlation", "odds_ratio", "p_conditional", "p_conditional_adjusted")


def without_scores(rows):
    """What does not depend on the scores, which `predictions_of` draws."""
    return [{name: row[name] for name in row if name not in CONDITIONAL} for row in rows]


def by_feature(rows, share=0.5):
    return {row["feature"]: row for row in rows if row["threshold"] == share}


def normal(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, len(FEATURES)))


class TestMannWhitney:
    @given(samples, samples)
    @settings(deadline=None)
    def test_counts_pairs(self, malignant, benign):
        larger = sum(a > b for a in malignant for b in benign)
        smaller = sum(a < b for a in malignant for b in benign)
        pairs = len(malignant) * len(benign)
        found = mann_whitney(malignant, benign)
        assert found.u == larger + (pairs - larger - smaller) / 2
        assert found.effect_size == pytest.approx((larger - smaller) / pairs, abs=1e-12)
        assert 0 <= found.p <= 1

    def test_p_of_few_is_the_share_of_relabellings_as_extreme(self):
        values = [1.0, 2.5, 2.7, 3.1, 4.0, 4.4, 6.0, 7.5, 9.0]
        malignant = (3, 6, 7, 8)

        def u(chosen):
            rest = [value for place, value in enumerate(values) if place not in chosen]
            return sum(values[i] > b for i in chosen for b in rest)

        extreme = abs(u(malignant) - 10)
        drawn = [abs(u(chosen) - 10) >= extreme for chosen in combinations(range(9), 4)]
        rest = [value for place, value in enumerate(values) if place not in malignant]
        found = mann_whitney([values[i] for i in malignant], rest)
        assert found.p == pytest.approx(np.mean(drawn))
        assert (found.u, found.effect_size) == (18, pytest.approx(0.8))

    def test_p_of_many_is_normal_with_corrections(self):
        malignant, benign = [1, 2, 2, 3, 5, 5, 6, 8, 9, 9], [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 7]
        every = np.array(malignant + benign)
        n, m, b = 22, 10, 12
        ties = np.unique(every, return_counts=True)[1]
        sd = math.sqrt(m * b / 12 * (n + 1 - (ties**3 - ties).sum() / (n * (n - 1))))
        found = mann_whitney(malignant, benign)
        z = (abs(found.u - m * b / 2) - 0.5) / sd
        assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)))

    def test_sign_says_which_class_is_larger(self):
        assert mann_whitney([3, 4], [1, 2]).effect_size == 1
        assert mann_whitney([1, 2], [3, 4]).effect_size == -1
        assert mann_whitney([1, 2], [1, 2]).effect_size == 0

    def test_nothing_but_ties_is_no_difference(self):
        found = mann_whitney(np.ones(15), np.ones(20))
        assert (found.effect_size, found.p) == (0, 1)

    def test_without_a_class_it_is_undefined(self):
        for sides in (([], [1.0]), ([1.0], []), ([], [])):
            assert np.isnan(mann_whitney(*sides)).all()


class TestCamTests:
    def test_one_row_a_feature_and_share_in_order(self):
        label = [0, 1] * 6
        features = table(frame(normal(12), label, share=0.7), frame(normal(12, 1), label))
        rows = cam_tests(features, alone(features))
        assert [(row["threshold"], row["feature"]) for row in rows] == [
            (share, name) for share in (0.5, 0.7) for name in FEATURES
        ]
        assert all(row["family"] == FEATURES[row["feature"]] for row in rows)
        assert {(row["study_id"], row["architecture"]) for row in rows} == {("s", "resnet18")}

    def test_figures_of_one_feature(self):
        features = table(frame([1, 2, 3, 4, 5, 60], [0, 0, 1, 0, 1, 1]))
        for row in cam_tests(features, alone(features)):
            assert row["statistic"] == 8
            assert row["effect_size"] == pytest.approx(7 / 9)
            assert row["p"] == pytest.approx(4 / 20)
            assert row["n"] == 6
            assert (row["median_benign"], row["median_malignant"]) == (2, 5)

    def test_holm_is_over_the_features_of_each_share(self):
        label = [0, 1] * 15
        features = table(*(frame(normal(30, k), label, share=s) for k, s in enumerate((0.3, 0.5))))
        for share in (0.3, 0.5):
            rows = by_feature(cam_tests(features, alone(features)), share).values()
            assert len(rows) == len(FEATURES)
            assert [r["p_adjusted"] for r in rows] == holm([r["p"] for r in rows])

    def test_splits_are_averaged_before_anything_is_tested(self):
        label = [0, 0, 0, 1, 1, 1]
        first, second = frame([1, 2, 3, 4, 5, 6], label), frame([9, 2, 3, 4, 5, 6], label, split=1)
        features = table(first, second)
        row = cam_tests(features, alone(features))[0]
        assert row["n"] == 6
        assert row["statistic"] == 7.5  # image 0 is worth 5: above 4, tied with 5, below 6
        assert row["median_benign"] == 3

    def test_splits_that_lack_an_image_or_a_value_do_not_count_for_it(self):
        label = [0, 0, 1, 1]
        first = frame([1, NAN, 3, 4], label)
        second = frame([7, NAN, NAN, 8], label, split=1)[1:]
        rows = cam_tests(table(first, second), alone(table(first)))
        for row in rows:
            assert row["n"] == 3
            assert (row["median_benign"], row["median_malignant"]) == (1, 4.5)

    def test_standing_in_many_test_parts_is_no_evidence(self):
        label = [0, 1] * 10
        values = normal(20)
        once = table(frame(values, label))
        often = table(*(frame(values, label, split=k) for k in range(7)))
        found = (without_scores(cam_tests(each, alone(each))) for each in (often, once))
        assert next(found) == next(found)

    def test_copies_of_a_patients_image_are_no_evidence(self):
        label = np.array([0, 1] * 10)
        values = normal(20)
        single = table(frame(values, label))
        copies = np.repeat(np.arange(20), 4)
        ids = [f"c{k:03}" for k in range(80)]
        fourfold = table(frame(values[copies], label[copies], ids=ids))
        patients = {name: f"p{copy}" for name, copy in zip(ids, copies, strict=True)}
        found = without_scores(cam_tests(fourfold, patients))
        assert found == without_scores(cam_tests(single, alone(single)))

    def test_a_patients_smallest_id_with_a_value_is_taken(self):
        label = [0, 1, 0, 1, 1]
        values = np.array([NAN, 20.0, 30, 4, 50])[:, None] * np.ones(len(FEATURES))
        values[0, 1] = 99  # the second feature is defined for the patient's first image
        features = table(frame(values, label, ids=["a", "b", "c", "d", "e"]))
        patients = {"a": "p", "b": None, "c": "p", "d": "q", "e": "q"}
        found = [by_feature(cam_tests(features, patients))[name] for name in list(FEATURES)[:2]]
        assert [row["n"] for row in found] == [3, 3]
        assert [row["median_benign"] for row in found] == [30, 99]
        assert [row["median_malignant"] for row in found] == [12, 12]

    def test_an_undefined_feature_is_not_tested_and_not_counted_by_holm(self):
        values = normal(20)
        values[1::2, 5] += 3
        values[:, 0] = NAN
        values[::2, 1] = NAN  # no benign one left
        features = table(frame(values, [0, 1] * 10))
        rows = list(by_feature(cam_tests(features, alone(features))).values())
        for row, n in zip(rows[:2], (0, 10), strict=True):
            assert row["n"] == n
            assert math.isnan(row["p"])
            assert math.isnan(row["p_adjusted"])
            assert math.isnan(row["median_benign"])
        least = min(row["p"] for row in rows[2:])
        assert min(row["p_adjusted"] for row in rows[2:]) == pytest.approx(least * (len(rows) - 2))

    def test_order_of_rows_changes_no_bit(self, monkeypatch):
        monkeypatch.setattr(families, "REPEATS", 1)
        label = [0, 1, 1] * 10
        parts = pd.concat(frame(normal(30, k), label, split=k) for k in range(3))
        patients = {name: f"p{k // 2}" for k, name in enumerate(sorted(set(parts["image_id"])))}
        shuffled = parts.sample(frac=1, random_state=1)
        assert repr(cam_tests(table(shuffled), patients)) == repr(cam_tests(table(parts), patients))
        found = [family_auc(table(rows), patients, 3) for rows in (shuffled, parts)]
        assert repr(found[0]) == repr(found[1])

    def test_finds_what_differs_and_with_which_sign(self):
        values, label = normal(80), np.array([0, 1] * 40)
        values[label == 1, 2] -= 2
        features = table(frame(values, label))
        rows = by_feature(cam_tests(features, alone(features)))
        assert [name for name in FEATURES if rows[name]["p_adjusted"] < 0.05] == ["circularity"]
        assert rows["circularity"]["effect_size"] < -0.5

    def test_without_rows_there_are_none(self):
        assert cam_tests(TABLES["cam_features"].schema.empty_table(), {}) == []
        assert family_auc(TABLES["cam_features"].schema.empty_table(), {}, 0) == []

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"architecture": ["resnet18", "vgg16"]}, "several studies or architectures"),
            ({"study_id": ["s", "t"]}, "several studies or architectures"),
            ({"image_id": ["a", "a"]}, "an image twice in a split"),
            ({"label": [0, None]}, "an image without a label"),
            ({"image_id": ["a", "a"], "split": [0, 1]}, "an image with two labels"),
            ({"image_id": ["a", "z"]}, "not among the patients"),
        ],
    )
    def test_refuses_what_it_would_misread(self, change, fault):
        features = table(frame([1, 2], [0, 1], ids=["a", "b"]).assign(**change))
        patients = {"a": None, "b": None}
        for act in (
            lambda: cam_tests(features, patients),
            lambda: family_auc(features, patients, 0),
        ):
            with pytest.raises(ValueError, match=fault):
                act()

    @pytest.mark.slow
    def test_under_the_null_p_is_uniform(self):
        """Images of a patient nearly alike, seen in three splits: naive tests reject far more."""
        least, below, count = [], 0, 0
        for seed in range(150):
            generator = np.random.default_rng(seed)
            patient = np.repeat(np.arange(40), 3)
            label = (np.arange(40) % 3 == 0).astype(int)[patient]
            values = generator.normal(size=(40, len(FEATURES)))[patient]
            parts = [
                frame(values + generator.normal(0, 0.2, values.shape), label, split=k)
                for k in range(3)
            ]
            names = {f"i{k:03}": f"p{of}" for k, of in enumerate(patient)}
            rows = cam_tests(table(*parts), names)
            below += sum(row["p"] < 0.05 for row in rows)
            count += len(rows)
            least.append(min(row["p_adjusted"] for row in rows))
        assert below / count == pytest.approx(0.05, abs=0.015)
        assert np.mean(np.array(least) < 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


def finding_rows(by_class, given, family="shape", share=0.5, architecture="resnet18", effect=0.4):
    """Rows of `cam_tests` for the first shape features, with these adjusted P values."""
    return [
        {
            "architecture": architecture,
            "threshold": share,
            "feature": name,
            "family": family,
            "effect_size": effect,
            "p": p / 9,
            "p_adjusted": p,
            "odds_ratio": 1 + effect,
            "p_conditional": q / 9,
            "p_conditional_adjusted": q,
            "n": 97,
        }
        for name, p, q in zip(SHAPE, by_class, given, strict=False)
    ]


HOW = "(Holm-adjusted P < 0.05, share 0.5, n = 97)"


class TestShapeFinding:
    def test_a_difference_that_follows_from_the_score_is_told_from_one_that_does_not(self):
        rows = finding_rows([0.2, 0.03, 0.0004], [0.9, 0.85, 0.7], effect=-0.4)
        assert shape_finding(rows) == (
            f"ResNet18: shape features that differ by class {HOW}: "
            "circularity (smaller in malignant, P < 0.001); "
            "perimeter (smaller in malignant, P = 0.03). "
            "Given the score none is shown to differ (smallest adjusted P 0.7)."
        )

    def test_what_differs_given_the_score_is_named_with_its_own_direction(self):
        found = shape_finding(finding_rows([0.2, 0.05], [0.6, 0.01]))
        assert found == (
            f"ResNet18: no shape feature is shown to differ by class {HOW}. "
            "Given the score these still differ: perimeter (larger in malignant, P = 0.01)."
        )

    def test_it_neither_confirms_nor_refutes(self):
        for p in (0.001, 0.5, NAN):
            found = shape_finding(finding_rows([p], [p]))
            assert "confirm" not in found
            assert "refute" not in found

    def test_undefined_everywhere_is_said(self):
        found = shape_finding(finding_rows([NAN, NAN], [NAN, NAN]))
        assert found == (
            "ResNet18: no shape feature is defined in both classes, so that none can be tested."
        )

    def test_a_difference_that_cannot_be_tested_given_the_score_says_so(self):
        found = shape_finding(finding_rows([0.01], [NAN]))
        assert found.endswith("P = 0.01). Given the score none can be tested.")

    def test_other_families_and_shares_have_no_say(self):
        rows = finding_rows([0.2], [0.2])
        rows += finding_rows([0.001], [0.001], family="texture")
        rows += finding_rows([0.001], [0.001], share=0.3)
        assert "no shape feature is shown to differ by class" in shape_finding(rows)
        assert "these still differ: area" in shape_finding(rows, share=0.3)

    @pytest.mark.parametrize(
        "rows",
        [
            [],
            finding_rows([0.1], [0.1], share=0.3),
            finding_rows([0.1], [0.1]) + finding_rows([0.1], [0.1], architecture="vgg16"),
        ],
    )
    def test_speaks_of_one_architecture(self, rows):
        with pytest.raises(ValueError, match="one architecture"):
            shape_finding(rows)

    def test_maps_whose_form_is_the_score_s_differ_by_class_and_not_given_the_score(self):
        """The claim that holds for any classifier: each feature is the score, and some noise."""
        generator, label = np.random.default_rng(4), np.array([0, 1] * 60)
        score = generator.normal(size=120) + 1.5 * label
        values = score[:, None] + generator.normal(0, 0.3, (120, len(FEATURES)))
        features = table(frame(values, label))
        scores = dict(zip(features["image_id"].to_pylist(), score, strict=True))
        found = shape_finding(cam_tests(features, alone(features), scores))
        by_class, given = found.split(" Given the score ")
        assert by_class.count("larger in malignant, P < 0.001") == len(SHAPE)
        assert given.startswith("none is shown to differ")
        rows = cam_tests(features, alone(features), scores)
        assert min(row["score_correlation"] for row in rows) > 0.8

    def test_what_the_score_does_not_know_stays(self):
        values, label = normal(120), np.array([0, 1] * 60)
        values[label == 1, 2] -= 2
        features = table(frame(values, label))
        score = np.random.default_rng(3).normal(size=120) + label
        scores = dict(zip(features["image_id"].to_pylist(), score, strict=True))
        found = shape_finding(cam_tests(features, alone(features), scores))
        assert "differ: circularity (smaller in malignant, P < 0.001)." in found
