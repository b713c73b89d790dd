"""The config's bounds, its one spelling, and the ids and seeds that are made of it."""

import json
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.cli.errors import _settings_named
from thyro_core.config import (
    ARCHITECTURES,
    Architecture,
    IngestConfig,
    StudyConfig,
    canonical_json,
    content_id,
    job_seed,
)
from thyro_core.errors import InputError
from thyro_core.settings import Settings

# field: (too low, lowest, highest, too high); the values next to a bound, on either side of it.
BOUNDS: dict[str, tuple[float, float, float, float]] = {
    "min_side": (7, 8, 4096, 4097),
    "max_pixels": (4095, 4096, 10**9, 10**9 + 1),
    "max_bytes": (1023, 1024, 2 * 10**9, 2 * 10**9 + 1),
    "max_frames": (0, 1, 1000, 1001),
    "blur_bound": (-1e-9, 0.0, 10.0, 10.001),
    "overlay_bound": (-1e-9, 0.0, 1.0, 1.001),
    "hash_distance": (-1, 0, 64, 65),
    "similar_correlation": (0.0, 1e-9, 1.0, 1.001),
    "duplicate_correlation": (0.0, 1e-9, 1.0, 1.001),
    "splits": (1, 2, 100, 101),
    "folds": (1, 2, 50, 51),
    "test_fraction": (0.0, 1e-9, 0.999, 1.0),
    "val_fraction": (-1e-9, 0.0, 0.499, 0.5),
    "image_size": (63, 64, 1024, 1025),
    "epochs": (0, 1, 1000, 1001),
    "batch_size": (3, 4, 4096, 4097),
    "learning_rate": (0.0, 1e-9, 1.0, 1.001),
    "focal_gamma": (-1e-9, 0.0, 10.0, 10.001),
    "focal_alpha": (0.0, 1e-9, 0.999, 1.0),
    "rotation": (-1e-9, 0.0, 180.0, 180.1),
    "flip_horizontal": (-1e-9, 0.0, 1.0, 1.001),
    "flip_vertical": (-1e-9, 0.0, 1.0, 1.001),
    "seed": (-1, 0, 2**31 - 1, 2**31),
    "threshold": (0.0, 1e-9, 0.999, 1.0),
    "resamples": (99, 100, 100_000, 100_001),
    "cam_share": (0.29, 0.3, 0.7, 0.71),
    "trust_images": (-1, 0, 1000, 1001),
    "max_clip_frames": (0, 1, 100_000, 100_001),
    "frames_per_clip": (0, 1, 1000, 1001),
    "region_margin": (-1e-9, 0.0, 1.0, 1.001),
}

# Texts and choices: (values that are taken, values that are refused).
CHOICES: dict[str, tuple[list[object], list[object]]] = {
    "architectures": (
        [("vgg16",), ARCHITECTURES, ("vit_b_16", "densenet121")],
        [(), ("resnet51",), ("vgg16", "vgg16"), ("quantized_resnet18",)],
    ),
    "scheme": (
        ["holdout", "kfold", "repeated_kfold", "leave_one_centre_out", "temporal"],
        ["Holdout", "bootstrap"],
    ),
    "schedule": (["constant", "cosine"], ["linear"]),
    "batchnorm": (["recalibrate", "running"], ["frozen"]),
    "weights_prefix": ([("backbone.=>",), ()], [("backbone.",), ("a.=>", "a.=>b.")]),
    "weights": (["auto", "none", "s3://bucket/weights"], [""]),
    "precision": (["auto", "fp32", "bf16"], ["fp16"]),
    "deterministic": ([True, False], ["perhaps"]),
    "permute_labels": ([True, False], ["perhaps"]),
    "dual_views": (["keep", "exclude"], ["split", ""]),
    "region": (["whole", "nodule"], ["tissue", ""]),
    "resize": (["squash", "pad"], ["crop", ""]),
    "clean": ([True, False], ["perhaps"]),
    "readers": ([("tirads:4a",), ("a", "b"), ()], [("tirads:",), ("a", "a")]),
    "subgroups": ([("device", "age:40,60"), ()], [("age:60,40",), ("",), ("a", "a:3")]),
    "image_column": (["image", "file"], [""]),
    "label_column": (["label", "diagnosis"], [""]),
    "patient_column": (["patient_id", "case"], [""]),
    "centre_column": (["centre", "hospital"], [""]),
    "date_column": (["date", "year"], [""]),
    "label_map": (
        [("benign=B", "malignant=M", "unlabelled=U"), ()],
        [("B",), ("ill=M",), ("benign=",)],
    ),
    "tirads_benign": ([("1",), ()], [(1,), ("4a",)]),
    "tirads_malignant": ([("5",), ()], [(5,), ("3",)]),
}


def test_every_field_is_bounded_or_a_choice_and_says_what_it_is() -> None:
    assert BOUNDS.keys() | CHOICES.keys() == StudyConfig.model_fields.keys()
    for name, field in StudyConfig.model_fields.items():
        assert field.description, f"{name} has no description: it is the form's and the report's"


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_where_it_is_said_to_be(name: str) -> None:
    too_low, lowest, highest, too_high = BOUNDS[name]
    for inside in (lowest, highest):
        assert getattr(StudyConfig.model_validate({name: inside}), name) == inside
    for outside in (too_low, too_high, float("nan")):
        with pytest.raises(ValidationError, match=name):
            StudyConfig.model_validate({name: outside})


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_takes_what_it_lists_and_nothing_else(name: str) -> None:
    taken, refused = CHOICES[name]
    for value in taken:
        assert getattr(StudyConfig.model_validate({name: value}), name) == value
    for value in refused:
        with pytest.raises(ValidationError):
            StudyConfig.model_validate({name: value})


def test_whole_numbers_are_not_rounded() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        StudyConfig.model_validate({"epochs": 2.5})


def test_the_defaults_are_the_papers_where_it_gives_them() -> None:
    config = StudyConfig()
    assert config.splits == 10
    assert config.test_fraction == 0.3
    assert config.image_size == 224
    assert config.scheme == "holdout"
    assert config.architectures == ("resnet18", "alexnet", "vgg16", "inception_v3")
    assert config.val_fraction == 0.0
    assert get_args(Architecture)[:4] == ARCHITECTURES


def test_a_field_that_does_not_exist_is_refused() -> None:
    for model in (StudyConfig, IngestConfig):
        with pytest.raises(ValidationError, match="extra_forbidden"):
            model.model_validate({"epoch": 3})


def test_a_config_cannot_be_changed() -> None:
    for config in (StudyConfig(), IngestConfig()):
        with pytest.raises(ValidationError, match="frozen"):
            config.min_side = 100


def test_a_category_cannot_be_both_benign_and_malignant() -> None:
    with pytest.raises(ValidationError, match="TI-RADS 4a cannot be both"):
        StudyConfig(tirads_benign=("1", "4a"), tirads_malignant=("4a", "5"))


def test_ingest_is_exactly_the_part_that_decides_the_manifest() -> None:
    config = StudyConfig(min_side=100, blur_bound=0.5, tirads_benign=("1",), seed=9, epochs=3)
    assert config.ingest() == IngestConfig(min_side=100, blur_bound=0.5, tirads_benign=("1",))
    assert type(config.ingest()) is IngestConfig


@pytest.mark.parametrize(
    ("size", "architecture", "side"),
    [
        (224, "inception_v3", 299),
        (448, "inception_v3", 598),
        (64, "inception_v3", 85),  # 85.43
        (224, "resnet18", 224),
        (64, "vgg16", 64),
        (100, "alexnet", 100),
    ],
)
def test_side_scales_for_inception_alone(size: int, architecture: Architecture, side: int) -> None:
    assert StudyConfig(image_size=size).side(architecture) == side


def test_canonical_json_is_sorted_compact_ascii() -> None:
    assert canonical_json({"b": (1, 2.5), "a": {"d": None, "c": "é"}}) == (
        '{"a":{"c":"\\u00e9","d":null},"b":[1,2.5]}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_cannot_say(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms())
def test_canonical_json_loses_nothing_and_forgets_the_order(value: dict, generator: object) -> None:
    items = list(value.items())
    generator.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("share", [0.35, 0.5000001, 0.55])
def test_the_share_of_the_peak_is_one_of_those_computed(share: float) -> None:
    with pytest.raises(ValidationError, match=r"cam_share\n.*expected one of 0.3, 0.4, 0.5"):
        StudyConfig(cam_share=share)


@pytest.mark.parametrize(("splits", "cure"), [(7, "5 or 10"), (3, "5"), (11, "10 or 15")])
def test_repeated_kfold_runs_whole_repetitions(splits: int, cure: str) -> None:
    assert StudyConfig(scheme="repeated_kfold", splits=15).fold_count == 5
    with pytest.raises(ValidationError, match=f"set splits to {cure}"):
        StudyConfig(scheme="repeated_kfold", splits=splits)
    assert StudyConfig(scheme="kfold", splits=splits).fold_count == splits
    assert StudyConfig(splits=splits).fold_count is None


def test_equal_configs_have_one_spelling_however_they_were_written() -> None:
    spelled = StudyConfig.model_validate({"rotation": 10, "learning_rate": "1e-4", "epochs": "30"})
    assert canonical_json(spelled) == canonical_json(StudyConfig())


def test_every_field_changes_the_id() -> None:
    other = {name: lowest for name, (_, lowest, _, _) in BOUNDS.items()}
    other |= {"seed": 1, "val_fraction": 0.1, "flip_vertical": 0.1}
    other |= {"architectures": ("vgg16",), "scheme": "kfold", "schedule": "constant"}
    other |= {"batchnorm": "running", "weights": "none", "precision": "fp32"}
    other |= {"deterministic": False, "tirads_benign": ("1",), "tirads_malignant": ("5",)}
    other |= {"max_frames": 2, "subgroups": ("a",), "readers": ("a",), "permute_labels": True}
    other |= {"region": "nodule", "region_margin": 0.2, "resize": "pad", "clean": True}
    other |= {"dual_views": "exclude", "image_column": "file", "label_column": "diagnosis"}
    other |= {
        "patient_column": "case",
        "centre_column": "hospital",
        "date_column": "year",
        "weights_prefix": ("backbone.=>",),
        "label_map": ("benign=B", "malignant=M"),
    }
    ids = {content_id("s", StudyConfig.model_validate({name: other[name]})) for name in other}
    assert other.keys() == StudyConfig.model_fields.keys()
    assert len(ids | {content_id("s", StudyConfig())}) == len(other) + 1


def test_the_default_configs_id_is_what_it_was() -> None:
    assert content_id("s", StudyConfig()) == "s00241561a23aeb1b", (
        "The default config no longer hashes to the same id: a field was added, removed, renamed, "
        "or a default or the canonical JSON changed. Every study in every store gets a new id, and "
        "nothing of theirs is found again. If that is meant, tell users and set the new id here."
    )


def test_content_id_is_the_prefix_and_the_start_of_the_sha256() -> None:
    # printf '{"a":1}' | sha256sum
    assert content_id("m", {"a": 1}) == "m015abd7f5cc57a2d"


@given(st.integers())
def test_an_id_is_never_taken_for_a_number(value: int) -> None:
    assert re.fullmatch(r"s[0-9a-f]{16}", content_id("s", {"value": value}))


def test_job_seeds_are_the_documented_hash() -> None:
    # printf '7/3/vgg16' | sha256sum, the first eight digits, halved.
    assert job_seed(7, 3, "vgg16") == 0x93C6C861 >> 1


@given(st.integers(0, 2**31 - 1))
def test_job_seeds_of_a_study_differ_and_fit_a_generator(seed: int) -> None:
    seeds = [job_seed(seed, split, name) for split in range(100) for name in ARCHITECTURES]
    # Of 400 draws from 2**31 two are equal once in 27,000 studies: that is no fault.
    assert len(set(seeds)) >= 399
    assert all(0 <= value < 2**31 for value in seeds)
    assert max(seeds) > 2**30


def test_job_seeds_of_the_first_studies_are_all_distinct() -> None:
    seeds = [
        job_seed(seed, split, name)
        for seed in range(5)
        for split in range(100)
        for name in ARCHITECTURES
    ]
    assert len(set(seeds)) == 2000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("THYRO_CPUS_PER_JOB", "abc", "expected a valid integer, .* found 'abc'; correct or unset"),
        ("THYRO_STORE_PATIENCE", "-1", "expected greater than or equal to 0, found '-1'; correct"),
        ("THYRO_KEEP_MODELS", "maybe", "expected a valid boolean, .* found 'maybe'; correct"),
    ],
)
def test_a_wrong_setting_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name}: {said}") as found, _settings_named():
        Settings()
    assert found.value.__cause__ is None


def test_a_secret_is_never_shown() -> None:
    with (
        pytest.raises(InputError, match=r"THYRO_PSEUDONYM_KEY: .* not shown") as found,
        _settings_named(),
    ):
        Settings(pseudonym_key=["hidden-key"])
    assert "hidden-key" not in str(found.value)
