"""The pictures of a file, whatever it is: one of a still, several of a clip or of several windows.

The one reader of screenings and of studies of DICOM: each judges the pictures by rules of its own.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from thyro_core.imaging.bounds import PictureBounds
from thyro_core.imaging.decode import TooLargeError, UndecodableError, decode
from thyro_core.imaging.dicom import DicomImages, Pseudonymise, is_dicom, read_dicom
from thyro_core.imaging.dual_view import are_stacked, split_views
from thyro_core.types import Grey

_SEAM_NOTE = "split at the seam of two windows, which split_views = false leaves together"


@dataclass(frozen=True)
class Picture:
    """One picture of a file, or the reason why it is none.

    Attributes:
        image_id: SHA-256, hexadecimal: of the file's bytes, or, in a file of several frames, of
            that hash, "/" and the frame's number; of one of several views of the image's own
            hash, "/view " and its place.
        frame: The frame's position in its file, from 0.
        grey: uint8 (H, W); None: refused.
        overlay_share: Share of coloured pixels of the tissue, 0 to 1; of one of two windows that
            were found in a picture, of both.
        reason: Why it is refused: undecodable, too_large, not_ultrasound or doppler_colour; None:
            it is not.
        detail: The reason's particulars, numbers and words of closed lists only.
        note: How the picture was read, where that is not as usual.
        view: Position among the windows that its frame was parted into, from 0; None: it was not.
        views: Number of these windows, else 1.
        is_whole: Whether it is all of its file, and no frame, region or window of it.
    """

    image_id: str
    frame: int = 0
    grey: Grey | None = None
    overlay_share: float = 0.0
    reason: str | None = None
    detail: str | None = None
    note: str | None = None
    view: int | None = None
    views: int = 1
    is_whole: bool = True


@dataclass(frozen=True)
class FilePictures:
    """What a file gives.

    Attributes:
        pictures: At least one; of a file that is refused whole, one with the reason.
        patient_id: Pseudonym; None: the file names no patient, or none is made.
        exam_id: Pseudonym of the exam; None: the file names none, or none is made.
        burned_in: Whether the file says that names may be drawn into its pixels; None: it does not
            say.
        device: What made it, in words of a closed list; None: the file names no device.
    """

    pictures: tuple[Picture, ...]
    patient_id: str | None = None
    exam_id: str | None = None
    burned_in: bool | None = None
    device: str | None = None


def read_pictures(data: bytes, bounds: PictureBounds, pseudonymise: Pseudonymise) -> FilePictures:
    """The pictures of a PNG, JPEG, TIFF, BMP or DICOM file; never raises for its contents.

    Same bytes and bounds, same answer. The contents alone decide what a file is.

    Args:
        data: all bytes of the file.
        bounds: what is refused undecoded, how many frames of a clip are read, and whether windows
            that no file declares are parted.
        pseudonymise: makes a pseudonym of a patient id and its issuer.
    """
    whole = Picture(hashlib.sha256(data).hexdigest())
    if len(data) > bounds.max_bytes:
        detail = f"{len(data)} bytes, more than max_bytes = {bounds.max_bytes}"
        return FilePictures((replace(whole, reason="too_large", detail=detail),))
    if is_dicom(data):
        contents = read_dicom(data, bounds, pseudonymise)
        pictures = tuple(_of_dicom(contents, whole, bounds))
        return FilePictures(
            pictures, contents.patient_id, contents.exam_id, contents.burned_in, contents.device
        )
    try:
        image = decode(data, bounds)
    except TooLargeError as error:
        return FilePictures((replace(whole, reason="too_large", detail=error.detail),))
    except UndecodableError as error:
        return FilePictures((replace(whole, reason="undecodable", detail=error.detail),))
    picture = replace(whole, grey=image.grey, overlay_share=image.overlay_share)
    return FilePictures(tuple(_part_windows(picture, bounds)))


def _of_dicom(contents: DicomImages, whole: Picture, bounds: PictureBounds) -> Iterator[Picture]:
    if contents.reason is not None:
        yield replace(whole, reason=contents.reason, detail=contents.detail)
    for frame in contents.frames:
        picture = replace(
            whole,
            image_id=_frame_id(whole.image_id, frame.index) if contents.is_clip else whole.image_id,
            frame=frame.index,
            note=contents.note,
            is_whole=not (contents.is_clip or contents.has_regions),
        )
        if frame.view is not None:
            picture = _view(picture, *frame.view)
        if frame.image is None:
            yield replace(picture, reason=frame.reason or "undecodable", detail=frame.detail)
            continue
        picture = replace(picture, grey=frame.image.grey, overlay_share=frame.image.overlay_share)
        if contents.has_regions:
            yield picture
        else:
            yield from _part_windows(picture, bounds)


def _frame_id(file_id: str, frame: int) -> str:
    return hashlib.sha256(f"{file_id}/{frame}".encode()).hexdigest()


def _view(picture: Picture, place: int, n: int, start: str = "left") -> Picture:
    """One of n views in a picture, which are images of their own."""
    return replace(
        picture,
        image_id=hashlib.sha256(f"{picture.image_id}/view {place}".encode()).hexdigest(),
        note=join_details(
            f"view {place + 1} of {n} in this picture, from the {start}", picture.note
        ),
        view=place,
        views=n,
        is_whole=False,
    )


def join_details(*parts: str | None) -> str | None:
    """Particulars in one line; None: there are none."""
    return "; ".join(part for part in parts if part) or None


def _part_windows(picture: Picture, bounds: PictureBounds) -> Iterator[Picture]:
    """A picture whose file names no regions, or each of two windows that are found in it.

    The colour is judged over the whole picture, for both.
    """
    grey = picture.grey
    boxes = split_views(grey) if bounds.split_views and grey is not None else []
    if grey is None or not boxes:
        yield picture
        return
    start = "top" if are_stacked(boxes) else "left"
    for place, (left, top, right, bottom) in enumerate(boxes):
        view = _view(
            replace(picture, note=join_details(_SEAM_NOTE, picture.note)), place, len(boxes), start
        )
        yield replace(view, grey=np.ascontiguousarray(grey[top:bottom, left:right]))
