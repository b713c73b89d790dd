"""A study of permuted labels: a null under a name of its own, and nothing to promote."""

import re

import numpy as np
import pytest

from tests.support.html_page import read_page
from tests.support.report_store import fabricated, images
from thyro_core.config import StudyConfig
from thyro_core.datasets.splits import make_splits, permuted_labels
from thyro_core.errors import InputError
from thyro_core.registry.promote import PromotionConfig, promote
from thyro_core.reporting.report import render_report
from thyro_core.study.plan import NULL_NOTE, make_plan
from thyro_core.tables.io import read_table

TABLE = images(80, 30)


def name_of(**config: object) -> str:
    return make_plan(StudyConfig.model_validate(config), "m1", "fp32", {}, ()).study_id


def test_additions_that_are_not_used_change_no_id() -> None:
    plain = name_of()
    assert name_of(subgroups=(), readers=(), permute_labels=False) == plain
    others = {name_of(subgroups=["device"]), name_of(readers=["r"]), name_of(permute_labels=True)}
    assert len(others | {plain}) == 4
    assert name_of(permute_labels=True).startswith("snull")


def test_groups_keep_one_label_and_as_many_are_malignant() -> None:
    group = np.array([f"g{i // 3}" for i in range(300)], dtype=object)
    label = np.repeat((np.arange(100) < 30).astype(np.int64), 3)
    permuted = permuted_labels(label, group, 0)
    assert permuted.reshape(100, 3).std(axis=1).max() == 0
    assert permuted.sum() == 90
    assert abs(np.corrcoef(permuted, label)[0, 1]) < 0.3
    assert (permuted_labels(label, group, 0) == permuted).all()
    assert (permuted_labels(label, group, 1) != permuted).any()


def test_every_split_has_the_same_permuted_labels() -> None:
    splits = make_splits("s0", TABLE, StudyConfig(splits=3, permute_labels=True)).to_pandas()
    assert splits.groupby("image_id")["label"].nunique().max() == 1
    true = TABLE.to_pandas().set_index("image_id")["label"]
    labels = splits.drop_duplicates("image_id").set_index("image_id")["label"]
    assert (labels != true.loc[labels.index]).mean() > 0.2


@pytest.mark.parametrize("malignant", [pytest.param(30, marks=pytest.mark.slow), 31])
def test_the_page_says_so_and_nothing_is_promoted(malignant: int, tmp_path) -> None:
    """With 31 a patient has an image of each class: permuted, both are malignant, or neither."""
    table = images(80, malignant)
    config = {"splits": 2, "architectures": ("resnet18",), "permute_labels": True}
    store, plan = fabricated(tmp_path, table, trust_images=0, **config)
    page = read_page(render_report(store, plan.study_id, tmp_path)[0])
    assert page.find("title")[0].text.startswith("Null study (permuted labels)")
    assert page.find("h1")[0].text.startswith("Null study, labels permuted")
    assert [each for each in page.walk() if "data-null" in each.attributes]
    captions = [" ".join(each.text.split()) for each in page.find("caption")]
    words = r"held the true AUC in \d+ to \d+ of a hundred parts"
    assert any(re.search(words, text) for text in captions)
    (labels,) = (each for each in page.walk() if "data-labels" in each.attributes)
    splits = read_table(store, "splits", study_id=plan.study_id).to_pandas()
    own = splits.drop_duplicates("image_id").set_index("image_id")["label"]
    true = table.to_pandas().set_index("image_id")["label"].loc[own.index]
    assert (
        f"{(true == 0).sum()} images in the splits are benign and {malignant} malignant"
        in labels.text
    )
    assert f"by the permuted labels {(own == 0).sum()} and {own.sum()}" in labels.text
    assert own.sum() == 2 * -(-malignant // 2)
    assert ("which is the same here" in labels.text) == (malignant == 30)
    assert f"{(own != true).sum()} of them have another label" in labels.text
    (flow,) = (each for each in page.find("desc") if "Image files found" in each.text)
    assert f"malignant (true labels): {malignant}" in flow.text
    permuted = flow.text.partition("Labels permuted; ")[2]
    assert permuted.startswith(f"benign: {(own == 0).sum()} (")
    assert f"; malignant: {own.sum()} (" in permuted.partition(". ")[0]
    assert plan.notes[0] == NULL_NOTE
    assert {*read_table(store, "metrics")["study_id"].to_pylist()} == {plan.study_id}
    with pytest.raises(InputError, match="expected a study of true labels, found permuted"):
        promote(store, PromotionConfig(study_id=plan.study_id), tmp_path)
