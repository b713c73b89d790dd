"""Several image sets read as one, each a centre of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import fsspec

from thyro_core.config import IngestConfig
from thyro_core.datasets.labels import column_key
from thyro_core.datasets.layouts import Entry, ImageSet, read_image_set
from thyro_core.errors import InputError
from thyro_core.store.joined import JoinedFileSystem
from thyro_core.store.store import filesystem
from thyro_core.urls import redact


@dataclass(frozen=True)
class Sources:
    """An image set, or several, each a centre.

    Attributes:
        addresses: fsspec URLs, at least one.
        centre_column: name of the column that says of which of several sets an image is.
    """

    addresses: Sequence[str]
    centre_column: str = "centre"


def source_filesystem(sources: Sources) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an image set, and where the set lies on it; several are joined.

    Args:
        sources: one, or several.

    Raises:
        InputError: an address cannot be used, or two centres would have one name.
    """
    addresses = sources.addresses
    if len(addresses) == 1:
        return filesystem(addresses[0])
    names = centre_names(addresses)
    return JoinedFileSystem(
        {name: filesystem(address) for name, address in zip(names, addresses, strict=True)}
    ), ""


def read_sources(sources: Sources, rules: IngestConfig, *, name_files: bool = True) -> ImageSet:
    """What an image set holds, or several, before any image is opened.

    Of several each is a centre, called as its folder is: a column of that name tells them apart,
    and a patient's number means somebody else in each.

    Args:
        sources: one, or several.
        rules: as `layouts.read_image_set` has them.
        name_files: whether notes may name files.

    Raises:
        InputError: as `layouts.read_image_set`, two centres would have one name, or one has the
            column already.
    """
    addresses = sources.addresses
    if len(addresses) == 1:
        return read_image_set(addresses[0], rules, name_files=name_files)
    names = centre_names(addresses)
    sets = {
        name: read_image_set(address, rules, name_files=name_files)
        for name, address in zip(names, addresses, strict=True)
    }
    entries = [
        _of_centre(entry, name, sources.centre_column)
        for name, image_set in sets.items()
        for entry in image_set.entries
    ]
    return ImageSet(
        source=" ".join(image_set.source for image_set in sets.values()),
        layout="centres",
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        notes=tuple(
            f"{name}: {note}" for name, image_set in sets.items() for note in image_set.notes
        ),
        has_patients=any(image_set.has_patients for image_set in sets.values()),
    )


def centre_names(addresses: Sequence[str]) -> list[str]:
    """What the centres are called: their folders' names, with those above where two are alike.

    Args:
        addresses: of the image sets.

    Raises:
        InputError: two addresses are the same.
    """
    paths = [PurePosixPath(filesystem(address)[1]).parts for address in addresses]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["-".join(part.strip("/") for part in path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    doubles = sorted({redact(each) for each in addresses if addresses.count(each) > 1})
    msg = (
        f"expected a different folder for each centre, found {', '.join(doubles) or 'one'} twice; "
        "name each once"
    )
    raise InputError(msg)


def _of_centre(entry: Entry, centre: str, column: str) -> Entry:
    key = column_key(column)
    if any(column_key(name) == key for name in entry.attributes):
        msg = (
            f"{centre}: of several image sets each is a centre, found a column {column} in its "
            "labels too; take the column out, or name another one in centre_column"
        )
        raise InputError(msg)
    return replace(
        entry,
        name=f"{centre}/{entry.name}",
        patient=None if entry.patient is None else f"{centre}/{entry.patient}",
        masks=tuple(f"{centre}/{name}" for name in entry.masks),
        attributes={**entry.attributes, column: centre},
    )
