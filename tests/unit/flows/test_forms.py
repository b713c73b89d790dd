"""What the forms ask, refuse and say: the very schemas that Prefect's UI shows."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.forms import with_preset, without_secret
from flows.serving.deployments import ENTRY_POINTS, load_flow
from flows.study import study
from thyro_core.config import StudyConfig
from thyro_core.errors import InputError


@cache
def schema(flow=study) -> dict:
    """Made once: Prefect takes its time over it."""
    return parameter_schema(flow).model_dump_for_openapi()


def refused(flow=study, **parameters) -> str:
    """The server's words; empty: it is taken."""
    try:
        validate(parameters, schema(flow), raise_on_error=True)
    except ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "flow", [load_flow(entry) for entry in ENTRY_POINTS], ids=lambda flow: flow.name
)
def test_every_field_is_described_and_none_is_a_choice_of_types(flow) -> None:
    found = schema(flow)
    models = [model for model in found.get("definitions", {}).values() if "properties" in model]
    for fields in (found["properties"], *(model["properties"] for model in models)):
        for name, field in fields.items():
            assert field.get("description"), f"{flow.name}: {name}"
            assert "anyOf" not in field, f"{flow.name}: {name}"
            assert "<" not in field["description"], "one of the two UIs takes it for HTML"
            assert "`" not in field["description"], "one of the two UIs shows it"


@pytest.mark.parametrize(
    "flow", [load_flow(entry) for entry in ENTRY_POINTS], ids=lambda flow: flow.name
)
def test_an_address_says_that_it_holds_no_secret(flow) -> None:
    for name in ("source", "batch"):
        field = schema(flow)["properties"].get(name)
        assert field is None or "password" in field["description"]


def test_what_people_change_comes_first_on_every_server() -> None:
    fields = schema()["definitions"]["StudyConfig"]["properties"]
    assert list(fields)[:3] == ["architectures", "splits", "epochs"]
    titles = [field["title"] for field in fields.values()]
    groups = list(dict.fromkeys(title.partition(": ")[0] for title in titles))
    assert groups == ["Study", "Splits", "Training", "Evaluation", "Labels", "Images"]
    assert fields["learning_rate"]["title"] == "Training: learning rate"
    assert fields.keys() == set(StudyConfig.model_fields)
    # PostgreSQL keeps no order of keys.
    assert [field["position"] for field in fields.values()] == list(range(len(fields)))


def test_a_preset_fills_what_was_left_at_its_default() -> None:
    config = StudyConfig(epochs=7, rotation=3)
    assert with_preset(config, "paper") == config
    quick = with_preset(config, "quick look")
    assert (quick.architectures, quick.splits, quick.image_size) == (("resnet18",), 3, 128)
    assert (quick.epochs, quick.rotation) == (7, 3)
    folds = with_preset(StudyConfig(scheme="repeated_kfold"), "quick look")
    assert (folds.splits, folds.folds) == (5, 5)
    fixed = with_preset(StudyConfig(architectures=("vit_b_16",)), "quick look")
    assert (fixed.architectures, fixed.image_size) == (("vit_b_16",), 224)
    assert schema()["properties"]["preset"]["enum"] == ["paper", "quick look"]
    assert "preset" in refused(source="images", preset="thorough")
    assert refused(source="images", preset="quick look") == ""


def test_bounds_and_choices_are_in_the_form() -> None:
    fields = schema()["definitions"]["StudyConfig"]["properties"]
    assert fields["splits"]["minimum"] == 2
    assert fields["splits"]["description"].endswith("At least 2, at most 100.")
    assert fields["focal_alpha"]["type"] == "number"
    assert fields["focal_alpha"]["description"].endswith("More than 0, less than 1.")
    assert fields["scheme"]["enum"] == [
        "holdout",
        "kfold",
        "repeated_kfold",
        "leave_one_centre_out",
        "temporal",
    ]
    assert fields["architectures"]["items"]["enum"][0] == "resnet18"
    assert fields["deterministic"]["type"] == "boolean"


def test_the_defaults_are_taken_as_they_stand() -> None:
    assert refused(source="images") == ""
    default = StudyConfig().model_dump(mode="json")
    assert default["focal_alpha"] is None
    assert refused(source="images", config=default, store="", ray="") == ""
    assert refused(source="images", config=default | {"focal_alpha": 0.25}) == ""
    assert study.validate_parameters({"source": "images", "config": default})["config"] == (
        StudyConfig()
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("splits", 1), ("splits", "many"), ("splits", 2.5), ("threshold", 1.0), ("epochs", 0),
        ("scheme", "bootstrap"), ("architectures", []), ("architectures", ["lenet"]),
        ("focal_alpha", 1), ("image_size", 8), ("deterministic", "perhaps"), ("colour", "red"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(key, value) -> None:
    said = refused(source="images", config={key: value})
    assert key in said
    assert "config" in said


def test_a_missing_source_is_refused() -> None:
    assert "source" in refused()
    assert "source" in refused(source="")
    assert "source" in refused(source="   ")


SECRETS = [
    "s3://key:secret@bucket/images", "https://user@host/images", "https://host/i?X-Amz-Signature=1",
    "s3://bucket/images?secret=x", "simplecache::s3://user:secret@bucket/x",
    " s3://user:secret@bucket/x", "https://h/x#sig=secret", "file:///x::s3://user:secret@bucket/x",
    "dicomweb+https://h?PatientName=DOE^JANE", "dicomweb+https://h/dw?00100020=7",
    "dicomweb+https://h/dw?ModalitiesInStudy=US&token=SECRET", "dicomweb+https://h?%74oken=secret",
    "dicomweb+https://user:secret@h/dw", "dicomweb+https://h/dw?StudyDate=1&ToKeN=secret",
]  # fmt: skip
PLAIN = [
    "images",
    "/data/set 1",
    "s3://bucket/a@b/c",
    "file:///tmp/x",
    "file:///data/set [1]*?",
    "file:///data/set #2 a@b",
    r"C:\images",
    "simplecache::s3://bucket/x",
    "dicomweb+https://host/dicom-web?ModalitiesInStudy=US&StudyDescription=*thyroid*",
    "dicomweb+https://host/dicom-web?ModalitiesInStudy=US&StudyDate=20260101-",
    "gs://b/ü",
]


@pytest.mark.parametrize("address", SECRETS)
def test_a_secret_is_refused_in_the_form_the_flow_and_the_command(address) -> None:
    assert "source" in refused(source=address)
    assert "store" in refused(source="images", store=address)
    with pytest.raises(InputError, match="AWS_") as caught:
        without_secret(address)
    for secret in ("secret", "SECRET", "Signature", "user@", "DOE", "user:"):
        assert secret not in str(caught.value).replace("without user, password", "")
    with pytest.raises(ParameterTypeError, match="AWS_"):
        study.validate_parameters({"source": address})


@pytest.mark.parametrize("address", PLAIN)
def test_an_ordinary_address_is_taken_as_it_is(address) -> None:
    assert without_secret(address) == address
    assert refused(source=address, store=address) == ""


SHAPES = ["s3://{}@{}", "{}{}", "https://h/{}?{}"]


@given(st.sampled_from(SHAPES), st.text(min_size=1), st.text())
def test_form_and_flow_refuse_the_same(shape, first, second) -> None:
    address = shape.format(first, second)
    try:
        taken = bool(without_secret(address))
    except InputError:
        taken = False
    assert taken == (refused(source="x", store=address) == "")
