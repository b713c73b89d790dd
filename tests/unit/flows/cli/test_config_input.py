"""The config as people write it: a YAML file and assignments on the command line."""

from pathlib import Path

import pytest
import yaml

from flows.cli.config_input import read_config
from thyro_core.config import StudyConfig
from thyro_core.errors import InputError

# For each key a text one would type and the value it must come to, none of them the default.
TYPED: dict[str, tuple[str, object]] = {
    "min_side": ("100", 100),
    "max_pixels": ("1_000_000", 1_000_000),
    "max_bytes": ("2048", 2048),
    "max_frames": ("3", 3),
    "blur_bound": ("0", 0.0),
    "overlay_bound": ("5e-3", 0.005),
    "hash_distance": ("8", 8),
    "duplicate_correlation": ("1", 1.0),
    "similar_correlation": ("0.5", 0.5),
    "tirads_benign": ("1,2", ("1", "2")),
    "tirads_malignant": ("5", ("5",)),
    "architectures": ("vgg16,resnet18", ("vgg16", "resnet18")),
    "scheme": ("kfold", "kfold"),
    "splits": ("5", 5),
    "folds": ("4", 4),
    "test_fraction": (".25", 0.25),
    "val_fraction": ("0.1", 0.1),
    "image_size": ("128", 128),
    "epochs": ("2", 2),
    "batch_size": ("16", 16),
    "learning_rate": ("1e-3", 0.001),
    "schedule": ("constant", "constant"),
    "focal_gamma": ("0", 0.0),
    "focal_alpha": ("0.75", 0.75),
    "rotation": ("15", 15.0),
    "flip_horizontal": ("0", 0.0),
    "flip_vertical": ("0.5", 0.5),
    "batchnorm": ("running", "running"),
    "weights": ("s3://bucket/weights", "s3://bucket/weights"),
    "centre_column": ("hospital", "hospital"),
    "date_column": ("year", "year"),
    "max_clip_frames": ("500", 500),
    "frames_per_clip": ("4", 4),
    "weights_prefix": ("backbone.=>,fc.=>head.", ("backbone.=>", "fc.=>head.")),
    "precision": ("fp32", "fp32"),
    "deterministic": ("false", False),
    "seed": ("7", 7),
    "threshold": ("0.4", 0.4),
    "resamples": ("200", 200),
    "cam_share": ("0.4", 0.4),
    "trust_images": ("0", 0),
    "subgroups": ("device, age:40,60", ("device", "age:40,60")),
    "readers": ("tirads:4a", ("tirads:4a",)),
    "permute_labels": ("true", True),
    "dual_views": ("exclude", "exclude"),
    "region": ("nodule", "nodule"),
    "region_margin": ("0.2", 0.2),
    "resize": ("pad", "pad"),
    "clean": ("true", True),
    "image_column": ("file", "file"),
    "label_column": ("histology", "histology"),
    "patient_column": ("case", "case"),
    "label_map": ("benign=B,malignant=M", ("benign=B", "malignant=M")),
}


def test_nothing_given_is_the_defaults() -> None:
    assert read_config(None, []) == StudyConfig()


def test_every_key_has_a_case() -> None:
    assert TYPED.keys() == StudyConfig.model_fields.keys()
    for name, (_, value) in TYPED.items():
        assert getattr(StudyConfig(), name) != value


@pytest.mark.parametrize("name", TYPED)
def test_every_key_can_be_set(name: str, tmp_path: Path) -> None:
    text, value = TYPED[name]
    wanted = StudyConfig.model_validate({name: value})
    assert getattr(wanted, name) == value
    assert read_config(None, [f"{name}={text}"]) == wanted
    file = tmp_path / "study.yaml"
    file.write_text(f"{name}: {text}\n")
    assert read_config(file, []) == wanted


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("learning_rate=1e-4", {"learning_rate": 1e-4}),
        ("learning_rate=0.5E-2", {"learning_rate": 0.005}),
        (" epochs = 3 ", {"epochs": 3}),
        ("architectures=[vgg16, alexnet]", {"architectures": ("vgg16", "alexnet")}),
        ("architectures=vgg16 , alexnet", {"architectures": ("vgg16", "alexnet")}),
        ("architectures=vgg16", {"architectures": ("vgg16",)}),
        ("tirads_benign=2", {"tirads_benign": ("2",)}),
        ("tirads_benign=[1, 2]", {"tirads_benign": ("1", "2")}),
        ("tirads_benign=1,2", {"tirads_benign": ("1", "2")}),
        ("tirads_benign='1,2,3'", {"tirads_benign": ("1", "2", "3")}),
        ("focal_alpha=null", {"focal_alpha": None}),
        ("focal_alpha=", {"focal_alpha": None}),
        ("deterministic=no", {"deterministic": False}),
        ("weights=https://host/a?b=c", {"weights": "https://host/a?b=c"}),
    ],
)
def test_what_people_type_means_what_they_mean(assignment: str, wanted: dict) -> None:
    assert read_config(None, [assignment]) == StudyConfig.model_validate(wanted)


def test_assignments_stand_above_the_file_and_the_last_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("epochs: 2\nseed: 3\narchitectures: [vgg16, alexnet]\n")
    found = read_config(file, ["epochs=5", "epochs=6", "focal_alpha=0.2"])
    assert found == StudyConfig(
        epochs=6, seed=3, architectures=("vgg16", "alexnet"), focal_alpha=0.2
    )


def test_a_file_without_a_key_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("# nothing yet\n")
    assert read_config(file, []) == StudyConfig()


def test_a_studys_own_config_can_be_given_again(tmp_path: Path) -> None:
    config = StudyConfig(architectures=("vgg16",), tirads_benign=("1", "2"), focal_alpha=None)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_config(file, []) == config


def message(file: Path | None, *assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        read_config(file, assignments)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_unknown_key_lists_the_keys() -> None:
    found = message(None, "epoch=3")
    assert found.startswith("config: epoch is no config key, did you mean epochs? ")
    keys = ", ".join(sorted(StudyConfig.model_fields))
    assert found.endswith(f"the config keys are {keys}")
    assert message(None, "nonsense=3").startswith(
        "config: nonsense is no config key; the config keys are "
    )


def test_a_wrong_item_of_a_list_is_told_once() -> None:
    assert message(None, "architectures=densenet-121") == (
        "config: architectures: expected the name of one of torchvision's 80 classification "
        "networks, such as resnet18, alexnet, vgg16, inception_v3, densenet121 or efficientnet_b0, "
        "did you mean densenet121?, found 'densenet-121'"
    )


def test_a_network_that_cannot_be_trained_says_why_and_one_that_takes_one_side_which() -> None:
    assert "(quantised weights cannot be trained), did you mean resnet18?" in message(
        None, "architectures=quantized_resnet18"
    )
    assert message(None, "architectures=resnet50,vit_b_16", "image_size=96") == (
        "config: vit_b_16 takes images of one size alone, because its positions are learned: "
        "expected image_size 224, found 96; set image_size=224 or choose another network"
    )


def test_all_problems_are_told_at_once() -> None:
    found = message(None, "epochs=0", "seed=-1", "nonsense=1")
    assert "epochs: " in found
    assert "seed: " in found
    assert "nonsense is no config key" in found


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("epochs=0", ["epochs: ", "greater than or equal to 1", "found 0"]),
        ("epochs=many", ["epochs: ", "integer", "found 'many'"]),
        ("learning_rate=.nan", ["learning_rate: ", "found nan"]),
        ("scheme=bootstrap", ["scheme: ", "'holdout'", "'kfold'", "found 'bootstrap'"]),
        ("architectures=resnet51", ["architectures: ", "resnet18", "found 'resnet51'"]),
        ("architectures=vgg16,vgg99", ["found 'vgg99'"]),
        ("=3", ["config: '' is no config key"]),
        ("architectures=[]", ["architectures: ", "at least 1"]),
        ("architectures=vgg16,vgg16", ["config: architectures names one twice: vgg16, vgg16"]),
        ("tirads_benign=4a", ["config: TI-RADS 4a cannot be both benign and malignant"]),
        ("epochs", ["--set epochs", "expected key=value", "found no '='"]),
        ("epochs=[1", ["--set epochs=[1", "expected a YAML value"]),
    ],
)
def test_a_wrong_value_names_key_expectation_and_what_was_found(
    assignment: str, parts: list[str]
) -> None:
    found = message(None, assignment)
    for part in parts:
        assert part in found
    # A key that is none is answered with all that there are.
    assert len(found) < 200 + len(", ".join(StudyConfig.model_fields))
    assert "pydantic" not in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"epochs: [1\n", "expected YAML, found: "),
        (b"\xff\xfe\x00", "expected YAML, found: "),
        (b"- epochs\n- seed\n", "expected key: value lines, found a list"),
        (b"epochs\n", "expected key: value lines, found a str"),
        (b"epochs: 0\n", "epochs: "),
        (b"epoch: 1\n", "epoch is no config key"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(content)
    found = message(file)
    assert str(file) in found
    assert part in found
    assert "\n" not in found


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    found = message(tmp_path / "no.yaml")
    assert found == (
        f"--config {tmp_path}/no.yaml: expected a YAML file, found: No such file or directory"
    )
    assert "Is a directory" in message(tmp_path)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("epochs: !!python/object/apply:os.getpid []\n")
    assert "expected YAML" in message(file)


def test_options_come_after_the_assignments_and_only_where_they_are_given() -> None:
    options = {"label_map": "benign=0, malignant=1", "image_column": "", "label_column": "y"}
    config = read_config(None, ["label_column=x", "image_column=file"], options)
    assert config.label_map == ("benign=0", "malignant=1")
    assert (config.image_column, config.label_column) == ("file", "y")
