"""What a flow's parameters look like as a form in Prefect's UI.

Prefect makes the form of a flow's type hints and of the texts in its docstring. Here is what they
cannot say: the order of a model's fields, an empty field in place of a choice of types, and that
an address holds no secret.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.errors import InputError


def _any_case(pattern: str) -> str:
    """A pattern for letters of either case: a form's pattern takes no flag in a browser."""
    return re.sub(r"[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", pattern)


# A path has no query: there ? and # are parts of a name.
# In the form's schema too, so that a password is refused before it is kept in Prefect's database.
# The query of an archive says which studies are meant, by keywords or tags that name nobody.
# An address may stand behind a blank, or within another one (simplecache::s3://).
_FILE, _ARCHIVE = r"file://(?![\s\S]*://)", r"dicomweb\+https?://"
_NAMES_SOMEBODY = (
    r"(?:[^&=]*(?:patient|birth|accession|token|password|passwd|secret|signature|credential|auth"
    r"|key|[%+;])[^&=]*|sig|pwd|[^&=]*uid|(?:0010|00080050|00080018|0020000(?:d|e))[^&=]*)(?:[=&]|$)"
)
_NO_SECRET = (
    rf"^(?!(?!{_FILE})[\s\S]*://[^/]*@)"
    rf"(?!(?!{_FILE}|{_ARCHIVE})[\s\S]*://[\s\S]*[?#])"
    rf"(?!{_ARCHIVE}(?:[\s\S]*#|[\s\S]*://|[^?]*[?](?:[^&]*&)*{_any_case(_NAMES_SOMEBODY)}))"
)

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}

_STUDY_GROUPS: Mapping[str, tuple[str, ...]] = {
    # What people change first.
    "Study": (
        "architectures", "splits", "epochs", "image_size", "seed", "weights", "precision",
        "threshold",
    ),
    "Splits": (
        "scheme", "folds", "test_fraction", "val_fraction", "centre_column", "date_column",
        "permute_labels",
    ),
    "Training": (
        "batch_size", "learning_rate", "schedule", "focal_gamma", "focal_alpha", "rotation",
        "flip_horizontal", "flip_vertical", "batchnorm", "weights_prefix", "deterministic",
    ),
    "Evaluation": ("resamples", "cam_share", "trust_images", "subgroups", "readers"),
    "Labels": (
        "image_column", "label_column", "patient_column", "label_map", "tirads_benign",
        "tirads_malignant",
    ),
    "Images": (
        "min_side", "max_pixels", "max_bytes", "max_frames", "max_clip_frames", "frames_per_clip",
        "blur_bound", "overlay_bound", "duplicate_correlation", "similar_correlation",
        "dual_views", "hash_distance", "region", "region_margin", "resize", "clean",
    ),
}  # fmt: skip

Preset = Literal["paper", "quick look"]

_PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": {},
    "quick look": {
        "architectures": ("resnet18",), "splits": 3, "epochs": 3, "image_size": 128,
        "trust_images": 1,
    },
}  # fmt: skip


def with_preset(config: StudyConfig, preset: Preset) -> StudyConfig:
    """A study's config with a preset in place of each value that was left at its default.

    Args:
        config: as it came out of the form.
        preset: paper: the defaults themselves; quick look: small enough for a first impression,
            and no result.
    """
    default = StudyConfig()
    rest = {
        name: value
        for name, value in _PRESETS[preset].items()
        if getattr(config, name) == getattr(default, name)
    }
    if config.architectures != default.architectures:
        # Not every network takes any size.
        rest.pop("image_size", None)
    if config.scheme == "repeated_kfold" and "splits" in rest:
        rest["splits"] = config.folds
    return StudyConfig.model_validate(config.model_dump() | rest)


def without_secret(address: str) -> str:
    """The address, if it is fit to be shown to everybody who can open Prefect's UI.

    Raises:
        InputError: there is a user, a password or a signature in it.
    """
    if not re.match(_NO_SECRET, address):
        place = re.sub(r"://[^/]*@", "://", address)
        place = re.split(r"[?#]", place)[0].strip()
        msg = (
            f"{place}: expected an address without user, password or signature, and of an archive "
            "with filters that name nobody, because everybody who can open Prefect's UI reads it; "
            "give them in the AWS_* or THYRO_DICOMWEB_* variables"
        )
        raise InputError(msg)
    return address


def _without_secret(address: str) -> str:
    try:
        return without_secret(address)
    except InputError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True)
class ModelForm:
    """Annotation of a model: these fields first, optional values plain, with their bounds.

    With groups each field's title begins with its group's, which is the one way to part a form
    whose values lie side by side.
    """

    first: Sequence[str] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Called by pydantic when Prefect asks for the form."""
        schema = handler(core)
        model = handler.resolve_ref_schema(schema)
        fields: Mapping[str, Any] = model["properties"]
        group_of = {name: group for group, names in self.groups.items() for name in names}
        first = [*self.first, *group_of]
        order = [*first, *(name for name in fields if name not in first)]
        model["properties"] = {
            name: _with_bounds(_plain_schema(fields[name]))
            | _group_title(fields[name], group_of.get(name))
            | {"position": place}
            for place, name in enumerate(order)
        }
        return schema


def _group_title(schema: Mapping[str, Any], group: str | None) -> dict[str, str]:
    return {} if group is None else {"title": f"{group}: {schema['title'].lower()}"}


def _plain_schema(field: Mapping[str, Any]) -> dict[str, Any]:
    """Without `None` among the types: for an optional field the server takes an empty one."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return dict(field)
    rest = {key: value for key, value in field.items() if key not in {"anyOf", "default"}}
    return {**kinds[0], **rest}


def _with_bounds(field: dict[str, Any]) -> dict[str, Any]:
    """With its bounds in the description: the form shows them only when they are broken."""
    bounds = [
        f"{word} {field[key]:g}" if isinstance(field[key], float) else f"{word} {field[key]}"
        for key, word in _BOUNDS.items()
        if key in field
    ]
    text = " ".join([field.get("description", ""), ", ".join(bounds).capitalize()]).strip()
    return field | {"description": f"{text}."} if bounds else field


Source = Annotated[
    str,
    AfterValidator(_without_secret),
    Field(min_length=1, json_schema_extra={"pattern": _NO_SECRET + r".*\S"}),
]
"""Address of images; required."""

MoreSources = tuple[Source, ...]
"""Addresses of further image sets."""

Address = Annotated[
    str, AfterValidator(_without_secret), Field(json_schema_extra={"pattern": _NO_SECRET})
]
"""Any other address; empty: the setting's."""

StudyForm = Annotated[StudyConfig, ModelForm(groups=_STUDY_GROUPS)]
"""A study's config in groups, first what people change first."""

RulesForm = Annotated[IngestConfig, ModelForm(())]
"""The rules of an ingest."""

ImageSize = Annotated[int, Field(ge=64, le=1024)]
"""Side of a network input [pixels]."""
