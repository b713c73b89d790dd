"""Rules of a screening: which band an image falls into, in which order images are read, and sums.

Pure: no store, no network, no clock.
"""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from datetime import date
from math import isnan
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from thyro_core.config import content_id
from thyro_core.errors import InputError, ThyroError, amount
from thyro_core.evaluation.conformal import BandCuts, score_band
from thyro_core.screening.aside import ASIDE, aside_text
from thyro_core.screening.config import ScreeningRules

ReadingBand = Literal["refer", "review", "routine", "not scored", "copy"]
Status = Literal["scored", "rejected", "failed", "copy"]
ScreeningRow = dict[str, Any]
"""A row of a screening's table, by column."""

BANDS: tuple[ReadingBand, ...] = ("refer", "review", "not scored", "routine", "copy")
"""In the order in which a reader meets them."""

FAILURE_REASONS: tuple[str, ...] = (
    "undecodable",
    "crashed_decoder",
    "hung_decoder",
    "unreadable",
    "unreadable_folder",
    "refused_object",
    "broken_link",
)
"""Reasons of an image that could not be read at all; the others are refusals by a rule."""

TRIED_AGAIN: tuple[str, ...] = (
    "crashed_decoder",
    "hung_decoder",
    "unreadable",
    "unreadable_folder",
    "refused_object",
    "broken_link",
    "outside_link",
    "not_a_file",
)
"""Reasons that may be gone the next night, whatever the rules: a machine short of memory, a share
with other permissions."""

WHY: Mapping[str, str] = MappingProxyType(
    {
        "undecodable": "The file could not be decoded.",
        "crashed_decoder": "The file killed the program that decodes it, twice.",
        "hung_decoder": "The file kept the program that decodes it busy without an end.",
        "unreadable": "The file cannot be read: its permissions, or the disk that it lies on, are "
        "to be checked.",
        "unreadable_folder": "The folder cannot be read, and nobody knows what it holds: its "
        "permissions, or the disk that it lies on, are to be checked.",
        "refused_object": "The store lists the object and does not give it; its answer stands "
        "beside: the object's permissions and state (archived, damaged) are to be checked there.",
        "broken_link": "A link to a file that is not there: the file is to be put back, or the "
        "link removed; `find -L . -type l` in the batch lists such links.",
        "not_a_file": "No file but a pipe, a socket or a device, which is not read: it is to be "
        "removed from the batch, where `find . ! -type f ! -type d ! -type l` lists them.",
        "outside_link": "A link that leads out of the batch is not followed: the file itself is to "
        "be copied into the batch, where `find . -type l` lists the links.",
        "too_large": "The file or its frame is larger than the rules allow.",
        "too_small": "A side is shorter than the rules allow.",
        "not_ultrasound": "It does not look like a greyscale ultrasound image.",
        "doppler_colour": "Coloured pixels: Doppler, or many coloured marks.",
        "blurred": "Out of focus.",
        "unlike_training": "Unlike the images that the model was trained on.",
        "uncertain": "Below the threshold, but within the spread of the model's members.",
        "near_outlier": "Nearly unlike the images that the model was trained on.",
        "both_plausible": "Benign and malignant are both plausible at the promised shares.",
        "neither_plausible": "Neither benign nor malignant is plausible at the promised shares.",
    }
)
"""Every reason in words."""

OTHER_PATIENT = "the file names another patient than that row does"
"""The detail of a copy under another patient's id: one of the two ids is wrong."""

TURNED_NOTE = "turned or mirrored: it does not lie as that row's picture does"
"""The detail of a copy that is another form of its original: perhaps the sides are exchanged."""

# Above the worklist's order within a band, by probability; not scored stands before routine.
_BAND_STEP: Mapping[ReadingBand, float] = MappingProxyType(
    {"refer": 6.0, "review": 4.0, "not scored": 2.0, "routine": 0.0, "copy": -1.0}
)


class Night(BaseModel):
    """A batch of a night, scored by one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    """ISO 8601: 2026-11-25."""
    batch: str
    """Address, without passwords and signatures."""
    model_id: str
    rules: ScreeningRules

    @property
    def batch_id(self) -> str:
        """Hash of address and model: the same batch of another night has the same."""
        return content_id("n", {"batch": self.batch, "model_id": self.model_id})

    @property
    def number(self) -> int:
        """The date as the tables hold it: 20261125."""
        return date_number(self.date)


def date_number(text: str) -> int:
    """20261125 for 2026-11-25.

    Raises:
        InputError: it is no date.
    """
    try:
        value = date.fromisoformat(text)
    except ValueError as error:
        msg = f"date: expected one such as 2026-11-25, found {text!r}"
        raise InputError(msg) from error
    if value.isoformat() != text:
        msg = f"date: expected {value.isoformat()}, found {text!r}"
        raise InputError(msg)
    return value.year * 10_000 + value.month * 100 + value.day


def date_text(number: int) -> str:
    """2026-11-25 for 20261125."""
    return f"{number // 10_000}-{number // 100 % 100:02}-{number % 100:02}"


@dataclass(frozen=True)
class BandLimits:
    """The bounds of the bands."""

    threshold: float
    """Calibrated probability from which an image is referred."""
    review_sds: float
    outlier: float
    """Embedding distance beyond which an image is not scored."""
    near: float
    """Embedding distance beyond which a scored image is for review at least."""
    cuts: BandCuts | None = None
    """Of conformal bands, in place of threshold and spread; None: there are none."""


def near_quantile(outlier_quantile: float) -> float:
    """The quantile of `BandLimits.near`: as many training images again lie beyond it."""
    return max(0.0, 1 - 2 * (1 - outlier_quantile))


def is_unlike(distance: float, limits: BandLimits) -> bool:
    """Whether an image is too far from the training set; one without a distance is.

    Where the training set is too small for a bound (NaN), none is too far.
    """
    return isnan(distance) or distance > limits.outlier


def band_of(
    probability: float, sd: float, distance: float, limits: BandLimits
) -> tuple[ReadingBand, str | None]:
    """ReadingBand of a scored image, and the reason of a review.

    Args:
        probability: calibrated probability of malignant.
        sd: its standard deviation over members; NaN (one member) widens nothing.
        distance: embedding distance, not beyond `limits.outlier`.
        limits: the bounds.
    """
    band, reason = _band_by_score(probability, sd, limits)
    if band != "routine":
        return band, reason
    if distance > limits.near:
        return "review", "near_outlier"
    return "routine", None


def _band_by_score(
    probability: float, sd: float, limits: BandLimits
) -> tuple[ReadingBand, str | None]:
    if limits.cuts is not None:
        return score_band(probability, limits.cuts)
    if probability >= limits.threshold:
        return "refer", None
    if probability + limits.review_sds * sd >= limits.threshold:
        return "review", "uncertain"
    return "routine", None


def rank_key(band: ReadingBand, probability: float | None) -> float:
    """Place in the worklist, highest first: band by band, within one by probability."""
    return _BAND_STEP[band] + (probability or 0.0)


def unscored_status(reason: str) -> Status:
    """Status of an image that is not scored."""
    return "failed" if reason in FAILURE_REASONS else "rejected"


def unscored_columns(reason: str) -> dict[str, Any]:
    """Columns of `screening` that say that an image is not scored."""
    return {
        "status": unscored_status(reason),
        "reason": reason,
        "band": "not scored",
        "rank_key": rank_key("not scored", None),
    }


@dataclass(frozen=True)
class Totals:
    """Images of a night's batch, or of a night: a row each."""

    received: int
    scored: int
    rejected: int
    failed: int
    refer: int
    review: int
    routine: int
    copies: int = 0
    """Of a picture that another row has; they are neither scored nor refused themselves."""

    @property
    def sentence(self) -> str:
        """The sum in words, for a person."""
        return (
            f"{self.received} received = {self.scored} scored + {self.rejected} rejected + "
            f"{self.failed} failed + {self.copies} copies"
        )

    def check(self, where: str) -> None:
        """Make sure that every image is accounted for.

        Raises:
            ThyroError: received is not scored + rejected + failed + copies, or scored not the
                three bands.
        """
        n_images = self.scored + self.rejected + self.failed + self.copies
        n_banded = self.refer + self.review + self.routine
        if self.received != n_images or self.scored != n_banded:
            msg = (
                f"{where}: expected received = scored + rejected + failed + copies and scored = "
                f"refer + review + routine, found {self.sentence} and {self.scored} = "
                f"{self.refer} + {self.review} + {self.routine}; nothing is published of this "
                "night: keep its folder and report this"
            )
            raise ThyroError(msg)


def totals_of_row(row: Mapping[str, Any]) -> Totals:
    """The totals in a row of `screening_batches`; one of an earlier version counts no copies."""
    return Totals(**{field.name: row[field.name] or 0 for field in fields(Totals)})


def sum_totals(all_totals: list[Totals]) -> Totals:
    """Totals over several batches."""
    columns = zip(*map(astuple, all_totals), strict=True)
    return Totals(*map(sum, columns)) if all_totals else Totals(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Counts:
    """Files and images that one or more blocks of a run have passed."""

    files: int = 0
    known: int = 0
    late: int = 0
    fresh: int = 0
    """Files read and decoded, or refused."""
    images: int = 0
    scored: int = 0
    aside_hidden: int = 0
    aside_system: int = 0
    aside_unfinished: int = 0
    aside_companion: int = 0
    aside_folder: int = 0

    @property
    def aside(self) -> int:
        """Entries that are no files of a night, see `screening.aside`."""
        return sum(getattr(self, name) for name in ASIDE)

    @property
    def aside_reasons(self) -> str:
        """Why, with the numbers, in one line."""
        return aside_text(asdict(self))

    @property
    def sentence(self) -> str:
        """The sum of the files in words, and what is set aside."""
        parts = files_sentence(self.files, self.known, self.late), self.aside_sentence
        return "; ".join(filter(None, parts))

    @property
    def aside_sentence(self) -> str:
        """What is set aside in words; empty: nothing is."""
        return aside_sentence(self.files, self.aside, self.aside_reasons)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def check(self) -> None:
        """Make sure that every file that was listed is accounted for.

        Raises:
            ThyroError: it is not.
        """
        if self.files != self.known + self.late + self.fresh:
            msg = (
                f"screening: expected each of {self.files} files to be known, late or read, found "
                f"{self.known} + {self.late} + {self.fresh}; report this"
            )
            raise ThyroError(msg)


def files_sentence(files: int, known: int, late: int) -> str:
    """The sum of a run's files in words: each is read, passed over or not whole."""
    return (
        f"{amount(files, 'file')} = {files - known - late} read + {known} passed over (the same "
        f"bytes at the same path have an answer from before) + {late} not whole (the next run "
        "tries them again)"
    )


def aside_sentence(files: int, aside: int, reasons: str) -> str:
    """What a run listed beside the files that it met, in words; empty: nothing."""
    if not aside:
        return ""
    return f"{files + aside} listed = {amount(files, 'file')} + {aside} set aside: {reasons}"
