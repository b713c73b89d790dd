"""The inputs of an evaluation, and the record of one that is finished."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from thyro_core.config.networks import NetworkName

EVALUATION_VERSION = 3
"""Raised whenever the same model and images give other figures. 2: maps are checked, too. 3: net
benefit has an interval within its bounds, and a share of the area no P."""


class EvaluationConfig(BaseModel):
    """How a model is evaluated on an image set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: Annotated[int, Field(ge=10, le=100_000)] = Field(
        1000, description="Resamples of the bootstrap, where an interval has no closed form."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="Seed of the resampling, and of the choice of images with a map."
    )
    map_images: Annotated[int, Field(ge=0, le=10_000)] = Field(
        200, description="Images, drawn at random, whose Grad-CAM maps are checked; 0: none."
    )


class ModelChoice(BaseModel):
    """Which model is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        "champion",
        description="champion, a promoted model's id, or a finished study's id: the ensemble of "
        "its splits, calibrated as promotion would.",
    )
    architecture: Literal["first", NetworkName] = Field(
        "first", description="Of a study: which of its networks; first: its first one."
    )
    sensitivity: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95,
        description="Of a study: sensitivity whose lower confidence bound the threshold, chosen "
        "on the study's images, keeps above it.",
    )


class EvaluationRecord(BaseModel):
    """An evaluation that is done, beside its tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluation_id: str
    version: int
    model_id: str
    manifest_id: str
    source: str | None
    """Address of the image set, without passwords; null: names are not kept."""
    config: EvaluationConfig
    device: str
    members: int
    counts: dict[str, int]
    """Images: `scored`, and left out by reason."""
    notes: tuple[str, ...]
    """What a reader of the figures must know, one sentence each."""
