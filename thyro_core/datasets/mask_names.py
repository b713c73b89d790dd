"""Which files of an image set are nodule masks, and of which image: by their names alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

MASK_STEM = re.compile(r"(.+)_mask(_\d+)?", re.IGNORECASE)
"""Stem of a mask beside its image, as BUSI has them: `x_mask`, `x_mask_1`."""

_FOLDER = re.compile(r"(?:(.+)[-_ ])?masks?", re.IGNORECASE)
"""A folder of masks; `trainval-mask` is that of the images in `trainval-image`."""


def is_mask(name: str) -> bool:
    """Whether a path is named like a mask: by its stem, or by a folder such as `masks`."""
    path = PurePosixPath(name)
    return _folder(path) is not None or MASK_STEM.fullmatch(path.stem) is not None


def assign_masks(
    masks: Iterable[str], images: Sequence[str], declared_masks: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], int]:
    """The masks of each image.

    What the set itself says of an image counts alone. Else `x_mask.png` and `x_mask_1.png` beside
    `x.png` are its masks, and those with its stem (with or without `_mask`) in a folder `masks`
    at, or above, its own. Where several images have that stem, the folders below `masks` must be
    the image's own last ones, as in `masks/benign/1.png` of `benign/1.png`. A folder with more of a
    name, such as `test-mask`, is that of the images in a folder that begins with the same word.

    Args:
        masks: paths that are named like masks.
        images: paths of all images.
        declared_masks: masks by image, as `labels.csv` lists them; such an image gets no other.

    Returns:
        Masks by image, sorted, only of images with some; and how many masks fit no image, or
        several.
    """
    by_stem: dict[str, list[str]] = {}
    for image in images:
        by_stem.setdefault(PurePosixPath(image).stem, []).append(image)
    masks_by_image: dict[str, set[str]] = {
        image: set(names) for image, names in declared_masks.items() if names
    }
    n_unassigned = 0
    for mask in sorted(set(masks) - {name for names in declared_masks.values() for name in names}):
        owner = _image_of(PurePosixPath(mask), by_stem)
        if owner is None:
            n_unassigned += 1
        elif not declared_masks.get(owner):
            masks_by_image.setdefault(owner, set()).add(mask)
    return {
        image: tuple(sorted(names)) for image, names in sorted(masks_by_image.items())
    }, n_unassigned


def _folder(path: PurePosixPath) -> int | None:
    """Position of the lowest folder of masks among a path's parts."""
    places = [i for i, part in enumerate(path.parts[:-1]) if _FOLDER.fullmatch(part)]
    return places[-1] if places else None


def _image_of(mask: PurePosixPath, by_stem: Mapping[str, list[str]]) -> str | None:
    match = MASK_STEM.fullmatch(mask.stem)
    stems = [mask.stem, *([match.group(1)] if match else [])]
    candidates = [PurePosixPath(name) for stem in stems for name in by_stem.get(stem, [])]
    place = _folder(mask)
    if place is None:
        return _only([path for path in candidates if path.parent == mask.parent])
    above, below = mask.parts[:place], mask.parts[place + 1 : -1]
    under = [path for path in candidates if path.parts[: len(above)] == above]
    folder = _FOLDER.fullmatch(mask.parts[place])
    word = (folder.group(1) or "").lower() if folder else ""
    if word:
        under = [path for path in under if _begins_with(path.parts[place], word)]
    same_folders = [path for path in under if below and path.parts[-1 - len(below) : -1] == below]
    return _only(same_folders) or _only(under)


def _begins_with(folder: str, word: str) -> bool:
    return re.fullmatch(rf"{re.escape(word)}([-_ ].*)?", folder, re.IGNORECASE) is not None


def _only(paths: Sequence[PurePosixPath]) -> str | None:
    return str(paths[0]) if len(paths) == 1 else None
