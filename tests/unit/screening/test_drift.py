"""A batch against the training set: figures, bounds, and who is not judged."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from thyro_core import NOTICE
from thyro_core.registry.bundle import REFERENCE
from thyro_core.screening.drift import (
    FIGURES,
    Breach,
    DriftReport,
    DriftThresholds,
    compare_with_training,
    drift_markdown,
)
from thyro_core.screening.drift_statistics import ks, mmd, psi, psi_chance
from thyro_core.tables import schemas

QUICK = DriftThresholds(p=0.001, permutations=1099)


def reference(n: int = 400, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {
        "image_id": [f"i{i}" for i in range(n)],
        "group_id": [None] * n,
        "label": [0] * n,
        "prob_malignant": np.where(np.arange(n) < 20, np.nan, rng.beta(2, 5, n)),
        "sd": [0.1] * n,
        "mean": rng.normal(80, 10, n),
        "grey_sd": [40.0] * n,
        "sharpness": rng.gamma(5, 0.2, n),
        "overlay_share": [0.0] * n,
        "held_out": np.arange(n) % 3 == 0,
        # Training draws together what was trained on: those must not count.
        "embedding": list(rng.normal(0, 1, (n, 8)) + 9.0 * (np.arange(n) % 3 > 0)[:, None]),
    }
    return pa.table({name: pa.array(columns[name], kind.type) for name, kind in
                     zip(REFERENCE.names, REFERENCE, strict=True)})  # fmt: skip


def batch(n: int = 200, seed: int = 1, rejected: int = 0, **shift: float) -> pa.Table:
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.beta(2, 5, n) + shift.get("score", 0.0), 0, 1)
    rows = [
        {"status": "scored", "prob_malignant": float(scores[i]),
         "mean": float(rng.normal(80 + shift.get("mean", 0), 10)),
         "sharpness": float(rng.gamma(5, 0.2) * (1 + shift.get("sharpness", 0))),
         "embedding": (rng.normal(shift.get("embedding", 0), 1, 8)).tolist()}
        for i in range(n)
    ]  # fmt: skip
    empty = dict.fromkeys(("prob_malignant", "mean", "sharpness", "embedding"))
    rows += [empty | {"status": "rejected", "mean": 1.0}] * rejected
    return pa.Table.from_pylist(rows)


REFERENCE_SET = reference()


def names(report: DriftReport) -> list[str]:
    return [breach.statistic for breach in report.breaches]


def test_the_figures_are_those_of_the_columns() -> None:
    table = batch(rejected=10)
    found = compare_with_training(REFERENCE_SET, table, QUICK)
    assert tuple(found.values) == FIGURES
    scored = table.slice(0, 200)
    known = np.array(REFERENCE_SET["prob_malignant"])[20:]
    score = np.array(scored["prob_malignant"])
    assert found.values["psi_score"] == psi(known, score)
    assert (found.values["ks_score"], found.values["ks_score_p"]) == ks(known, score)
    for name in ("mean", "sharpness"):
        assert found.values[f"psi_{name}"] == psi(REFERENCE_SET[name], scored[name])
        assert found.values[f"ks_{name}"] == ks(REFERENCE_SET[name], scored[name]).distance
    held_out = np.array(REFERENCE_SET["embedding"].to_pylist())[::3]
    test = mmd(held_out, np.array(scored["embedding"].to_pylist()), 500, 1099, 0)
    assert (found.values["mmd"], found.values["mmd_p"]) == test
    assert found.values["share_rejected"] == pytest.approx(10 / 210)
    assert (found.n_received, found.n_scored, found.too_few) == (210, 200, None)


def test_no_drift_is_no_breach() -> None:
    found = [compare_with_training(REFERENCE_SET, batch(seed=seed), QUICK) for seed in range(2, 22)]
    assert [names(report) for report in found] == [[]] * 20
    assert found[0].figures()["breaches"] == ""
    assert found[0].text == "No figure is past its bound."


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ({"score": 0.3}, ["psi_score", "ks_score"]),
        ({"mean": 15.0}, ["psi_mean", "ks_mean"]),
        ({"sharpness": -0.6}, ["psi_sharpness", "ks_sharpness"]),
        ({"embedding": 1.0}, ["mmd"]),
    ],
)
def test_each_drift_breaches_its_own_bounds(shift, expected) -> None:
    found = compare_with_training(REFERENCE_SET, batch(**shift), QUICK)
    assert names(found) == expected
    for breach in found.breaches:
        assert breach.value == found.values[breach.statistic] > breach.bound
        assert f"{breach.statistic} {breach.value:.3f} (bound {breach.bound:.3f})" == breach.text
    assert found.figures()["breaches"] == ",".join(expected)
    assert found.text == f"Drift: {'; '.join(breach.text for breach in found.breaches)}."


def test_what_chance_explains_is_no_breach() -> None:
    """60 images: a PSI past 0.25 by chance; 0.25 is not the bound then."""
    bound = psi_chance(380, 60, 0.999)
    assert bound > 0.25
    indices = []
    for seed in range(60):
        found = compare_with_training(
            REFERENCE_SET, batch(60, seed=100 + seed).drop_columns("embedding"), QUICK
        )
        indices.append(found.values["psi_score"])
        assert names(found) == []
    assert max(indices) > 0.25
    far = compare_with_training(REFERENCE_SET, batch(60, score=0.3), QUICK)
    assert far.breaches[0] == Breach("psi_score", far.values["psi_score"], bound)


def test_a_large_batch_is_not_judged_by_certainty_alone() -> None:
    found = compare_with_training(
        REFERENCE_SET, batch(4000, score=0.06).drop_columns("embedding"), QUICK
    )
    assert found.values["ks_score_p"] < 0.001
    assert names(found) == []


def test_a_handful_is_too_few_to_alarm() -> None:
    found = compare_with_training(REFERENCE_SET, batch(49, score=0.5, embedding=5.0), QUICK)
    assert found.too_few == "too few to judge: 49 files with a scored image, at least 50 are needed"
    assert names(found) == []
    numbers = found.figures()
    assert {name for name, value in numbers.items() if value is not None} == {
        "share_rejected", "breaches", "pooled_batches",
    }  # fmt: skip
    assert compare_with_training(REFERENCE_SET, batch(50, score=0.5), QUICK).too_few is None


def test_many_rejected_are_a_breach_even_where_none_is_scored() -> None:
    found = compare_with_training(REFERENCE_SET, batch(30, rejected=30), QUICK)
    assert found.breaches == (Breach("share_rejected", 0.5, 0.2),)
    assert found.text == (
        "Too few to judge: 30 files with a scored image, at least 50 are needed. "
        "Drift: share_rejected 0.500 (bound 0.200)."
    )
    assert names(compare_with_training(REFERENCE_SET, batch(3, rejected=9), QUICK)) == []
    assert names(compare_with_training(REFERENCE_SET, batch(80, rejected=20), QUICK)) == []


def test_a_share_of_rejected_files_that_chance_explains_is_no_breach() -> None:
    assert names(compare_with_training(REFERENCE_SET, batch(45, rejected=15), QUICK)) == []
    large = compare_with_training(REFERENCE_SET, batch(900, rejected=300), QUICK)
    assert names(large) == ["share_rejected"]


def test_the_bounds_give_a_tenth_of_months_a_false_alarm_at_most() -> None:
    tests = len(["psi_score", "psi_mean", "psi_sharpness", "ks_score", "ks_mean", "ks_sharpness",
                 "mmd", "share_rejected"])  # fmt: skip
    assert 30 * tests * DriftThresholds().p <= 0.1


def arrivals(seed: int, patients: int, share: float, each: int) -> pa.Table:
    """Files of patients, scored or not; of a patient all are alike, as of one wrong export."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2 * each, patients)
    is_scored = np.repeat(rng.random(patients) >= share, sizes)
    first = np.cumsum(sizes) - sizes
    empty = pa.nulls(is_scored.size, pa.float64())
    return pa.table(
        {
            "status": np.where(is_scored, "scored", "rejected"),
            "is_drawn": np.isin(np.arange(is_scored.size), first),
            **dict.fromkeys(("prob_malignant", "mean", "sharpness"), empty),
        }
    )


@pytest.mark.parametrize("each", [1, 6])
def test_months_of_rejected_files_at_the_bound_have_a_tenth_of_alarms_at_most(each: int) -> None:
    """20 months of 30 nights in which a fifth is rejected, the bound itself; 60 patients a night.

    With files taken for independent most months have an alarm where a patient has several.
    """

    def has_alarm(month: int, *, by_patient: bool) -> bool:
        nights = [arrivals(30 * month + night, 60, 0.2, each) for night in range(30)]
        rows = nights if by_patient else [night.drop_columns("is_drawn") for night in nights]
        found = [compare_with_training(bare, night, DriftThresholds()) for night in rows]
        return any(report.breaches for report in found)

    bare = REFERENCE_SET.slice(0, 2)
    assert np.mean([has_alarm(month, by_patient=True) for month in range(20)]) <= 0.1
    if each > 1:
        assert np.mean([has_alarm(month, by_patient=False) for month in range(4)]) > 0.5


def test_one_examination_in_a_wrong_form_is_no_alarm_and_a_source_in_one_is() -> None:
    one = arrivals(0, 59, 0.0, 1)
    exam = pa.table(
        {"status": ["rejected"] * 40, "is_drawn": [True] + [False] * 39}
        | dict.fromkeys(("prob_malignant", "mean", "sharpness"), pa.nulls(40, pa.float64()))
    )
    table = pa.concat_tables([one, exam])
    found = compare_with_training(REFERENCE_SET, table, QUICK)
    assert found.values["share_rejected"] == pytest.approx(40 / 99)
    assert names(found) == []
    everyone = arrivals(1, 60, 0.7, 3)
    assert names(compare_with_training(REFERENCE_SET, everyone, QUICK)) == ["share_rejected"]


def clips(seed: int, n: int, frames: int) -> pa.Table:
    """Frames of clips: alike within a clip, from the training set's distribution between them."""
    files = batch(n, seed=seed).to_pylist()
    rng = np.random.default_rng(seed)
    rows = [
        {
            "status": "scored",
            "prob_malignant": float(np.clip(file["prob_malignant"] + rng.normal(0, 0.01), 0, 1)),
            "mean": file["mean"] + float(rng.normal(0, 0.5)),
            "sharpness": file["sharpness"] * float(rng.normal(1, 0.01)),
            "embedding": (np.array(file["embedding"]) + rng.normal(0, 0.1, 8)).tolist(),
            "frame": frame,
        }
        for file in files
        for frame in range(frames)
    ]
    return pa.Table.from_pylist(rows)


def test_a_month_of_clips_without_drift_has_no_alarm_where_each_file_counts_once() -> None:
    all_frames = once = 0
    for night in range(30):
        table = clips(1000 + night, 60, 8)
        thresholds = DriftThresholds(mmd_size=60)
        first = table.filter(pc.equal(table["frame"], 0))
        once += bool(compare_with_training(REFERENCE_SET, first, thresholds).breaches)
        scalars = table.drop_columns("embedding")
        all_frames += bool(compare_with_training(REFERENCE_SET, scalars, thresholds).breaches)
    assert once == 0
    assert all_frames >= 3, "480 frames of 60 clips are not 480 values"


def stills(night: int, patients: int, each: int) -> pa.Table:
    """Stills of patients, alike within a patient; the first of each counts."""
    table = clips(2000 + night, patients, each)
    return table.append_column("counts", pc.equal(table["frame"], 0))


def test_a_month_of_stills_without_drift_has_no_alarm_where_each_patient_counts_once() -> None:
    every_still = once = 0
    for night in range(30):
        table = stills(night, 60, 5)
        thresholds = DriftThresholds(mmd_size=60)
        once += bool(compare_with_training(REFERENCE_SET, table, thresholds).breaches)
        scalars = table.drop_columns(["embedding", "counts"])
        every_still += bool(compare_with_training(REFERENCE_SET, scalars, thresholds).breaches)
    assert once == 0
    assert every_still >= 3, "300 stills of 60 patients are not 300 values"


def test_few_patients_are_too_few_however_many_their_files() -> None:
    found = compare_with_training(REFERENCE_SET, stills(0, 20, 5), QUICK)
    assert (found.n_received, found.n_scored) == (100, 100)
    assert found.too_few == (
        "too few to judge: 20 patients, or files of unknown ones (100 files), with a scored image, "
        "at least 50 are needed"
    )
    assert math.isnan(found.values["psi_score"])


def test_of_a_group_of_training_images_one_counts() -> None:
    twice = pa.concat_tables([REFERENCE_SET, REFERENCE_SET])
    groups = [f"g{number % 400:03}" for number in range(800)]
    ids = [f"{number // 400}{number % 400:03}" for number in range(800)]
    grouped = twice.set_column(0, "image_id", [ids]).set_column(1, "group_id", [groups])
    table = batch(60, seed=3)
    found = compare_with_training(grouped, table, QUICK)
    assert found.values == compare_with_training(REFERENCE_SET, table, QUICK).values


def test_an_empty_batch_has_no_figures() -> None:
    found = compare_with_training(REFERENCE_SET, batch(1).slice(0, 0), QUICK)
    assert all(math.isnan(value) for value in found.values.values())
    assert found.figures() == dict.fromkeys(FIGURES) | {"breaches": "", "pooled_batches": 1}


def test_embeddings_may_come_apart_from_the_rows_or_not_at_all() -> None:
    table = batch(embedding=1.0)
    vectors = np.array(table["embedding"].to_pylist())
    bare = table.drop_columns("embedding")
    assert compare_with_training(REFERENCE_SET, bare, QUICK, vectors) == compare_with_training(
        REFERENCE_SET, table, QUICK
    )
    found = compare_with_training(REFERENCE_SET, bare, QUICK)
    assert math.isnan(found.values["mmd"])
    assert names(found) == []
    few = compare_with_training(REFERENCE_SET, bare, QUICK, vectors[:9])
    assert math.isnan(few.values["mmd"])


def test_figures_are_columns_of_the_table() -> None:
    columns = set(schemas.TABLES["screening_batches"].schema.names)
    assert {*FIGURES, "breaches"} <= columns


@pytest.mark.parametrize(
    "wrong",
    [{"minimum": 1}, {"ks": 1.5}, {"p": 0.0}, {"permutations": 9}, {"x": 1},
     {"p": 0.001, "permutations": 999}],
)  # fmt: skip
def test_thresholds_that_make_no_sense(wrong) -> None:
    with pytest.raises(ValidationError):
        DriftThresholds.model_validate(wrong)


def test_every_threshold_says_what_it_is() -> None:
    assert all(field.description for field in DriftThresholds.model_fields.values())


def test_the_page_says_what_is_past_its_bound() -> None:
    page = drift_markdown(
        compare_with_training(REFERENCE_SET, batch(score=0.3), QUICK), "night 1", "b1"
    )
    assert page.startswith("# Drift of night 1 against the training set of b1\n")
    assert f"**{NOTICE}**" in page
    assert "200 of 200 files have a scored image. Drift: psi_score " in page
    quiet = drift_markdown(compare_with_training(REFERENCE_SET, batch(), QUICK), "night 1", "b1")
    assert "No figure is past its bound." in quiet
    few = drift_markdown(compare_with_training(REFERENCE_SET, batch(3), QUICK), "night 1", "b1")
    assert "3 of 3 files have a scored image. Too few to judge: 3 files with a scored image" in few
    assert "| psi_score | not computed |" in few
