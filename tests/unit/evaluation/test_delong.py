import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.support.auc_variance import auc_variance
from thyro_core.evaluation.bounded import newcombe_interval
from thyro_core.evaluation.delong import auc_interval, delong


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
        assert here.z == pytest.approx(-there.z, nan_ok=True)
        assert here.p == pytest.approx(there.p, nan_ok=True)
        ends = (here.ci_low, here.ci_high)
        assert ends == pytest.approx((-there.ci_high, -there.ci_low), nan_ok=True)

    @given(two_scores())
    def test_the_same_ranking_has_no_spread_and_no_test(self, case):
        label, a, _ = case
        found = delong(label, a, a**2 / 2)
        assert found.difference == 0.0
        assert np.isnan(found[3:]).all()

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
        assert found.difference == 1.0
        assert np.isnan(found[3:]).all()

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


def obuchowski_1997(label, cluster, *probabilities):
    """AUCs and their covariance from sums over patients, Obuchowski 1997, written out."""
    patients = sorted(set(cluster))
    ill = {p for p, y in zip(cluster, label, strict=True) if y == 1}
    well = {p for p, y in zip(cluster, label, strict=True) if y == 0}
    m, n = (label == 1).sum(), (label == 0).sum()
    aucs, sums = [], []
    for probability in probabilities:
        x, y = probability[label == 1], probability[label == 0]
        psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
        auc = psi.mean()
        v10, v01 = psi.mean(axis=1), psi.mean(axis=0)
        of_ill, of_well = cluster[label == 1], cluster[label == 0]
        aucs.append(auc)
        sums.append(
            [
                [(v10[of_ill == p] - auc).sum() for p in patients],
                [(v01[of_well == p] - auc).sum() for p in patients],
            ]
        )
    sums = np.array(sums)  # (classifiers, class, patients)
    i10, i01, i = len(ill), len(well), len(patients)
    covariance = np.zeros((len(aucs), len(aucs)))
    for r in range(len(aucs)):
        for s in range(len(aucs)):
            s10 = i10 / ((i10 - 1) * m) * (sums[r, 0] * sums[s, 0]).sum()
            s01 = i01 / ((i01 - 1) * n) * (sums[r, 1] * sums[s, 1]).sum()
            s11 = i / (i - 1) * (sums[r, 0] * sums[s, 1]).sum()
            s11_turned = i / (i - 1) * (sums[s, 0] * sums[r, 1]).sum()
            covariance[r, s] = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
    return np.array(aucs), covariance


def clustered_sample(seed, ill=7, well=20, images=3, mixed=True, signal=1.5):
    """Labels, two classifiers' probabilities and patients; some patients have both classes."""
    generator = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(ill + well), images)
    label = (cluster < ill).astype(int)
    if mixed:
        label[: ill * images : 2 * images] = 0
    own = generator.normal(size=(2, ill + well))[:, cluster]
    logit = signal * label + own + 0.5 * generator.normal(size=(2, label.size))
    return label, *np.round(1 / (1 + np.exp(-logit)), 2), cluster


class TestPatientsWithSeveralImages:
    @pytest.mark.parametrize("seed", range(6))
    def test_equals_the_definition(self, seed):
        label, a, b, cluster = clustered_sample(seed)
        aucs, covariance = obuchowski_1997(label, cluster, a, b)
        found = delong(label, a, b, cluster)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert auc_variance(label, a, cluster) == pytest.approx(covariance[0, 0], rel=1e-12)
        assert found.z == pytest.approx((aucs[0] - aucs[1]) / math.sqrt(variance), rel=1e-9)

    @given(two_scores())
    def test_one_image_a_patient_is_delong_itself(self, case):
        label, a, b = case
        names = [f"p{i}" for i in range(label.size)]
        assert delong(label, a, b, names) == pytest.approx(delong(label, a, b), nan_ok=True)

    def test_copies_of_images_add_next_to_nothing(self):
        label, a, b, _ = clustered_sample(0, ill=20, well=40, images=1, mixed=False)
        copies = np.repeat(np.arange(label.size), 4)
        alone, fourfold = (
            delong(label, a, b),
            delong(label[copies], a[copies], b[copies], copies),
        )
        assert fourfold == pytest.approx(alone, rel=1e-9)
        naive = delong(label[copies], a[copies], b[copies])
        assert naive.z == pytest.approx(2 * alone.z, rel=0.05)

    def test_level_under_the_null(self):
        """Two equal classifiers, three images a patient: images as units reject far too often."""
        p, naive = [], []
        for seed in range(250):
            label, a, b, cluster = clustered_sample(seed, ill=15, well=40, mixed=False)
            p.append(delong(label, a, b, cluster).p)
            naive.append(delong(label, a, b).p)
        assert np.mean(np.array(p) < 0.05) < 0.08
        assert np.mean(np.array(naive) < 0.05) > 0.15

    def test_one_patient_of_a_class_has_no_variance(self):
        label, a, *_ = clustered_sample(0, ill=2, well=3, mixed=False)
        assert math.isnan(auc_variance(label, a, np.where(label == 1, 0, np.arange(label.size))))

    def test_refuses_clusters_of_another_length(self):
        with pytest.raises(ValueError, match=r"cluster must be of shape \(2,\), found \(3,\)"):
            delong(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0.1, 0.2]), np.arange(3))


class TestAucInterval:
    def test_by_hand(self):
        # The case of `TestDeLong.test_by_hand`: AUC 5/6, 2 benign images, hence 1 df.
        label, a = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.3, 0.1, 0.5])
        error = math.sqrt((1 / 12) / 3 + (1 / 18) / 2) / (5 / 6 / 6)
        ends = [1 / (1 + math.exp(-(math.log(5) + side * 12.706205 * error))) for side in (-1, 1)]
        assert auc_interval(label, a) == pytest.approx(ends, rel=1e-6)

    def test_perfect_separation_is_no_certainty(self):
        label = np.repeat([1, 0], [27, 124])
        low, high = auc_interval(label, 0.25 + 0.5 * label)
        assert high == 1.0
        assert 0.93 < low < 0.97
        assert (low, high) == newcombe_interval(1.0, 27, 124)

    def test_perfect_separation_counts_patients(self):
        label = np.repeat([1, 0], [27, 124])
        patient = np.arange(151) // 3
        assert auc_interval(label, 0.25 + 0.5 * label, patient) == newcombe_interval(1.0, 9, 42)

    def test_one_class(self):
        assert np.isnan(auc_interval(np.array([0, 0]), np.array([0.1, 0.2]))).all()

    @pytest.mark.parametrize("auc", [0.85, 0.96, 0.99])
    def test_covers(self, auc):
        """27 malignant and 124 benign, binormal; the bench has patients with several images too."""
        generator = np.random.default_rng(3)
        label = np.repeat([1, 0], [27, 124])
        shift = math.sqrt(2) * {0.85: 1.036433, 0.96: 1.750686, 0.99: 2.326348}[auc]
        logits = generator.normal(shift * label, 1.0, (250, 151))
        ends = [auc_interval(label, 1 / (1 + np.exp(-logit))) for logit in logits]
        assert 0.92 <= np.mean([low <= auc <= high for low, high in ends]) <= 0.98
