"""What a nightly screening reads, refuses and hands to a reader first: declared and bounded."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ScreeningRules(BaseModel):
    """The rules of a screening; like a study's config it is a form, and part of what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_side: Annotated[int, Field(ge=8, le=4096)] = Field(
        64, description="Smallest side an image may have [pixels]; smaller ones are rejected."
    )
    max_pixels: Annotated[int, Field(ge=4096, le=10**9)] = Field(
        20_000_000, description="Most pixels a frame may have before it is refused undecoded."
    )
    max_bytes: Annotated[int, Field(ge=1024, le=2 * 10**9)] = Field(
        500_000_000, description="Largest file that is read [bytes]."
    )
    max_clip_frames: Annotated[int, Field(ge=1, le=100_000)] = Field(
        5000, description="Most frames a DICOM clip may have before it is refused undecoded."
    )
    frames_per_clip: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="Most frames of a clip that are scored; evenly spaced over it."
    )
    split_views: bool = Field(
        True,
        description="Whether a picture of two windows, whose file does not say where they are, is "
        "two images, one a window; otherwise it is one.",
    )
    blur_bound: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.05,
        description="Lowest sharpness that counts as in focus; blurred ones are rejected. 0: off.",
    )
    overlay_bound: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.02, description="Largest share of coloured pixels (callipers, Doppler) in an image."
    )
    outlier_quantile: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.99,
        description="Quantile of the training images' own distances beyond which an image counts "
        "as unlike them; 1 = farther than any.",
    )
    review_sds: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        1.0,
        description="An image is for review when the calibrated probability plus this many of the "
        "members' standard deviations reaches the threshold; models with conformal bands choose "
        "theirs without it.",
    )

    @property
    def max_frames(self) -> int:
        """Frames of a picture file: a moving one is no still of an exam."""
        return 1
