"""What a study is: every choice that changes its results, declared, bounded and hashed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from thyro_core.config.columns import (
    ColumnSpec,
    ReaderSpec,
    check_unique,
    column_spec,
    joined_columns,
    reader_spec,
)
from thyro_core.config.images import IngestConfig as IngestConfig
from thyro_core.config.images import ViewConfig as ViewConfig
from thyro_core.config.images import column_field
from thyro_core.config.images import view_of as view_of
from thyro_core.config.networks import (
    REFERENCE_SIDE,
    NetworkName,
    check_image_size,
    checked_name,
    network_side,
)
from thyro_core.config.starting_weights import PrefixRule, WeightsPrefix, prefix_rule

Architecture = NetworkName
Scheme = Literal["holdout", "kfold", "repeated_kfold", "leave_one_centre_out", "temporal"]
Precision = Literal["auto", "fp32", "bf16"]
Schedule = Literal["constant", "cosine"]
BatchNorm = Literal["recalibrate", "running"]

ARCHITECTURES: tuple[Architecture, ...] = ("resnet18", "alexnet", "vgg16", "inception_v3")
"""The paper's networks; a study may name any of `networks.NETWORKS`."""

CLASS_NAMES: tuple[str, str] = ("benign", "malignant")
"""The classes by their label: 0 and 1."""

CAM_SHARES: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of a map's peak at which regions are cut, to see how far findings depend on the share."""

RECIPE = 8
"""Version of the numerical recipe; raised whenever the same config gives other numbers.

7: the scores of the learners on the files' facts count by their rank in a split's test part.

6: the learner on the files' facts is the one that each split chooses on its own training part, and
groups know copies that were turned; readings that the labels follow from are not compared.
5: the calibration is fitted on the probability that is given, shares have score intervals, and the
networks are compared with the best of three learners on the files' facts.
4: every group has the same chance to be tested, whatever its size, and k-fold draws its folds by
the same rule; splits of sets with groups of several images differ from 3's. Intervals hold near the
edges and for patients with several images, and there is no test without spread. A
study has its ensembles' scores and their calibration. `cam_trust` has other baselines and a cascade
of weights, of images drawn by the seed; shapes of maps have the image's own proportions.
"""


class StudyConfig(IngestConfig):
    """One study: image rules, splits, training and evaluation.

    Defaults follow the paper; what it leaves out is declared here and reported with each study.
    """

    architectures: tuple[Annotated[Architecture, BeforeValidator(checked_name)], ...] = Field(
        ARCHITECTURES,
        min_length=1,
        description="Networks to train: the paper's four, or any classification network of "
        "torchvision. The first one is compared with each of the others.",
    )
    scheme: Scheme = Field(
        "holdout",
        description="Repeated stratified hold-out (the paper), k-fold, repeated k-fold, in which "
        "every image is tested equally often, each centre tested by networks of the others, or the "
        "latest images tested by networks of the earlier ones.",
    )
    splits: Annotated[int, Field(ge=2, le=100)] = Field(
        10,
        description="Number of hold-out splits, or of folds; of repeated k-fold all folds of all "
        "repetitions, of temporal the periods. Leave-one-centre-out takes the number of centres.",
    )
    folds: Annotated[int, Field(ge=2, le=50)] = Field(
        5,
        description="Folds of one repetition of repeated k-fold; splits is a multiple of it. "
        "Other schemes do not read it.",
    )
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.3,
        description="Share of each class in a hold-out's test part, rounded down; of temporal the "
        "share of latest images that are tested.",
    )
    val_fraction: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        0.0, description="Share of each class kept for validation curves; the paper has none."
    )
    image_size: Annotated[int, Field(ge=64, le=1024)] = Field(
        REFERENCE_SIDE,
        description="Side of the network input [pixels]; networks whose weights were made with "
        "another side than 224 take as much more: Inception_v3 299/224 of it.",
    )
    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(
        30, description="Passes over the training part; the paper gives none."
    )
    batch_size: Annotated[int, Field(ge=4, le=4096)] = Field(
        32, description="Most images per optimiser step (batches are as equal as can be)."
    )
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1e-4, description="Adam's learning rate at the start."
    )
    schedule: Schedule = Field(
        "cosine", description="How the learning rate runs: constant, or a half cosine to zero."
    )
    focal_gamma: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        2.0, description="Focusing exponent of the focal loss; 0 is weighted cross-entropy."
    )
    focal_alpha: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="Focal loss weight of malignant (benign gets 1 - alpha). Empty: the share "
        "of benign images in the training part, so that both classes weigh the same.",
    )
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = Field(
        10.0, description="Augmentation: rotation drawn uniformly from +- this [degrees]."
    )
    flip_horizontal: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="Augmentation: probability of a left-right flip."
    )
    flip_vertical: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0,
        description="Augmentation: probability of an up-down flip (not natural: depth fades).",
    )
    batchnorm: BatchNorm = Field(
        "recalibrate",
        description="Batch-norm statistics for inference: measured once on the training part "
        "after the last epoch, or the running averages training leaves behind.",
    )
    weights: str = Field(
        "auto",
        min_length=1,
        description="Where training starts: auto, imagenet (strict), none, or the URL of a folder "
        "with resnet18.safetensors and so on, or of one file (safetensors, or PyTorch's .pth).",
    )
    weights_prefix: WeightsPrefix = ()
    precision: Precision = Field(
        "auto", description="Training arithmetic: bf16 where the hardware has it, else fp32."
    )
    deterministic: bool = Field(
        True, description="Deterministic algorithms only: the same config, the same predictions."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Root of every random choice: splits, heads, augmentation, bootstrap."
    )
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="Probability of malignant from which an image counts as positive."
    )
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(
        1000, description="Bootstrap resamples of patients for each split's intervals."
    )
    cam_share: Annotated[float, Field(ge=CAM_SHARES[0], le=CAM_SHARES[-1])] = Field(
        0.5,
        description="Share of a map's peak that findings on regions are stated for: "
        f"{', '.join(map(str, CAM_SHARES))}; the others are computed too.",
        json_schema_extra={"enum": list(CAM_SHARES)},
    )
    trust_images: Annotated[int, Field(ge=0, le=1000)] = Field(
        4,
        description="Test images of a split and architecture whose maps are checked by randomising "
        "weights and by removing pixels; 0 = off.",
    )
    centre_column: str = column_field(
        "centre", "Column of labels.csv with the hospital or device that an image comes from."
    )
    date_column: str = column_field(
        "date", "Column of labels.csv with the date or year of an image, for the scheme temporal."
    )
    # Studies that do not use the next three keep the ids they had before there were such keys.
    subgroups: tuple[str, ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="Columns of labels.csv whose groups get figures of their own, numbers with "
        "cuts: device, age:40,60 (below 40, 40 to below 60, 60 and above).",
    )
    readers: tuple[str, ...] = Field(
        (),
        exclude_if=lambda value: not value,
        description="Columns of labels.csv with other readings of the images, and from which "
        "category on one is malignant: tirads:4a; reader_a (benign or malignant).",
    )

    permute_labels: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Exchange the labels of groups at random: a null study, whose figures are what "
        "chance gives. Nothing of it can be promoted.",
    )

    @field_validator("cam_share")
    @classmethod
    def _declared_share(cls, value: float) -> float:
        if value not in CAM_SHARES:
            msg = f"expected one of {', '.join(map(str, CAM_SHARES))}"
            raise ValueError(msg)
        return value

    @field_validator("subgroups")
    @classmethod
    def _parsable_subgroups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return joined_columns(value)

    @field_validator("readers")
    @classmethod
    def _parsable_readers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_unique([reader_spec(text).name for text in value])
        return value

    @model_validator(mode="after")
    def _whole_repetitions(self) -> Self:
        if self.scheme == "repeated_kfold" and self.splits % self.folds:
            below = self.splits // self.folds * self.folds
            fits = [n for n in (below, below + self.folds) if n]
            msg = (
                f"repeated_kfold runs whole repetitions: splits {self.splits} is no multiple of "
                f"folds {self.folds}; set splits to {' or '.join(map(str, fits))}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _no_temporal_validation(self) -> Self:
        if self.scheme == "temporal" and self.val_fraction:
            msg = (
                "temporal trains on all earlier images, with no validation part: val_fraction is 0"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _unique_architectures(self) -> Self:
        if len(set(self.architectures)) != len(self.architectures):
            msg = f"architectures names one twice: {', '.join(self.architectures)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _possible_side(self) -> Self:
        check_image_size(self.architectures, self.image_size)
        return self

    @model_validator(mode="after")
    def _disjoint_tirads(self) -> Self:
        both = sorted(set(self.tirads_benign) & set(self.tirads_malignant))
        if both:
            msg = f"TI-RADS {', '.join(both)} cannot be both benign and malignant"
            raise ValueError(msg)
        return self

    def ingest(self) -> IngestConfig:
        """The part that decides the manifest."""
        return IngestConfig(**{name: getattr(self, name) for name in IngestConfig.model_fields})

    @property
    def subgroup_columns(self) -> tuple[ColumnSpec, ...]:
        """`subgroups`, read; leave-one-centre-out always looks at its centres, first."""
        specs = [column_spec(text) for text in self.subgroups]
        if self.scheme == "leave_one_centre_out":
            specs = [spec for spec in specs if spec.name != self.centre_column]
            specs.insert(0, ColumnSpec(self.centre_column, ()))
        return tuple(specs)

    @property
    def reader_columns(self) -> tuple[ReaderSpec, ...]:
        """`readers`, read."""
        return tuple(reader_spec(text) for text in self.readers)

    @property
    def prefix_rules(self) -> tuple[PrefixRule, ...]:
        """`weights_prefix`, read."""
        return tuple(prefix_rule(text) for text in self.weights_prefix)

    @property
    def fold_count(self) -> int | None:
        """Folds of a repetition; None: the scheme has none."""
        if self.scheme in {"holdout", "temporal"}:
            return None
        return self.folds if self.scheme == "repeated_kfold" else self.splits

    def side(self, architecture: Architecture) -> int:
        """Side of an architecture's square input [pixels]: 224 becomes 299 for Inception_v3."""
        return network_side(architecture, self.image_size)


def canonical_json(value: Mapping[str, Any] | BaseModel) -> str:
    """The one JSON spelling of a value: sorted keys, no spaces, so that its hash is stable."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_id(prefix: str, value: Mapping[str, Any] | BaseModel) -> str:
    """A short, stable id: `prefix` and 16 hex digits of the canonical JSON's SHA-256.

    The prefix keeps a hive reader from taking an all-digit id for a number.
    """
    return prefix + hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def job_seed(seed: int, split: int, architecture: str) -> int:
    """A seed of its own for each split x architecture, in [0, 2**31)."""
    digest = hashlib.sha256(f"{seed}/{split}/{architecture}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
