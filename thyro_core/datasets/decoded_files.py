"""The files of an image set decoded: the measures of each picture, and its rows in the packs."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count

import fsspec
import numpy as np

from thyro_core.config import IngestConfig
from thyro_core.datasets import masks as mask_packs
from thyro_core.datasets import packs
from thyro_core.datasets.eligibility import Measures, SourceFile
from thyro_core.datasets.file_pictures import FileReader
from thyro_core.imaging import quality
from thyro_core.imaging.burned_text import text_boxes
from thyro_core.imaging.dicom import is_dicom
from thyro_core.imaging.dual_view import split_views
from thyro_core.imaging.near_duplicates import Fingerprint, fingerprints
from thyro_core.imaging.pictures import Picture
from thyro_core.imaging.tissue import Box
from thyro_core.imaging.view import picture_view, view_box
from thyro_core.types import Grey

PlacedFile = tuple[SourceFile, int]
"""A picture, and its place among the resized_images ones."""

_PIXELS_AT_ONCE = 8_000_000
# A study leaves out what a screening refuses, in its own words.
_STUDY_REASONS = {"too_large": "undecodable", "doppler_colour": "artefact"}


@dataclass(frozen=True)
class _ViewedPicture:
    """A picture that was decoded, and what of it a network is to see."""

    picture: Picture
    grey: Grey
    view_box: Box | None
    view: Grey
    is_changed: bool
    """Whether the view is another picture than the whole one."""


_Row = tuple[SourceFile, _ViewedPicture | None]
_ReadFile = Callable[[SourceFile], list[_Row]]


def decode_files(
    fs: fsspec.AbstractFileSystem,
    root: str,
    files: Sequence[SourceFile],
    *,
    rules: IngestConfig,
    resized_images: Mapping[int, packs.ImageRows],
    progress: packs.Progress | None = None,
) -> list[PlacedFile]:
    """The files with their measures; of a DICOM object each of its pictures.

    Args:
        fs: the source's file system.
        root: the source on it.
        files: of the source.
        rules: bounds.
        resized_images: room for at least as many images as files at each side, which is filled.
        progress: called with the number of files done and of all.

    Raises:
        InputError: a file changed since its hash was taken.
    """
    # The pictures of a file beyond its first one stand behind the first ones of all files.
    more = count(len(files))
    with closing(FileReader(rules)) as reader:

        def read(file: SourceFile) -> list[_Row]:
            return _file_rows(fs, root, file, rules=rules, reader=reader)

        def decode(places: Sequence[int]) -> list[list[PlacedFile]]:
            batch = {place: files[place] for place in places}
            return _decode_batch(batch, read, packs.ViewRows(rules.view, resized_images), more)

        batches = packs.map_batches(decode, range(len(files)), progress, packs.threads_for(fs))
    return [picture for pictures in batches for picture in pictures]


def _file_rows(
    fs: fsspec.AbstractFileSystem,
    root: str,
    file: SourceFile,
    *,
    rules: IngestConfig,
    reader: FileReader,
) -> list[_Row]:
    """The pictures of a file, if it is listed; or it alone, with what is wrong with it."""
    entry = file.entry
    if file.image_id is None or not entry.is_listed:
        return [(file, None)]
    if entry.size is not None and entry.size > rules.max_bytes:
        failure = f"{entry.size} bytes; at most {rules.max_bytes} are read"
        return [(replace(file, failure=failure), None)]
    data = packs.read_verified(fs, f"{root}/{entry.name}", file.image_id)
    contents = reader.pictures(data)
    has_frames = is_dicom(data)
    rows: list[_Row] = []
    for picture in contents.pictures:
        reason = picture.reason
        of_picture = replace(
            file,
            image_id=picture.image_id,
            file_id=file.image_id,
            frame=picture.frame if has_frames else None,
            view=picture.view,
            burned_in=contents.burned_in,
            failure=reason and (picture.detail or reason),
            reason=_STUDY_REASONS.get(reason, reason) if reason else file.reason,
        )
        if picture.grey is None:
            rows.append((of_picture, None))
            continue
        nodule, fault = None, None
        if rules.region == "nodule":
            nodule, fault = mask_packs.nodule_box(fs, root, of_picture, picture, rules)
        viewed_picture = _viewed_picture(picture, picture.grey, rules, nodule, is_known=not fault)
        rows.append((replace(of_picture, nodule_fault=fault), viewed_picture))
    return rows


def _viewed_picture(
    picture: Picture, grey: Grey, rules: IngestConfig, nodule: Box | None, *, is_known: bool
) -> _ViewedPicture:
    """What of a picture is to be seen; all of it, where its nodule is not known."""
    if not is_known:
        return _ViewedPicture(picture, grey, None, grey, is_changed=False)
    box = view_box(grey, rules, nodule)
    is_changed = box is not None or rules.clean
    return _ViewedPicture(picture, grey, box, picture_view(grey, rules, box), is_changed)


def _decode_batch(
    files: Mapping[int, SourceFile],
    read: _ReadFile,
    view_rows: packs.ViewRows,
    more: Iterator[int],
) -> list[list[PlacedFile]]:
    """The pictures of some files with their measures, by file; the rows are filled."""
    rows: dict[int, SourceFile] = {}
    waiting: dict[int, _ViewedPicture] = {}
    places_by_file = []
    for first, file in files.items():
        places = []
        for (of_picture, picture), place in zip(read(file), chain((first,), more), strict=False):
            rows[place] = of_picture
            places.append(place)
            if picture is not None:
                waiting[place] = picture
        places_by_file.append(places)
        if sum(picture.grey.size for picture in waiting.values()) > _PIXELS_AT_ONCE:
            rows |= _measure(rows, waiting, view_rows)
            waiting.clear()
    rows |= _measure(rows, waiting, view_rows)
    return [[(rows[place], place) for place in places] for places in places_by_file]


def _measure(
    files: Mapping[int, SourceFile],
    pictures: Mapping[int, _ViewedPicture],
    view_rows: packs.ViewRows,
) -> dict[int, SourceFile]:
    for place, picture in pictures.items():
        view_rows.fill(place, picture.view)
    greys = [picture.grey for picture in pictures.values()]
    prints = dict(zip(pictures, fingerprints(greys), strict=True))
    return {
        place: replace(
            files[place],
            measures=_measures(picture, prints[place], is_hidden=bool(files[place].burned_in)),
        )
        for place, picture in pictures.items()
    }


def _measures(
    viewed_picture: _ViewedPicture, fingerprint: Fingerprint, *, is_hidden: bool
) -> Measures:
    picture, grey = viewed_picture.picture, viewed_picture.grey
    mean, sd = quality.grey_statistics(grey)
    height, width = grey.shape
    # Where a file says that names are burned in, all of it is painted over: not all text is found.
    boxes = [(0, 0, width, height)] if is_hidden else text_boxes(grey)
    return Measures(
        width=width,
        height=height,
        pixel_hash=_pixel_hash(grey),
        sharpness=quality.sharpness(grey),
        overlay_share=picture.overlay_share,
        mean=mean,
        sd=sd,
        fingerprint=fingerprint,
        text_boxes=tuple(side for box in boxes for side in box),
        views=picture.views if picture.view is not None else max(1, len(split_views(grey))),
        view_box=viewed_picture.view_box,
        **(_view_measures(viewed_picture.view) if viewed_picture.is_changed else {}),
    )


def _view_measures(view: Grey) -> dict[str, float]:
    mean, sd = quality.grey_statistics(view)
    return {"view_mean": mean, "view_sd": sd, "view_sharpness": quality.sharpness(view)}


def _pixel_hash(grey: Grey) -> str:
    pixel_hash = hashlib.sha256(f"{grey.shape[1]}x{grey.shape[0]}/".encode())
    pixel_hash.update(np.ascontiguousarray(grey).data)
    return pixel_hash.hexdigest()
