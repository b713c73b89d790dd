"""Trust checks over images: clustered means, families, and the sentence on the nodule."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from thyro_core.evaluation.uncertainty import holm
from thyro_core.explain.trust import (
    TRUST_CHECKS,
    cluster_mean,
    deletion_failure,
    localisation_finding,
    trust_tests,
)
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import NODULE_MEASURES, TRUST_COLUMNS


def trust_table(n=24, splits=2, lead=0.2):
    rng = np.random.default_rng(0)
    rows = []
    for split in range(splits):
        for i in range(n):
            row = {name: float(rng.random()) for name, *_ in TRUST_COLUMNS} | {"is_empty": False}
            row |= {f"{m}_{b}": row[m] - lead + rng.normal(0, 0.05)
                    for m in NODULE_MEASURES for b in ("permuted", "mean_map")}  # fmt: skip
            keys = {"study_id": "s0", "split": split, "architecture": "vgg16"}
            rows.append(keys | {"image_id": f"i{i:02}", "label": i % 2} | row)
    return schemas.rows_to_table("cam_trust", rows)


PATIENTS = {f"i{i:02}": f"p{i // 2}" for i in range(24)}


def by_check(rows):
    return {(row["measure"], row["baseline"]): row for row in rows}


def test_one_image_a_patient_gives_the_t_interval():
    values = np.random.default_rng(1).normal(0.3, 1, 30)
    found = cluster_mean(values, np.arange(30))
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval()
    assert found == pytest.approx((values.mean(), interval.low, interval.high, test.pvalue))


def test_copies_of_a_patient_s_images_are_no_evidence():
    values = np.random.default_rng(1).normal(0.3, 1, 30)
    once = cluster_mean(values, np.arange(30))
    assert cluster_mean(np.repeat(values, 4), np.repeat(np.arange(30), 4)) == pytest.approx(once)


def test_without_spread_or_patients_there_is_no_p():
    assert np.isnan(cluster_mean(np.full(9, 0.4), np.arange(9)).p)
    few = cluster_mean(np.arange(8.0), np.arange(8) // 2)
    assert few.mean == 3.5
    assert np.isnan(few[1:]).all()
    assert np.isnan(cluster_mean(np.empty(0), np.empty(0, np.int64))).all()


def test_coverage_with_clusters_of_unequal_size():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        patient = np.repeat(np.arange(30), rng.integers(1, 4, 30))
        values = rng.normal(size=30)[patient] + rng.normal(0, 0.3, len(patient))
        found = cluster_mean(values, patient)
        hits += found.low <= 0 <= found.high
    assert 0.91 < hits / 400 < 0.98


def test_images_are_averaged_over_splits_and_families_adjusted_apart():
    table = trust_table()
    rows = trust_tests(table, PATIENTS)
    assert [(row["measure"], row["baseline"]) for row in rows] == [
        check[:2] for check in TRUST_CHECKS
    ]
    frame = table.to_pandas()
    means = frame.groupby("image_id")[["deletion", "deletion_random"]].mean()
    row = by_check(rows)["deletion", "random_order"]
    assert row["value"] == pytest.approx(means["deletion"].mean())
    assert row["lead"] == pytest.approx((means["deletion"] - means["deletion_random"]).mean())
    assert (row["n"], row["patients"]) == (24, 12)
    nodule = [r for r in rows if r["measure"] in NODULE_MEASURES]
    assert [r["p_adjusted"] for r in nodule] == holm([r["p"] for r in nodule])
    assert np.isnan(by_check(rows)["cascade_1", "none"]["p_adjusted"])


def test_rows_without_a_mask_or_of_an_empty_map_are_left_out():
    rows = trust_table().to_pylist()
    for row in rows[:30]:
        row["nodule_hit"] = None if row["image_id"] < "i10" else np.nan
    found = by_check(trust_tests(schemas.rows_to_table("cam_trust", rows), PATIENTS))
    assert found["nodule_hit", "permuted"]["n"] == 18
    rows = [row | {"nodule_hit": None} for row in rows]
    found = by_check(trust_tests(schemas.rows_to_table("cam_trust", rows), PATIENTS))
    assert found["nodule_hit", "permuted"]["n"] == 0
    assert np.isnan(found["nodule_hit", "permuted"]["lead"])


def test_no_rows_of_an_architecture():
    nothing = schemas.TABLES["cam_trust"].schema.empty_table()
    assert trust_tests(nothing, {}) == []
    assert localisation_finding([]) == ""


def finding_rows(leads) -> list[dict[str, object]]:
    return [
        {"architecture": "vgg16", "measure": measure, "baseline": baseline, "n": 9,
         "lead": lead, "p_adjusted": p}
        for measure, pairs in zip(NODULE_MEASURES, leads, strict=True)
        for baseline, (lead, p) in zip(("permuted", "mean_map"), pairs, strict=True)
    ]  # fmt: skip


def test_only_a_lead_over_both_baselines_counts():
    both, one, worse = (
        ((0.2, 0.01), (0.1, 0.02)),
        ((0.2, 0.01), (0.1, 0.3)),
        ((0.2, 0.01), (-0.1, 0.001)),
    )
    found = localisation_finding(finding_rows([both, one, worse]))
    assert found == (
        "VGG16: the maps find the nodule better than both baselines (Holm-adjusted P < 0.05 over "
        "other images' maps and over the mean map) by energy; not shown by pointing, IoU. "
        "By IoU they do worse than one of the baselines at least."
    )
    found = localisation_finding(finding_rows([one, one, worse]))
    assert found.startswith("VGG16: by no measure are the maps shown to find the nodule")
    assert localisation_finding(finding_rows([both, both, both])).endswith("energy, pointing, IoU.")


def scores(deletion: tuple[float, float], insertion: tuple[float, float]) -> list[dict]:
    return [
        {"architecture": "vgg16", "measure": measure, "baseline": "random_order", "n": 9,
         "lead": lead, "p_adjusted": p}
        for measure, (lead, p) in (("deletion", deletion), ("insertion", insertion))
    ]  # fmt: skip


def test_a_deletion_that_fails_is_said_and_one_that_passes_is_not():
    assert deletion_failure([]) == ""
    assert deletion_failure(scores((-0.1, 0.01), (0.1, 0.01))) == ""
    text = deletion_failure(scores((0.02, 0.5), (0.1, 0.01)))
    assert text == (
        "VGG16: by only one of two checks do the maps rank pixels for the score better than a "
        "random order does: the score rises faster when the hottest pixels come back first than in "
        "a random order (insertion, "
        "9 images), but the score is not shown to fall faster when the hottest pixels go first "
        "than in a random order (deletion, 9 images) (Holm-adjusted P < 0.05 would show it)."
    )
    neither = deletion_failure(scores((0.02, 0.5), (0.1, 0.5)))
    assert neither.startswith("VGG16: the maps are not shown to rank pixels for the score better")
    assert "(deletion, 9 images), and the score" in neither
    assert "the score falls more slowly" in deletion_failure(scores((0.1, 0.01), (0.1, 0.01)))
    text = deletion_failure(scores((-0.1, 0.01), (0.1, np.nan)))
    assert "the score falls faster when the hottest pixels go first" in text
    assert "not shown to rise faster when the hottest pixels come back first" in text


def test_the_table_takes_these_rows() -> None:
    rows = trust_tests(trust_table(), PATIENTS)
    table = schemas.rows_to_table("cam_checks", rows)
    assert isinstance(table, pa.Table)
