"""Single files judged by a promoted model, by the rules of a screening; nothing is kept."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from thyro_core.imaging.view import seen_square
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.contents import Contents, read_contents
from thyro_core.screening.file_images import FileImages
from thyro_core.screening.files import file_at
from thyro_core.screening.model import TOGETHER, ScreeningModel
from thyro_core.screening.reader import ScreeningImage
from thyro_core.screening.rules import unscored_columns
from thyro_core.screening.score import picture, verdict
from thyro_core.store.store import filesystem

_CLASS_MALIGNANT = 1
_NO_FILE = "there is no such file, or it still grows: check its path, or wait until it is whole"
# What the reasons of a night say of a batch is no help with a file that is named.
_CURES: Mapping[str, str] = MappingProxyType(
    {
        "not_a_file": "a pipe, a socket or a device is not read: name a file, such as a copy of it",
        "unreadable": "check its permissions, and the disk that it lies on",
    }
)


@dataclass(frozen=True)
class FileVerdict:
    """What the model says of one image of a file, or why it says nothing."""

    file: Path
    frame: int
    """Position in its file, from 0."""
    status: str
    """scored, rejected or failed."""
    prob_malignant: float | None
    """Calibrated; None: not scored."""
    sd: float | None
    """Over members; None: not scored, or the model has one member."""
    band: str
    """refer, review, routine or not scored."""
    reason: str | None
    detail: str | None
    """Particulars of the reason, and how the picture was read."""
    overlay: bytes | None
    """JPEG: the image beside itself with the map of the malignant class, text painted over; None:
    not scored, or people may not see it."""


def judge_files(
    model: ScreeningModel, files: Sequence[Path], rules: ScreeningRules
) -> Iterator[FileVerdict]:
    """The verdict on every image of some files, in their order.

    Each file is decoded in a process of its own, as a screening does: a file that crashes its
    decoder has a verdict too.

    Args:
        model: the promoted model.
        files: pictures or DICOM objects.
        rules: bounds and measures.
    """
    with closing(FileImages(rules, None)) as file_images:
        for file in files:
            images = file_images.read(_contents(file, rules), str(file))
            for start in range(0, len(images), TOGETHER):
                yield from _judge(model, file, images[start : start + TOGETHER], rules)


def _contents(file: Path, rules: ScreeningRules) -> Contents:
    """What a file holds, read as a night's batch reads it."""
    fs, folder = filesystem(str(file.absolute().parent))
    contents = read_contents(fs, folder, file_at(file), rules.max_bytes)
    if contents is None:
        return Contents(fault="unreadable", detail=_NO_FILE)
    return replace(contents, detail=contents.detail or _CURES.get(contents.fault or ""))


def _judge(
    model: ScreeningModel, file: Path, images: Sequence[ScreeningImage], rules: ScreeningRules
) -> Iterator[FileVerdict]:
    squares = [
        seen_square(each.grey, model.side, model.view) for each in images if each.grey is not None
    ]
    scores = model.score(np.stack([square for square, _ in squares])) if squares else None
    place = 0
    for image in images:
        row: dict[str, Any] = unscored_columns(image.reason or "undecodable")
        overlay = None
        if scores is not None and image.grey is not None:
            row = verdict(scores, place, model.limits(rules))
            if row["status"] == "scored" and image.display is not None:
                cam = model.maps(scores, [place])[0, _CLASS_MALIGNANT]
                facts: dict[str, Any] = {"width": image.width, "height": image.height}
                facts["view_box"] = squares[place][1]
                overlay = picture(image.display, cam, facts, pad=model.view.is_padded)
            place += 1
        details = (row.get("detail"), image.detail)
        sd = row.get("sd")
        yield FileVerdict(
            file=file,
            frame=image.frame,
            status=row["status"],
            prob_malignant=row.get("prob_malignant"),
            sd=None if sd is None or np.isnan(sd) else sd,
            band=row["band"],
            reason=row.get("reason"),
            detail="; ".join(text for text in details if text) or None,
            overlay=overlay,
        )
