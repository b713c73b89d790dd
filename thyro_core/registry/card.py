"""A promoted model's card: what it is, how well it did, where its threshold lies, what it is for.

The card is canonical JSON with a seal, the SHA-256 of all the rest, so that a changed figure is
noticed. An undefined figure is null.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from thyro_core.config import Architecture, StudyConfig, canonical_json

CARD_VERSION = 2
"""Raised whenever a field changes its name or meaning. 2: threshold, rates and calibration are the
ensemble's, out of fold, no longer single members'; calibration has an intercept."""

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
    n: int = Field(description="Splits, patients or images it was taken over.")


class OperatingPoint(_Part):
    """The threshold of the ensemble and what it does on patients not trained on."""

    method: str
    target_sensitivity: _Fraction
    confidence: _Fraction = Field(description="Of the one-sided lower bound.")
    threshold: _Fraction = Field(description="Calibrated probability from which it is positive.")
    is_met: bool = Field(description="Whether the lower bound reaches the target.")
    sensitivity: Figure = Field(description="Malignant patients, each by the share of images.")
    sensitivity_bound: float | None = Field(description="Its one-sided lower bound.")
    specificity: Figure = Field(description="Benign patients, each by the share of images.")
    referred: float = Field(description="Share of all images from the threshold on.")


class BandPromise(_Part):
    """What one band's cut promises of the patients of a class."""

    share: _Fraction = Field(
        description="Declared: most patients, of those with images of the class, with one of "
        "these in this band."
    )
    cut: _Fraction = Field(description="Calibrated probability at which the class is implausible.")
    patients: int = Field(description="Calibration patients with images of the class.")
    beyond: int = Field(description="Of these, with an image of the class beyond the cut.")


class ConformalBands(_Part):
    """Bands by class-conditional conformal prediction, in place of the threshold's."""

    method: str
    routine: BandPromise = Field(description="Of malignant images; routine lies below the cut.")
    refer: BandPromise = Field(description="Of benign images; refer lies above the cut.")
    images: dict[str, _Fraction] = Field(description="Share of held-out images by band.")
    groups: int | None = Field(
        default=None,
        exclude_if=lambda groups: groups is None,
        description="Groups that stood for a patient whom nobody knows.",
    )


class EnsembleFigures(_Part):
    """What the members do together on images that their own members were not trained on."""

    method: str
    auc: Figure
    images: int
    patients: int = Field(description="Independent units: patients, or groups without one.")
    members: int = Field(description="Members of the ensemble in use.")
    members_per_image: float = Field(description="Mean number of members that scored an image.")


class CardFit(_Part):
    """How well probabilities fit on out-of-fold ensemble scores; null: undefined."""

    brier: Figure
    skill: Figure = Field(description="1 - Brier / Brier of the prevalence; below 0: worse.")
    nll: Figure
    slope: Figure = Field(description="Calibration slope; 1 fits, below 1: too extreme.")
    intercept: Figure = Field(description="At slope 1; 0 fits, below 0: too high on average.")
    observed_expected: Figure = Field(description="1 fits, below 1: too high on average.")


class CardCalibration(_Part):
    """Calibrated log odds = intercept + slope x log odds of the mean member probability."""

    slope: Annotated[float, Field(gt=0.0)]
    intercept: float
    prevalence: _Fraction = Field(description="Share of malignant images; it fits these alone.")
    raw: CardFit
    calibrated: CardFit = Field(description="Cross-fitted over groups.")


class CandidateCount(_Part):
    """How many models this store could choose from when the card was written."""

    studies: int = Field(description="Finished studies that share half of the images or more.")
    candidates: int = Field(description="Their networks: studies x architectures.")
    reruns: int = Field(description="Those that differ from this one by their seed at most.")
    auc_sd: float | None = Field(description="SD of the mean AUC over these reruns.")
    optimism: float | None = Field(
        description="By how much the best of these reruns is expected to look better than it is."
    )


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


class _CardFacts(_Part):
    """What cards of every version have."""

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
    config_sha256: _Sha256
    precision: str
    recipe: int
    data: CardData
    starting_weights: dict[str, str | None]
    metrics: dict[str, Figure] = Field(
        description="Of the procedure: single networks at the study's threshold, over splits."
    )
    embedding: Embedding
    versions: dict[str, str]
    git_commits: tuple[str, ...]


class Card(_CardFacts):
    """All there is to say of a promoted model."""

    card_version: Literal[2]
    study_config: StudyConfig
    ensemble: EnsembleFigures
    candidates: CandidateCount
    calibration: CardCalibration
    operating_point: OperatingPoint
    bands: ConformalBands | None = Field(default=None, exclude_if=lambda bands: bands is None)
    """None: by the threshold, as in cards of before the choice, whose seal holds no such field."""


class _PointVersion1(_Part):
    method: str
    target_sensitivity: _Fraction
    threshold: _Fraction
    sensitivity: Figure
    specificity: Figure
    image_sensitivity: Figure
    image_specificity: Figure


class _CalibrationVersion1(_Part):
    temperature: Annotated[float, Field(gt=0.0)]
    before: dict[str, float | None]
    after: dict[str, float | None]
    cross_fitted_before: dict[str, float | None]
    cross_fitted_after: dict[str, float | None]
    cross_fitted_n: int


class CardVersion1(_CardFacts):
    """A card of before the ensemble had figures of its own: its figures are single members'."""

    card_version: Literal[1]
    study_config: dict[str, Any] = Field(description="As that version of the program wrote it.")
    calibration: _CalibrationVersion1
    operating_point: _PointVersion1


_CardOfAnyVersion = Annotated[Card | CardVersion1, Field(discriminator="card_version")]
_CARDS: TypeAdapter[Card | CardVersion1] = TypeAdapter(_CardOfAnyVersion)


def card_bytes(card: Card | CardVersion1) -> bytes:
    """The one spelling of a card, sealed."""
    plain = card.model_dump(mode="json")
    return canonical_json(plain | {"seal": _seal(plain)}).encode()


def parse_card(data: bytes, model_id: str) -> Card | CardVersion1:
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
        card = _CARDS.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        # The first place of a field is the version by which the card is read.
        place = ".".join(map(str, first["loc"][1:])) or "card_version"
        msg = f"{place}: {first['msg']}"
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
