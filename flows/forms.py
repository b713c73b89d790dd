"""What a flow's parameters look like as a form in Prefect's UI.

Prefect makes the form of a flow's type hints and of the texts in its docstring. Here is what they
cannot say: the order of a model's fields, an empty field in place of a choice of types, and that
an address holds no secret.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.errors import InputError

# A path has no query: there ? is part of a name.
# In the form's schema too, so that a password is refused before it is kept in Prefect's database.
_NO_SECRET = r"^(?!(?!file:)[A-Za-z0-9+.\-]+://([^/]*@|.*[?]))"  # noqa: S105 - a pattern, no password

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}

_FIRST = (
    "architectures",
    "splits",
    "epochs",
    "image_size",
    "seed",
    "weights",
    "precision",
    "threshold",
)


def without_secret(address: str) -> str:
    """The address, if it is fit to be shown to everybody who can open Prefect's UI.

    Raises:
        InputError: there is a user, a password or a signature in it.
    """
    if not re.match(_NO_SECRET, address):
        place = re.sub(r"://[^/]*@", "://", address).partition("?")[0]
        msg = (
            f"{place}: expected an address without user, password or signature, because everybody "
            "who can open Prefect's UI reads it; give them in the AWS_* variables"
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
    """Annotation of a model: these fields first, optional values plain, with their bounds."""

    first: Sequence[str]

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Called by pydantic when Prefect asks for the form."""
        schema = handler(core)
        model = handler.resolve_ref_schema(schema)
        fields: Mapping[str, Any] = model["properties"]
        order = [*self.first, *(name for name in fields if name not in self.first)]
        model["properties"] = {
            name: _with_bounds(_plain_schema(fields[name])) | {"position": place}
            for place, name in enumerate(order)
        }
        return schema


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

StudyForm = Annotated[StudyConfig, ModelForm(_FIRST)]
"""A study's config, what people change first."""

RulesForm = Annotated[IngestConfig, ModelForm(())]
"""The rules of an ingest."""

ImageSize = Annotated[int, Field(ge=64, le=1024)]
"""Side of a network input [pixels]."""
