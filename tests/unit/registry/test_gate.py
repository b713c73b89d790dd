"""Worse on the same images is refused; on other images, those that neither saw decide."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.cards import FIGURE, a_card
from tests.support.metric_levels import with_patient_level
from thyro_core.config import StudyConfig
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.evaluation.uncertainty import nadeau_bengio
from thyro_core.registry import unseen
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.gate import Verdict, compare_with_champion
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

NOWHERE = Path("/nonexistent")
NEW, OLD = "s" + "2" * 16, "s" + "1" * 16


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def plan(manifest_id: str = "m1") -> StudyPlan:
    return StudyPlan(NEW, StudyConfig(), manifest_id, "fp32", {}, ())


def champion(architecture: str = "resnet18", auc: float | None = 0.9) -> Bundle:
    card = a_card(1, study_id=OLD, metrics={"auc": FIGURE | {"value": auc}})
    return Bundle(
        card.model_id, architecture, 64, LogisticCalibration(1.0, 0.0), 0.5, (),
        card.model_dump(mode="json"),
    )  # fmt: skip


def study(store: Store, study_id: str, aucs: dict[str, list[float]], *, shift: int = 0) -> None:
    """A study's tables: ten images, three of them tested in each split, from `shift` on."""
    splits, metrics = [], []
    for split in range(len(next(iter(aucs.values())))):
        for image in range(10):
            role = "test" if (image - split - shift) % 10 < 3 else "train"
            blank = dict.fromkeys(schemas.TABLES["splits"].schema.names)
            splits.append(
                blank | {"study_id": study_id, "split": split, "image_id": f"i{image}",
                         "group_id": f"g{image}", "label": image % 2, "role": role}
            )  # fmt: skip
    for architecture, values in aucs.items():
        for split, value in [*enumerate(values), (None, 0.123)]:
            blank = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
            row = {"study_id": study_id, "split": split, "architecture": architecture}
            metrics.append(blank | row | {"metric": "auc", "value": value})
            metrics.append(blank | row | {"metric": "f1", "value": 0.5})
    for name, rows in (("splits", splits), ("metrics", metrics)):
        table = pa.Table.from_pylist(rows, schema=schemas.TABLES[name].schema)
        table = with_patient_level(table) if name == "metrics" else table
        write_table(store, name, table, study_id=study_id)


def verdict(store: Store, architecture: str = "resnet18", **options: object) -> Verdict:
    bundle = champion(**options)  # type: ignore[arg-type]
    return compare_with_champion(store, plan(), architecture, bundle, scratch=NOWHERE)


def test_the_paired_difference_decides_on_the_same_splits(store: Store) -> None:
    study(store, OLD, {"resnet18": [0.90, 0.80, 0.70]})
    study(store, NEW, {"resnet18": [0.91, 0.83, 0.69], "vgg16": [0.89, 0.80, 0.70]})
    better, worse = verdict(store), verdict(store, "vgg16")
    test = nadeau_bengio([0.01, 0.03, -0.01], 3 / 7)
    assert better == Verdict(
        False,
        f"AUC +0.0100 against b0000000000000001 (95 % interval {test.ci_low:+.4f} to "
        f"{test.ci_high:+.4f}; no test is made below 5 splits) over 3 splits of the same images",
    )
    assert worse.worse
    assert worse.text.startswith("AUC -0.0033 against b0000000000000001")


def test_the_test_of_five_splits_has_its_p_and_none_without_spread(store: Store) -> None:
    before = [0.90, 0.80, 0.70, 0.80, 0.75]
    differences = [0.01, 0.03, -0.01, 0.02, 0.0]
    study(store, OLD, {"resnet18": before})
    after = [auc + more for auc, more in zip(before, differences, strict=True)]
    study(store, NEW, {"resnet18": after, "vgg16": before})
    test = nadeau_bengio(differences, 3 / 7)
    assert f"{test.ci_high:+.4f}, P {test.p:.3f}) over 5 splits" in verdict(store).text
    assert verdict(store, "vgg16").text == (
        "AUC +0.0000 against b0000000000000001 (no interval and no test: the difference is the "
        "same in every split) over 5 splits of the same images"
    )


def test_equal_is_not_worse(store: Store) -> None:
    study(store, OLD, {"resnet18": [0.9, 0.8]})
    study(store, NEW, {"resnet18": [0.8, 0.9]})
    assert not verdict(store).worse
    study(store, NEW, {"resnet18": [0.9, 0.8]})
    assert not verdict(store).worse


def test_only_splits_of_the_same_images_are_paired(store: Store) -> None:
    """Two splits agree (by far the worse ones for the candidate); the third is another."""
    study(store, OLD, {"resnet18": [0.9, 0.8, 0.1]})
    study(store, NEW, {"resnet18": [0.8, 0.7, 1.0]})
    rows = read_table(store, "splits", study_id=NEW).to_pylist()
    turned = [row | {"role": "test" if row["role"] == "train" else "train"} if row["split"] == 2
              else row for row in rows]  # fmt: skip
    table = pa.Table.from_pylist(turned, schema=schemas.TABLES["splits"].schema)
    write_table(store, "splits", table, study_id=NEW)
    found = verdict(store)
    assert found.worse
    assert "AUC -0.1000" in found.text
    assert "over 2 splits" in found.text


def test_plain_means_decide_on_other_splits(store: Store) -> None:
    study(store, OLD, {"resnet18": [0.9, 0.8]})
    study(store, NEW, {"resnet18": [0.9, 0.7]}, shift=5)
    found = verdict(store)
    assert found == Verdict(
        True, "mean AUC 0.8000 against 0.8500 of b0000000000000001, over other splits"
    )
    study(store, NEW, {"resnet18": [0.9, 0.85]}, shift=5)
    assert not verdict(store).worse


def test_the_card_speaks_for_a_champion_whose_study_is_gone(store: Store) -> None:
    study(store, NEW, {"resnet18": [0.9, 0.7]})
    assert verdict(store, auc=0.85).worse
    assert not verdict(store, auc=0.8).worse
    assert not verdict(store, auc=None).worse, "an undefined champion keeps nobody out"


def test_an_undefined_candidate_is_worse(store: Store) -> None:
    study(store, OLD, {"resnet18": [0.9, 0.8]})
    study(store, NEW, {"resnet18": [0.9, math.nan]})
    assert verdict(store).worse
    assert "nan" not in verdict(store).text


def test_another_architecture_of_the_champion(store: Store) -> None:
    study(store, OLD, {"resnet18": [0.9, 0.9], "vgg16": [0.5, 0.5]})
    study(store, NEW, {"resnet18": [0.7, 0.7]})
    assert compare_with_champion(
        store, plan(), "resnet18", champion("resnet18"), scratch=NOWHERE
    ).worse
    assert not compare_with_champion(
        store, plan(), "resnet18", champion("vgg16"), scratch=NOWHERE
    ).worse


# Another manifest: images that neither was trained on.


def other_set(
    store: Store, monkeypatch: pytest.MonkeyPatch, shift: float, *, both: int = 40, new: int = 10
) -> Verdict:
    """A candidate on `both` images of the champion's set and `new` ones; every second malignant.

    The champion ranks perfectly but for its first malignant image; `shift` below 0 spoils the
    candidate's.
    """
    names = [f"i{i:02d}" for i in range(both + new)]
    splits, predictions = [], []
    for split in range(2):
        for i, name in enumerate(names):
            test = i % 2 == split or i % 4 == 0
            row = {"study_id": NEW, "split": split, "image_id": name, "patient_id": None,
                   "group_id": f"g{i}", "label": i // 2 % 2}  # fmt: skip
            splits.append(row | {"role": "test" if test else "train"})
            if test:
                spoiled = shift if i < 20 else 0.0
                margin = (2.0 + spoiled if i // 2 % 2 else 0.0) + i / 1000
                predictions.append(
                    {"study_id": NEW, "split": split, "architecture": "resnet18",
                     "image_id": name, "patient_id": None, "label": i // 2 % 2,
                     "logit_benign": 0.0, "logit_malignant": margin, "prob_malignant": 0.5}
                )  # fmt: skip
    tables = {"splits": splits, "predictions": predictions}
    for table, rows in tables.items():
        filled = [dict.fromkeys(schemas.TABLES[table].schema.names) | row for row in rows]
        key = {} if table == "splits" else {"split": 0, "architecture": "resnet18"}
        whole = pa.Table.from_pylist(filled, schema=schemas.TABLES[table].schema)
        write_table(store, table, whole, study_id=NEW, **key)
    known = pa.table(
        {
            "image_id": names[:both],
            "prob_malignant": [0.1 if i == 2 else 0.5 + 0.4 * (i // 2 % 2) + i / 1000
                               for i in range(both)],
        }
    )  # fmt: skip
    monkeypatch.setattr(unseen, "reference", lambda *_: known)
    monkeypatch.setattr(unseen, "_champion_scores", fresh_scores)
    return compare_with_champion(store, plan("m2"), "resnet18", champion(), scratch=NOWHERE)


def fresh_scores(store, plan, champion, *, scratch, splits):
    assert all(len(of) in {1, 2} for of in splits.values())
    return {name: 0.5 + 0.4 * (int(name[1:]) // 2 % 2) for name in splits}


def test_on_other_images_both_are_judged_where_neither_was_trained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = other_set(store, monkeypatch, 0.0)
    assert better.is_compared
    assert not better.worse
    assert "on 50 images that neither was trained on (40 of both studies, out of fold, 10 new" in (
        better.text
    )
    worse = other_set(store, monkeypatch, -3.0)
    assert worse.worse
    assert worse.text.startswith("AUC -0.")


def test_an_image_whose_group_the_champion_knows_is_not_new_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_set(store, monkeypatch, 0.0)
    rows = read_table(store, "splits", study_id=NEW).to_pylist()
    joined = [row | {"group_id": "g0" if row["image_id"] == "i48" else row["group_id"]}
              for row in rows]  # fmt: skip
    table = pa.Table.from_pylist(joined, schema=schemas.TABLES["splits"].schema)
    write_table(store, "splits", table, study_id=NEW)
    found = compare_with_champion(store, plan("m2"), "resnet18", champion(), scratch=NOWHERE)
    assert "on 49 images" in found.text
    assert "9 new to the champion" in found.text


def write_images(store: Store, manifest_id: str, hashes: dict[str, tuple[str, str]]) -> None:
    schema = schemas.TABLES["images"].schema
    rows = [dict.fromkeys(schema.names) | {"manifest_id": manifest_id, "image_id": name,
                                           "phash": phash, "pixel_hash": pixels}
            for name, (phash, pixels) in hashes.items()]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    write_table(store, "images", table, manifest_id=manifest_id)


def test_a_copy_that_was_compressed_again_is_not_new_to_the_champion(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "as files: copies count" in other_set(store, monkeypatch, 0.0).text
    generator = np.random.default_rng(0)
    numbers = [int(n) for n in generator.integers(2**63, size=50, dtype=np.uint64)]
    own = {f"i{i:02d}": (f"{number:016x}", f"p{i}") for i, number in enumerate(numbers)}
    own["i40"] = (f"{numbers[7] ^ 0b1011:016x}", "other pixels")
    own["i41"] = (f"{numbers[41]:016x}", "p3")
    own["i42"] = (f"{numbers[49] ^ 0b1:016x}", "other pixels")  # of i49, which is new itself
    write_images(store, "m2", own)
    before = {f"i{i:02d}": (f"{number:016x}", f"p{i}") for i, number in enumerate(numbers[:40])}
    # An image that was found, but took no part in the champion's study, is no known one.
    before["excluded"] = (f"{numbers[45]:016x}", "p45")
    write_images(store, champion().card["data"]["manifest_id"], before)
    found = other_set(store, monkeypatch, 0.0)
    assert "on 48 images" in found.text
    assert "8 new to the champion, as files and as pictures" in found.text


def test_too_few_images_that_neither_saw_are_no_comparison(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = other_set(store, monkeypatch, 0.0, both=16, new=2)
    assert not found.is_compared
    assert found.text.startswith("not compared with b0000000000000001, which was promoted on other")
    assert "18 images, 8 malignant, were seen by neither" in found.text
    assert found.text.endswith("10 of each class are needed")
