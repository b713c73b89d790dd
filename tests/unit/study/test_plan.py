"""A study's plan: its name comes from all that changes its results, and from nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.config import StudyConfig
from thyro_core.errors import InputError
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store, open_store
from thyro_core.study import plan
from thyro_core.study.plan import (
    OWN_WEIGHTS_NOTE,
    StudyPlan,
    load_current_plan,
    load_plan,
    make_plan,
    save_plan,
    study_ids,
)
from thyro_core.training.pretrained import StartingWeights

MIRROR = StartingWeights("vgg16", "mirror: /somewhere", "a" * 64, "weights/vgg16-aaaa.safetensors")
RANDOM = StartingWeights("resnet18", "none", warning="resnet18 starts at random")
CONFIG = StudyConfig(architectures=("vgg16", "resnet18"), splits=2, focal_alpha=0.3)


def planned(**changes: object) -> StudyPlan:
    arguments = {
        "config": CONFIG,
        "manifest_id": "m0123456789abcdef",
        "precision": "fp32",
        "weights": {"vgg16": MIRROR, "resnet18": RANDOM},
        "notes": ("No patient ids were given.",),
    }
    return make_plan(**(arguments | changes))


@pytest.fixture
def store(tmp_path: object) -> Store:
    return open_store(str(tmp_path))


def test_a_plan_is_loaded_as_it_was_saved(store: Store) -> None:
    made = planned()
    save_plan(store, made)
    assert load_plan(store, made.study_id) == made
    assert made.notes == ("No patient ids were given.", "resnet18 starts at random")


@pytest.mark.parametrize("weights", ["auto", "imagenet", "none"])
def test_of_weights_that_were_made_elsewhere_a_reader_hears(weights: str) -> None:
    assert OWN_WEIGHTS_NOTE not in planned(config=StudyConfig(weights=weights)).notes
    assert OWN_WEIGHTS_NOTE in planned(config=StudyConfig(weights="s3://bucket/former.pth")).notes


@given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(1e-300, 1.0),
    note=st.text(st.characters(codec="utf-8")),
)
def test_any_config_comes_back_to_the_last_bit(seed: int, rate: float, note: str) -> None:
    store = open_store("memory://plans")
    made = planned(config=StudyConfig(seed=seed, learning_rate=rate), notes=(note,))
    store.delete(study_key(made.study_id))
    save_plan(store, made)
    assert load_plan(store, made.study_id) == made


def test_what_changes_results_changes_the_id() -> None:
    other = {
        "config": CONFIG.model_copy(update={"seed": 1}),
        "manifest_id": "m1",
        "precision": "bf16",
        "weights": {"vgg16": replace(MIRROR, sha256="b" * 64), "resnet18": RANDOM},
    }
    ids = {planned(**{name: value}).study_id for name, value in other.items()}
    start = replace(RANDOM, sha256="a" * 64)
    ids.add(planned(weights={"vgg16": MIRROR, "resnet18": start}).study_id)
    ids.add(
        planned(config=CONFIG.model_copy(update={"architectures": ("resnet18", "vgg16")})).study_id
    )
    assert len(ids | {planned().study_id}) == 7


def test_a_new_recipe_is_a_new_study(monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned().study_id
    monkeypatch.setattr(plan, "RECIPE", plan.RECIPE + 1)
    assert planned().study_id != before


@pytest.mark.parametrize(
    "changes",
    [
        {"notes": ("Something else.",)},
        {"weights": {"resnet18": RANDOM, "vgg16": MIRROR}},
        {"weights": {"vgg16": replace(MIRROR, origin="s3://b", key="k"), "resnet18": RANDOM}},
        {"weights": {"vgg16": MIRROR, "resnet18": replace(RANDOM, warning=None)}},
        {"config": CONFIG.model_copy(update={"precision": "fp32"})},
        {"config": CONFIG.model_copy(update={"weights": "s3://elsewhere/weights"})},
    ],
    ids=["notes", "order", "where weights lie", "warning", "auto came to fp32", "who named them"],
)
def test_what_changes_no_result_keeps_the_id(changes: dict[str, object]) -> None:
    assert planned(**changes).study_id == planned().study_id


def test_the_id_fits_a_hive_path() -> None:
    assert planned().study_id.startswith("s")
    assert len(planned().study_id) == 17


def test_a_saved_plan_stays_as_it_is(store: Store) -> None:
    first = planned()
    save_plan(store, first)
    save_plan(store, planned(notes=("Another note.",)))
    assert load_plan(store, first.study_id) == first


def test_a_store_lists_its_studies_sorted(store: Store) -> None:
    assert study_ids(store) == []
    plans = [planned(manifest_id=f"m{i}") for i in range(5)]
    for made in plans:
        save_plan(store, made)
    # Left behind by a study that was never planned to the end: no study.
    store.write("studies/s0/progress/split=0.json", b"{}")
    assert study_ids(store) == sorted(made.study_id for made in plans)


@pytest.mark.parametrize("recipe", [plan.RECIPE - 1, plan.RECIPE + 1])
def test_results_of_another_recipe_are_used_by_no_current_rule(
    store: Store, monkeypatch: pytest.MonkeyPatch, recipe: int
) -> None:
    made = make_plan(StudyConfig(), "m1", "fp32", {}, ())
    with monkeypatch.context() as patch:
        patch.setattr(plan, "RECIPE", recipe)
        save_plan(store, made)
    assert load_plan(store, made.study_id) == made
    words = f"expected recipe {plan.RECIPE}.* found {recipe}.*start its `thyro study` command again"
    with pytest.raises(InputError, match=words):
        load_current_plan(store, made.study_id)


def test_an_unknown_study_lists_the_known_ones(store: Store) -> None:
    with pytest.raises(InputError, match=r"expected a study s1, found none; check the id"):
        load_plan(store, "s1")
    plans = [planned(manifest_id=f"m{i}") for i in range(2)]
    for made in plans:
        save_plan(store, made)
    known = ", ".join(study_ids(store))
    with pytest.raises(
        InputError, match=f"expected a study s1, found {known}; .*--store"
    ) as caught:
        load_plan(store, "s1")
    assert store.url in str(caught.value)
    assert caught.value.exit_code == 2
