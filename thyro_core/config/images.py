"""The rules by which files become the images of a study: bounds, duplicates, labels."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def column_field(default: str, description: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """A key that names a column of labels.csv."""
    # Studies of sets with these names keep the ids that they had before there were such keys.
    return Field(
        default, min_length=1, exclude_if=lambda value: value == default, description=description
    )


_ClassWord = Annotated[str, Field(pattern=r"^(benign|malignant|unlabelled)=.*\S")]


class ViewConfig(BaseModel):
    """What a network sees of a picture; a model is only ever shown what it learned to see."""

    # Studies of whole, squashed pictures keep the ids that they had before there were such keys.
    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Literal["whole", "nodule"] = Field(
        "whole",
        exclude_if=lambda value: value == "whole",
        description="What of a picture goes in: all of it, or the nodule, by the columns x, y, w "
        "and h of labels.csv (left, top, width, height [pixels]), else by its mask.",
    )
    region_margin: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1,
        exclude_if=lambda value: value == 0.1,
        description="Of region nodule: what is added to the nodule's box on each side, as a share "
        "of its longer side; it ends where the picture does.",
    )
    resize: Literal["squash", "pad"] = Field(
        "squash",
        exclude_if=lambda value: value == "squash",
        description="How it becomes a square: squashed, as in the paper, or in its own "
        "proportions, in the middle of black.",
    )
    clean: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Drop what a screen draws before training: frame and toolbar are cut off, text "
        "and marks over the tissue are painted over.",
    )

    @property
    def view(self) -> "ViewConfig":
        """These keys alone."""
        return ViewConfig(**{name: getattr(self, name) for name in ViewConfig.model_fields})

    @property
    def is_default_view(self) -> bool:
        """Whether it is the whole picture, squashed, as in the paper."""
        return self.view == ViewConfig()

    @property
    def is_padded(self) -> bool:
        """Whether it stands in the middle of black, in its own proportions."""
        return self.resize == "pad"

    @property
    def words(self) -> str:
        """The view in one phrase, for people."""
        part = "the whole picture"
        if self.region == "nodule":
            part = f"the nodule's box and {100 * self.region_margin:g} % of its longer side around"
        if self.clean:
            part += ", without frame, toolbar, text and marks"
        shape = "squashed to a square"
        if self.is_padded:
            shape = "in its proportions, in the middle of a black square"
        return f"{part}, {shape}"


def view_of(values: Mapping[str, Any]) -> ViewConfig:
    """The view of a config in plain values, of any version: what it does not name is the default.

    Args:
        values: by key.
    """
    keys = ViewConfig.model_fields.keys() & values.keys()
    return ViewConfig(**{name: values[name] for name in keys})


class IngestConfig(ViewConfig):
    """The declared rules by which an image set becomes a manifest."""

    min_side: Annotated[int, Field(ge=8, le=4096)] = Field(
        64, description="Smallest side an image may have [pixels]; smaller ones are excluded."
    )
    max_pixels: Annotated[int, Field(ge=4096, le=10**9)] = Field(
        50_000_000, description="Most pixels a frame may have before it is refused undecoded."
    )
    max_bytes: Annotated[int, Field(ge=1024, le=2 * 10**9)] = Field(
        100_000_000, description="Largest file that is read [bytes]."
    )
    max_frames: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Most frames a file may hold; the first one is used."
    )
    max_clip_frames: Annotated[int, Field(ge=1, le=100_000)] = Field(
        5000,
        exclude_if=lambda value: value == 5000,
        description="Most frames a DICOM clip may have before it is refused undecoded.",
    )
    frames_per_clip: Annotated[int, Field(ge=1, le=1000)] = Field(
        8,
        exclude_if=lambda value: value == 8,
        description="Most frames of a DICOM clip that take part; evenly spaced over it, and never "
        "parted by a split.",
    )
    blur_bound: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.05,
        description="Lowest sharpness that counts as in focus; blurred ones are excluded. 0: off.",
    )
    overlay_bound: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.02, description="Largest share of coloured pixels (callipers, Doppler) in an image."
    )
    hash_distance: Annotated[int, Field(ge=0, le=64)] = Field(
        16,
        description="Of no effect: near-duplicates were once sought by perceptual hashes. Configs "
        "that name it stay valid, and studies keep their ids.",
    )
    duplicate_correlation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95,
        description="Lowest correlation of local contrast, where two images overlap, that makes "
        "them the same picture.",
    )
    similar_correlation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.75,
        # Studies that leave it as it is keep the ids they had before there was such a key.
        exclude_if=lambda value: value == 0.75,
        description="Lowest correlation that makes two images similar (next frames of a sweep), so "
        "that they stay together; above duplicate_correlation: only the same picture counts.",
    )
    dual_views: Literal["keep", "exclude"] = Field(
        "keep",
        exclude_if=lambda value: value == "keep",
        description="What becomes of a picture of two windows: it takes part as one image, as its "
        "one label says (of DICOM each window is an image, as in a screening), or is excluded.",
    )
    image_column: str = column_field("image", "Column of labels.csv with the path of the image.")
    label_column: str = column_field("label", "Column of labels.csv with the class of the image.")
    patient_column: str = column_field(
        "patient_id", "Column of labels.csv with the patient, or another unit that no split parts."
    )
    label_map: tuple[_ClassWord, ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="Words of the label column, as class=word: benign=B, malignant=M, and "
        "unlabelled=U if need be. Empty: benign, malignant, B, M, 0 and 1.",
    )
    tirads_benign: tuple[str, ...] = Field(
        ("1", "2", "3"), description="TI-RADS categories read as benign (DDTI's XML files)."
    )
    tirads_malignant: tuple[str, ...] = Field(
        ("4a", "4b", "4c", "5"), description="TI-RADS categories read as malignant (DDTI's XML)."
    )

    @property
    def split_views(self) -> bool:
        """Whether two windows of a DICOM picture are parted, see `imaging.pictures`."""
        return self.dual_views == "keep"
