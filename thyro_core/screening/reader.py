"""One file of a nightly screening: its images to score, or the reason why not."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from thyro_core import __version__
from thyro_core.config import content_id
from thyro_core.errors import beyond
from thyro_core.imaging.burned_text import text_boxes
from thyro_core.imaging.codecs import PACKAGES
from thyro_core.imaging.dicom import Pseudonymise
from thyro_core.imaging.forms import first_form
from thyro_core.imaging.pictures import FilePictures, Picture, join_details, read_pictures
from thyro_core.imaging.quality import grey_statistics, sharpness
from thyro_core.imaging.ultrasound import ultrasound_fault
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.pictures import display_picture, is_shown
from thyro_core.types import Grey

IMAGE_REASONS: tuple[str, ...] = (
    "undecodable",
    "too_large",
    "too_small",
    "not_ultrasound",
    "doppler_colour",
    "blurred",
)
"""Why an image is not scored, as far as the image alone shows it."""


def reading_id(rules: ScreeningRules) -> str:
    """A hash of what decides how a file is read here: rules, versions of Thyro and decoders.

    A file that was refused is read again once it differs.
    """
    versions = {"thyro": __version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return content_id("q", {"rules": rules.model_dump(mode="json"), "versions": versions})


@dataclass(frozen=True)
class ScreeningImage:
    """An image of a night.

    Attributes:
        image_id: SHA-256, hexadecimal: of the file's bytes, or, in a file of several frames, of
            that hash, "/" and the frame's number; of one of several views of the image's own
            hash, "/view " and its place.
        frame: The frame's position in its file, from 0.
        picture_id: SHA-256 of the size and the grey levels that were decoded: the same in every
            file that holds this picture. Of what is not decoded `image_id`; None: no contents.
        pattern_id: The same of whichever of the picture's eight turned and mirrored forms comes
            first: the same of all eight. None: not decoded.
        grey: uint8 (H, W); None for an image that is not scored.
        patient_id: Pseudonym; None: the file names no patient, or there is no key.
        reason: One of `IMAGE_REASONS`; None: the image is fit to be scored.
        detail: The reason's particulars and how the picture was read, numbers and words of closed
            lists only; None: nothing to say.
        burned_in: Whether the file says that names may be drawn into its pixels; None: it does not
            say.
        mean: Mean grey level, 0 to 255; this and what follows is None for what is not decoded.
        sd: Standard deviation of the grey level, 0 to 255.
        sharpness: Focus measure, see `thyro_core.imaging.quality`.
        overlay_share: Share of coloured pixels of the tissue, 0 to 1.
        width: Width [pixels], of the tissue alone where the file says where it is.
        height: Height [pixels], likewise.
        text: Boxes around lines of text in the picture, four numbers each: left, top, right and
            bottom (exclusive) [pixels]; None: not sought, as nobody is shown the image.
        exam_id: Pseudonym of the exam; None: the file names none, or there is no key.
        device: What made the file, in words of a closed list; None: it names no device.
        display: The image as people may see it, see `screening.pictures`; None: they may not, or it
            is not decoded.
    """

    image_id: str
    frame: int
    picture_id: str | None = None
    pattern_id: str | None = None
    grey: Grey | None = None
    patient_id: str | None = None
    reason: str | None = None
    detail: str | None = None
    burned_in: bool | None = None
    mean: float | None = None
    sd: float | None = None
    sharpness: float | None = None
    overlay_share: float | None = None
    width: int | None = None
    height: int | None = None
    text: tuple[int, ...] | None = None
    exam_id: str | None = None
    device: str | None = None
    display: Grey | None = None


def read_screening_images(
    data: bytes, rules: ScreeningRules, pseudonymise: Pseudonymise
) -> list[ScreeningImage]:
    """The images of a PNG, JPEG, TIFF, BMP or DICOM file, each with its verdict.

    Same bytes, same answer; bad contents are no error but a reason. The file's name takes no part:
    its contents decide what it is, and a name may hold a patient's.

    Args:
        data: all bytes of the file.
        rules: bounds and measures.
        pseudonymise: makes a pseudonym of a patient id and its issuer; see
            `pseudonyms.Pseudonymiser`.

    Returns:
        One image of a picture; of a clip one for each of its evenly spaced frames; of several
        views of tissue one for each; of a file that is refused whole, one with the reason.
    """
    file = read_pictures(data, rules, pseudonymise)
    return [_with_verdict(picture, file, rules) for picture in file.pictures]


def _with_verdict(picture: Picture, file: FilePictures, rules: ScreeningRules) -> ScreeningImage:
    grey = picture.grey
    if grey is None:
        return ScreeningImage(
            picture.image_id,
            picture.frame,
            picture.image_id,
            patient_id=file.patient_id,
            reason=picture.reason or "undecodable",
            detail=join_details(picture.detail, picture.note),
            burned_in=file.burned_in,
            exam_id=file.exam_id,
            device=file.device,
        )
    mean, sd = grey_statistics(grey)
    focus = sharpness(grey)
    reason, detail = _reason_of(grey, picture.overlay_share, focus, rules)
    is_visible = is_shown(reason, burned_in=file.burned_in)
    boxes = text_boxes(grey) if reason is None or is_visible else None
    return ScreeningImage(
        image_id=picture.image_id,
        frame=picture.frame,
        picture_id=picture_hash(grey),
        pattern_id=picture_hash(first_form(grey)),
        grey=grey if reason is None else None,
        patient_id=file.patient_id,
        reason=reason,
        detail=join_details(detail, picture.note),
        burned_in=file.burned_in,
        mean=mean,
        sd=sd,
        sharpness=focus,
        overlay_share=picture.overlay_share,
        width=grey.shape[1],
        height=grey.shape[0],
        text=None if boxes is None else tuple(side for box in boxes for side in box),
        exam_id=file.exam_id,
        device=file.device,
        display=display_picture(grey, boxes or []) if is_visible else None,
    )


def picture_hash(grey: Grey) -> str:
    """SHA-256 of a picture's size and its grey levels, which is all that a model is shown.

    Args:
        grey: uint8 (H, W).
    """
    digest = hashlib.sha256(f"{grey.shape[1]} x {grey.shape[0]}/".encode())
    digest.update(np.ascontiguousarray(grey).data)
    return digest.hexdigest()


def _reason_of(
    grey: Grey, share: float, focus: float, rules: ScreeningRules
) -> tuple[str | None, str | None]:
    height, width = grey.shape
    if min(height, width) < rules.min_side:
        detail = f"{width} x {height} pixels; a side needs at least min_side = {rules.min_side}"
        return "too_small", detail
    other = ultrasound_fault(grey, share)
    if other is not None:
        return "not_ultrasound", other
    if share > rules.overlay_bound:
        figure = beyond(share, rules.overlay_bound, 3)
        detail = (
            f"share of coloured pixels {figure} of the tissue, at most overlay_bound = "
            f"{rules.overlay_bound:g}"
        )
        return "doppler_colour", detail
    if focus < rules.blur_bound:
        figure = beyond(focus, rules.blur_bound, 4)
        detail = f"sharpness {figure}, expected at least blur_bound = {rules.blur_bound:g}"
        return "blurred", detail
    return None, None
