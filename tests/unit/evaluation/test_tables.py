import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from thyro_core.config import StudyConfig, job_seed
from thyro_core.evaluation.bounded import newcombe_interval, wilson_interval
from thyro_core.evaluation.delong import delong
from thyro_core.evaluation.metrics import METRICS, UndefinedMetricWarning, metrics
from thyro_core.evaluation.tables import (
    COUNTS,
    POOLED_PREFIX,
    comparisons_table,
    image_level,
    metrics_table,
)
from thyro_core.evaluation.uncertainty import (
    holm,
    mean_interval,
    mean_test_train_ratio,
    metric_intervals,
    nadeau_bengio,
)
from thyro_core.tables.schemas import TABLES, rows_to_table

STUDY = "s0123456789abcdef"
MALIGNANT, BENIGN, TRAIN = 27, 124, 357
RATIO = (MALIGNANT + BENIGN) / TRAIN
GOLDEN = StudyConfig(resamples=100)
TWO = StudyConfig(architectures=("vgg16", "resnet18"), resamples=100, seed=7, threshold=0.6)
THREE = StudyConfig(architectures=("resnet18", "vgg16", "alexnet"), resamples=100)


def image(split, place):
    return f"{split:02}-{place:04}"


def split_rows(split, labels, n_train, patients=None, groups=None):
    """Rows of `splits`: a test part with these labels, and a training part."""
    rows = []
    for place in range(len(labels) + n_train):
        test = place < len(labels)
        rows.append(
            {
                "study_id": STUDY,
                "split": split,
                "image_id": image(split, place),
                "patient_id": patients[place] if patients and test else None,
                "group_id": groups[place] if groups and test else f"g{split}-{place}",
                "label": int(labels[place]) if test else place % 2,
                "role": "test" if test else "train",
                "times_tested": int(test),
                "test_set": split,
            }
        )
    return rows


def prediction_rows(split, architecture, labels, probabilities, patients=None):
    return [
        {
            "study_id": STUDY,
            "split": split,
            "architecture": architecture,
            "image_id": image(split, place),
            "patient_id": patients[place] if patients else None,
            "label": int(label),
            "logit_benign": 0.0,
            "logit_malignant": 0.0,
            "prob_malignant": float(probability),
        }
        for place, (label, probability) in enumerate(zip(labels, probabilities, strict=True))
    ]


def paper_part(missed, false):
    """Labels and probabilities of 27 malignant and 124 benign with so many errors."""
    labels = np.repeat([1, 0], [MALIGNANT, BENIGN])
    probability = np.linspace(0.55, 0.95, labels.size) * labels
    probability += np.linspace(0.05, 0.45, labels.size) * (1 - labels)
    probability[:missed] = 0.2
    probability[MALIGNANT : MALIGNANT + false] = 0.7
    return labels, probability


# 6 missed and 18 false alarms in all, the false alarms uneven over the splits.
MISSED = (1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
FALSE = (9, 5, 2, 1, 1, 0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def golden():
    splits, predictions = [], []
    for split, (missed, false) in enumerate(zip(MISSED, FALSE, strict=True)):
        labels, probability = paper_part(missed, false)
        splits += split_rows(split, labels, TRAIN)
        predictions += prediction_rows(split, "resnet18", labels, probability)
    return rows_to_table("predictions", predictions), rows_to_table("splits", splits)


@pytest.fixture(scope="module")
def golden_metrics(golden):
    return metrics_table(STUDY, *golden, GOLDEN)


def noisy_study(architectures, splits=5, seed=0, skip=()):
    """Predictions with ties and signal; some images share a patient, some have none."""
    generator = np.random.default_rng(seed)
    labels = np.array([1] * 8 + [0] * 22)
    patients = [None if i % 5 == 0 else f"p{i // 2}" for i in range(30)]
    groups = [f"g{i // 10}" for i in range(30)]
    split_table, predictions = [], []
    for split in range(splits):
        split_table += split_rows(split, labels, 50 + 10 * split, patients, groups)
        for architecture in architectures:
            noise = generator.normal(size=30)
            probability = np.round(1 / (1 + np.exp(-(2.5 * labels - 1.2 + noise))), 2)
            if (split, architecture) not in skip:
                predictions += prediction_rows(split, architecture, labels, probability, patients)
    return rows_to_table("predictions", predictions), rows_to_table("splits", split_table)


@pytest.fixture(scope="module")
def two_studied():
    """Predictions, splits and their `metrics`."""
    study = noisy_study(TWO.architectures)
    return *study, metrics_table(STUDY, *study, TWO)


@pytest.fixture(scope="module")
def three_studied():
    """Predictions, splits and their `comparisons`."""
    study = noisy_study(THREE.architectures)
    return *study, comparisons_table(STUDY, *study, THREE)


def rows_of(table, **cells):
    """Rows with these cells, of `metrics` those by image unless another level is asked for."""
    if "level" in table.column_names:
        cells = {"level": "image"} | cells
    return [row for row in table.to_pylist() if all(row[k] == v for k, v in cells.items())]


def only(table, **cells):
    (row,) = rows_of(table, **cells)
    return row


def part_of(predictions, split, architecture):
    rows = rows_of(predictions, split=split, architecture=architecture)
    label = np.array([row["label"] for row in rows])
    return label, np.array([row["prob_malignant"] for row in rows])


def as_bytes(table):
    """Everything that a file of the table would hold, NaN included."""
    assert table.schema.equals(TABLES[table.schema.metadata[b"table"].decode()].schema)
    return json.dumps(table.to_pylist())


class TestThePaper:
    """Ten test parts whose pooled counts are TP 264, FN 6, FP 18, TN 1222."""

    def test_pooled_counts(self, golden_metrics):
        found = [only(golden_metrics, metric=POOLED_PREFIX + name)["value"] for name in COUNTS]
        assert dict(zip(COUNTS, found, strict=True)) == {
            "true_positives": 264,
            "false_positives": 18,
            "true_negatives": 1222,
            "false_negatives": 6,
        }

    def test_pooled_ratios(self, golden_metrics):
        def pooled(name):
            return only(golden_metrics, metric=POOLED_PREFIX + name)["value"]

        assert round(pooled("recall"), 4) == 0.9778
        assert round(pooled("accuracy"), 4) == 0.9841
        assert round(pooled("f1"), 4) == 0.9565
        assert round(pooled("precision"), 3) == 0.936
        assert pooled("precision") == 264 / 282

    def test_mean_precision_is_not_the_pooled_one(self, golden_metrics):
        mean = only(golden_metrics, metric="precision", split=None)
        by_hand = [(27 - m) / (27 - m + f) for m, f in zip(MISSED, FALSE, strict=True)]
        assert mean["value"] == pytest.approx(np.mean(by_hand))
        assert mean["sd"] == pytest.approx(np.std(by_hand, ddof=1))
        assert round(mean["value"], 3) == 0.944

    def test_mean_recall_is_the_pooled_one(self, golden_metrics):
        """Every split has as many malignant images, so for recall the two agree."""
        mean = only(golden_metrics, metric="recall", split=None)
        assert mean["value"] == pytest.approx(264 / 270)

    def test_interval_over_splits_is_the_corrected_one(self, golden_metrics):
        values = [row["value"] for row in rows_of(golden_metrics, metric="accuracy")][:10]
        row = only(golden_metrics, metric="accuracy", split=None)
        # 2.262157: the table's 97.5 % point of t with 9 df.
        half = 2.262157 * np.std(values, ddof=1) * math.sqrt(1 / 10 + 151 / 357)
        mean = row["value"]
        for end in (row["ci_low"], row["ci_high"]):
            wider = half * math.sqrt(end * (1 - end) / (mean * (1 - mean)))
            assert abs(end - mean) == pytest.approx(wider, rel=1e-5)
        assert row["ci_low"] < mean < row["ci_high"]

    def test_sizes(self, golden_metrics):
        split = only(golden_metrics, metric="auc", split=3)
        assert (split["n"], split["n_positive"]) == (151, 27)
        mean = only(golden_metrics, metric="auc", split=None)
        assert (mean["n"], mean["n_positive"]) == (10, None)
        pooled = only(golden_metrics, metric="pooled_auc")
        assert (pooled["n"], pooled["n_positive"]) == (1510, 270)


class TestMetricsTable:
    config = TWO

    @pytest.fixture
    def study(self, two_studied):
        return two_studied[:2]

    @pytest.fixture
    def table(self, two_studied):
        return two_studied[2]

    def test_which_rows_in_which_order(self, table):
        names = ("architecture", "level", "metric", "split")
        numbers = tuple(range(5))
        assert [tuple(row[name] for name in names) for row in table.to_pylist()] == [
            (architecture, level, *rest)
            for architecture in self.config.architectures
            for level in ("image", "patient")
            for rest in (
                *((name, split) for name in METRICS for split in (*numbers, None)),
                *((name, split) for name in COUNTS for split in numbers),
                *((POOLED_PREFIX + name, None) for name in (*METRICS, *COUNTS)),
            )
        ]
        assert set(table["study_id"].to_pylist()) == {STUDY}

    def test_values_of_a_split(self, study, table):
        label, probability = part_of(study[0], 2, "resnet18")
        for name, value in metrics(label, probability, 0.6).items():
            row = only(table, split=2, architecture="resnet18", metric=name)
            assert row["value"] == pytest.approx(value)
            assert row["sd"] is None

    def test_counts_of_a_split(self, study, table):
        label, probability = part_of(study[0], 1, "vgg16")
        called = probability >= 0.6
        cells = (called & (label == 1), called & (label == 0), ~called & (label == 0))
        for name, cell in zip(COUNTS, (*cells, ~called & (label == 1)), strict=True):
            row = only(table, split=1, architecture="vgg16", metric=name)
            assert row["value"] == cell.sum()
            assert row["sd"] is row["ci_low"] is row["ci_high"] is None
            assert (row["n"], row["n_positive"]) == (30, 8)

    def test_intervals_are_over_patients_else_groups(self, study, table):
        label, probability = part_of(study[0], 3, "vgg16")
        cluster = [f"g{i // 10}" if i % 5 == 0 else f"p{i // 2}" for i in range(30)]
        expected = metric_intervals(
            label, probability, cluster, 0.6, resamples=100, seed=job_seed(7, 3, "vgg16")
        )
        for name in METRICS:
            row = only(table, split=3, architecture="vgg16", metric=name)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected[name], nan_ok=True)

    def test_over_splits(self, table):
        # Test 30 of 50, 60, 70, 80 and 90 training images.
        ratio = np.mean([30 / n for n in (50, 60, 70, 80, 90)])
        for name in METRICS:
            values = [
                only(table, split=split, architecture="vgg16", metric=name)["value"]
                for split in range(5)
            ]
            row = only(table, split=None, architecture="vgg16", metric=name)
            expected = mean_interval(values, ratio, patients=(1, 1) if name == "auc" else None)
            if name == "ece":
                expected = expected._replace(low=math.nan, high=math.nan)
            found = (row["value"], row["sd"], row["ci_low"], row["ci_high"], row["n"])
            assert found == pytest.approx(tuple(expected), nan_ok=True)

    def test_splits_that_are_all_perfect_are_no_certainty(self):
        """Two patients with 4 malignant images, three groups with 6 benign ones."""
        labels = np.array([1] * 4 + [0] * 6)
        patients = ["a", "a", "b", "b", *[None] * 6]
        groups = ["a", "a", "b", "b", *(f"g{i // 2}" for i in range(6))]
        splits = [row for s in range(10) for row in split_rows(s, labels, 20, patients, groups)]
        rows = [
            row
            for s in range(10)
            for row in prediction_rows(s, "resnet18", labels, 0.2 + 0.6 * labels, patients)
        ]
        table = metrics_table(
            STUDY, rows_to_table("predictions", rows), rows_to_table("splits", splits), GOLDEN
        )
        expected = {
            "auc": newcombe_interval(1.0, 2, 3),
            "accuracy": wilson_interval(1.0, 5),
            "recall": wilson_interval(1.0, 2),
            "specificity": wilson_interval(1.0, 3),
        }
        for name, interval in expected.items():
            row = only(table, metric=name, split=None)
            assert (row["value"], row["sd"]) == (1.0, 0.0)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(interval)

    def test_a_precision_of_one_in_all_splits_rests_on_those_that_are_called(self):
        """One of five malignant patients is called, and nobody else: of five nothing is known."""
        labels = np.array([1] * 5 + [0] * 5)
        patients = [f"p{i}" for i in range(10)]
        probability = np.where(np.arange(10) == 0, 0.9, 0.1)
        splits = [row for s in range(6) for row in split_rows(s, labels, 20, patients, patients)]
        rows = [
            row
            for s in range(6)
            for row in prediction_rows(s, "resnet18", labels, probability, patients)
        ]
        table = metrics_table(
            STUDY, rows_to_table("predictions", rows), rows_to_table("splits", splits), GOLDEN
        )
        row = only(table, metric="precision", split=None)
        assert (row["value"], row["sd"]) == (1.0, 0.0)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson_interval(1.0, 1))
        row = only(table, metric="npv", split=None)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson_interval(5 / 9, 9))

    def test_a_patient_is_one_with_the_mean_of_its_images(self, study, table):
        label, probability = part_of(study[0], 1, "vgg16")
        names = [f"g{i // 10}" if i % 5 == 0 else f"p{i // 2}" for i in range(30)]
        units = sorted(set(names))
        places = [[i for i, name in enumerate(names) if name == unit] for unit in units]
        ill = np.array([max(label[i] for i in of) for of in places])
        mean = np.array([sum(probability[i] for i in of) / len(of) for of in places])
        expected = metrics(ill, mean, 0.6)
        intervals = metric_intervals(
            ill, mean, units, 0.6, resamples=100, seed=job_seed(7, 1, "vgg16")
        )
        assert len(units) == 18
        for name in METRICS:
            row = only(table, level="patient", split=1, architecture="vgg16", metric=name)
            assert row["value"] == pytest.approx(expected[name])
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(intervals[name], nan_ok=True)
            assert (row["n"], row["n_positive"]) == (18, ill.sum())

    def test_nodules_of_a_patient_are_units_and_no_independent_ones(self, study):
        """Two images of each patient are of two nodules; the groups' others are one each."""
        places = range(30)
        nodules = {image(split, i): str(i % 2) for split in range(5) for i in places if i % 5}
        found = metrics_table(STUDY, *study, self.config, nodules=nodules)
        label, probability = part_of(study[0], 0, "resnet18")
        names = [f"g{i // 10}/" if i % 5 == 0 else f"p{i // 2}/{i % 2}" for i in places]
        units = sorted(set(names))
        of = [[i for i, name in enumerate(names) if name == unit] for unit in units]
        mean = np.array([np.mean(probability[i]) for i in of])
        ill = np.array([label[i].max() for i in of])
        patients = [unit.split("/")[0] for unit in units]
        low, _ = metric_intervals(
            ill, mean, patients, 0.6, resamples=100, seed=job_seed(7, 0, "resnet18")
        )["auc"]
        row = only(found, level="nodule", split=0, architecture="resnet18", metric="auc")
        assert row["n"] == len(units) == 27
        assert row["value"] == pytest.approx(metrics(ill, mean, 0.6)["auc"])
        assert row["ci_low"] == pytest.approx(low)
        assert {*found["level"].to_pylist()} == {"image", "patient", "nodule"}

    def test_a_mixed_patient_is_malignant(self):
        splits = split_rows(0, [1, 0, 0, 1], 10, ["a", "a", "b", "c"])
        rows = prediction_rows(0, "resnet18", [1, 0, 0, 1], [0.9, 0.3, 0.2, 0.4], list("aabc"))
        found = metrics_table(
            STUDY, rows_to_table("predictions", rows), rows_to_table("splits", splits), GOLDEN
        )
        row = only(found, level="patient", split=0, metric="recall")
        assert (row["value"], row["n"], row["n_positive"]) == (0.5, 3, 2)

    def test_single_images_have_no_other_level_and_unknown_patients_are_groups(self, golden):
        alone = metrics_table(STUDY, *golden, GOLDEN)
        assert {*alone["level"].to_pylist()} == {"image"}
        splits = split_rows(0, [1, 0, 0], 10, groups=["a", "b", "b"])
        rows = prediction_rows(0, "resnet18", [1, 0, 0], [0.9, 0.3, 0.2])
        found = metrics_table(
            STUDY, rows_to_table("predictions", rows), rows_to_table("splits", splits), GOLDEN
        )
        assert {*found["level"].to_pylist()} == {"image", "group"}

    def test_only_images_are_read_as_images(self, table):
        chosen = image_level(table)
        assert {*chosen["level"].to_pylist()} == {"image"}
        older = table.set_column(
            table.column_names.index("level"), "level", pa.nulls(table.num_rows, pa.string())
        )
        assert image_level(older).num_rows == table.num_rows

    def test_pooled_has_a_value_only(self, study, table):
        labels, probabilities = zip(*(part_of(study[0], s, "vgg16") for s in range(5)), strict=True)
        expected = metrics(np.concatenate(labels), np.concatenate(probabilities), 0.6)
        for name in METRICS:
            row = only(table, architecture="vgg16", metric=POOLED_PREFIX + name)
            assert row["value"] == pytest.approx(expected[name])
            assert row["sd"] is row["ci_low"] is row["ci_high"] is None
            assert (row["n"], row["n_positive"]) == (150, 40)

    def test_training_parts_add_rows_and_change_no_other(self, study, table):
        aucs = {(split, "vgg16"): 0.9 + 0.02 * split for split in range(5)}
        aucs[3, "resnet18"] = 1.0  # one split of five: nothing is said of resnet18
        found = metrics_table(STUDY, *study, self.config, train_aucs=aucs)
        is_new = pc.field("metric").isin(["train_auc", "optimism"])
        assert as_bytes(found.filter(~is_new)) == as_bytes(table)
        new = found.filter(is_new)
        assert {*new["architecture"].to_pylist()} == {"vgg16"}
        assert {*new["level"].to_pylist()} == {"image"}
        leads = []
        for split in range(5):
            test = only(table, level="image", split=split, architecture="vgg16", metric="auc")
            row = only(new, split=split, metric="optimism")
            leads.append(aucs[split, "vgg16"] - test["value"])
            assert row["value"] == pytest.approx(leads[-1])
            assert (row["ci_low"], row["ci_high"]) == (None, None)
            train = study[1].filter((pc.field("split") == split) & (pc.field("role") == "train"))
            assert row["n"] == train.num_rows
            assert row["n_positive"] == sum(train["label"].to_pylist())
        test = nadeau_bengio(leads, mean_test_train_ratio(study[1]))
        row = only(new, split=None, metric="optimism")
        expected = (test.mean, test.sd, test.ci_low, test.ci_high)
        assert (row["value"], row["sd"], row["ci_low"], row["ci_high"]) == pytest.approx(expected)
        assert only(new, split=None, metric="train_auc")["value"] == pytest.approx(0.94)

    def test_row_order_changes_no_byte(self, study, table):
        generator = np.random.default_rng(0)
        shuffled = [t.take(pa.array(generator.permutation(t.num_rows))) for t in study]
        assert as_bytes(metrics_table(STUDY, *shuffled, self.config)) == as_bytes(table)

    def test_other_splits_change_no_byte_of_a_split(self, study, table):
        chosen = study[0].filter(pc.field("split") == 2)
        alone = metrics_table(STUDY, chosen, study[1], self.config)
        assert as_bytes(alone.filter(pc.field("split") == 2)) == as_bytes(
            table.filter(pc.field("split") == 2)
        )
        mean = only(alone, split=None, architecture="vgg16", metric="auc")
        assert mean["n"] == 1
        assert math.isnan(mean["sd"])

    def test_an_architecture_without_predictions_has_no_rows(self, study):
        chosen = study[0].filter(pc.field("architecture") == "resnet18")
        found = metrics_table(STUDY, chosen, study[1], self.config)
        assert set(found["architecture"].to_pylist()) == {"resnet18"}

    def test_nothing_predicted(self, study):
        found = metrics_table(STUDY, study[0].slice(0, 0), study[1], self.config)
        assert found.num_rows == 0
        assert found.schema.equals(TABLES["metrics"].schema)

    def test_an_undefined_metric_is_nan_and_leaves_the_mean(self):
        labels = np.array([1, 1, 0, 0, 0])
        scores = ([0.9, 0.2, 0.6, 0.1, 0.2], [0.3, 0.2, 0.1, 0.1, 0.4], [0.9, 0.8, 0.1, 0.2, 0.1])
        splits = [row for s in range(3) for row in split_rows(s, labels, 10)]
        rows = [row for s in range(3) for row in prediction_rows(s, "resnet18", labels, scores[s])]
        with pytest.warns(UndefinedMetricWarning, match="precision is undefined"):
            table = metrics_table(
                STUDY, rows_to_table("predictions", rows), rows_to_table("splits", splits), GOLDEN
            )
        assert math.isnan(only(table, metric="precision", split=1)["value"])
        mean = only(table, metric="precision", split=None)
        assert (mean["value"], mean["n"]) == (0.75, 2)


class TestRefusals:
    config = StudyConfig(architectures=("resnet18", "vgg16"), resamples=100)

    @pytest.fixture
    def study(self):
        return noisy_study(("resnet18", "vgg16"), splits=2)

    @pytest.mark.parametrize("call", [metrics_table, comparisons_table])
    def test_unlabelled(self, study, call):
        rows = study[0].to_pylist()
        rows[3]["label"] = None
        with pytest.raises(ValueError, match="1 rows have no label"):
            call(STUDY, rows_to_table("predictions", rows), study[1], self.config)

    @pytest.mark.parametrize("call", [metrics_table, comparisons_table])
    def test_incomplete_split(self, study, call):
        expected = "split 0, resnet18: 29 predictions are not, one for one, of the split's 30 test"
        with pytest.raises(ValueError, match=expected):
            call(STUDY, study[0].slice(1), study[1], self.config)

    def test_doubled_prediction(self, study):
        doubled = pa.concat_tables([study[0], study[0].slice(0, 1)])
        with pytest.raises(ValueError, match="31 predictions"):
            metrics_table(STUDY, doubled, study[1], self.config)

    def test_label_unlike_the_splits(self, study):
        rows = study[0].to_pylist()
        rows[0]["label"] = 1 - rows[0]["label"]
        with pytest.raises(ValueError, match="and their labels"):
            metrics_table(STUDY, rows_to_table("predictions", rows), study[1], self.config)

    def test_training_image_predicted(self, study):
        rows = study[1].to_pylist()
        next(row for row in rows if row["role"] == "test")["role"] = "train"
        with pytest.raises(ValueError, match=r"30 predictions .* 29 test images"):
            metrics_table(STUDY, study[0], rows_to_table("splits", rows), self.config)

    def test_split_unknown(self, study):
        known = study[1].filter(pc.field("split") == 0)
        with pytest.raises(ValueError, match=r"split 1, resnet18: 30 predictions .* 0 test"):
            metrics_table(STUDY, study[0], known, self.config)

    def test_architecture_unknown(self, study):
        config = StudyConfig(architectures=("resnet18",), resamples=100)
        with pytest.raises(ValueError, match="vgg16 not among the config's architectures"):
            metrics_table(STUDY, *study, config)


class TestComparisons:
    config = THREE

    @pytest.fixture
    def study(self, three_studied):
        return three_studied[:2]

    @pytest.fixture
    def table(self, three_studied):
        return three_studied[2]

    def test_which_rows_in_which_order(self, table):
        keys = [
            (r["architecture"], r["baseline"], r["metric"], r["split"], r["test"])
            for r in table.to_pylist()
        ]
        assert keys == [
            ("resnet18", baseline, name, split, "nadeau_bengio" if split is None else "delong")
            for baseline in ("vgg16", "alexnet")
            for name in METRICS
            for split in ((*range(5), None) if name == "auc" else (None,))
        ]
        assert set(table["study_id"].to_pylist()) == {STUDY}

    def test_over_splits(self, study, table):
        ratio = np.mean([30 / n for n in (50, 60, 70, 80, 90)])
        for name in METRICS:
            ours, theirs = (
                [metrics(*part_of(study[0], s, architecture), 0.5)[name] for s in range(5)]
                for architecture in ("resnet18", "alexnet")
            )
            row = only(table, baseline="alexnet", metric=name, split=None)
            assert row["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
            plain = stats.ttest_rel(ours, theirs).statistic
            assert row["t"] == pytest.approx(plain / math.sqrt(1 + 5 * ratio))
            test = nadeau_bengio(np.subtract(ours, theirs), ratio)
            found = (row["p"], row["ci_low"], row["ci_high"])
            assert found == pytest.approx((test.p, test.ci_low, test.ci_high))
            assert row["n"] == 5

    def test_within_a_split(self, study, table):
        label, ours = part_of(study[0], 2, "resnet18")
        _, theirs = part_of(study[0], 2, "vgg16")
        cluster = [f"g{i // 10}" if i % 5 == 0 else f"p{i // 2}" for i in range(30)]
        test = delong(label, ours, theirs, cluster)
        row = only(table, baseline="vgg16", split=2)
        found = [row[name] for name in ("difference", "t", "p", "ci_low", "ci_high")]
        assert found == pytest.approx([test.difference, test.z, test.p, test.ci_low, test.ci_high])
        assert row["n"] == 30

    def test_one_family_a_question(self, table):
        for row in table.to_pylist():
            question = "auc" if row["metric"] == "auc" else "other_metrics"
            expected = question if row["split"] is None else "auc_within_splits"
            assert row["family"] == expected

    @pytest.mark.parametrize(
        ("family", "tests"), [("auc", 2), ("other_metrics", 18), ("auc_within_splits", 10)]
    )
    def test_holm_over_a_family(self, table, family, tests):
        rows = rows_of(table, family=family)
        assert len(rows) == tests
        assert [r["p_adjusted"] for r in rows] == pytest.approx(
            holm([r["p"] for r in rows]), nan_ok=True
        )

    def test_row_order_changes_no_byte(self, study, table):
        generator = np.random.default_rng(0)
        shuffled = [t.take(pa.array(generator.permutation(t.num_rows))) for t in study]
        assert as_bytes(comparisons_table(STUDY, *shuffled, self.config)) == as_bytes(table)

    def test_only_splits_that_both_have(self, table):
        predictions, splits = noisy_study(
            THREE.architectures, skip={(0, "vgg16"), (3, "resnet18"), (1, "alexnet")}
        )
        found = comparisons_table(STUDY, predictions, splits, self.config)
        assert [r["split"] for r in rows_of(found, baseline="vgg16", metric="auc")] == [
            1,
            2,
            4,
            None,
        ]
        over = only(found, baseline="vgg16", metric="auc", split=None)
        shared = [only(table, baseline="vgg16", split=s)["difference"] for s in (1, 2, 4)]
        assert over["n"] == 3
        assert over["difference"] == pytest.approx(np.mean(shared))
        expected = nadeau_bengio(shared, np.mean([30 / 60, 30 / 70, 30 / 90]))
        assert (over["ci_low"], over["ci_high"]) == pytest.approx(
            (expected.ci_low, expected.ci_high)
        )
        # Three splits carry no test.
        assert np.isnan([over["t"], over["p"], over["p_adjusted"]]).all()

    def test_no_split_in_common(self):
        skip = {(0, "resnet18"), (1, "vgg16")}
        study = noisy_study(("resnet18", "vgg16"), splits=2, skip=skip)
        assert comparisons_table(STUDY, *study, self.config).num_rows == 0

    def test_without_the_first_architecture(self, study):
        rest = study[0].filter(pc.field("architecture") != "resnet18")
        assert comparisons_table(STUDY, rest, study[1], self.config).num_rows == 0

    def test_one_architecture(self, golden):
        config = StudyConfig(architectures=("resnet18",))
        found = comparisons_table(STUDY, *golden, config)
        assert found.num_rows == 0
        assert found.schema.equals(TABLES["comparisons"].schema)

    def test_the_same_predictions_have_no_spread_and_no_test(self):
        predictions, splits = noisy_study(("resnet18",))
        copy = [row | {"architecture": "vgg16"} for row in predictions.to_pylist()]
        both = pa.concat_tables([predictions, rows_to_table("predictions", copy)])
        found = comparisons_table(STUDY, both, splits, self.config).to_pylist()
        assert len(found) == len(METRICS) + 5
        assert {r["difference"] for r in found} == {0}
        assert np.isnan([[r["t"], r["p"], r["p_adjusted"]] for r in found]).all()
