"""A promoted model's card: what it is, how well it did, where its threshold lies, what it is for.

The card is canonical JSON with a seal, the SHA-256 of all the rest, so that a changed figure is
noticed. An undefined figure is null.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thyro_core.config import Architecture, StudyConfig, canonical_json

CARD_VERSION = 1
"""Raised whenever a field changes its name or meaning."""

_Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CardError(ValueError):
    """A text that is no whole card."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Part):
    """A figure with its 95 % interval; null: undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int = Field(description="Splits, or images, it was taken over.")


class OperatingPoint(_Part):
    """The threshold and what it does, estimated on images that did not choose it."""

    method: str
    target_sensitivity: _Fraction
    threshold: _Fraction
    sensitivity: Figure = Field(description="Cross-fitted, mean over splits, Nadeau-Bengio.")
    specificity: Figure = Field(description="Cross-fitted, mean over splits, Nadeau-Bengio.")
    image_sensitivity: Figure = Field(description="Cross-fitted, images once, Clopper-Pearson.")
    image_specificity: Figure = Field(description="Cross-fitted, images once, Clopper-Pearson.")


class CardFit(_Part):
    """How well probabilities fit, on held-out predictions; null: undefined."""

    nll: float | None
    brier: float | None
    ece: float | None


class CardCalibration(_Part):
    """The temperature and what it changes."""

    temperature: Annotated[float, Field(gt=0.0)]
    before: CardFit
    after: CardFit
    cross_fitted_before: CardFit
    cross_fitted_after: CardFit
    cross_fitted_n: int = Field(description="Splits the cross-fitted means are taken over.")


class CardData(_Part):
    """What the members were trained and tested on."""

    manifest_id: str
    images: int
    malignant: int
    patients: int = Field(description="0: the set came without patient ids.")
    sha256: _Sha256 = Field(description="Of the sorted image_ids and labels that took part.")


class Embedding(_Part):
    """Distances of training images in the embedding space of the first member."""

    layer: str
    neighbours: int
    held_out: int = Field(description="Training images the first member had not seen.")
    distances: dict[str, float | None] = Field(description="Quantile -> distance.")


class Card(_Part):
    """All there is to say of a promoted model."""

    card_version: Literal[1]
    model_id: Annotated[str, Field(pattern=r"^b[0-9a-f]{16}$")]
    notice: str
    intended_use: str
    not_intended: str
    licence: str
    warnings: tuple[str, ...]
    architecture: Architecture
    side: int
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    files: dict[str, _Sha256]
    study_id: str
    study_config: StudyConfig
    config_sha256: _Sha256
    precision: str
    recipe: int
    data: CardData
    starting_weights: dict[str, str | None]
    metrics: dict[str, Figure]
    calibration: CardCalibration
    operating_point: OperatingPoint
    embedding: Embedding
    versions: dict[str, str]
    git_commits: tuple[str, ...]


def card_bytes(card: Card) -> bytes:
    """The one spelling of a card, sealed."""
    plain = card.model_dump(mode="json")
    return canonical_json(plain | {"seal": _seal(plain)}).encode()


def parse_card(data: bytes, model_id: str) -> Card:
    """The card in these bytes, once it is whole.

    Raises:
        CardError: it is damaged, was changed, or is another model's; says which.
    """
    try:
        plain = json.loads(data)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        msg = "no JSON object"
        raise CardError(msg)
    seal = plain.pop("seal", None)
    try:
        card = Card.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CardError(msg) from error
    if seal != _seal(plain):
        msg = "other contents than it was sealed with"
        raise CardError(msg)
    if card.model_id != model_id or not set(card.members) <= card.files.keys():
        msg = f"the card of {card.model_id} with {len(card.members)} members"
        raise CardError(msg)
    return card


def _seal(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()
