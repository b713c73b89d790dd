"""Families of features: a cross-validated AUC, and a P of shape's lead that is right on noise."""

import math

import numpy as np
import pytest

from tests.bench.families import noise
from tests.unit.explain.test_statistics import NAN, alone, frame, normal, table
from thyro_core.explain import families
from thyro_core.explain.families import family_auc
from thyro_core.explain.statistics import mann_whitney
from thyro_core.tables.cam_columns import FEATURES


class TestFamilyAuc:
    def test_finds_the_family_that_separates(self):
        values, label = normal(80), np.array([0, 1] * 40)
        values[label == 1, 2] += 3
        features = table(frame(values, label))
        shape, intensity, texture = family_auc(features, alone(features), 0)
        assert (shape.family, intensity.family, texture.family) == tuple(
            dict.fromkeys(FEATURES.values())
        )
        assert shape.auc > 0.9
        assert math.isnan(shape.difference)
        for other in (intensity, texture):
            assert other.auc == pytest.approx(0.5, abs=0.15)
            assert other.difference == pytest.approx(shape.auc - other.auc)
            assert other.p == 1 / (1 + families.PERMUTATIONS), "the smallest there is, never 0"
            assert other.n == 80
            assert 0 < other.sd < 0.3

    def test_is_a_hand_made_cross_validation(self):
        """One feature, one direction: the fold's AUC is the rank AUC of the feature itself."""
        values = np.full((60, len(FEATURES)), 1.0)
        label = np.array([0, 1] * 30)
        values[:, 0] = np.random.default_rng(5).normal(size=60) + 1.5 * label
        features = table(frame(values, label))
        shape = family_auc(features, alone(features), 1)[0]
        overall = mann_whitney(values[label == 1, 0], values[label == 0, 0]).effect_size / 2 + 0.5
        # Mean over folds of fold AUCs is unbiased for the AUC of all pairs.
        assert shape.auc == pytest.approx(overall, abs=0.02)

    def test_a_patients_images_never_help_to_recognise_the_patient(self):
        generator = np.random.default_rng(2)
        patient = np.repeat(np.arange(14), 8)
        label = (np.arange(14) % 2)[patient]
        values = generator.normal(size=(14, len(FEATURES)))[patient]
        values += generator.normal(0, 0.01, values.shape)
        features = table(frame(values, label))
        ids = features["image_id"].to_pylist()
        together = family_auc(features, {i: f"p{p}" for i, p in zip(ids, patient, strict=True)}, 0)
        torn = family_auc(features, alone(features), 0)
        assert torn[0].auc > 0.8
        assert together[0].auc < 0.75

    def test_undefined_values_are_filled_and_regions_that_are_none_left_out(self):
        values, label = normal(60), np.array([0, 1] * 30)
        values[label == 1, 0] += 3
        values[::7, 3] = NAN
        values[:, 8] = NAN
        values[:4] = NAN
        features = table(frame(values, label))
        found = family_auc(features, alone(features), 0)
        assert [one.n for one in found] == [56, 56, 56]
        assert found[0].auc > 0.9

    def test_shares_stand_apart_and_the_seed_counts(self, monkeypatch):
        monkeypatch.setattr(families, "REPEATS", 2)
        label = [0, 1] * 15
        low, high = frame(normal(30, 1), label, share=0.3), frame(normal(30, 2), label, share=0.7)
        patients = alone(table(low))
        both = family_auc(table(low, high), patients, 4)
        assert [one.threshold for one in both] == [0.3] * 3 + [0.7] * 3
        assert repr(both[3:]) == repr(family_auc(table(high), patients, 4))
        assert repr(both[3:]) != repr(family_auc(table(high), patients, 5))

    def test_a_class_of_one_patient_gives_nothing(self):
        features = table(frame(normal(8), [0, 0, 0, 0, 0, 0, 1, 1]))
        patients = alone(features) | {"i006": "p", "i007": "p"}
        for found in family_auc(features, patients, 0):
            assert found.n == 8
            assert np.isnan([found.auc, found.sd, found.difference, found.p]).all()

    def test_a_class_of_two_patients_still_gives_an_auc(self):
        values, label = normal(12), np.array([0] * 8 + [1] * 4)
        values[label == 1] += 5
        features = table(frame(values, label))
        patients = alone(features) | dict.fromkeys(("i008", "i009"), "p")
        patients |= dict.fromkeys(("i010", "i011"), "q")
        assert all(found.auc > 0.9 for found in family_auc(features, patients, 0))

    @pytest.mark.slow
    def test_size_on_noise_with_patients_of_several_images(self, monkeypatch):
        """The corrected t-test that stood here rejected one study of noise in eight."""
        monkeypatch.setattr(families, "PERMUTATIONS", 39)
        monkeypatch.setattr(families, "REPEATS", 2)
        below, runs = 0, 150
        for seed in range(runs):
            features, patients = noise(np.random.default_rng(seed), patients=24, images=2)
            below += family_auc(features, patients, seed)[1].p < 0.0501
        assert below / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)

    def test_patients_change_places_only_with_those_of_as_many_images(self, monkeypatch):
        monkeypatch.setattr(families, "PERMUTATIONS", 30)
        patient = np.array(["b", "a", "b", "c", "d", "a", "e"])
        orders = families._orders(patient, 0)
        assert list(orders[0]) == list(range(7))
        assert len({tuple(order) for order in orders}) > 5
        for order in orders:
            assert sorted(order) == list(range(7))
            moved = patient[order]
            assert {moved[0], moved[1]} == {"a", "b"}
            assert moved[0] == moved[2]
            assert moved[1] == moved[5]
        assert repr(orders) == repr(families._orders(patient, 0))
        assert repr(orders) != repr(families._orders(patient, 1))

    def test_permutations_draw_from_a_generator_of_their_own(self, monkeypatch):
        features, patients = noise(np.random.default_rng(1), patients=24, images=1)
        found = []
        for count in (9, 19):
            monkeypatch.setattr(families, "PERMUTATIONS", count)
            found.append([one._replace(p=0) for one in family_auc(features, patients, 0)])
        assert repr(found[0]) == repr(found[1]), "how many there are changes no fold and no AUC"

    def test_where_every_patient_has_another_size_nothing_can_be_tested_and_p_is_1(self):
        sizes = np.arange(1, 9)
        patient = np.repeat(sizes, sizes)
        values = normal(len(patient), 3)
        label = (patient % 2 == 0).astype(int)
        values[label == 1, :3] += 4
        features = table(frame(values, label))
        names = dict(zip(features["image_id"].to_pylist(), map(str, patient), strict=True))
        assert [one.p for one in family_auc(features, names, 0)[1:]] == [1, 1]
