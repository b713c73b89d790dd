"""One file of a nightly screening: its images to score, or the reason why not."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from thyro_core import __version__
from thyro_core.config import content_id
from thyro_core.errors import beyond
from thyro_core.imaging.burned_text import text_boxes
from thyro_core.imaging.codecs import PACKAGES
from thyro_core.imaging.decode import TooLargeError, UndecodableError, decode
from thyro_core.imaging.dicom import Pseudonymise, is_dicom, read_dicom
from thyro_core.imaging.dual_view import are_stacked, split_views
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

_SPLIT = "split at the seam of two windows, which split_views = false leaves together"


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
        display: The image as people may see it, see `screening.pictures`; None: they may not, or it
            is not decoded.
    """

    image_id: str
    frame: int
    picture_id: str | None = None
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
    display: Grey | None = None


@dataclass(frozen=True)
class _Origin:
    """What all images of a file share."""

    image_id: str
    frame: int = 0
    patient_id: str | None = None
    burned_in: bool | None = None
    note: str | None = None
    """How the picture was read, where that is not as usual."""
    exam_id: str | None = None


def read_screening_images(
    data: bytes,
    name: str,  # noqa: ARG001
    rules: ScreeningRules,
    pseudonymise: Pseudonymise,
) -> list[ScreeningImage]:
    """The images of a PNG, JPEG, TIFF, BMP or DICOM file, each with its verdict.

    Same bytes, same answer; bad contents are no error but a reason.

    Args:
        data: all bytes of the file.
        name: its name. Its contents alone decide what it is; and a name that may hold a patient's
            is not repeated.
        rules: bounds and measures.
        pseudonymise: makes a pseudonym of a patient id and its issuer; see
            `pseudonyms.Pseudonymiser`.

    Returns:
        One image of a picture; of a clip one for each of its evenly spaced frames; of several
        views of tissue one for each; of a file that is refused whole, one with the reason.
    """
    file_id = hashlib.sha256(data).hexdigest()
    if len(data) > rules.max_bytes:
        detail = f"{len(data)} bytes, more than max_bytes = {rules.max_bytes}"
        return [_reject(_Origin(file_id), "too_large", detail)]
    if is_dicom(data):
        return list(_of_dicom(data, file_id, rules, pseudonymise))
    try:
        picture = decode(data, rules)
        return list(_check_views(_Origin(file_id), picture.grey, picture.overlay_share, rules))
    except TooLargeError as error:
        return [_reject(_Origin(file_id), "too_large", error.detail)]
    except UndecodableError as error:
        return [_reject(_Origin(file_id), "undecodable", error.detail)]


def _of_dicom(
    data: bytes, file_id: str, rules: ScreeningRules, pseudonymise: Pseudonymise
) -> Iterator[ScreeningImage]:
    contents = read_dicom(data, rules, pseudonymise)
    if contents.reason is not None:
        origin = _Origin(
            file_id, 0, contents.patient_id, contents.burned_in, exam_id=contents.exam_id
        )
        yield _reject(origin, contents.reason, contents.detail)
    for frame in contents.frames:
        image_id = _frame_id(file_id, frame.index) if contents.is_clip else file_id
        origin = _Origin(
            image_id, frame.index, contents.patient_id, contents.burned_in, contents.note,
            contents.exam_id,
        )  # fmt: skip
        if frame.view is not None:
            origin = _view(origin, *frame.view)
        if frame.image is None:
            yield _reject(origin, frame.reason or "undecodable", frame.detail)
        elif not contents.has_regions:
            image = frame.image
            yield from _check_views(origin, image.grey, image.overlay_share, rules)
        else:
            yield _check_image(origin, frame.image.grey, frame.image.overlay_share, rules)


def _frame_id(file_id: str, frame: int) -> str:
    return hashlib.sha256(f"{file_id}/{frame}".encode()).hexdigest()


def _view(origin: _Origin, place: int, n: int, start: str = "left") -> _Origin:
    """One of n views in a picture, which are images of their own."""
    note = f"view {place + 1} of {n} in this picture, from the {start}"
    image_id = hashlib.sha256(f"{origin.image_id}/view {place}".encode()).hexdigest()
    return replace(origin, image_id=image_id, note=_joined(note, origin.note))


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _reject(origin: _Origin, reason: str, detail: str | None) -> ScreeningImage:
    return ScreeningImage(
        origin.image_id,
        origin.frame,
        origin.image_id,
        patient_id=origin.patient_id,
        reason=reason,
        detail=_joined(detail, origin.note),
        burned_in=origin.burned_in,
        exam_id=origin.exam_id,
    )


def _check_views(
    origin: _Origin, grey: Grey, share: float, rules: ScreeningRules
) -> Iterator[ScreeningImage]:
    """A picture whose file names no regions, or each of two windows that are found in it.

    The colour is judged over the whole picture, for both.
    """
    boxes = split_views(grey) if rules.split_views else []
    start = "top" if are_stacked(boxes) else "left"
    if not boxes:
        yield _check_image(origin, grey, share, rules)
    for place, (left, top, right, bottom) in enumerate(boxes):
        view = _view(replace(origin, note=_joined(_SPLIT, origin.note)), place, len(boxes), start)
        yield _check_image(view, np.ascontiguousarray(grey[top:bottom, left:right]), share, rules)


def _check_image(
    origin: _Origin, grey: Grey, share: float, rules: ScreeningRules
) -> ScreeningImage:
    mean, sd = grey_statistics(grey)
    focus = sharpness(grey)
    reason, detail = _reason_of(grey, share, focus, rules)
    is_visible = is_shown(reason, burned_in=origin.burned_in)
    boxes = text_boxes(grey) if reason is None or is_visible else None
    return ScreeningImage(
        image_id=origin.image_id,
        frame=origin.frame,
        picture_id=picture_hash(grey),
        grey=grey if reason is None else None,
        patient_id=origin.patient_id,
        reason=reason,
        detail=_joined(detail, origin.note),
        burned_in=origin.burned_in,
        mean=mean,
        sd=sd,
        sharpness=focus,
        overlay_share=share,
        width=grey.shape[1],
        height=grey.shape[0],
        text=None if boxes is None else tuple(side for box in boxes for side in box),
        exam_id=origin.exam_id,
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
